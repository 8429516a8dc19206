"""Several processes on one cache ask no question twice, whoever of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.jobs import Jobs, prompts

from kar_aug.cache import Answer, BatchBook, Claims, Link, Request, TextCache
from kar_aug.cache.texts import claims as module
from kar_aug.cache.texts import tables, workers
from kar_aug.config import LanguageModel
from kar_aug.generate import generate, question_key
from kar_aug.generate.limits import slots_for
from kar_aug.generate.questions import Question, request_of
from kar_aug.testing import ChatServer, echo


@pytest.fixture
def cache(where: Path | str) -> TextCache:
    return TextCache(where)


def answer(key: str, status: str = "ok") -> Answer:
    return Answer(key, status, "A film.", "m", [])


def asked(server: ChatServer) -> Counter[str]:
    return Counter(request["messages"][-1]["content"] for request in server.requests)


def test_a_question_is_claimed_once_and_freed_with_its_process(cache: TextCache) -> None:
    with Claims(cache) as one, Claims(cache) as other:
        assert one.claim(["a", "b"]) == {"a", "b"} == one.claim(["a", "b"])
        assert other.claim(["b", "c"]) == {"c"}
        one.release(["b"])
        assert other.claim(["a", "b"]) == {"b"}
    with Claims(cache) as third:
        assert third.claim(["a", "b", "c"]) == {"a", "b", "c"}


def test_what_is_answered_or_in_a_batch_cannot_be_claimed(cache: TextCache) -> None:
    with Claims(cache) as claims, Claims(cache) as other:
        claims.claim(["a", "b", "c"])
        cache.put(answer("a", "empty"))
        BatchBook(cache).prepare([Request("b", {}, (Link("item", 1, "b", "v1"),))], None)
        cache.fail("c", "why", 1)
        for each in (claims, other):
            assert each.claim(["a", "b"]) == set() and each.claim(["a"], again=["a"]) == {"a"}
            each.release(["a"])
        assert other.claim(["a", "b", "c"]) == {"c"}, "what failed may be tried by another process"


def test_threads_that_claim_at_once_share_without_overlap(where: Path | str) -> None:
    keys = [f"{number:032x}" for number in range(200)]
    TextCache(where).close()
    barrier = threading.Barrier(4)

    def claim(offset: int) -> set[str]:
        with TextCache(where) as cache, Claims(cache) as claims:
            barrier.wait()
            mine: set[str] = set()
            for start in range(0, 200, 20):
                mine |= claims.claim([keys[(start + offset + i) % 200] for i in range(40)])
            barrier.wait()
            return mine

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(claim, (0, 50, 100, 150)))
    assert sum(map(len, parts)) == 200 and set.union(*parts) == set(keys)


def test_a_process_that_is_gone_loses_its_claims_at_once(cache: TextCache) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with Claims(cache) as lost, Claims(cache) as claims:
        lost.claim(["a"])
        set_worker(cache, lost, pid=done.pid)
        assert claims.claim(["a"]) == {"a"}


def test_a_stopped_process_of_this_machine_keeps_its_claims_and_one_with_its_id_does_not(cache: TextCache) -> None:
    """Ctrl-Z: it says nothing for hours. What has its id after it is told apart by the moment of its start."""
    with Claims(cache) as stopped, Claims(cache) as claims:
        stopped.claim(["a"])
        set_worker(cache, stopped, seen=0.0)
        assert claims.claim(["a"]) == set()
        set_worker(cache, stopped, started="another")
        assert claims.claim(["a"]) == {"a"}


def test_a_child_that_nobody_waited_for_is_gone(cache: TextCache) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as done, Claims(cache) as lost, Claims(cache) as claims:
        os.waitid(os.P_PID, done.pid, os.WEXITED | os.WNOWAIT)
        lost.claim(["a"])
        set_worker(cache, lost, pid=done.pid, started="then")
        assert claims.claim(["a"]) == {"a"}


def test_no_clock_of_a_machine_decides(where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two machines is two minutes ahead."""
    with TextCache(where) as cache, Claims(cache) as there, Claims(cache) as claims:
        there.claim(["a"])
        set_worker(cache, there, host="another machine", pid=1)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 120)
        assert claims.claim(["a"]) == set()
        claims._beat()
        set_worker(cache, claims, host="this machine")
        assert there.claim(["b"]) == {"b"} and claims.claim(["c"]) == {"c"} and there.claim(["c"]) == set()


def test_what_others_took_while_a_job_slept_it_does_not_send(cache: TextCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it sleeps with two requests in flight, another machine holds it for dead, takes its questions, and answers
    them."""
    slept = [0.0]
    for name in ("kar_aug.cache.texts.claims", "kar_aug.generate.job"):
        monkeypatch.setattr(f"{name}.awake", lambda: time.monotonic() + slept[0])
    wanted = {question_key(LanguageModel("test-model"), prompt): prompt for prompt in prompts(12)}
    other = Claims(cache)
    taken: set[str] = set()

    def sleeps(server: ChatServer, request: dict[str, object], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 2:
            with cache.database.writing() as connection:
                connection.execute(sa.delete(tables.workers).where(tables.workers.c.owner != other.owner))
            taken.update(other.claim(wanted.keys()))
            slept[0] = 100.0
        return echo(server, request, number)

    with ChatServer(sleeps, latency=0.1) as server, other, ThreadPoolExecutor(1) as pool:
        model = LanguageModel("test-model", server.base_url, concurrency=2)
        job = pool.submit(generate, prompts(12), cache, model, key="k")
        until = time.monotonic() + 20
        while not slept[0] and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(1.0)
        sent = {request["messages"][0]["content"] for request in server.requests}
        cache.put_many([(answer(key), [Link("item", wanted[key].entity_id, key, "v1")]) for key in taken])
        done = job.result(timeout=30)
    # Those in flight when they were taken, and what a slot sends before the clock says that it slept.
    both = sent & {f"entity {wanted[key].entity_id}" for key in taken}
    assert len(taken) >= 8 and len(both) <= slots_for(2)
    assert len(sent) == len(server.requests) and done.asked + done.cached == 12 == cache.count_linked("item")


def test_a_process_elsewhere_keeps_its_claims_while_it_speaks(cache: TextCache) -> None:
    with Claims(cache) as there, Claims(cache) as claims:
        there.claim(["a"])
        set_worker(cache, there, host="another machine", pid=1)
        assert claims.claim(["a"]) == set()
        set_worker(cache, there, seen=cache.database.clock - workers.SILENT_SECONDS - 1)
        assert claims.claim(["a"]) == {"a"}


def test_a_process_id_of_another_container_is_nobody_here(cache: TextCache) -> None:
    """Containers may share a name and count processes apart: only silence tells."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with Claims(cache) as there, Claims(cache) as claims:
        there.claim(["a"])
        host = workers.here()
        assert host.split()[0] == os.uname().nodename and "pid:" in host
        set_worker(cache, there, host=host.split()[0] + " pid:[1]", pid=done.pid)
        assert claims.claim(["a"]) == set()


def test_a_process_says_that_it_lives_whatever_it_waits_for(cache: TextCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEAT_SECONDS", 0.05)
    with Claims(cache) as claims, Claims(cache) as other:
        claims.claim(["a"])
        set_worker(cache, claims, seen=0.0)
        until = time.monotonic() + 10
        while seen(cache, claims) == 0.0 and time.monotonic() < until:
            time.sleep(0.02)
        assert other.claim(["a"]) == set()
        with cache.database.writing() as connection:  # it slept so long that others held it for dead
            connection.execute(sa.delete(tables.workers))
        while not seen(cache, claims) and time.monotonic() < until:
            time.sleep(0.02)
        assert claims.claim(["b"]) == {"b"} and other.claim(["b"]) == set(), "it can claim again"


def set_worker(cache: TextCache, claims: Claims, **values: object) -> None:
    with cache.database.writing() as connection:
        connection.execute(sa.update(tables.workers).where(tables.workers.c.owner == claims.owner).values(values))


def seen(cache: TextCache, claims: Claims) -> float:
    with cache.database.reading() as connection:
        found = connection.execute(sa.select(tables.workers.c.seen).where(tables.workers.c.owner == claims.owner))
        return found.scalar() or 0.0


def test_two_processes_at_once_ask_every_question_once_and_both_end_complete(nursery: Jobs, where: Path | str) -> None:
    with ChatServer(latency=0.01) as server:
        jobs = [nursery.start(where, server.base_url, 600) for _ in range(2)]
        assert [job.wait() for job in jobs] == [0, 0], [job.output for job in jobs]
        assert asked(server) == Counter(f"entity {i}" for i in range(600))
    words = [job.output.split() for job in jobs]
    assert sum(int(line[0]) for line in words) == 600 and min(int(line[0]) for line in words) > 0
    assert [int(line[0]) + int(line[2]) for line in words] == [600, 600], "each says that all are answered"


def test_when_one_of_two_is_killed_the_other_takes_over_its_questions(nursery: Jobs, where: Path | str) -> None:
    with ChatServer(latency=0.02) as server:
        killed, other = (nursery.start(where, server.base_url, 500) for _ in range(2))
        while server.answered < 150:
            time.sleep(0.01)
        killed.send(signal.SIGKILL)
        killed.wait()
        assert other.wait() == 0, other.output
        counts = asked(server)
    assert counts.keys() == {f"entity {i}" for i in range(500)}
    assert sum(counts.values()) <= 500 + slots_for(4), "only what slots of the killed one had asked is asked again"
    with TextCache(where) as cache:
        assert cache.count_linked("item") == 500


def test_questions_in_a_batch_are_left_to_it(chat_server: ChatServer, cache: TextCache) -> None:
    model = LanguageModel("test-model", chat_server.base_url)
    wanted = list(prompts(3))
    BatchBook(cache).prepare([request_of(Question.of(model, wanted[1]))], None)
    done = generate(wanted, cache, model, key="k")
    assert (done.asked, done.elsewhere, chat_server.answered) == (2, 1, 2)
    assert "1 in batches that run" in str(done)
