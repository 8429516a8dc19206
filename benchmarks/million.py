"""A million of each on one machine: prompts asked through Ray, answered rows passed by, texts encoded through Ray.

    python benchmarks/million.py ask --rows 1000000
    python benchmarks/million.py skip --rows 10000000
    python benchmarks/million.py encode --rows 1000000

`ask` sets `kar-aug generate --engine ray` beside `kar-aug generate`, by CPU seconds of each kind of process, and prints
how their memory grows, what was lost and what was paid for twice. The server (`answering.py`) has latency and faults.
`skip` fills a cache and passes all of it by. `encode` compares the stores of one process and of Ray, byte for byte.
With the same `--folder`, `ask` goes on where it was stopped, and `skip` has its cache. Exit code 1 where a promise was
not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from answering import served
from rich.console import Console
from rich.table import Table
from scale import asking, cpu, fill, project, prompts

from kar_aug import Project, VectorStore
from kar_aug._helpers.batched import batched
from kar_aug.arrow import prompt_batch

IN_FLIGHT = 64
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TENTHS = (1, 5, 10)
console = Console(width=140)


# Processes


class Use(NamedTuple):
    """Of one process, up to now."""

    kind: str
    seconds: float  # of the processor
    bytes: int  # resident


class Meter:
    """What the processes of one session take, by kind, looked at each second while a command runs."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._last: dict[int, Use] = {}
        self.memory: list[dict[str, int]] = []  # the largest process of each kind, second by second

    def look(self) -> None:
        """Look at all processes once."""
        largest: dict[str, int] = defaultdict(int)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) != self._session:
                    continue
                pid, command = int(stat.parent.name), (stat.parent / "cmdline").read_bytes()
                # The dead have no command line until they are waited for; a worker is idle before it has its actor.
                if not command and pid not in self._last:
                    continue  # its whole life was between two looks
                kind = _kind(command) if command else self._last[pid].kind
                use = Use(kind, (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)
                self._last[pid] = use
                largest[kind] = max(largest[kind], use.bytes)
        self.memory.append(dict(largest))

    def seconds(self) -> dict[str, float]:
        """Of the processor, by kind."""
        found: dict[str, float] = defaultdict(float)
        for use in self._last.values():
            found[use.kind] += use.seconds
        return dict(found)


def _kind(command: bytes) -> str:
    if command.startswith((b"ray::MapWorker", b"ray::_EncoderActor")):
        return "workers"
    return "driver" if b"kar_aug" in command.split(b"\0")[:3] else "Ray itself"


def metered(command: list[str], log: Path) -> tuple[Meter, float, int]:
    """What a command took: its processes, seconds by the clock, its exit code."""
    began = time.monotonic()
    with log.open("ab") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "kar_aug", *command],
            env=os.environ | {"OPENAI_API_KEY": "k"}, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
        meter = Meter(run.pid)
        while run.poll() is None:
            meter.look()
            time.sleep(1)
    return meter, time.monotonic() - began, run.returncode


# Asking


class Asked(NamedTuple):
    """What a run of `generate` came to."""

    way: str
    rows: int  # answered in it: fewer than there are, where it went on from another
    meter: Meter
    clock: float
    lost: int
    twice: int

    def rate(self, *kinds: str) -> float:
        """Prompts a second of the processor of these kinds of processes; of all of them, if none is named."""
        took = self.meter.seconds()
        return self.rows / sum(took[kind] for kind in kinds or took if kind in took)


def asked(way: str, folder: Path, rows: int, latency: float, faults: float, *more: str) -> Asked:
    """Prompts of so many users, asked by a command of its own."""
    with served(latency, faults) as (url, counted):
        # A minute, so that no answer is given up on a busy machine.
        there = project(folder, rows, url, concurrency=IN_FLIGHT, timeout=60)
        command = ["-c", str(folder / "kar.toml"), "generate", "--only", "user", *more]
        meter, clock, code = metered(command, folder / "log")
        counts = there.cache.stats().counts
        lost = rows - counts["ok"]
        if code and lost > rows * faults:  # what failed for now is asked by the next run
            console.print((folder / "log").read_text(errors="replace")[-2000:], markup=False)
    return Asked(way, counted["questions"], meter, clock, lost, counted["answered"] - counted["questions"])


def ask(folder: Path, rows: int, latency: float, faults: float) -> bool:
    """Print one process beside Ray; whether Ray asks 0.9 of it a core, loses nothing and pays nothing twice."""
    one = asked("one process", folder / "one", max(1000, rows // 50), latency, faults)
    _show(one, one)
    ray = asked("Ray, 2 workers", folder / "ray", rows, latency, faults, "--engine", "ray", "--workers", "2")
    _show(ray, one)
    return ray.rate("workers", "driver") >= 0.9 * one.rate() and not ray.lost and not ray.twice


def _show(done: Asked, one: Asked) -> None:
    console.print(f"\n{done.way}: {done.rows:,} prompts in {done.clock:,.0f} s, {done.rows / done.clock:,.0f}/s; "
                  f"left for the next run {done.lost}, paid twice {done.twice}")  # fmt: skip
    table = Table("processes", "CPU s", "prompts a CPU second", "of one process",
                  *(f"MB at {tenth}0%" for tenth in _TENTHS), "MB at most")  # fmt: skip
    took = done.meter.seconds()
    for kinds in [(kind,) for kind in took] + [("workers", "driver"), tuple(took)] * (len(took) > 1):
        rate = done.rate(*kinds)
        table.add_row(
            " and ".join(kinds), f"{sum(took[kind] for kind in kinds if kind in took):,.0f}", f"{rate:,.0f}",
            f"{rate / one.rate():.2f}", *(_memory(done.meter, kinds) if len(kinds) == 1 else []),
        )  # fmt: skip
    console.print(table)


def _memory(meter: Meter, kinds: tuple[str, ...]) -> list[str]:
    """Of the largest process: about the first, the fifth and the last tenth of the time, and ever."""
    series = [seen.get(kinds[0], 0) / 1e6 for seen in meter.memory]
    tenths = [max(series[(tenth - 1) * len(series) // 10 : tenth * len(series) // 10] or [0]) for tenth in _TENTHS]
    return [f"{value:,.0f}" for value in [*tenths, max(series)]]


# Passing by what is answered


def skip(folder: Path, rows: int) -> bool:
    """Print what it takes to pass by so many answered rows, tenth by tenth; whether a core passes 20,000 a second."""
    cache = folder / "answered.sqlite"
    if not cache.exists():
        took, clock = cpu(lambda: fill(cache, rows))
        console.print(f"filled in {took:,.0f} CPU s, {clock:,.0f} s")
    table = Table("rows passed by", "rows a CPU second", "rows/s", "MB", title=f"{cache.stat().st_size / 1e9:.1f} GB")
    ask, asked_about, spent = asking(cache), prompts(rows), []
    for tenth in range(1, 11):
        began = time.monotonic()
        spent.append(0.0)
        for some in batched(itertools.islice(asked_about, rows // 10), 1024):
            batch = prompt_batch(some)
            spent[-1] += cpu(lambda batch=batch: _all_there(ask(batch)))[0]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rates = (rows // 10 / spent[-1], rows // 10 / (time.monotonic() - began), memory)
        table.add_row(f"{tenth * rows // 10:,}", *(f"{value:,.0f}" for value in rates))
    console.print(table)
    console.print(f"{rows / sum(spent):,.0f} rows a CPU second of all")
    return rows / sum(spent) > 20_000


def _all_there(batch: Any) -> None:
    statuses = set(batch.column("status").to_pylist())
    assert statuses == {"ok"}, statuses


# Encoding


def encode(folder: Path, rows: int, encoder: str) -> bool:
    """Print one process beside Ray on the texts of `ask`; whether their stores are equal, byte for byte."""
    settings = folder / "ray" / "kar.toml"
    if not settings.exists():
        raise SystemExit(f"{settings} is not there: run `ask` with the same --folder first.")
    table = Table("way", "rows", "CPU s", "rows a CPU second", "s", "MB of the driver at most", title="Encoding")
    stores = []
    for way, more in (("one process", []), ("Ray, 2 workers", ["--engine", "ray", "--workers", "2"])):
        there = Project.open(settings)
        shutil.rmtree(there.config.work / "vectors", ignore_errors=True)
        meter, clock, code = metered(["-c", str(settings), "encode", "--encoder", encoder, *more], folder / "log")
        if code:
            raise SystemExit((folder / "log").read_text(errors="replace")[-2000:])
        took = sum(meter.seconds().values())
        moved = folder / f"vectors of {way}"
        shutil.rmtree(moved, ignore_errors=True)
        there.workspace.store_path("user").rename(moved)
        stores.append(VectorStore.open(moved))
        memory = max(seen.get("driver", 0) for seen in meter.memory) / 1e6
        table.add_row(
            way, f"{len(stores[-1]):,}", f"{took:,.0f}", f"{rows / took:,.0f}", f"{clock:,.0f}", f"{memory:,.0f}"
        )
    console.print(table)
    equal = _equal(*stores) and len(stores[0]) == rows
    console.print("The stores are equal, byte for byte in content." if equal else "The stores are NOT equal.")
    return equal


def _equal(one: VectorStore, other: VectorStore) -> bool:
    if not (one.spec == other.spec and one.ids == other.ids and one.keys == other.keys):
        return False
    ids = list(one.ids)
    return all(
        one.gather(ids[start : start + 65536]).tobytes() == other.gather(ids[start : start + 65536]).tobytes()
        for start in range(0, len(ids), 65536)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ask", "skip", "encode"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=0.05, help="of the server, seconds")
    parser.add_argument("--faults", type=float, default=0.01, help="share of requests that it refuses, fails or drops")
    parser.add_argument("--encoder", default="model2vec:minishlab/potion-base-8M", help="as in [encode]")
    parser.add_argument("--folder", type=Path, help="where all of it lies; a temporary one if not given")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if given.what == "ask":
            fine = ask(folder, given.rows, given.latency, given.faults)
        elif given.what == "skip":
            fine = skip(folder, given.rows)
        else:
            fine = encode(folder, given.rows, given.encoder)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
