"""`max_cost` holds over all that was ever sent: counted at the server, by what it charges."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from support.jobs import KEY, Jobs, prompts

from kar_aug.cache import Answer, BatchBook, Claims, Link, Order, TextCache
from kar_aug.cache.texts import tables
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, LimitReached
from kar_aug.generate import Prices, generate, generate_batches
from kar_aug.generate.questions import Question, request_of
from kar_aug.testing import ChatServer, OpenAIServer, completion
from kar_aug.testing.batches import BatchServer, Line, Outcome, answered

pytestmark = pytest.mark.usefixtures("short_pauses")
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["a"], "properties": {"a": {"type": "string"}},
}  # fmt: skip


@pytest.fixture
def prices(tmp_path: Path) -> Prices:
    (tmp_path / "prices.toml").write_text('[models]\n"test-model" = { prompt = 1000, completion = 2000 }\n')
    return Prices(tmp_path / "prices.toml")


def model(server: Any, **changes: Any) -> LanguageModel:
    settings = {"model": "test-model", "base_url": server.base_url, "concurrency": 4, "max_tokens": 10, "tries": 2}
    return LanguageModel(**{**settings, **changes})


def reply(usage: Any, text: str = "A film.") -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({**json.loads(completion(text)), "usage": usage}).encode()


def sums(cache: TextCache) -> tuple[float, float, float]:
    """Settled, reserved, unknown; they come to what limits are compared with."""
    rows = cache.ledger.history()
    found = [sum(getattr(row, kind) or 0.0 for row in rows) for kind in ("settled", "reserved", "unknown")]
    assert sum(found) == pytest.approx(cache.spent())
    return found[0], found[1], found[2]


# The ways to cross a limit


def lost(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    raise ConnectionResetError


BEHAVIOURS: dict[str, Any] = {
    "no usage": lambda *_: reply(None),
    "broken usage": lambda *_: reply({"prompt_tokens": -7, "completion_tokens": 10.5}),
    "floats": lambda *_: reply({"prompt_tokens": 7.0, "completion_tokens": "10"}),
    "another spelling": lambda *_: reply({"input_tokens": 7, "output_tokens": 10}),
    "thinking": lambda *_: reply({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 17}),
    "lost on the way": lost,
    "nothing said, asked again": lambda *_: reply({"prompt_tokens": 7, "completion_tokens": 10}, ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_no_number_of_runs_crosses_the_limit_whatever_becomes_of_answers(
    cache: TextCache, prices: Prices, behaviour: str
) -> None:
    """Each run asks other prompts, and what failed again; what no prompt asks for any more is deleted."""
    with ChatServer(BEHAVIOURS[behaviour]) as server:
        limited = 0
        for run in range(12):
            asked = prompts(5, f"{run // 3} about {{}}")
            try:
                generate(asked, cache, model(server, max_cost=0.4), key=KEY, prices=prices, retry_failed=True)
            except LimitReached:
                limited += 1
            cache.prune()
        assert limited > 0
        charged = len(server.requests) * (7 * 1000 + 10 * 2000) / 1e6
    assert 0.1 < charged <= cache.spent() + 1e-9 <= 0.4 + 1e-9 and sum(sums(cache)) > 0


def test_what_is_sent_decides_what_is_reserved(cache: TextCache, prices: Prices) -> None:
    """Not `max_tokens` of the settings, if another goes with the request; schemas are read by the model, too."""

    def long(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return reply({"prompt_tokens": len(json.dumps(request)), "completion_tokens": request["max_tokens"]}, "{}")

    schema = SCHEMA | {"description": "words " * 100}
    asked = [replace(prompt, schema=schema) for prompt in prompts(50)]
    with ChatServer(long) as server:
        settings = model(server, max_cost=10.0, extra={"max_tokens": 500}, concurrency=8)
        with pytest.raises(LimitReached):
            generate(asked, cache, settings, key=KEY, prices=prices)
    assert 5.0 < len(server.requests) * 1.7 < 10.0 and cache.spent() <= 10.0


def test_a_limit_needs_a_bound_of_the_answers_length() -> None:
    with pytest.raises(ConfigError, match=r"max_cost needs to know how long.*max_completion_tokens = 512"):
        LanguageModel(max_cost=1.0, omit=("max_tokens",))
    LanguageModel(max_cost=1.0, omit=("max_tokens",), extra={"max_completion_tokens": 9})
    LanguageModel(omit=("max_tokens",))


def test_thinking_that_nothing_bounds_is_reserved_after_the_first_answer(cache: TextCache, prices: Prices) -> None:
    with ChatServer(lambda *_: reply({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 507})) as server:
        with pytest.raises(LimitReached):
            generate(prompts(50), cache, model(server, max_cost=10.0, concurrency=8), key=KEY, prices=prices)
        assert len(server.requests) == 9, "at 1.007 each"
        with pytest.raises(LimitReached):
            generate(prompts(60), cache, model(server, max_cost=10.0), key=KEY, prices=prices)
        assert len(server.requests) == 9 and cache.spent() <= 10.0


def test_what_is_on_its_way_when_an_answer_shows_what_it_may_cost_counts_as_much(
    where: Path | str, prices: Prices
) -> None:
    """Two requests go alone first, and the second comes back when all others could have been reserved."""

    def slow(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if request["messages"][0]["content"] == "entity 1":
            time.sleep(1.5)
        return reply({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 507})

    with ChatServer(slow) as server, TextCache(where) as cache:
        with pytest.raises(LimitReached):
            generate(prompts(50), cache, model(server, max_cost=10.0, concurrency=8), key=KEY, prices=prices)
        assert len(server.requests) == 9 and cache.spent() == pytest.approx(9 * 1.007)


def test_a_batch_on_its_way_counts_by_what_was_reserved_for_it(cache: TextCache, prices: Prices) -> None:
    with OpenAIServer(batches=BatchServer(polls=10**6)) as server:
        settings = model(server, max_cost=0.4, max_tokens=100)
        with pytest.raises(LimitReached):
            generate_batches(prompts(50), cache, settings, key=KEY, prices=prices, wait=False)
        (made,) = server.batches.batches.values()
        count = len(server.batches.requests(made))
        assert count > 1 and sums(cache) == (0.0, pytest.approx(cache.spent()), 0.0)
        with pytest.raises(LimitReached, match=r"\$0.0\d* are spent and \$0.[23]\d* reserved \(see kar-aug cost\)"):
            generate(prompts(99), cache, model(server, max_cost=0.4, max_tokens=1), key=KEY, prices=prices)
        online = len(server.chat.requests)
        assert count * (7 + 200) / 2000 + online * 0.009 <= cache.spent() <= 0.4
        server.batches.polls = 0
        generate_batches(prompts(count), cache, model(server, max_tokens=100), key=KEY, prices=prices)
    assert sums(cache) == (pytest.approx(count * 0.0065 + online * 0.013), 0.0, 0.0), "it was collected, and is settled"


def misfits(requests: list[Line]) -> Outcome:
    return "completed", [answered(request, "no JSON") for request in requests], []


def expires(requests: list[Line]) -> Outcome:
    return "expired", [answered(request) for request in requests[:2]], []


@pytest.mark.parametrize(("outcome", "schema", "more"), [(misfits, SCHEMA, 0.4), (expires, None, 0.07)])
def test_what_a_batch_asks_again_is_within_the_limits(
    cache: TextCache,
    prices: Prices,
    outcome: Callable[[list[Line]], Outcome],
    schema: dict[str, Any] | None,
    more: float,
) -> None:
    asked = [replace(prompt, schema=schema) for prompt in prompts(8)]
    with BatchServer(outcome) as server:
        settings = model(server, max_requests=10)
        with pytest.raises(LimitReached, match="--max-requests 10"):
            generate_batches(asked, cache, settings, key=KEY, prices=prices, poll_seconds=0.01)
        assert sum(len(server.requests(made)) for made in server.batches.values()) == 10
        spent = cache.spent()
        settings = model(server, max_cost=spent + more)
        with pytest.raises(LimitReached, match="--max-cost"):
            generate_batches(asked, cache, settings, key=KEY, prices=prices, poll_seconds=0.01)
        charged = sum(server.charged.values())
    assert charged * 0.0065 == pytest.approx(cache.spent()), "what expired was not charged"
    assert spent < cache.spent() <= spent + more and BatchBook(cache).batches() == []


def test_a_batch_that_left_requests_without_a_word_counts_at_its_most(cache: TextCache, prices: Prices) -> None:
    with BatchServer(lambda requests: ("completed", [answered(requests[0])], [])) as server:
        generate_batches(prompts(2), cache, model(server), key=KEY, prices=prices, poll_seconds=0.01)
    settled, reserved, unknown = sums(cache)
    rounds = sum(len(server.requests(made)) for made in server.batches.values()) - len(server.charged)
    assert settled == pytest.approx(0.0065 * 2) and reserved == 0.0 and (unknown > 0) == (rounds > 0)


# Processes


def test_a_job_waits_for_what_others_may_not_need_and_not_for_the_dead(where: Path | str) -> None:
    with TextCache(where) as cache, Claims(cache) as claims, Claims(cache) as other:
        orders = [Order(key, "m", 0.9) for key in ("a", "b", "c")]
        claims.claim(["a", "c"])
        other.claim(["b"])

        def reserve(by: Claims, order: Order) -> Any:
            with cache.database.writing() as connection:
                return by.reserve(connection, [order], 1.0)

        assert reserve(claims, orders[0]).keys == {"a"}
        short = reserve(other, orders[1]).shortage
        assert (short.spent, short.reserved, short.most, short.waiting) == (0.0, 0.9, 0.9, True)
        cache.put_many([(Answer("a", "ok", "x", "m", [], 7, 3, cost=0.05), ())], owner=claims.owner)
        assert reserve(other, orders[1]).keys == {"b"} and cache.spent() == pytest.approx(0.95)

        done = subprocess.Popen([sys.executable, "-c", ""])
        done.wait()
        with cache.database.writing() as connection:
            connection.execute(
                sa.update(tables.workers).where(tables.workers.c.owner == other.owner).values(pid=done.pid)
            )
        assert not reserve(claims, orders[2]).shortage.waiting
        assert sums(cache) == (pytest.approx(0.05), 0.0, pytest.approx(0.9)), "a dead one's counts at its most"
        cache.put_many([(Answer("b", "ok", "x", "m", [], 7, 3, cost=0.05), ())], owner=other.owner)
        assert sums(cache) == (pytest.approx(0.1), 0.0, 0.0), "unless its answer comes after all"


@pytest.mark.parametrize(("where", "jobs"), [("sqlite", 8), ("postgresql", 3)], indirect=["where"])
def test_jobs_side_by_side_a_running_batch_and_kills_stay_within_the_limit(
    nursery: Jobs, where: Path | str, jobs: int
) -> None:
    settings: dict[str, Any] = {"model": "gpt-4o-mini", "max_tokens": 16, "max_cost": 0.001}
    with OpenAIServer(chat=ChatServer(latency=0.05), batches=BatchServer(polls=10**6)) as server:
        batch = nursery.start(where, server.base_url, 20, batches={"wait": False}, **settings)
        assert batch.wait() == 0, batch.output
        running = [nursery.start(where, server.base_url, 3000, **settings) for _ in range(jobs)]
        for number in range(3):
            while server.chat.answered < 20 * (number + 1):
                time.sleep(0.01)
            running.pop(0).send(signal.SIGKILL)
        running.append(nursery.start(where, server.base_url, 3000, **settings))
        assert {job.wait() for job in running} == {2}, [job.output for job in running]
        assert all("Stopped at --max-cost 0.001" in job.output for job in running)
        each = Prices().of("gpt-4o-mini").of(7, 3)  # type: ignore[union-attr]
        charged = len(server.chat.requests) * each + 20 * each / 2
    with TextCache(where) as cache:
        settled, reserved, unknown = sums(cache)
    assert charged <= settled + reserved + unknown <= 0.001 + 1e-9
    assert reserved > 0 and unknown > 0 and charged > 0.0005, "it is used, too"


# Older caches

VERSION_2 = Path(__file__).parent / "data" / "answers-format-2.sql"


def test_a_cache_of_format_2_brings_its_spending_and_its_batch(
    tmp_path: Path, prices: Prices, chat_server: ChatServer
) -> None:
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_2.read_text())
        made = request_of(Question.of(model(chat_server), next(prompts(1))))
        database.execute("UPDATE batch_requests SET key = ?, question = ?", (made.key, json.dumps(made.question)))
    database.close()
    for _ in range(2):
        with TextCache(path) as cache:
            assert sums(cache) == (pytest.approx(0.75), 0.0, 0.0)
            (row,) = cache.ledger.history()
            assert row[:6] == ("2026-01-02", "test-model", "item:tags", 2, 14, 6)
    with TextCache(path) as cache:
        with pytest.raises(LimitReached):
            generate(prompts(9), cache, model(chat_server, max_cost=0.76), key=KEY, prices=prices)
        assert sums(cache)[1] == pytest.approx((8 + 4 + 3 + 6 + 2 * 10) / 2000), "at half the price, as batches are"


def test_a_shared_cache_of_format_2_is_brought_up_to_date_too(postgresql: str) -> None:
    with TextCache(postgresql) as cache:
        cache.put(Answer("k", "ok", "A film.", "m", [], 7, 3, cost=0.5), [Link("item", 1, "k", "v1")])
    with psycopg.connect(postgresql) as connection:
        for statement in (b"DROP TABLE ledger, accounts", b"ALTER TABLE workers DROP COLUMN started"):
            connection.execute(statement)
        connection.execute(b"UPDATE kar_aug SET version = 2")
    for _ in range(2):
        with TextCache(postgresql) as cache, Claims(cache) as claims:
            assert sums(cache) == (0.5, 0.0, 0.0) and claims.claim(["a"]) == {"a"}


# Money that nothing is waiting for


def test_refusals_that_are_held_back_hold_no_money(cache: TextCache, prices: Prices) -> None:
    """Or the next question waits for them, and they for its answer."""

    def mostly(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        is_refused = number % 3 > 0
        return (422, {}, b'{"detail": "no"}') if is_refused else reply({"prompt_tokens": 7, "completion_tokens": 1})

    most = 0.08  # of one request: some more than its 10 tokens of answer and 40 of prompt
    with ChatServer(mostly) as server:
        done = generate(prompts(9), cache, model(server, max_cost=2.5 * most, concurrency=1), key=KEY, prices=prices)
    assert (done.asked, done.failed) == (3, 6) and sums(cache) == (pytest.approx(3 * 0.009), 0.0, 0.0)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_question_that_is_reserved_is_sent_before_one_that_is_short_of_money(
    cache: TextCache, prices: Prices, concurrency: int
) -> None:
    """A slot has the next question when it is to ask for an answer that fits: the latter costs more."""
    asked = [replace(prompt, schema=SCHEMA) for prompt in prompts(20)]
    with ChatServer(lambda *_: reply({"prompt_tokens": 7, "completion_tokens": 10}, "No JSON.")) as server:
        settings = model(server, max_cost=0.6, concurrency=concurrency)
        with pytest.raises(LimitReached):
            generate(asked, cache, settings, key=KEY, prices=prices)
    charged = len(server.requests) * 0.027
    assert sums(cache) == (pytest.approx(charged), 0.0, 0.0) and 0.05 < charged <= 0.6


def test_the_ledger_costs_no_commit_of_its_own(cache: TextCache, prices: Prices) -> None:
    """What the next request can cost is reserved in the commit of the answer before it: one wait for the disk each."""
    commits = 0

    def count(connection: sa.Connection) -> None:
        nonlocal commits
        commits += not connection.get_execution_options().get("reading")

    sa.event.listen(sa.Engine, "commit", count)
    try:
        with ChatServer() as server:
            done = generate(prompts(40), cache, model(server, max_cost=9.0, concurrency=1), key=KEY, prices=prices)
    finally:
        sa.event.remove(sa.Engine, "commit", count)
    assert done.asked == 40 <= commits <= 40 + 5, "the first reservation, the claims, and that the process is there"
