from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kar_aug import generate as stage
from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, Hopeless
from kar_aug.generate.limits import slots_for
from kar_aug.prompts import Prompt
from kar_aug.testing import ChatServer, completion, echo

pytestmark = pytest.mark.usefixtures("short_pauses")


def prompts(count: int, text: str = "entity {}") -> list[Prompt]:
    return [Prompt("item", i, ({"role": "user", "content": text.format(i)},), "v1") for i in range(count)]


def model(server: ChatServer, **changes: Any) -> LanguageModel:
    return LanguageModel(**{"model": "test-model", "base_url": server.base_url, "concurrency": 4, **changes})


def generate(
    server: ChatServer, cache: TextCache, asked: list[Prompt], *, retry_failed: bool = False, **changes: Any
) -> stage.Progress:
    return stage.generate(asked, cache, model(server, **changes), key="sk-planted-key", retry_failed=retry_failed)


@pytest.fixture
def cache(tmp_path: Path) -> TextCache:
    return TextCache(tmp_path / "answers.sqlite")


def test_every_prompt_is_answered_and_kept_with_its_usage(chat_server: ChatServer, cache: TextCache) -> None:
    done = generate(chat_server, cache, prompts(20))
    assert (done.asked, done.cached, done.failed) == (20, 0, 0)
    texts = {knowledge.entity_id: knowledge.text for knowledge in cache.knowledge("item")}
    assert texts == {i: f"About: entity {i}" for i in range(20)}
    assert cache.counts()["prompt_tokens"] == 140 and done.completion_tokens == 60
    assert chat_server.most_in_flight <= 4


@pytest.mark.parametrize("most", [1, 4])
def test_more_slots_than_requests_send_no_more_than_may_be_in_flight(cache: TextCache, most: int) -> None:
    with ChatServer(latency=0.02) as server:
        assert generate(server, cache, prompts(30 * most), concurrency=most).asked == 30 * most
    assert server.most_in_flight == most < slots_for(most)


def test_an_answer_by_another_model_stops_the_job_before_others_are_sent(cache: TextCache) -> None:
    tiny = ChatServer(lambda *_: (200, {}, completion("Hm.", model="tiny")), latency=0.02)
    with tiny as server, pytest.raises(Hopeless, match="answered as 'tiny'"):
        generate(server, cache, prompts(50), concurrency=8)
    assert server.answered == cache.counts()["wrong_model"] <= 2, "the two that go first, and they are kept"


def test_a_second_run_asks_nothing(chat_server: ChatServer, cache: TextCache) -> None:
    generate(chat_server, cache, prompts(10))
    assert generate(chat_server, cache, prompts(10)).cached == 10
    assert chat_server.answered == 10


@pytest.mark.parametrize("count", [10, 600])
def test_equal_prompts_of_different_entities_are_asked_once(
    chat_server: ChatServer, cache: TextCache, count: int
) -> None:
    done = generate(chat_server, cache, prompts(count, "always the same"))
    assert (chat_server.answered, done.asked, done.cached, done.done) == (1, 1, count - 1, count)
    assert len(list(cache.knowledge("item"))) == count


def test_equal_prompts_that_fail_are_all_counted_as_failed(cache: TextCache) -> None:
    with ChatServer(lambda server, request, number: (400, {}, b"{}")) as server:
        done = generate(server, cache, prompts(10, "always the same"))
    assert (done.failed, done.cached, done.done) == (10, 0, 10) and len(cache.failures()) == 1


@pytest.mark.parametrize("change", [{"model": "other"}, {"max_tokens": 9}, {"temperature": 0.5}, {"seed": 1}])
def test_another_model_or_sampling_parameter_is_another_question(
    chat_server: ChatServer, cache: TextCache, change: dict[str, Any]
) -> None:
    generate(chat_server, cache, prompts(3))
    generate(chat_server, cache, prompts(3), **change)
    assert chat_server.answered == 6


def test_the_sampling_parameters_reach_the_server(chat_server: ChatServer, cache: TextCache) -> None:
    generate(chat_server, cache, prompts(1), max_tokens=9, temperature=0.5, seed=3)
    request = chat_server.requests[0]
    assert (request["max_tokens"], request["temperature"], request["seed"]) == (9, 0.5, 3)
    assert request["messages"] == [{"role": "user", "content": "entity 0"}]


@pytest.mark.parametrize("fault", ["500", "503", "429", "429 later", "reset", "malformed", "not json", "hang"])
def test_passing_faults_are_retried(cache: TextCache, fault: str) -> None:
    def sometimes(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number % 3:
            return echo(server, request, number)
        if fault == "reset":
            raise ConnectionResetError
        if fault == "hang":
            time.sleep(1)
        if fault == "malformed":
            return 200, {}, b'{"id": "x"}'
        if fault == "not json":
            return 200, {}, b"<html>busy</html>"
        headers = {"Retry-After": "0.05"} if "later" in fault else {}
        return (int(fault[:3]) if fault[0].isdigit() else 200), headers, b"{}"

    with ChatServer(sometimes) as server:
        done = generate(server, cache, prompts(9), timeout=0.4, tries=8)
        assert (done.asked, done.failed) == (9, 0)
    assert {k.text for k in cache.knowledge("item")} == {f"About: entity {i}" for i in range(9)}


def test_retry_after_is_honoured(cache: TextCache) -> None:
    times: list[float] = []

    def later(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        times.append(time.monotonic())
        return echo(server, request, number) if number else (429, {"Retry-After": "0.6"}, b"{}")

    with ChatServer(later) as server:
        generate(server, cache, prompts(1))
    assert times[1] - times[0] >= 0.6


def test_a_prompt_that_fails_for_itself_is_listed_and_others_go_on(cache: TextCache) -> None:
    def one_bad(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        bad = request["messages"][0]["content"] == "entity 3"
        return (400, {}, b'{"error": {"message": "too long"}}') if bad else echo(server, request, number)

    with ChatServer(one_bad) as server:
        done = generate(server, cache, prompts(8))
        assert (done.asked, done.failed) == (7, 1)
        assert [failure.reason for failure in cache.failures()] == ["the server answered 400: too long"]
        server.behaviour = echo
        assert generate(server, cache, prompts(8)).skipped == 1, "it was rejected for itself: not asked again"
        assert generate(server, cache, prompts(8), retry_failed=True).asked == 1
    assert cache.failures() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (completion("half a sent", "length"), "truncated"),
        (completion(None, "content_filter"), "refused"),
        (completion(None, refusal="I cannot"), "refused"),
        (completion("  "), "empty"),
    ],
)
def test_answers_that_are_no_knowledge_are_kept_apart(cache: TextCache, body: bytes, status: str) -> None:
    with ChatServer(lambda server, request, number: (200, {}, body)) as server:
        generate(server, cache, prompts(2))
        assert cache.counts()[status] == 2
        assert list(cache.knowledge("item")) == []
        assert len(list(cache.knowledge("item", accept=("ok", status)))) == 2
        assert generate(server, cache, prompts(2)).cached == 2, "they were paid for: not asked again"


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "--model and --base-url")]
)
def test_errors_that_no_retry_heals_stop_the_job_after_a_handful(cache: TextCache, status: int, advice: str) -> None:
    with ChatServer(lambda server, request, number: (status, {}, b"{}")) as server:
        with pytest.raises(GenerationError, match=rf"answered {status}.* Check {advice}\."):
            generate(server, cache, prompts(1000))
        assert len(server.requests) <= 8


def test_a_server_that_is_down_is_named(cache: TextCache) -> None:
    with ChatServer() as server:
        pass
    with pytest.raises(GenerationError, match=r"http://127\.0\.0\.1:\d+/v1 cannot be reached. Is the server running"):
        generate(server, cache, prompts(50))


def test_a_missing_key_is_one_clear_error(chat_server: ChatServer, cache: TextCache) -> None:
    with pytest.raises(GenerationError, match="Set OPENAI_API_KEY"):
        stage.generate(prompts(1), cache, model(chat_server))


def test_the_key_is_sent_but_stored_nowhere(chat_server: ChatServer, cache: TextCache, tmp_path: Path) -> None:
    generate(chat_server, cache, prompts(3))
    assert chat_server.headers[0]["authorization"] == "Bearer sk-planted-key"
    cache.close()
    assert not [path for path in tmp_path.iterdir() if b"sk-planted" in path.read_bytes()]
