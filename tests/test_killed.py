"""Killed, interrupted, or out of disk: the job loses no answer that came, and pays at most for what was in flight."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.jobs import Jobs

from kar_aug.cache import TextCache, answer_key
from kar_aug.cache.texts.spilt import import_spilt
from kar_aug.generate.limits import slots_for
from kar_aug.testing import ChatServer


def wait_for_more(server: ChatServer, count: int) -> None:
    enough, deadline = server.answered + count, time.monotonic() + 30
    while server.answered < enough and time.monotonic() < deadline:
        time.sleep(0.005)


def check_answers(where: Path | str, count: int) -> None:
    """Every entity has its own answer, and every answer is what the server gave to the question it is stored under."""
    with TextCache(where) as cache:
        assert {k.entity_id: k.text for k in cache.knowledge("item")} == {i: f"About: entity {i}" for i in range(count)}
        for answer in cache.answers():
            assert answer.parameters is not None
            assert answer.key == answer_key(answer.model, answer.messages, answer.parameters)
            assert json.loads(answer.raw)["choices"][0]["message"]["content"] == answer.text
        assert cache.counts()["ok"] == count
        assert cache.database.check() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count", "kills"), [("sqlite", 1200, 20), ("postgresql", 500, 5)], indirect=["where"]
)
def test_killed_at_any_moment_it_loses_at_most_what_was_in_flight(
    nursery: Jobs, where: Path | str, count: int, kills: int
) -> None:
    draw, concurrency = random.Random(0), 8
    in_the_middle = 0
    with ChatServer(latency=0.04) as server:
        for _ in range(kills):
            job = nursery.start(where, server.base_url, count, concurrency=concurrency)
            before = server.answered
            wait_for_more(server, draw.randint(0, 60))  # not for a time: how much is done in it depends on the machine
            time.sleep(draw.uniform(0, 0.1))
            job.send(signal.SIGKILL)
            assert job.wait() == -signal.SIGKILL, job.output
            in_the_middle += before < server.answered < count
        assert in_the_middle > kills / 2, "the job was not killed at work"
        job = nursery.start(where, server.base_url, count, concurrency=concurrency)
        assert job.wait() == 0, job.output
        assert count <= server.answered <= count + kills * slots_for(concurrency)
    check_answers(where, count)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_drains_what_is_in_flight_and_says_where_it_stands(
    nursery: Jobs, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "answers.sqlite"
    with ChatServer(latency=0.1) as server:
        job = nursery.start(path, server.base_url, 400)
        wait_for_more(server, 20)
        job.send(number)
        assert job.wait() == 130, job.output
        with TextCache(path) as cache:
            assert cache.counts()["ok"] == server.answered == len(server.requests) < 400
        assert job.output.startswith(f"{server.answered} asked")


def test_an_interrupt_while_the_server_asks_to_wait_ends_the_job_at_once(nursery: Jobs, tmp_path: Path) -> None:
    with ChatServer(lambda server, request, number: (429, {"Retry-After": "300"}, b"{}")) as server:
        job = nursery.start(tmp_path / "answers.sqlite", server.base_url, 400)
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.2)
        job.send(signal.SIGINT)
        started = time.monotonic()
        assert job.wait() == 130 and time.monotonic() - started < 20


def test_a_second_interrupt_does_not_wait_for_the_server(nursery: Jobs, tmp_path: Path) -> None:
    with ChatServer(latency=60) as server:
        job = nursery.start(tmp_path / "answers.sqlite", server.base_url, 400)
        while not server.requests:
            time.sleep(0.01)
        job.send(signal.SIGINT)
        time.sleep(0.3)
        job.send(signal.SIGINT)
        started = time.monotonic()
        assert job.wait() == 130 and time.monotonic() - started < 20, job.output


def test_ctrl_c_waits_for_no_answer_that_costs_nothing(nursery: Jobs, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with ChatServer() as server:
        assert nursery.start(path, server.base_url, 5).wait() == 0
    with ChatServer(latency=60) as server:
        job = nursery.start(path, server.base_url, 300, costs_nothing=True)
        while not server.requests:
            time.sleep(0.01)
        job.send(signal.SIGINT)
        started = time.monotonic()
        assert job.wait() == 130 and time.monotonic() - started < 20, job.output
    note, stopped = job.output.splitlines()
    assert note == "Stopping ..." and stopped.startswith("0 asked, 5 "), "of those there were"
    with TextCache(path) as cache:
        assert all(not row.unknown and not row.reserved for row in cache.ledger.history())


def test_a_full_disk_is_one_clear_line_and_loses_no_stored_answer(nursery: Jobs, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"

    def long(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        text = "About: " + request["messages"][-1]["content"] + random.Random(number).randbytes(3000).hex()
        message = {"role": "assistant", "content": text}
        return 200, {}, json.dumps({"choices": [{"finish_reason": "stop", "message": message}]}).encode()

    with ChatServer(long) as server:
        job = nursery.start(path, server.base_url, 400, most_bytes=700_000, give_up_after=1)
        assert job.wait() == 2
        *waited, last = job.output.splitlines()
        assert all("Trying again for" in line for line in waited) and waited, job.output
        assert "answers.sqlite cannot be read or written" in last and "Nothing stored before is lost" in last
        spilt = next(tmp_path.glob("answers-not-stored-*.jsonl"))
        assert f"kar-aug cache import {spilt}" in last
        with TextCache(path) as cache:
            stored = cache.counts()["ok"]
            assert 10 < stored < server.answered < 400
            brought = import_spilt(spilt, cache)
            assert brought.new == server.answered - stored, "what was not stored is in the file"
        before = server.answered
        job = nursery.start(path, server.base_url, 400)
        assert job.wait() == 0, job.output
        assert before < server.answered == 400, "nothing is asked twice"
    with TextCache(path) as cache:
        texts = {k.entity_id: k.text for k in cache.knowledge("item")}
        assert all(json.loads(a.raw)["choices"][0]["message"]["content"] == a.text for a in cache.answers())
    assert len(texts) == 400 and all(text.startswith(f"About: entity {i}") for i, text in texts.items())
