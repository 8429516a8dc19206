"""A server that misbehaves: what heals is retried, what cannot heal stops the job after a handful of requests."""

from __future__ import annotations

import email.utils
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from support.jobs import KEY, prompts

from kar_aug import generate as stage
from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError
from kar_aug.testing import ChatServer, completion, echo

Response = tuple[int, dict[str, str], bytes]


pytestmark = pytest.mark.usefixtures("short_pauses")


def generate(
    server: ChatServer | str, cache: TextCache, count: int, *, retry_failed: bool = False, **changes: Any
) -> stage.Progress:
    base_url = server if isinstance(server, str) else server.base_url
    model = LanguageModel(**{"model": "test-model", "base_url": base_url, "concurrency": 4, **changes})
    return stage.generate(prompts(count), cache, model, key=KEY, retry_failed=retry_failed)


def error(message: str = "", **more: str) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


# Slowing down


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "header",
    [lambda: {"Retry-After": "0.8"}, lambda: {"retry-after-ms": "800"}, lambda: {"Retry-After": date(2)}],
    ids=["seconds", "milliseconds", "date"],
)
def test_one_slow_down_holds_all_slots_until_the_server_takes_requests_again(
    cache: TextCache, status: int, header: Callable[[], dict[str, str]]
) -> None:
    """Dates have no fractions: two seconds are one to two."""
    times: list[float] = []
    refused_at = 0.0

    def later(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        nonlocal refused_at
        times.append(time.monotonic())
        if number != 12:
            return echo(server, request, number)
        refused_at = time.monotonic()
        return status, header(), error("slow down")

    with ChatServer(later, latency=0.02) as server:
        done = generate(server, cache, 30, concurrency=8)
    assert (done.asked, done.failed, done.limited, done.requests) == (30, 0, 1, 31)
    came = sum(refused_at < at < refused_at + 0.75 for at in times)
    assert came <= 8, "more came while they were to wait than were on their way"


@pytest.mark.slow
def test_a_server_that_is_overrun_is_asked_by_fewer_and_then_by_more_again(cache: TextCache) -> None:
    refusing = False
    in_flight: list[tuple[bool, int]] = []

    def overrun(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        in_flight.append((refusing, server.in_flight))
        time.sleep(0.02)
        if refusing and server.in_flight > 2:
            return 429, {}, error("too many at once")
        return echo(server, request, number)

    limit: list[int] = []
    with ChatServer(overrun) as server:
        model = LanguageModel("test-model", server.base_url, concurrency=16)

        def note(progress: stage.Progress) -> None:
            nonlocal refusing
            refusing = 100 <= progress.asked < 200
            limit.append(progress.concurrency)

        done = stage.generate(prompts(600), cache, model, key=KEY, on_progress=note)
    assert (done.asked, done.failed) == (600, 0)
    assert max(at_once for _, at_once in in_flight[:100]) > 8
    during = [at_once for hard, at_once in in_flight if hard]
    assert sum(during[-50:]) / 50 <= 4, "concurrency did not fall"
    assert max(at_once for hard, at_once in in_flight[-100:]) > 6 and limit[-1] > 6, "concurrency did not rise again"
    assert done.limited < 100, "a storm: refused nearly as often as answered"


def test_a_long_wait_is_said_and_not_waited_for(cache: TextCache) -> None:
    with ChatServer(lambda server, request, number: (429, {"Retry-After": "7200"}, b"{}")) as server:
        with pytest.raises(GenerationError, match=r"asks to wait 7,200 seconds. .* Nothing is lost"):
            generate(server, cache, 100)
        assert len(server.requests) <= 4
    assert cache.failures() == []


def test_a_server_that_answers_nothing_for_long_stops_the_job(cache: TextCache) -> None:
    with ChatServer(lambda server, request, number: (500, {}, b"{}")) as server:
        with pytest.raises(GenerationError, match=r"answered nothing for 0.5 s \(the server answered 500\)"):
            generate(server, cache, 10_000, give_up_after=0.5, tries=1000)
        server.behaviour = echo
        assert generate(server, cache, 20).asked == 20


def test_time_in_which_nothing_was_asked_is_no_time_without_answers(cache: TextCache) -> None:
    """Reading through millions of cached prompts takes minutes. Then the first request fails once."""

    def once(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        return echo(server, request, number) if number else (500, {}, b"{}")

    def late() -> Iterator[Any]:
        time.sleep(0.7)
        yield from prompts(3)

    with ChatServer(once) as server:
        model = LanguageModel("test-model", server.base_url, give_up_after=0.5)
        assert stage.generate(late(), cache, model, key=KEY).asked == 3


# Passing faults


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client sends with; their errors differ."""
    if request.param == "httpx":
        monkeypatch.delattr(openai, "DefaultAioHttpClient")


@pytest.mark.slow
@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize(
    "fault", ["500", "408", "reset", "half", "bad header", "empty body", "not json", "an error", "list", "hang"]
)
def test_a_question_is_given_up_after_its_tries_listed_and_asked_by_the_next_run(cache: TextCache, fault: str) -> None:
    def broken(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        if request["messages"][0]["content"] != "entity 3":
            return echo(server, request, number)
        bodies = {"not json": b"<html>", "an error": error("upstream"), "list": b"[1]", "empty body": b""}
        if fault == "reset":
            raise ConnectionResetError
        if fault == "half":
            return 200, {"Content-Length": "5000"}, completion("half")
        if fault == "bad header":
            body = completion("there are two lengths now")
            return 200, {"Content-Length": "5000", "content-length": str(len(body))}, body
        if fault == "hang":
            time.sleep(1)
        return (int(fault) if fault.isdigit() else 200), {}, bodies.get(fault, b"{}")

    reasons = {"500": "the server answered 500", "408": "the server answered 408", "hang": "no answer in time"}
    reasons |= {"reset": "the connection broke", "half": "the connection broke"}
    reasons["bad header"] = "the connection broke"
    said = {"not json": "a web page", "an error": "an error: upstream", "list": "no chat completion"}
    said["empty body"] = "an empty body"
    reasons |= {fault: f"the server answered 200 with {words}" for fault, words in said.items()}
    with ChatServer(broken) as server:
        done = generate(server, cache, 8, tries=3, timeout=0.4 if fault == "hang" else 10)
        assert (done.asked, done.failed, done.requests) == (7, 1, 10)
        assert done.reasons == {reasons[fault]: 1}
        (failure,) = cache.failures()
        assert (failure.knowledge, failure.entity_id, failure.attempts, failure.permanent) == ("item", 3, 3, False)
        server.behaviour = echo
        assert generate(server, cache, 8).asked == 1
    assert cache.failures() == []


@pytest.mark.usefixtures("transport")
def test_a_response_that_drips_does_not_hold_a_slot_beyond_the_timeout(cache: TextCache) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip(connection: socket.socket) -> None:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.05)
            except OSError:
                connection.close()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        started = time.monotonic()
        done = generate(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", cache, 1, timeout=0.4, tries=2)
    assert done.reasons == {"no answer in time": 1} and 0.8 <= time.monotonic() - started < 6


# Answers that are no knowledge


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (completion("half a sent", "length"), "truncated"),
        (completion(None, "length"), "empty"),
        (completion(None, "content_filter"), "refused"),
        (completion("Some", "content_filter"), "refused"),
        (completion(None, refusal="I cannot"), "refused"),
        (completion("  \n"), "empty"),
    ],
)
def test_retry_failed_asks_again_what_was_refused_or_empty_and_not_what_is_too_long(
    cache: TextCache, body: bytes, status: str
) -> None:
    with ChatServer(lambda server, request, number: (200, {}, body)) as server:
        generate(server, cache, 3)
        assert cache.counts()[status] == 3 and list(cache.knowledge("item")) == []
        server.behaviour = echo
        assert generate(server, cache, 3).cached == 3
        again = generate(server, cache, 3, retry_failed=True)
        assert again.asked == (0 if status == "truncated" else 3)
    assert len(list(cache.knowledge("item"))) == again.asked


def test_another_model_than_asked_for_stops_the_job_and_is_no_knowledge(cache: TextCache) -> None:
    with ChatServer(lambda server, request, number: (200, {}, completion("Hm.", model="tiny-1b"))) as server:
        with pytest.raises(GenerationError, match=r"was asked for 'test-model' and .* 'tiny-1b'.*served_model"):
            generate(server, cache, 1000)
        assert cache.counts()["wrong_model"] == server.answered <= 8, "paid for, so kept"
        assert list(cache.knowledge("item", accept=("ok", "truncated"))) == []
        paid = server.answered
        done = generate(server, cache, 20, served_model="tiny-1b")
        assert (done.asked + done.cached, done.failed, done.judged) == (20, 0, done.cached) and done.judged > 0
        assert cache.counts()["wrong_model"] == paid - done.judged, "of prompts that this run did not have"
        assert server.answered == paid + done.asked and len(list(cache.knowledge("item"))) == 20


@pytest.mark.parametrize(
    "served", ["test-model", "test-model-2025-01-31", "org/test-model", "test-model:latest", "/models/Test-Model.gguf"]
)
def test_a_snapshot_tag_or_path_is_the_same_model(cache: TextCache, served: str) -> None:
    with ChatServer(lambda server, request, number: (200, {}, completion("A film.", model=served))) as server:
        assert generate(server, cache, 2).asked == 2
    assert cache.counts()["ok"] == 2 and {answer.served_model for answer in cache.answers()} == {served}


# What cannot heal


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, error("Incorrect API key provided: sk-pla***6789."), "answered 401: the API key was refused"),
        (402, error("Pay first"), "answered 402: there is no credit left: Pay first"),
        (403, error("Not in your country"), "answered 403: Not in your country"),
        (404, error("no such model"), "answered 404: there is no such model or address: no such model"),
        (429, error("You exceeded your quota", code="insufficient_quota"), "answered 429: there is no credit left"),
        (429, error("You exceeded your quota", type="insufficient_quota"), "answered 429: there is no credit left"),
        (400, error("unknown parameter: seed"), "rejects every request"),
        (422, b"{}", "rejects every request"),
    ],
)
def test_what_cannot_heal_stops_the_job_after_a_handful_of_requests(
    cache: TextCache, status: int, body: bytes, words: str
) -> None:
    with ChatServer(lambda server, request, number: (status, {}, body), latency=0.01) as server:
        with pytest.raises(GenerationError, match=words) as raised:
            generate(server, cache, 5000, concurrency=64)
        assert len(server.requests) <= 8
    assert "sk-pla" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_key_that_is_withdrawn_in_the_middle_stops_the_job_and_keeps_what_is_in_flight(cache: TextCache) -> None:
    def withdrawn(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        if number == 50:
            return 401, {}, error("revoked")
        time.sleep(0.1 if 44 < number < 50 else 0.0)
        return echo(server, request, number)

    with ChatServer(withdrawn) as server:
        with pytest.raises(GenerationError, match="answered 401"):
            generate(server, cache, 1000, concurrency=8)
        assert server.answered < 70 and cache.counts()["ok"] == server.answered
    assert cache.failures() == []


def test_one_rejected_question_among_many_is_listed_and_not_asked_again(cache: TextCache) -> None:
    def one(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        bad = request["messages"][0]["content"] in ("entity 0", "entity 3")
        return (400, {}, error("context\nlength exceeded")) if bad else echo(server, request, number)

    with ChatServer(one) as server:
        done = generate(server, cache, 20, concurrency=1)
        assert (done.asked, done.failed) == (18, 2)
        assert Counter((f.reason, f.permanent, f.attempts) for f in cache.failures()) == {
            ("the server answered 400: context length exceeded", True, 1): 2
        }
        before = len(server.requests)
        assert generate(server, cache, 20).skipped == 2 and len(server.requests) == before
        assert generate(server, cache, 20, retry_failed=True).failed == 2


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("base_url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_a_server_that_is_not_there_is_named_after_a_handful_of_tries(cache: TextCache, base_url: str) -> None:
    with pytest.raises(GenerationError, match=r"cannot be reached. Is the server running\?"):
        generate(base_url, cache, 1000)
    assert cache.failures() == []


def test_an_error_of_the_prompts_ends_the_job_and_keeps_the_answers(chat_server: ChatServer, cache: TextCache) -> None:
    def broken() -> Iterator[Any]:
        yield from prompts(300)
        raise OSError("the table's file is gone")

    model = LanguageModel("test-model", chat_server.base_url)
    with pytest.raises(OSError, match="the table's file is gone"):
        stage.generate(broken(), cache, model, key=KEY)
    assert cache.counts()["ok"] == chat_server.answered > 0


# A server that refuses, at any time


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, error("Unsupported parameter: top_k"), r"refused \d+ requests in a row \(.*top_k\).*extra adds"),
        (403, error("This account is suspended"), r"answered 403: This account is suspended.*Check OPENAI_API_KEY\."),
        (400, error("Your credit balance is too low"), "there is no credit left: Your credit balance.*Add credit"),
        (404, error("the model was unloaded"), "no such model or address: the model was unloaded"),
        (200, b"<html><title>Sign in</title>", r"200 with a web page: Sign in.*/v1"),
        (400, b'[{"error": {"code": 400, "message": "Unknown name \\"seed\\""}}]', r'omit = \["seed"\]'),
        (422, b'{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}', r"body\.seed: Extra inputs\).*omit"),
        (422, b'{"error": "inputs must be <= 4096"}', r"422: inputs must be <= 4096"),
        (400, b"temperature is not taken", r"temperature is not taken\).*omit = \[.temperature.\]"),
        (405, b"<html><title>405 Not Allowed</title></html>", "405: 405 Not Allowed"),
        (400, error("Use 'max_completion_tokens' instead."), r"extra = \{ max_completion_tokens = 512 \}"),
        (404, error("API version not supported"), r"base_url.*api-version="),
    ],
)
def test_a_server_that_refuses_after_answers_stops_the_job_in_its_own_words_and_marks_nothing(
    cache: TextCache, status: int, body: bytes, words: str
) -> None:
    def suspended(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        return echo(server, request, number) if number < 10 else (status, {}, body)

    with ChatServer(suspended) as server:
        with pytest.raises(GenerationError, match=words):
            generate(server, cache, 2000)
        assert len(server.requests) < 60 and not any(failure.permanent for failure in cache.failures())
        server.behaviour = echo
        assert generate(server, cache, 40).asked == 30


def test_some_prompts_that_are_too_long_one_after_the_other_do_not_stop_the_job(cache: TextCache) -> None:
    def long_ones(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        if 5 <= int(request["messages"][0]["content"].split()[1]) < 25:
            return 400, {}, error("This model's maximum context length is 8192 tokens")
        return echo(server, request, number)

    with ChatServer(long_ones) as server:
        done = generate(server, cache, 40)
        assert (done.asked, done.failed, done.complete) == (20, 20, False)
        assert generate(server, cache, 40).skipped == 20


@pytest.mark.parametrize(("status", "body"), [(503, error("Loading model")), (429, error("slow down"))])
def test_a_server_that_is_not_ready_is_waited_for_and_said(
    cache: TextCache, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    from kar_aug.generate import job

    monkeypatch.setattr(job, "SAY_SECONDS", 0.1)
    ready: list[float] = []
    notes: list[str] = []

    def loading(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        ready.append(time.monotonic() + 0.6)  # from the first request on
        return echo(server, request, number) if time.monotonic() > ready[0] else (status, {}, body)

    with ChatServer(loading) as server:
        model = LanguageModel("test-model", server.base_url, tries=2)
        done = stage.generate(prompts(20), cache, model, key=KEY, on_note=notes.append)
    assert (done.asked, done.failed) == (20, 0)
    assert any(f"answered {status}" in note and "give_up_after" in note for note in notes)


@pytest.mark.parametrize("later", ["1e9", "inf", "Mon, 99999999999999999999 Jan 2026 00:00:00 GMT", "nan", "-5"])
def test_a_retry_after_of_any_form_neither_hangs_nor_breaks(cache: TextCache, later: str) -> None:
    def once(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        return echo(server, request, number) if number else (429, {"Retry-After": later}, b"{}")

    with ChatServer(once) as server:
        if later in ("1e9", "inf"):
            with pytest.raises(GenerationError, match="asks to wait"):
                generate(server, cache, 3)
        else:
            assert generate(server, cache, 3).asked == 3


# Addresses


def test_an_address_with_a_query_keeps_it_apart_and_sends_it_with_each_request(cache: TextCache) -> None:
    seen: list[Any] = []

    class Azure(ChatServer):
        def note(self, request: Any) -> None:
            seen.append((request.route, request.query, request.headers.get("api-key")))

        def reply(self, request: Any) -> Any:
            return super().reply(replace(request, route="POST /chat/completions"))

    with Azure() as server:
        base_url = server.base_url.removesuffix("/v1") + "/openai//deployments/d/?api-version=2024-10-21"
        assert generate(base_url, cache, 1).asked == 1
    assert seen == [("POST /openai/deployments/d/chat/completions", {"api-version": ["2024-10-21"]}, KEY)]


def test_prompts_are_sent_on_within_a_host_and_to_no_other(cache: TextCache) -> None:
    with ChatServer() as there:

        def sent_on(server: ChatServer, request: dict[str, Any], number: int) -> Response:
            return 307, {"Location": f"{there.base_url.replace('127.0.0.1', host)}/chat/completions"}, b""

        with ChatServer(sent_on) as server:
            host = "localhost"
            with pytest.raises(GenerationError, match=r"sends requests on to another host, localhost .*--base-url"):
                generate(server, cache, 20)
            assert len(server.requests) <= 2 and not there.requests
            host = "127.0.0.1"
            assert generate(server, cache, 2).asked == 2


def test_an_address_of_the_environment_is_named(cache: TextCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda server, request, number: (401, {}, b"{}")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises(GenerationError, match=r"The server at OPENAI_BASE_URL \(http://127.*answered 401"):
            stage.generate(prompts(1), cache, LanguageModel("test-model"), key=KEY)


def test_refusals_at_the_very_end_may_be_the_servers_and_are_asked_again(cache: TextCache) -> None:
    """Of eight prompts the last two or three are refused, too few for a streak."""

    def closed(server: ChatServer, request: dict[str, Any], number: int) -> Response:
        return echo(server, request, number) if number < 6 else (400, {}, error("this project takes no requests"))

    with ChatServer(closed) as server:
        done = generate(server, cache, 8, concurrency=2)
        assert (done.asked, done.failed) == (6, 2) and not any(failure.permanent for failure in cache.failures())
        server.behaviour = echo
        assert generate(server, cache, 8).asked == 2
