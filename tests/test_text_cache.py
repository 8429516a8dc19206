"""Nothing is paid for twice, nothing received is lost: real SQLite files, real processes, real kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.cache import Answer, Failure, Knowledge, TextCache, answer_key
from kar_aug.cache.texts.cache import STATUSES
from kar_aug.cache.texts.tables import VERSION
from kar_aug.errors import StoreError

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Fargo (1996)?"}]
PARAMETERS = {"max_tokens": 512, "temperature": 0.0, "seed": 0}


def answer(key: str = "k", text: str = "A film.", **changes: Any) -> Answer:
    return Answer(**{"key": key, "status": "ok", "text": text, "model": "m", "messages": MESSAGES, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "answers.sqlite"


@pytest.fixture
def cache(where: Path | str) -> Iterator[TextCache]:
    with TextCache(where) as cache:
        yield cache


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_cache(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[TextCache]:
    file = tmp_path_factory.mktemp("shared") / "answers.sqlite"
    with TextCache(new_database() if request.param == "postgresql" else file) as cache:
        yield cache


NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)


@settings(max_examples=examples(50), deadline=None)
@given(NAMES, st.text(), NAMES, st.sampled_from(STATUSES), st.integers(0, 2**31 - 1))
def test_what_was_stored_comes_back(
    shared_cache: TextCache, key: str, text: str, asked: str, status: str, tokens: int
) -> None:
    stored = Answer(key, status, text, asked, [{"role": "user", "content": asked}], tokens, 1, 0.25, "2024-01-01")
    shared_cache.put(stored)
    assert shared_cache.get(key) == replace(stored, text=text.replace("\0", "\ufffd")) and key in shared_cache


def test_an_answer_cut_in_the_middle_of_an_emoji_is_stored(cache: TextCache) -> None:
    """Servers send a lone surrogate then, as a JSON escape. The answer is paid for: it must not stop the job."""
    cache.put(answer(text="A film. \ud83d", messages=[{"role": "user", "content": "Fargo \udc4d"}]))
    stored = cache.get("k")
    assert stored is not None and stored.text.startswith("A film. ")
    cache.fail("other", "the server said \ud83d", 1)
    cache.link([("item", "id \ud83d", "k", "v1", None)])
    assert [k.entity_id for k in cache.knowledge("item")] == ["id \ud83d"]


def test_a_key_is_the_same_today_and_in_the_next_release() -> None:
    """A changed key would pay for every answer again: change this only knowingly."""
    assert answer_key("gpt-4o-mini", MESSAGES, PARAMETERS) == "1c59c7b206780edb6e5de683a0375ef0"
    turned = tuple(dict(reversed(message.items())) for message in MESSAGES)
    assert answer_key("gpt-4o-mini", turned, dict(reversed(PARAMETERS.items()))) == "1c59c7b206780edb6e5de683a0375ef0"


def test_a_key_changes_with_whatever_changes_the_answer() -> None:
    questions = [("m", MESSAGES, PARAMETERS), ("m2", MESSAGES, PARAMETERS), ("m", MESSAGES, {})]
    questions += [("m", MESSAGES[::-1], PARAMETERS), ("m", MESSAGES[1:], PARAMETERS)]
    for content in ("Fargo (1996)? ", "fargo (1996)?", "\ud83d", "\udc4d"):
        questions.append(("m", [MESSAGES[0], {"role": "user", "content": content}], PARAMETERS))
    questions.append(("m", [MESSAGES[0], {**MESSAGES[1], "role": "system"}], PARAMETERS))
    for parameter in ({"seed": 1}, {"temperature": 0.1}, {"max_tokens": 511}, {"top_p": 1.0}):
        questions.append(("m", MESSAGES, {**PARAMETERS, **parameter}))
    assert len({answer_key(*question) for question in questions}) == len(questions) == 14


QUESTION = st.tuples(st.text(max_size=3), st.lists(st.text(max_size=3), max_size=3))


@settings(max_examples=examples(50), deadline=None)
@given(QUESTION, QUESTION)
def test_different_questions_have_different_keys(one: tuple[str, list[str]], other: tuple[str, list[str]]) -> None:
    keys = [answer_key(model, [{"content": text} for text in texts], {}) for model, texts in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_knowledge_is_linked_before_or_after_its_answer(cache: TextCache) -> None:
    cache.link([("item", 1, "k", "v1", None), ("user", 1, "k2", "v1", "1998-01-01")])
    assert list(cache.knowledge("item")) == [] and cache.of_entity("item", 1) is None
    cache.put(answer("k", "About 1"))
    cache.put(answer("k2", "Likes films"))
    cache.link([("item", "1", "k", "v1", None)])
    assert {(k.entity_id, k.text) for k in cache.knowledge("item")} == {(1, "About 1"), ("1", "About 1")}
    assert [replace(k, created="") for k in cache.knowledge("user")] == [
        Knowledge("user", 1, "Likes films", "k2", "m", "v1", "1998-01-01")
    ]
    found = cache.of_entity("user", 1)
    assert found is not None and found.text == "Likes films" and cache.of_entity("user", "1") is None


def test_a_changed_prompt_moves_the_link_and_keeps_the_old_answer(cache: TextCache) -> None:
    cache.put(answer("old", "Old"))
    cache.link([("item", 1, "old", "v1", None)])
    cache.link([("item", 1, "new", "v2", None)])
    assert list(cache.knowledge("item")) == [] and "old" in cache
    cache.put(answer("new", "New"))
    assert [(k.text, k.prompt_version) for k in cache.knowledge("item")] == [("New", "v2")]


@pytest.mark.parametrize("relinked", [("k", "v2", "1998"), ("k", "v1", "1999")])
def test_a_new_version_or_time_of_the_same_question_is_noted(cache: TextCache, relinked: tuple[str, str, str]) -> None:
    cache.put(answer())
    cache.link([("user", 1, "k", "v1", "1998")])
    cache.link([("user", 1, *relinked)])
    assert [(k.key, k.prompt_version, k.as_of) for k in cache.knowledge("user")] == [relinked]


def test_only_good_answers_are_knowledge_unless_asked_for(cache: TextCache) -> None:
    for i, status in enumerate(STATUSES):
        cache.put(answer(status, status, status=status, prompt_tokens=10, completion_tokens=i))
        cache.link([("item", i, status, "v1", None)])
    assert [k.text for k in cache.knowledge("item")] == ["ok"]
    assert {k.text for k in cache.knowledge("item", accept=("ok", "truncated"))} == {"ok", "truncated"}
    assert list(cache.knowledge("item", accept=())) == []
    with pytest.raises(ValueError, match="`status` must be one of"):
        cache.put(answer("x", status="good"))
    tokens = {"prompt_tokens": 10 * len(STATUSES), "completion_tokens": sum(range(len(STATUSES)))}
    assert cache.counts() == {**dict.fromkeys(STATUSES, 1), "failed": 0, **tokens}


def test_a_failure_is_listed_until_it_is_answered(cache: TextCache) -> None:
    cache.fail("k", "no answer in time", 5)
    cache.fail("k", "the server answered 500", 3)
    assert cache.failures() == [Failure("k", "the server answered 500", 3)]
    assert "k" not in cache and cache.get("k") is None and cache.counts()["failed"] == 1
    cache.put(answer("k"))
    assert cache.failures() == [] and "k" in cache


def test_links_are_stored_all_or_none(cache: TextCache) -> None:
    def broken() -> Iterator[tuple[str, int, str, str, None]]:
        yield "item", 1, "k", "v1", None
        raise RuntimeError("no more")

    cache.put(answer())
    with pytest.raises(RuntimeError, match="no more"):
        cache.link(broken())
    assert list(cache.knowledge("item")) == []
    cache.link([("item", 1, "k", "v1", None)])
    assert len(list(cache.knowledge("item"))) == 1


def test_a_second_connection_sees_and_adds_at_once(cache: TextCache, where: Path | str) -> None:
    with TextCache(where) as other:
        cache.put(answer("a"))
        assert "a" in other
        reading = cache.knowledge("item")
        other.link([("item", i, "a", "v1", None) for i in range(3)])
        other.put(answer("b"))
        assert len(list(reading)) == 3 and cache.counts()["ok"] == 2


def test_a_reopened_cache_has_everything(where: Path | str) -> None:
    with TextCache(where) as cache:
        cache.put(answer("a", "Text with 《everything》 🎬\r\n"))
        cache.link([("item", "i", "a", "v1", None)])
        cache.fail("b", "why", 1)
    with TextCache(where) as cache:
        assert [k.text for k in cache.knowledge("item")] == ["Text with 《everything》 🎬\r\n"]
        assert cache.failures() == [Failure("b", "why", 1)]


def filled(path: Path) -> bytes:
    with TextCache(path) as cache:
        for i in range(40):
            cache.put(answer(f"k{i}", f"{i} " * 900))
        cache.link([("item", i, f"k{i}", "v1", None) for i in range(40)])
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["garbage", "first half", "most", "header only", "pages"])
def test_a_damaged_file_is_named(path: Path, damage: str) -> None:
    good = filled(path)
    damaged = {"garbage": bytes(range(256)) * 64, "first half": good[: len(good) // 2], "header only": good[:100]}
    damaged |= {"most": good[: -3 * 4096], "pages": good[: 3 * 4096] + b"\xa5" * (len(good) - 3 * 4096)}
    path.write_bytes(damaged[damage])
    with pytest.raises(StoreError, match=r"answers\.sqlite"), TextCache(path) as cache:
        assert len(list(cache.knowledge("item"))) == sum(cache.get(f"k{i}") is not None for i in range(40))
    with pytest.raises(StoreError, match=r"answers\.sqlite"), TextCache(path) as cache:  # noqa: PT012
        for i in range(40):
            cache.put(answer(f"k{i}", "another answer"))


def test_a_file_of_a_newer_version_asks_for_an_upgrade(path: Path) -> None:
    TextCache(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StoreError, match=r"was written by a newer kar-aug .*pip install -U kar-aug"):
        TextCache(path)


@pytest.mark.parametrize("version", [0, 1])
def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "logs.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE responses (id)")
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(StoreError, match=r"logs\.db"):
        TextCache(path)
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall() == [("responses",)]


_WRITER = """
import resource, sys
from kar_aug.cache import Answer, TextCache
from kar_aug.errors import StoreError
path, start, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    cache = TextCache(path)
    for i in range(start, start + 10_000):
        cache.link([("item", i, f"k{i}", "v1", None)])
        cache.put(Answer(f"k{i}", "ok", f"text {i} " * 200, "m", []))
        print(i, flush=True)
except StoreError as error:
    sys.exit(str(error))
"""


def writer(path: Path, start: int, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(path), str(start), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_killed_again_and_again_lose_no_acknowledged_answer(path: Path) -> None:
    acknowledged: list[int] = []
    TextCache(path).close()
    for kill in range(4):
        jobs = [writer(path, start + 10_000 * kill) for start in (0, 1_000_000)]
        outputs = [job.stdout for job in jobs if job.stdout]
        for output in outputs:
            acknowledged += [int(output.readline()) for _ in range(5 + 10 * kill)]
        for job in jobs:
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
        for output in outputs:
            acknowledged += map(int, output.read().split())
    with TextCache(path) as cache:
        texts = {k.entity_id: k.text for k in cache.knowledge("item")}
        assert len(acknowledged) > 150 and set(acknowledged) <= texts.keys()
        assert all(texts[i] == f"text {i} " * 200 for i in acknowledged)
    assert len(texts) <= len(acknowledged) + 8, "one per kill may be committed and not yet acknowledged"


_OPENER = """
import sys
from pathlib import Path
from kar_aug.cache import TextCache
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    TextCache(Path(sys.argv[1]) / f"{i}.sqlite").fail(sys.argv[2], "why", 1)
"""


@pytest.mark.slow
def test_processes_that_start_together_make_one_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPENER, str(tmp_path)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    jobs = [subprocess.Popen([*command, str(i)], text=True, **pipes) for i in range(3)]
    for job in jobs:
        assert job.stdout is not None and job.stdout.readline() == "ready\n"
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    errors = [job.communicate(timeout=60)[1] for job in jobs]
    assert errors == ["", "", ""]


def test_a_full_disk_is_an_error_and_loses_nothing(path: Path) -> None:
    job = writer(path, 0, limit=400_000)
    output, error = job.communicate(timeout=60)
    assert job.returncode == 1 and "answers.sqlite cannot be read or written" in error and "Traceback" not in error
    acknowledged = set(map(int, output.split()))
    with TextCache(path) as cache:
        assert acknowledged and acknowledged <= {k.entity_id for k in cache.knowledge("item")}
