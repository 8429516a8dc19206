"""`kar-aug generate` as a user meets it: what it prints, how it ends, and where the key is not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from support.jobs import KEY, prompts

from kar_aug.cache import TextCache
from kar_aug.cli import main
from kar_aug.cli.generation import parse_shard
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, GenerationError
from kar_aug.generate import generate
from kar_aug.testing import ChatServer, completion, echo
from kar_aug.testing.batches import BatchServer, answered

PRICES = '[models]\n"test-model" = { prompt = 1000.0, completion = 2000.0 }\n'


@pytest.fixture
def folder(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the user's own data, and the folder that commands run in."""
    shutil.copytree(own_tables, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "project"


def run(server: ChatServer | BatchServer | None, *arguments: str, code: int = 0) -> Result:
    """`kar-aug generate` in this process."""
    address = ("--base-url", server.base_url) if server else ()
    done = CliRunner().invoke(main, ["generate", *address, *arguments])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output and KEY not in done.output
    return done


def refused(server: ChatServer | BatchServer | None, *arguments: str) -> str:
    """The one line of a refusal."""
    lines = [line for line in run(server, *arguments, code=2).output.splitlines() if "kar-aug: " in line]
    assert len(lines) == 1
    return lines[0]


def settings(folder: Path, **values: Any) -> None:
    """Add to [generate] in kar.toml."""
    text = (folder / "kar.toml").read_text()
    rows = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    (folder / "kar.toml").write_text(text.replace("[generate]\n", f"[generate]\n{rows}"))


def start(*arguments: str) -> subprocess.Popen[str]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "kar_aug", "generate", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_says_what_is_new_and_what_was_done(folder: Path, chat_server: ChatServer) -> None:
    output = run(chat_server).output
    assert "100 new, 0 changed, 0 unchanged, 0 gone" in output
    assert "100 asked, 0 already cached, 0 failed of 100" in output
    output = run(chat_server).output
    assert "0 new, 0 changed, 100 unchanged, 0 gone" in output and "0 asked, 100 already cached" in output
    items = pd.read_csv(folder / "items.csv")
    items.loc[0, "title"] = "Another title"
    items.iloc[:-1].to_csv(folder / "items.csv", index=False)
    changed = run(chat_server, "--only", "item").output
    assert re.search(r"0 new, 1 changed, 38 unchanged, 1 gone", changed) and "1 asked, 38 already" in changed


def test_a_dry_run_sends_nothing_and_names_the_bill(folder: Path, chat_server: ChatServer) -> None:
    (folder / "prices.toml").write_text(PRICES)
    assert "the price of test-model is not known" in run(chat_server, "--dry-run").output
    settings(folder, prices="prices.toml")
    output = run(chat_server, "--dry-run").output
    assert "100 new" in output and "nothing was sent" in output and chat_server.requests == []
    tokens = int(re.search(r"prompt tokens\s+([\d,]+)", output)[1].replace(",", ""))  # type: ignore[index]
    assert f"{(tokens * 1000 + 100 * 16 * 2000) / 1e6:,.4f}" in output and "estimated from characters" in output
    run(chat_server, "--only", "user")
    output = run(chat_server, "--dry-run").output
    assert re.search(r"to ask\s+40\b", output) and re.search(r"by answers so far\s+120\b", output)


def test_items_without_events_are_asked_about_on_request_alone(folder: Path, chat_server: ChatServer) -> None:
    items = pd.read_csv(folder / "items.csv")
    more = items.iloc[:3].assign(item_id=[100, 101, 102], title=["One", "Two", "Three"])
    pd.concat([items, more]).to_csv(folder / "items.csv", index=False)
    output = run(chat_server, "--dry-run", "--only", "item").output
    assert re.search(r"to ask\s+40\b", output) and "3 items without any event are not asked about" in output
    settings_file = folder / "kar.toml"
    settings_file.write_text(settings_file.read_text() + "\n[prompts]\nwhole_catalogue = true\n")
    output = run(chat_server, "--dry-run", "--only", "item").output
    assert re.search(r"to ask\s+43\b", output) and "without any event" not in output


def test_status_lists_what_failed_and_retry_failed_asks_it_again(folder: Path, chat_server: ChatServer) -> None:
    def some_fail(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        content = request["messages"][-1]["content"]
        if "Movie 7 " in content:
            return 400, {}, b'{"error": {"message": "too long"}}'
        if "Movie 8 " in content:
            return 200, {}, completion(None, "content_filter")
        return echo(server, request, number)

    chat_server.behaviour = some_fail
    assert (
        "39 asked, 0 already cached, 1 failed of 40; 1 x the server answered 400: too long"
        in run(chat_server, "--only", "item", code=3).output
    )
    before = len(chat_server.requests)
    status = run(chat_server, "--status", "--only", "item").output
    assert re.search(r"ok\s+38", status) and re.search(r"refused\s+1\b", status) and "0 to ask" in status
    assert re.search(r"the server answered 400: too long\s+1\s+with --retry-failed", status)
    assert "item 7: the server answered 400: too long (1 tries)" in status and len(chat_server.requests) == before
    again = run(chat_server, "--only", "item", code=3).output
    assert "1 rejected before (--retry-failed asks again)" in again and "no knowledge: 1 refused" in again
    chat_server.behaviour = echo
    assert "2 asked, 38 already cached" in run(chat_server, "--only", "item", "--retry-failed").output
    assert "Failed" not in run(chat_server, "--status", "--only", "item").output


def test_the_exit_code_says_whether_all_was_answered(folder: Path, chat_server: ChatServer) -> None:
    chat_server.behaviour = lambda *_: (200, {}, completion(None, "length"))
    assert "max_tokens = 16. Raise [generate] max_tokens" in run(chat_server, "--only", "item", code=3).output
    chat_server.behaviour = echo
    run(chat_server, "--only", "item", "--retry-failed", code=0)
    chat_server.behaviour = lambda *_: (403, {}, b'{"error": "suspended"}')
    run(chat_server, "--only", "user", code=2)


def test_a_lost_batch_is_forgotten_when_told(folder: Path) -> None:
    with BatchServer() as server:
        server.polls = 1
        run(server, "--only", "item", "--batch", "--no-wait")
        server.lost = set(server.batches)
        lost = run(server, "--only", "item", "--batch", code=3).output
        assert "--forget-batch batch-0" in lost and "lost" in run(server, "--status", "--only", "item").output
        assert "goes with --batch" in run(server, "--forget-batch", "batch-0", code=2).output
        done = run(server, "--only", "item", "--batch", "--poll", "0.1", "--forget-batch", "batch-0").output
        assert "batch-0 is forgotten: 40 requests" in done and "40 asked" in done


def test_limits_stop_the_run_with_one_line(folder: Path, chat_server: ChatServer) -> None:
    assert "--max-requests 5: run the same command to go on" in refused(chat_server, "--max-requests", "5")
    assert len(chat_server.requests) == 5
    assert "needs the price of 'test-model'" in refused(chat_server, "--max-cost", "1")
    (folder / "prices.toml").write_text(PRICES)
    settings(folder, prices="prices.toml")
    assert "Stopped at --max-cost 0.9" in refused(chat_server, "--max-cost", "0.9")
    with TextCache(folder / ".kar/answers.sqlite") as cache:
        assert cache.spent() <= 0.9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dry-run", "--batch"], "exclude each other"),
        (["--shard", "0/2"], "--shard must be written as 2/8"),
        (["--import-jsonl", "nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["--base-url", "localhost:8000/v1"], "must begin with http:// or https://"),
        (["--base-url", "local", "--batch"], "The local model has no Batch API"),
        (["--cache", "postgresql://me:planted-password@127.0.0.1:1/kar"], "postgresql://me:***@127.0.0.1:1/kar cannot"),
        (["--cache", "postgres://me:planted-password@127.0.0.1:1/kar"], "postgresql://me:***@127.0.0.1:1/kar cannot"),
        (["--cache", "mysql://me:planted-password@127.0.0.1/kar"], "no postgresql:// URL"),
    ],
)
def test_bad_input_is_one_clear_line(folder: Path, arguments: list[str], words: str) -> None:
    line = refused(None, *arguments)
    assert words in line and "planted-password" not in line
    assert not [path for path in folder.rglob("*") if "planted-password" in str(path)]


def test_a_shared_cache_is_named_by_its_address(folder: Path, chat_server: ChatServer, postgresql: str) -> None:
    run(chat_server, "--cache", postgresql, "--only", "item")
    assert not (folder / ".kar/answers.sqlite").exists()
    assert "40 already cached" in run(chat_server, "--cache", postgresql, "--only", "item").output


def test_shards_are_disjoint_and_cover_everything(folder: Path, chat_server: ChatServer) -> None:
    for number in (1, 2, 3):
        run(chat_server, "--shard", f"{number}/3", "--cache", f"shard{number}.sqlite")
    assert chat_server.answered == 100
    keys: list[str] = []
    for number in (1, 2, 3):
        with TextCache(folder / f"shard{number}.sqlite") as cache:
            keys += [answer.key for answer in cache.answers()]
    assert len(keys) == len(set(keys)) == 100


@pytest.mark.parametrize(("text", "shard"), [(None, (1, 1)), ("1/1", (1, 1)), ("2/8", (2, 8)), (" 8 / 8 ", (8, 8))])
def test_a_shard_is_written_as_a_fraction(text: str | None, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "-1/2", "1/0", "a/b", "1/2/3", "1.5/2", "x/1", "/"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard must be written as 2/8"):
        parse_shard(text)


def test_a_round_trip_of_files_by_hand(folder: Path, chat_server: ChatServer) -> None:
    assert "40 requests" in run(chat_server, "--only", "item", "--export-jsonl", "out.jsonl").output
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]
    (folder / "in.jsonl").write_text("".join(json.dumps(answered(line)) + "\n" for line in reversed(lines)))
    assert "40 asked" in run(chat_server, "--only", "item", "--import-jsonl", "in.jsonl").output
    assert "nothing to ask" in run(chat_server, "--only", "item", "--export-jsonl", "out.jsonl").output
    assert chat_server.requests == []


def test_batches_are_left_running_seen_and_collected(folder: Path) -> None:
    with BatchServer(polls=1) as server:
        output = run(server, "--only", "item", "--batch", "--batch-size", "30", "--no-wait").output
        assert "batch batch-0: 30 requests" in output and "2 batches run; collect them with the same" in output
        assert "batch batch-1: running, 10 requests" in run(server, "--only", "item", "--status").output
        assert "40 asked" in run(server, "--only", "item", "--batch", "--poll", "0.1").output
        assert len(server.batches) == 2


# Ending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_where_it_stands_and_exits_130(folder: Path, number: signal.Signals) -> None:
    with ChatServer(latency=0.3) as server:
        job = start("--base-url", server.base_url, "--concurrency", "4")
        while server.answered < 4:
            time.sleep(0.02)
        job.send_signal(number)
        output, _ = job.communicate(timeout=30)
        assert job.returncode == 130, output
        asked = re.search(r"Interrupted\. (\d+) asked, 0 already cached, 0 failed of 100 looked at", output)
        assert asked and int(asked[1]) == server.answered and "run the same command to go on" in output
        with TextCache(folder / ".kar/answers.sqlite") as cache:
            assert cache.counts()["ok"] == server.answered < 100


# The key


def everywhere(folder: Path) -> list[Path]:
    """The files that hold the key, or much of it."""
    return [path for path in folder.rglob("*") if path.is_file() and KEY[3:20].encode() in path.read_bytes()]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_a_key_that_the_server_echoes_is_shown_and_stored_nowhere(folder: Path, status: int) -> None:
    shown = f"{KEY[:12]}********, {KEY}, Bearer {KEY}"

    def echoing(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number and status in (400, 500):
            return echo(server, request, number)
        body = {"error": {"message": f"Bad key: {shown} ({request['model']})", "code": shown, "type": shown}}
        return status, {"Retry-After": "9999", "X-Key": KEY}, json.dumps(body).encode()

    with ChatServer(echoing) as server:
        address = ("--base-url", server.base_url, "--concurrency", "1")
        done = CliRunner().invoke(main, ["generate", *address])
        listed = CliRunner().invoke(main, ["generate", *address, "--status"])
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    for output in (done.output, listed.output):
        assert "Traceback" not in output and not re.search(r"planted|sk-", output), output
    assert everywhere(folder) == []


def test_no_traceback_holds_the_key(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    with (
        ChatServer(lambda server, request, number: (401, {}, body)) as server,
        TextCache(tmp_path / "answers.sqlite") as cache,
        pytest.raises(GenerationError) as raised,
    ):
        generate(prompts(3), cache, LanguageModel("m", server.base_url), key=KEY)
    assert KEY not in "".join(traceback.format_exception(raised.value)) and KEY not in repr(raised.value)


def test_a_key_from_a_file_is_used_and_its_content_never_shown(folder: Path, chat_server: ChatServer) -> None:
    settings(folder, api_key_file="key.txt")
    (folder / "key.txt").write_text(f"  {KEY}-of-file\n")
    os.environ["OPENAI_API_KEY"] = "not this one"
    run(chat_server, "--only", "item")
    assert {headers["authorization"] for headers in chat_server.headers} == {f"Bearer {KEY}-of-file"}
    assert [path.name for path in everywhere(folder)] == ["key.txt"]


@pytest.mark.parametrize("content", [b"", b"\n", f"{KEY}\n{KEY}".encode(), f"key = {KEY}".encode(), b"\xff", None])
def test_a_file_that_holds_no_key_is_named(folder: Path, chat_server: ChatServer, content: bytes | None) -> None:
    settings(folder, api_key_file="key.txt")
    if content is not None:
        (folder / "key.txt").write_bytes(content)
    line = refused(chat_server)
    assert "key.txt" in line and chat_server.requests == []


@pytest.mark.parametrize("key", ["sk-planted\u2011key", "sk-plantéd", "sk-planted\x07"])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_asked(
    folder: Path, chat_server: ChatServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    line = refused(chat_server)
    assert "OPENAI_API_KEY holds characters that no API key has" in line and "sk-" not in line


def test_a_key_in_kar_toml_is_refused_and_not_repeated(folder: Path, chat_server: ChatServer) -> None:
    settings(folder, api_key=KEY)
    assert "keys are never read from kar.toml" in refused(chat_server)
