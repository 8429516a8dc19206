"""The Batch API: no batch is made twice, no answer that was charged is lost, whatever comes back and in what order."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from support.jobs import KEY, Job, Jobs, prompts

from kar_aug.cache import BatchBook, TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, GenerationError, LimitReached
from kar_aug.generate import Prices, Progress, batch, forget_batch, generate, generate_batches
from kar_aug.generate.jsonl import request_line
from kar_aug.prompts import Prompt
from kar_aug.testing.batches import BatchServer, Line, Outcome, answered, completed, expired, refused
from kar_aug.testing.http_server import Reply, Request

pytestmark = pytest.mark.usefixtures("short_pauses")


def ask(
    server: BatchServer, cache: TextCache, asked: int | list[Prompt], *, prices: Prices | None = None,
    retry_failed: bool = False, most_requests: int = 50_000, wait: bool = True, notes: list[str] | None = None,
    **changes: Any,
) -> Progress:  # fmt: skip
    model = LanguageModel(**{"model": "test-model", "base_url": server.base_url, "timeout": 5, "tries": 4, **changes})
    return generate_batches(
        list(prompts(asked)) if isinstance(asked, int) else asked, cache, model, key=KEY, prices=prices,
        retry_failed=retry_failed, most_requests=most_requests, wait=wait, poll_seconds=0.02,
        on_note=(notes if notes is not None else []).append,
    )  # fmt: skip


def texts(cache: TextCache) -> dict[int | str, str]:
    return {k.entity_id: k.text for k in cache.knowledge("item")}


def complete(count: int) -> dict[int | str, str]:
    return {i: f"About: entity {i}" for i in range(count)}


def settled(cache: TextCache) -> bool:
    """Whether nothing is on its way any more."""
    return BatchBook(cache).batches() == []


def test_a_batch_is_asked_waited_for_and_matched_in_any_order(cache: TextCache) -> None:
    with BatchServer(polls=2) as server:
        done = ask(server, cache, 20)
        assert (done.asked, done.cached, done.failed, done.elsewhere, done.requests) == (20, 0, 0, 0, 20)
        assert texts(cache) == complete(20) and settled(cache)
        (made,) = server.batches.values()
        assert (made["completion_window"], list(made["metadata"])) == ("24h", ["kar_aug"])
        request = server.requests(made)[0]
        assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
        assert request["body"]["max_tokens"] == 512 and request["body"]["model"] == "test-model"
        assert done.completion_tokens == 60 and cache.usage()[0][:3] == ("test-model", "batch", 20)
        assert ask(server, cache, 20).cached == 20 and len(server.batches) == 1


@pytest.mark.parametrize(("most_requests", "batches"), [(7, 3), (20, 1), (19, 2), (1, 20)])
def test_a_batch_has_no_more_requests_than_documented(cache: TextCache, most_requests: int, batches: int) -> None:
    with BatchServer() as server:
        assert ask(server, cache, 20, most_requests=most_requests).asked == 20
        sizes = [len(server.requests(made)) for made in server.batches.values()]
    assert len(sizes) == batches and max(sizes) <= most_requests and texts(cache) == complete(20)


def test_a_batch_has_no_more_bytes_than_documented(cache: TextCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (batch.MOST_REQUESTS, batch.MOST_BYTES) == (50_000, 200_000_000)
    length = len(request_line("0" * 32, "test-model", next(prompts(1)).messages, LanguageModel().parameters))
    monkeypatch.setattr(batch, "MOST_BYTES", 4 * length)
    with BatchServer() as server:
        ask(server, cache, 10)
        assert [len(server.files[made["input_file_id"]]) for made in server.batches.values()] == [
            4 * length, 4 * length, 2 * length
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("most_requests", [50, 1000])
def test_a_prompt_that_many_entities_share_is_asked_once_wherever_they_stand(
    cache: TextCache, most_requests: int
) -> None:
    """Far apart, they are looked up apart, and the first is in a batch already."""
    own = list(prompts(600))
    shared = [Prompt("item", 1000 + i, own[0].messages, "v1") for i in range(3)]
    with BatchServer() as server:
        done = ask(
            server,
            cache,
            [own[0], shared[0], *own[1:300], shared[1], *own[300:], shared[2]],
            most_requests=most_requests,
        )
        assert max(server.charged.values()) == 1 and len(server.charged) == 600
    assert (done.asked, done.cached, done.elsewhere, done.done, done.total) == (600, 3, 0, 603, 603)
    assert texts(cache) == complete(600) | {1000 + i: "About: entity 0" for i in range(3)}


def test_a_batch_that_is_not_waited_for_is_collected_by_the_next_run(cache: TextCache) -> None:
    with BatchServer(polls=1) as server:
        done = ask(server, cache, 10, wait=False)
        assert (done.asked, done.elsewhere, done.ready) == (0, 10, 5) and "10 in batches that run" in str(done)
        done = ask(server, cache, 12)
        assert (done.asked, done.elsewhere, done.requests) == (12, 0, 2) and texts(cache) == complete(12)
        assert max(server.charged.values()) == 1


# What comes back


def half_expired(requests: list[Line]) -> Outcome:
    half = len(requests) // 2
    return "expired", [answered(r) for r in requests[:half]], [expired(r) for r in requests[half:]]


def test_a_batch_that_expired_has_answers_and_the_rest_is_asked_again(cache: TextCache) -> None:
    notes: list[str] = []
    outcomes = iter([half_expired])
    with BatchServer(lambda requests: next(outcomes, completed)(requests)) as server:
        done = ask(server, cache, 10, notes=notes)
        assert (done.asked, done.failed, done.requests) == (10, 0, 15) and max(server.charged.values()) == 1
    assert texts(cache) == complete(10) and settled(cache)
    assert any("expired, 5 answers" in note for note in notes)
    assert any("5 prompts have no answer and are asked again" in note for note in notes)


def test_what_no_batch_answers_is_listed_after_three_and_asked_by_the_next_run(cache: TextCache) -> None:
    with BatchServer(lambda requests: ("expired", [], [expired(r) for r in requests])) as server:
        done = ask(server, cache, 4)
        assert (done.failed, done.elsewhere, len(server.batches)) == (4, 0, 3) and settled(cache)
        assert {(f.reason, f.permanent) for f in cache.failures()} == {("the batch expired", False)}
        server.outcome = completed
        assert ask(server, cache, 4).asked == 4 and cache.failures() == []


def test_an_answer_by_another_model_ends_the_batches_with_nothing_more_sent(cache: TextCache) -> None:
    def by_another(requests: list[Line]) -> Outcome:
        lines = [answered(r) for r in requests[:2]]
        for line in lines:
            line["response"]["body"]["model"] = "another"
        return "expired", list(lines), [expired(r) for r in requests[2:]]

    with BatchServer(by_another) as server:
        with pytest.raises(GenerationError, match="answered as 'another'"):
            ask(server, cache, 6)
        assert len(server.batches) == 1 and settled(cache)
        server.outcome = completed
        assert ask(server, cache, 6).asked == 4, "those without an answer; what was paid for stays"
        server.outcome = by_another
        done = ask(server, cache, 6, served_model="another")
        assert (done.judged, done.cached, done.requests) == (2, 6, 0) and len(texts(cache)) == 6, "and is read again"


def test_requests_that_come_back_nowhere_are_asked_again(cache: TextCache) -> None:
    outcomes = iter([lambda requests: ("completed", [answered(r) for r in requests[1:]], [])])
    with BatchServer(lambda requests: next(outcomes, completed)(requests)) as server:
        assert ask(server, cache, 5).asked == 5 and len(server.batches) == 2


def test_a_completed_batch_may_have_only_an_error_file(cache: TextCache) -> None:
    def errors(requests: list[Line]) -> Outcome:
        return "completed", [], [refused(r, 400, "too long") for r in requests]

    with BatchServer(errors) as server:
        done = ask(server, cache, 3)
        assert (done.asked, done.failed, len(server.batches)) == (0, 3, 1)
        assert {(f.reason, f.permanent) for f in cache.failures()} == {("the server answered 400: too long", True)}
        assert ask(server, cache, 3).skipped == 3 and len(server.batches) == 1
        server.outcome = completed
        assert ask(server, cache, 3, retry_failed=True).asked == 3


def test_passing_errors_of_single_requests_are_asked_again(cache: TextCache) -> None:
    statuses = iter([429, 500])

    def passing(requests: list[Line]) -> Outcome:
        status = next(statuses, None)
        return completed(requests) if status is None else ("completed", [], [refused(r, status) for r in requests])

    with BatchServer(passing) as server:
        assert ask(server, cache, 3).asked == 3 and len(server.batches) == 3


def test_lines_that_are_nobodys_and_line_separators_in_answers_disturb_nothing(cache: TextCache) -> None:
    def odd(requests: list[Line]) -> Outcome:
        lines: list[Line | str] = [answered(r, f"A\u2028film\u2029by\x85{i}\r\n\ud83d") for i, r in enumerate(requests)]
        foreign = answered({**requests[0], "custom_id": "somebody else's"})
        return "completed", ["", "{", "null", '{"custom_id": 5}', foreign, *lines, lines[0], "[" * 100_000], []

    notes: list[str] = []
    with BatchServer(odd) as server:
        assert ask(server, cache, 5, notes=notes).asked == 5
    assert all("A\u2028film\u2029by\x85" in text for text in texts(cache).values()) and len(texts(cache)) == 5
    assert sum("no response with a custom_id" in note for note in notes) == 4
    assert "somebody else's" not in cache


def test_a_line_that_breaks_off_is_kept_as_what_it_is_and_not_paid_for_again(cache: TextCache) -> None:
    def cut(requests: list[Line]) -> Outcome:
        whole = [json.dumps(answered(r, "A film.")) for r in requests]
        return "completed", [*whole[:-1], whole[-1][:-40]], []

    with BatchServer(cut) as server:
        done = ask(server, cache, 5)
        assert done.asked == 5 and done.no_knowledge["malformed"] == 1
        assert ask(server, cache, 5).asked == 0 and len(server.batches) == 1


def test_lines_that_name_no_question_are_kept_counted_and_not_paid_for_again(cache: TextCache, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[models."test-model"]\nprompt = 1000\ncompletion = 2000\n')
    prices = Prices(path)

    def cut(requests: list[Line]) -> Outcome:
        whole = [json.dumps(answered(r)) for r in requests]
        return "completed", [*whole[:-2], *(line[line.index('"response"') :] for line in whole[-2:])], []

    notes: list[str] = []
    with BatchServer(cut) as server:
        done = ask(server, cache, 5, prices=prices, notes=notes, max_tokens=16, max_cost=9.0)
        assert (done.asked, done.no_knowledge, done.complete) == (5, {"malformed": 2}, False) and len(texts(cache)) == 3
        assert sum("line 4: no response with a custom_id" in note for note in notes) == 1
        assert any("2 lines of its results name no question" in note and "--retry-failed" in note for note in notes)
        assert sum(b'"response"' in answer.raw for answer in cache.answers() if answer.status == "malformed") == 2
        (row,) = cache.ledger.history()
        most = (len("entity 0") + 4 + 3 + 6 + 2 * 16) / 2000
        assert (row.settled, row.reserved, row.unknown) == (pytest.approx(3 * 0.0065), 0.0, pytest.approx(2 * most))
        assert ask(server, cache, 5, prices=prices, max_tokens=16).requests == 0 and settled(cache)
        server.outcome = completed
        assert ask(server, cache, 5, prices=prices, max_tokens=16, retry_failed=True).asked == 2
    assert texts(cache) == complete(5)


def test_one_line_without_a_name_is_the_answer_to_the_one_question_that_has_none(cache: TextCache) -> None:
    def nameless(requests: list[Line]) -> Outcome:
        return "completed", [*map(answered, requests[1:]), answered(requests[0]) | {"custom_id": None}], []

    with BatchServer(nameless) as server:
        assert ask(server, cache, 5).asked == 5 and texts(cache) == complete(5) and len(server.batches) == 1


def test_an_error_without_a_name_is_nobodys_answer_and_its_prompt_is_asked_again(cache: TextCache) -> None:
    rounds = iter((2, 0, 0))

    def limited(requests: list[Line]) -> Outcome:
        missing = next(rounds)
        error = {"custom_id": None, "error": {"code": 429, "message": "rate limit"}}
        return "completed", [answered(r) for r in requests[missing:]], [error] * missing

    with BatchServer(limited) as server:
        done = ask(server, cache, 5)
    assert (done.asked, done.no_knowledge) == (5, {}) and texts(cache) == complete(5)


def test_answers_that_are_no_knowledge_are_kept_apart(cache: TextCache) -> None:
    with BatchServer(lambda requests: ("completed", [answered(r, "") for r in requests], [])) as server:
        ask(server, cache, 3)
        assert cache.counts()["empty"] == 3 and texts(cache) == {}
        server.outcome = completed
        assert ask(server, cache, 3).cached == 3 and ask(server, cache, 3, retry_failed=True).asked == 3
    assert texts(cache) == complete(3)


def test_a_batch_that_fails_validation_is_one_clear_error_and_asked_anew(cache: TextCache) -> None:
    with BatchServer() as server:
        server.invalid = f"The key {KEY} may not use this model."
        with pytest.raises(GenerationError, match=r"refused batch batch-0: The key \[key\] may not.*Nothing of it was"):
            ask(server, cache, 3)
        assert settled(cache)
        server.invalid = ""
        assert ask(server, cache, 3).asked == 3


def test_a_cancelled_batch_keeps_its_answers_and_leaves_the_rest_to_the_next_run(cache: TextCache) -> None:
    with BatchServer(lambda requests: ("cancelled", [answered(r) for r in requests[:2]], [])) as server:
        done = ask(server, cache, 5)
        assert (done.asked, done.elsewhere, len(server.batches)) == (2, 0, 1) and settled(cache)
        server.outcome = completed
        assert ask(server, cache, 5).asked == 3 and max(server.charged.values()) == 1
    assert texts(cache) == complete(5)


# Faults of the server


@pytest.mark.parametrize("fault", ["drop", "500", "429"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("route", ["POST /files", "POST /batches", "GET /batches", "GET /batches/", "GET /files/"])
def test_a_fault_of_any_call_makes_no_second_batch(cache: TextCache, fault: str, when: str, route: str) -> None:
    """After: it was done, and the answer is lost."""
    faults = iter([fault])

    def once(called: str) -> Any:
        there = called.startswith(route) if route.endswith("/") else called == route
        if not there or not next(faults, ""):
            return None
        if fault == "drop":
            raise ConnectionResetError
        return int(fault), b"{}"

    with BatchServer() as server:
        setattr(server, when, once)
        assert ask(server, cache, 5).asked == 5
        assert not next(faults, ""), "the fault did not happen"
        assert len(server.batches) == 1 and max(server.charged.values()) == 1
    assert texts(cache) == complete(5)


def test_a_download_that_breaks_off_is_begun_again(cache: TextCache, monkeypatch: pytest.MonkeyPatch) -> None:
    with BatchServer() as server:
        calls = iter([True])

        def short(route: str) -> Any:
            if route.startswith("GET /files/") and next(calls, False):
                whole = server.files[route.split("/")[2]]
                return 200, _Cut(whole)
            return None

        server.after = short
        assert ask(server, cache, 50, timeout=1).asked == 50 and next(calls, False) is False
    assert texts(cache) == complete(50)


class _Cut(bytes):
    """Says that it is longer than it is."""

    def __len__(self) -> int:
        return super().__len__() + 1000


def test_a_batch_is_found_again_among_many_pages_of_others(cache: TextCache) -> None:
    with BatchServer(page=2) as server:
        for _ in range(7):
            server._create({"endpoint": "/v1/chat/completions", "input_file_id": server._file("f", b"")["id"]})

        def lose(route: str) -> None:
            if route == "POST /batches" and server.calls[route] == 1:
                for _ in range(7):
                    server._create({"endpoint": "/v1/chat/completions", "input_file_id": "f-0", "metadata": None})
                raise ConnectionResetError

        server.after = lose
        assert ask(server, cache, 5).asked == 5
        assert sum("kar_aug" in (made.get("metadata") or {}) for made in server.batches.values()) == 1


@pytest.mark.parametrize(("status", "words"), [(401, "the API key was refused"), (404, "no such"), (400, "Batch API")])
def test_what_cannot_heal_is_one_clear_error(cache: TextCache, status: int, words: str) -> None:
    with BatchServer() as server:
        server.before = lambda route: (status, {"error": {"message": f"key {KEY}"}})
        with pytest.raises(GenerationError, match=words) as raised:
            ask(server, cache, 5)
        assert KEY not in str(raised.value) and server.calls.total() == 1
        server.before = lambda route: None
        assert ask(server, cache, 5).asked == 5 and len(server.batches) == 1


def test_a_key_in_an_error_file_is_stored_nowhere(cache: TextCache, tmp_path: Path) -> None:
    def leaking(requests: list[Line]) -> Outcome:
        code = {"code": "x", "message": f"bad {KEY}"}
        by_code = [{"custom_id": r["custom_id"], "response": None, "error": code} for r in requests[1:]]
        return "completed", [], [refused(requests[0], 401, f"Incorrect API key provided: {KEY}"), *by_code]

    with BatchServer(leaking) as server:
        ask(server, cache, 2)
    assert all("[key]" in failure.reason for failure in cache.failures()) and len(cache.failures()) == 2
    cache.close()
    assert not [path for path in tmp_path.iterdir() if KEY.encode() in path.read_bytes()]


# Killed, and several


STAGES = ["POST /files", "GET /batches", "POST /batches", "GET /batches/batch-0", "GET /files/result-1/content"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_the_next_run_makes_no_batch_twice(
    nursery: Jobs, tmp_path: Path, stage: str, when: str
) -> None:
    jobs: list[Job] = []
    started = threading.Event()

    def kill(route: str) -> None:
        if route == stage and started.wait(10) and len(jobs) == 1:
            jobs[0].kill()

    with BatchServer(polls=1) as server:
        setattr(server, when, kill)
        options = {"poll_seconds": 0.02, "most_requests": 100}
        jobs.append(nursery.start(tmp_path / "answers.sqlite", server.base_url, 30, batches=options))
        started.set()
        assert jobs[0].killed.wait(20), jobs[0].output
        jobs.append(nursery.start(tmp_path / "answers.sqlite", server.base_url, 30, batches=options))
        assert jobs[1].wait() == 0, jobs[1].output
        assert len(server.batches) == 1 and set(server.charged.values()) == {1} and len(server.charged) == 30
    with TextCache(tmp_path / "answers.sqlite") as cache:
        assert texts(cache) == complete(30) and settled(cache)


def test_killed_while_expired_prompts_are_put_into_a_new_batch(nursery: Jobs, tmp_path: Path) -> None:
    outcomes = iter([half_expired])
    jobs: list[Job] = []

    def kill(route: str) -> None:
        if route == "POST /batches" and len(server.batches) == 2 and len(jobs) == 1:
            jobs[0].kill()

    with BatchServer(lambda requests: next(outcomes, completed)(requests)) as server:
        server.after = kill
        options = {"poll_seconds": 0.02}
        jobs.append(nursery.start(tmp_path / "answers.sqlite", server.base_url, 20, batches=options))
        assert jobs[0].killed.wait(20), jobs[0].output
        jobs.append(nursery.start(tmp_path / "answers.sqlite", server.base_url, 20, batches=options))
        assert jobs[1].wait() == 0, jobs[1].output
        assert len(server.batches) == 2 and set(server.charged.values()) == {1}
    with TextCache(tmp_path / "answers.sqlite") as cache:
        assert texts(cache) == complete(20) and settled(cache)


def test_two_processes_make_no_batch_twice_and_ask_nothing_twice(nursery: Jobs, where: Path | str) -> None:
    with BatchServer(polls=3) as server:
        options = {"poll_seconds": 0.05, "most_requests": 50}
        jobs = [nursery.start(where, server.base_url, 600, batches=options) for _ in range(2)]
        assert [job.wait() for job in jobs] == [0, 0], [job.output for job in jobs]
        last = nursery.start(where, server.base_url, 600, batches=options)
        assert last.wait() == 0, last.output
        assert set(server.charged.values()) == {1} and len(server.charged) == 600
    with TextCache(where) as cache:
        assert texts(cache) == complete(600) and settled(cache)


def test_an_interrupt_leaves_batches_running(nursery: Jobs, tmp_path: Path) -> None:
    with BatchServer(polls=1000) as server:
        job = nursery.start(tmp_path / "answers.sqlite", server.base_url, 10, batches={"poll_seconds": 30})
        while not server.calls["GET /batches/batch-0"]:
            time.sleep(0.01)
        time.sleep(0.1)
        job.send(signal.SIGINT)
        assert job.wait() == 130 and "1 batches go on at the server" in job.output, job.output
        server.polls = 0
        job = nursery.start(tmp_path / "answers.sqlite", server.base_url, 10, batches={"poll_seconds": 0.1})
        assert job.wait() == 0 and len(server.batches) == 1


# Limits


def test_max_requests_and_max_cost_count_what_is_on_its_way(cache: TextCache, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('[models]\n"test-model" = { prompt = 1000.0, completion = 2000.0 }\n')
    prices = Prices(tmp_path / "prices.toml")
    with BatchServer(polls=1) as server:
        with pytest.raises(LimitReached, match="--max-requests 4"):
            ask(server, cache, 10, max_requests=4)
        assert len(server.charged) == 4 and cache.counts()["ok"] == 4
        cache.prune()
        with pytest.raises(LimitReached, match=r"--max-cost 0\.2"):
            ask(server, cache, 100, prices=prices, max_cost=0.2, max_tokens=10, wait=False)
        first = len(server.requests(server.batches["batch-1"]))
        with pytest.raises(LimitReached):
            ask(server, cache, 100, prices=prices, max_cost=0.2, max_tokens=10, wait=False)
        assert first > 1 and cache.spent() <= 0.2
        for _ in range(3):
            with pytest.raises(LimitReached):
                ask(server, cache, 100, prices=prices, max_cost=0.2, max_tokens=10)
        assert 0.1 < cache.spent() <= 0.2, "earlier batches included"
        assert cache.spent() == pytest.approx(0.0065 * (len(server.charged) - 4)), "at half the price"


def test_what_a_limit_kept_out_is_free_for_others(cache: TextCache) -> None:
    with BatchServer(polls=1) as server:
        with pytest.raises(LimitReached):
            ask(server, cache, 10, max_requests=4, wait=False)
        assert ask(server, cache, 10).asked == 10 and set(server.charged.values()) == {1}


# Batches that are lost, outages


def test_a_batch_that_is_lost_is_set_aside_the_others_are_collected_and_it_is_asked_again_when_told(
    cache: TextCache,
) -> None:
    notes: list[str] = []
    with BatchServer(polls=1) as server:
        ask(server, cache, 6, most_requests=3, wait=False)
        server.lost = {"batch-0"}
        done = ask(server, cache, 7, notes=notes)
        assert (done.asked, done.failed, done.elsewhere, done.complete) == (4, 3, 0, False)
        assert any("batch-0" in note and "404" in note and "--forget-batch batch-0" in note for note in notes)
        online = LanguageModel("test-model", server.base_url)
        plain = generate(prompts(7), cache, online, key=KEY)
        assert (plain.failed, plain.elsewhere) == (3, 0) and "--forget-batch" in str(plain), "said, and not paid twice"

        server.lost = set()  # the right key again
        assert ask(server, cache, 7).asked == 3 and texts(cache) == complete(7) and settled(cache)
        assert max(server.charged.values()) == 1

        ask(server, cache, 9, wait=False)
        (gone,) = server.lost = {name for name, made in server.batches.items() if made["looks"] == 1}
        assert ask(server, cache, 9).failed == 2
        with pytest.raises(ConfigError, match=f"no batch 'x'.*{gone}"):
            forget_batch(cache, "x")
        assert forget_batch(cache, gone) == 2
        assert ask(server, cache, 9).asked == 2 and texts(cache) == complete(9)


def test_results_that_are_gone_are_a_lost_batch_and_files_are_deleted_when_they_are_stored(cache: TextCache) -> None:
    with BatchServer(polls=1) as server:
        ask(server, cache, 4, most_requests=2, wait=False)
        server.before = lambda route: (410, {}) if route == "GET /files/result-2/content" else None
        done = ask(server, cache, 4)
        assert (done.asked, done.failed) == (2, 2)
        assert server.deleted == {"file-1", "result-3"}, "those of the other one"
        ask(server, cache, [Prompt("item", 9, ({"role": "user", "content": "kept"},), "v1")], delete_batch_files=False)
        assert len(server.deleted) == 2


def test_an_uploaded_file_that_expired_before_its_batch_was_made_is_uploaded_again(cache: TextCache) -> None:
    with BatchServer() as server:
        server.before = lambda route: (400, {"error": {"message": "not now"}}) if route == "POST /batches" else None
        with pytest.raises(GenerationError, match="not now"):
            ask(server, cache, 3)
        server.before, server.deleted = lambda route: None, {"file-0"}
        assert ask(server, cache, 3).asked == 3


def test_a_batch_that_the_server_does_not_find_yet_is_waited_for(cache: TextCache) -> None:
    with BatchServer() as server:
        late = iter([(404, {})] * 3)
        server.before = lambda route: next(late, None) if route == "GET /batches/batch-0" else None
        assert ask(server, cache, 2).asked == 2


def test_an_outage_while_batches_run_is_waited_out_and_said(cache: TextCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SAY_SECONDS", 0.1)
    notes: list[str] = []
    down = iter([(503, {"error": {"message": "maintenance"}})] * 20)
    with BatchServer() as server:
        server.before = lambda route: next(down, None) if route.startswith("GET /batches/") else None
        assert ask(server, cache, 2, notes=notes, tries=2).asked == 2
        assert any("maintenance; waiting for" in note for note in notes)
        server.before = lambda route: (500, {}) if route.startswith("GET /batches/") else None
        with pytest.raises(GenerationError, match="run the same command"):
            ask(server, cache, 3, give_up_after=0.3)


@pytest.mark.parametrize("later", ["1e9", "inf", "Mon, 99999999999999999999 Jan 2026 00:00:00 GMT", "nan"])
def test_however_long_a_server_asks_to_wait_it_is_not_waited_for_longer_than_said(cache: TextCache, later: str) -> None:
    def busy(request: Request) -> Reply:
        return Reply(429, {"Retry-After": later}, b"{}")

    with BatchServer() as server:
        server.reply = busy  # type: ignore[method-assign]
        with pytest.raises(GenerationError, match="Batches that run go on"):
            ask(server, cache, 2, give_up_after=0.3)


def test_a_batch_of_more_requests_than_sqlite_takes_variables(cache: TextCache) -> None:
    @sqlalchemy.event.listens_for(cache.database._engine, "checkout")
    def few_variables(connection: Any, *_: Any) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    with BatchServer() as server:
        assert ask(server, cache, 1500).asked == 1500 and len(server.batches) == 1


def test_one_address_in_other_spellings_has_the_same_batches(cache: TextCache) -> None:
    with BatchServer(polls=1) as server:
        ask(server, cache, 3, wait=False)
        host, _, path = server.base_url.rpartition("/")
        assert ask(server, cache, 3, base_url=f"{host}//{path}/").asked == 3


def test_a_key_in_the_query_of_an_address_is_not_kept_and_its_batches_are_found(tmp_path: Path) -> None:
    with BatchServer(polls=1) as server, TextCache(tmp_path / "answers.sqlite") as cache:
        address = f"{server.base_url}?api-key=hunter2"
        ask(server, cache, 3, wait=False, base_url=address)
        assert not any(b"hunter2" in file.read_bytes() for file in tmp_path.iterdir())
        assert ask(server, cache, 3, base_url=address).asked == 3 and len(server.batches) == 1


def test_ids_of_half_characters_and_answers_after_errors_cost_nothing(cache: TextCache) -> None:
    def odd(requests: list[Line]) -> Outcome:
        half = '{"custom_id": "\\ud800", "response": {"status_code": 200, "body": {}}}'
        return "completed", [half, *map(answered, requests), refused(requests[0], 500), answered(requests[0])], []

    with BatchServer(odd) as server:
        assert ask(server, cache, 3).asked == 3 and settled(cache) and len(server.batches) == 1


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (
            400,
            "Unknown parameter: seed",
            "rejects every request .the server answered 400: Unknown parameter: seed.*omit",
        ),
        (402, "no funds", None),
        (403, "account suspended", None),
        (404, "no such deployment", None),
    ],
)
def test_a_batch_that_is_refused_as_a_whole_rejects_no_prompt_for_good(
    cache: TextCache, status: int, words: str, said: str | None
) -> None:
    def refusing(requests: list[Line]) -> Outcome:
        return "completed", [], [refused(r, status, words) for r in requests]

    with BatchServer(refusing) as server:
        if said is None:
            assert ask(server, cache, 6).reasons == {f"the server answered {status}: {words}": 6}
        else:
            with pytest.raises(GenerationError, match=said):
                ask(server, cache, 6)
        assert len(server.batches) == 1 and not any(failure.permanent for failure in cache.failures())
        assert cache.spent() == 0 and settled(cache)
        server.outcome = completed
        assert ask(server, cache, 6).asked == 6 and texts(cache) == complete(6)


def test_a_damaged_request_of_a_batch_costs_itself_alone(cache: TextCache) -> None:
    """And a server may say COMPLETED, and name no file by ""."""
    with BatchServer() as server:
        server.polls = 10**6
        ask(server, cache, 6, wait=False)
        with cache.database.writing() as connection:
            keys = connection.execute(sqlalchemy.text("SELECT key FROM batch_requests ORDER BY key")).scalars().all()
            for column, broken, key in (("question", '{"model": ', keys[0]), ("links", "[[", keys[1])):
                connection.execute(
                    sqlalchemy.text(f"UPDATE batch_requests SET {column} = :broken WHERE key = :key"),
                    {"broken": broken, "key": key},
                )
        server.polls = 0
        look = server._look
        server._look = lambda batch: look(batch) | {"status": look(batch)["status"].upper(), "error_file_id": ""}  # type: ignore[method-assign]
        assert ask(server, cache, 6).asked >= 5 and settled(cache)
        assert ask(server, cache, 6).failed == 0 and texts(cache) == complete(6)
    assert sum(server.charged.values()) == 7
