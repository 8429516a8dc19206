"""Requests and tokens a minute, requests and dollars in all: measured at the server and at the bill."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from support.jobs import KEY, prompts

from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, LimitReached
from kar_aug.generate import Prices, Progress, generate
from kar_aug.generate.cost import most_tokens
from kar_aug.generate.limits import Gate
from kar_aug.testing import ChatServer, completion, echo

PRICES = """
[models]
"test-model" = { prompt = 1000.0, completion = 2000.0, cached = 100.0 }
"""  # a thousandth of a dollar a prompt token


pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def prices(tmp_path: Path) -> Prices:
    (tmp_path / "prices.toml").write_text(PRICES)
    return Prices(tmp_path / "prices.toml")


def ask(
    server: ChatServer, cache: TextCache, count: int, prices: Prices | None = None, first: int = 0, **changes: Any
) -> Progress:
    model = LanguageModel(
        **{"model": "test-model", "base_url": server.base_url, "concurrency": 8, "max_tokens": 10, **changes}
    )
    wanted = [prompt for prompt in prompts(count + first) if int(prompt.entity_id) >= first]
    return generate(wanted, cache, model, key=KEY, prices=prices)


class Clock:
    """Notes when requests come."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        self.times.append(time.monotonic())
        return echo(server, request, number)


# Rates


def test_requests_a_minute_are_spread_evenly(cache: TextCache) -> None:
    clock = Clock()
    with ChatServer(clock) as server:
        ask(server, cache, 21, rpm=1200)  # one in 50 ms
    took = clock.times[-1] - clock.times[0]
    assert 0.95 <= took < 5, "twenty pauses of 50 ms"
    assert all(sum(at <= other < at + 0.25 for other in clock.times) <= 5 + 4 for at in clock.times), "no bursts"


def test_tokens_a_minute_count_what_was_used_and_not_what_could_have_been(cache: TextCache) -> None:
    """Requests are let in with what they may use, 1,000 tokens and more; the server says that they used ten."""
    clock = Clock()
    with ChatServer(clock) as server:
        ask(server, cache, 41, tpm=24_000, max_tokens=1000, concurrency=1)  # ten tokens in 25 ms
    took = clock.times[-1] - clock.times[0]
    assert 0.8 <= took < 6


def test_tokens_that_may_be_used_hold_back_what_is_in_flight(cache: TextCache) -> None:
    clock = Clock()
    with ChatServer(clock, latency=1.5) as server, pytest.raises(LimitReached):
        ask(server, cache, 4, tpm=60_000, max_tokens=990, concurrency=2, max_requests=2)
    assert clock.times[1] - clock.times[0] >= 0.95, "a thousand tokens a second, a thousand a request"


def test_a_cool_down_binds_requests_that_wait_for_their_turn() -> None:
    async def run() -> list[float]:
        gate = Gate(8, rpm=600)
        await gate.succeeded()
        entered: list[float] = []

        async def enter() -> None:
            await gate.enter(1)
            entered.append(time.monotonic())

        tasks = [asyncio.create_task(enter()) for _ in range(6)]
        await asyncio.sleep(0.15)  # one or two are let through; the others wait for theirs
        gate.hold(0.8)
        held = time.monotonic()
        await asyncio.gather(*tasks)
        return [at - held for at in entered]

    after = [at for at in asyncio.run(run()) if at > 0]
    assert len(after) >= 4 and min(after) >= 0.8
    assert max(after) - min(after) >= 0.25, "and they are spread again"


def test_concurrency_starts_with_two_and_falls_and_rises() -> None:
    async def run() -> list[int]:
        gate = Gate(16)
        seen = [gate.concurrency]
        await gate.succeeded()
        seen.append(gate.concurrency)
        for _ in range(3):  # of the same moment: one event
            gate.hold(0.01)
        seen.append(gate.concurrency)
        await asyncio.sleep(0.02)
        gate.hold(None)
        seen.append(gate.concurrency)
        for _ in range(4):
            await gate.succeeded()
        seen.append(gate.concurrency)
        return seen

    assert asyncio.run(run()) == [2, 16, 8, 4, 4]


def test_a_waiting_slot_is_let_in_when_another_leaves_and_never_one_too_many() -> None:
    async def run() -> int:
        gate = Gate(3)
        await gate.succeeded()
        inside = most = 0

        async def slot() -> None:
            nonlocal inside, most
            for _ in range(20):
                await gate.enter(1)
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1
                await gate.leave(1, 1)

        async with asyncio.timeout(20):
            await asyncio.gather(*(slot() for _ in range(10)))
        return most

    assert asyncio.run(run()) == 3


# Requests


def test_max_requests_stops_the_run_and_the_next_one_goes_on(chat_server: ChatServer, cache: TextCache) -> None:
    for run in range(1, 4):
        with pytest.raises(LimitReached, match="Stopped at --max-requests 7: run the same command to go on"):
            ask(chat_server, cache, 30, max_requests=7)
        assert len(chat_server.requests) == 7 * run == cache.counts()["ok"]
    assert ask(chat_server, cache, 30, max_requests=9).asked == 9, "exactly as many as are left"


def test_retries_are_requests_too(cache: TextCache) -> None:
    with ChatServer(lambda server, request, number: (500, {}, b"{}")) as server:
        with pytest.raises(LimitReached):
            ask(server, cache, 30, max_requests=7)
        assert len(server.requests) == 7


# Money


def most_cost(entity: int) -> float:
    return (most_tokens([{"role": "user", "content": f"entity {entity}"}]) + 2 * 10) * 1e-3


def test_max_cost_is_never_crossed_earlier_runs_included(cache: TextCache, prices: Prices) -> None:
    """An answer costs 7 + 2 * 3 thousandths; at most it could cost more."""
    with ChatServer(latency=0.01) as server:
        with pytest.raises(LimitReached, match=r"Stopped at --max-cost 0.2: \$0\.\d{4} are spent.*Raise it"):
            ask(server, cache, 100, prices, max_cost=0.2)
        spent = cache.spent("test-model")
        assert spent == pytest.approx(0.013 * server.answered)
        assert 0.2 - most_cost(99) < spent <= 0.2, "it goes as near as it can"
        with pytest.raises(LimitReached):
            ask(server, cache, 100, prices, max_cost=0.2)
        assert cache.spent() == pytest.approx(spent), "a second run finds it spent"
        with pytest.raises(LimitReached):
            ask(server, cache, 100, prices, max_cost=0.3)
        assert 0.3 - most_cost(99) < cache.spent() <= 0.3
        assert server.answered == cache.counts()["ok"]


def test_another_models_answers_are_not_counted(chat_server: ChatServer, cache: TextCache, prices: Prices) -> None:
    ask(chat_server, cache, 5, prices, max_cost=1)
    (Path(cache.name).parent / "other.toml").write_text(PRICES.replace("test-model", "other"))
    other = Prices(Path(cache.name).parent / "other.toml")
    assert ask(chat_server, cache, 5, other, model="other", max_cost=0.1).asked == 5
    assert [(row[0], row[2], round(row[5] or 0, 6)) for row in cache.usage()] == [
        ("other", 5, 0.065),
        ("test-model", 5, 0.065),
    ]


def test_a_request_that_was_lost_may_have_been_charged(cache: TextCache, prices: Prices) -> None:
    def lost(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        raise ConnectionResetError

    with ChatServer(lost) as server:
        with pytest.raises(LimitReached, match="Stopped at --max-cost"):
            ask(server, cache, 100, prices, max_cost=0.2)
        assert len(server.requests) <= 0.2 / most_cost(0) + 1


def test_a_limit_on_cost_needs_a_price(chat_server: ChatServer, cache: TextCache) -> None:
    with pytest.raises(GenerationError, match=r"--max-cost needs the price of 'test-model'.*prices = "):
        ask(chat_server, cache, 1, max_cost=1)
    assert chat_server.requests == []
    ask(chat_server, cache, 1)
    assert [answer.cost for answer in cache.answers()] == [None], "unknown is not free"


def test_usage_and_cost_are_stored_per_answer_and_summed(cache: TextCache, prices: Prices) -> None:
    def cached_prefix(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        body = completion("A film.", model="test-model", tokens=(7, 3))
        return (
            200,
            {},
            body.replace(b'"prompt_tokens": 7', b'"prompt_tokens_details": {"cached_tokens": 4}, "prompt_tokens": 7'),
        )

    with ChatServer(cached_prefix) as server:
        done = ask(server, cache, 4, prices)
    each = (3 * 1000 + 4 * 100 + 3 * 2000) / 1e6
    assert [answer.cost for answer in cache.answers()] == pytest.approx([each] * 4)
    assert (done.prompt_tokens, done.completion_tokens, done.cost) == (28, 12, pytest.approx(4 * each))
    assert cache.usage() == [("test-model", "", 4, 28, 12, pytest.approx(4 * each))]


@pytest.mark.parametrize(("given", "tier", "factor"), [(b'"flex"', "flex", 0.5), (b'"default"', "", 1)])
def test_flex_is_asked_for_and_charged_by_the_tier_that_answered(
    cache: TextCache, prices: Prices, given: bytes, tier: str, factor: float
) -> None:
    def answering(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return (
            200,
            {},
            completion("A film.", tokens=(7, 3)).replace(b'"object"', b'"service_tier": ' + given + b', "object"'),
        )

    with ChatServer(answering) as server:
        done = ask(server, cache, 2, prices, service_tier="flex")
        assert {request["service_tier"] for request in server.requests} == {"flex"}
        assert done.cost == pytest.approx(2 * 0.013 * factor) and cache.usage()[0][1] == tier
        ask(server, cache, 2, prices)
        assert len(server.requests) == 2, "the tier is no part of the question"
        with pytest.raises(LimitReached):
            ask(server, cache, 50, prices, service_tier="flex", max_cost=0.3)
    assert cache.spent() <= 0.3, "also where the server did not answer in the cheaper tier"


@pytest.mark.parametrize("said", [b'"service_tier": "priority", ', b""])
@pytest.mark.parametrize("asked", [{"service_tier": "priority"}, {"extra": {"service_tier": "priority"}}])
def test_a_dearer_tier_is_reckoned_with_before_it_is_asked_for_and_where_the_server_does_not_say_its_own(
    cache: TextCache, prices: Prices, asked: dict[str, Any], said: bytes
) -> None:
    def answering(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, completion("A film.", tokens=(7, 3)).replace(b'"object"', said + b'"object"')

    with ChatServer(answering) as server:
        assert ask(server, cache, 2, prices, **asked).cost == pytest.approx(2 * 0.013 * 2)
        with pytest.raises(LimitReached):
            ask(server, cache, 50, prices, **asked, max_cost=0.3)
        assert len(server.requests) * 0.013 * 2 <= 0.3


@pytest.mark.parametrize("usage", [b"null", b"[]", b'{"prompt_tokens": -1}', b'{"prompt_tokens": 1' + b"0" * 30 + b"}"])
def test_odd_usage_costs_no_answer(cache: TextCache, prices: Prices, usage: bytes) -> None:
    body = b'{"choices": [{"message": {"content": "A film."}, "finish_reason": "stop"}], "usage": ' + usage + b"}"
    with ChatServer(lambda server, request, number: (200, {}, body)) as server:
        assert ask(server, cache, 2, prices).asked == 2
    assert cache.counts()["prompt_tokens"] == 0
