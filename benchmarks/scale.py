"""Beyond one machine: storms over Ray and Spark, what a core does, and how all of it grows.

    python benchmarks/scale.py --quick                    # small numbers, some minutes
    python benchmarks/scale.py storms --kills 30 --rows 20000
    python benchmarks/scale.py growth --sizes 100000 1000000 10000000
    python benchmarks/scale.py rates

A real server on this machine counts what it answered, with latency, refusals (429), errors (500) and dropped
connections. `kar-aug generate --engine ...` is a process of its own. Kills are SIGKILL, at random moments of its
asking; then one more run finishes the work. Lost answers and overspent dollars must be 0, and what was paid twice at
most what a killed process had asked, or just received. Anything else is said, and the exit code is 1. Rates are by CPU
seconds, so that they say something on a machine that others use, too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from answering import served
from rich.console import Console
from rich.table import Table

from kar_aug import Project, VectorStore
from kar_aug._helpers.batched import batched
from kar_aug.arrow import Ask, Render, prompt_batch
from kar_aug.arrow.rows import rows_of
from kar_aug.cache import Answer, Knowledge, Link, TextCache
from kar_aug.cache.texts.tables import RULES
from kar_aug.config import LanguageModel
from kar_aug.encode import encode
from kar_aug.generate import generate
from kar_aug.generate.limits import slots_for
from kar_aug.generate.questions import Question
from kar_aug.prompts import Prompt
from kar_aug.testing import ChatServer, HashEncoder, completion

IN_FLIGHT = 16
_WORKERS = 2
A_KILL = _WORKERS * slots_for(IN_FLIGHT // _WORKERS)  # answers that it may cost at most
EVENTS = 10  # of a user
MODEL = "gpt-4o-mini"  # its price is in kar-aug's table
TOKENS = (7, 3)  # asked and answered, each time
_DOLLARS = (TOKENS[0] * 0.15 + TOKENS[1] * 0.60) / 1e6  # of what the server charges for an answer
console = Console(width=200)


# What is asked


def project(
    folder: Path, users: int, url: str = "http://127.0.0.1:9/v1", *, concurrency: int = IN_FLIGHT, timeout: int = 5
) -> Project:
    """So many users with ten events each, of a catalogue of a thousand."""
    folder.mkdir(parents=True, exist_ok=True)
    random_ = np.random.default_rng(0)
    count = users * EVENTS
    pd.DataFrame({
        "user_id": np.repeat(np.arange(users), EVENTS), "item_id": random_.integers(0, 1000, count),
        "rating": random_.choice([1, 5], count), "timestamp": 800_000_000 + np.arange(count),
    }).to_parquet(folder / "interactions.parquet")  # fmt: skip
    items = pd.DataFrame({"item_id": np.arange(1000), "title": [f"Movie {i} (1990)" for i in range(1000)]})
    items.assign(genres="Drama").to_parquet(folder / "items.parquet")
    (folder / "kar.toml").write_text(
        '[data]\ninteractions = "interactions.parquet"\nitems = "items.parquet"\n'
        f'[generate]\nmodel = "{MODEL}"\nbase_url = "{url}"\nmax_tokens = 3\nconcurrency = {concurrency}\n'
        f'timeout = {timeout}\ncache = "answers.sqlite"\n[compare]\ncontrols = []\n'
    )
    return Project.open(folder / "kar.toml")


class Faulty:
    """Answers most requests; counts what it answered."""

    def __init__(self, faults: float) -> None:
        self.paid: Counter[str] = Counter()
        self._faults, self._random = faults, random.Random(0)

    def __call__(self, server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        draw = self._random.random()
        if draw < self._faults / 4:
            raise ConnectionError
        if draw < self._faults / 2:
            return 429, {"Retry-After": "0.2"}, b'{"error": {"message": "slow down"}}'
        if draw < self._faults:
            return 500, {}, b'{"error": {"message": "try again"}}'
        with server.lock:
            self.paid[request["messages"][-1]["content"]] += 1
        return 200, {}, completion("Likes dramas.", model=request["model"], tokens=TOKENS)


# Storms


class Storm(NamedTuple):
    """What one came to."""

    what: str
    kills: int
    answered: int
    lost: int
    twice: int
    overspent: float
    seconds: float

    @property
    def is_bad(self) -> bool:
        return bool(self.lost or self.twice > self.kills * A_KILL or self.overspent > 1e-9)


def storm(engine: str, victim: str, kills: int, rows: int) -> Storm:
    """Kill workers, drivers or raylets of runs on one project until so many are dead, or all is answered; then let one
    run finish.
    """
    faulty, started, dead = Faulty(0.02), time.monotonic(), 0
    # Ray's workers notice only after seconds that their raylet is gone, and ask meanwhile.
    latency = 0.5 if victim == "raylet" else 0.1
    with tempfile.TemporaryDirectory() as name, ChatServer(faulty, latency=latency) as server:
        there = project(Path(name), rows, server.base_url)
        while dead < kills:
            run = _run(Path(name), engine)
            asked = len(server.requests)
            while dead < kills and run.poll() is None:
                time.sleep(0.05)
                if len(server.requests) - asked > random.uniform(0.2, 1.0) * rows / (kills + 1):
                    dead += _kill(run, victim, Path(name))
                    asked = len(server.requests)
                    if victim != "worker":
                        break
            if victim == "worker" or run.returncode == 0:
                break
            _end(run)
        if victim == "worker":
            run.wait(900)
        cached = 0
        for _ in range(2):  # what failed for now is asked again
            if cached < rows:
                _run(Path(name), engine).wait(900)
                counts = there.cache.stats().counts
                cached = sum(counts[status] for status in ("ok", "truncated"))
        spent = _spent(there)
        answered = sum(faulty.paid.values())
        lost = rows - cached
        if lost:  # a run that failed says why
            console.print((Path(name) / "log").read_text(errors="replace")[-2000:], markup=False)
    overspent = answered * _DOLLARS - spent
    return Storm(
        f"{kills} SIGKILLs of {'a' if victim == 'worker' else 'the'} {victim}, {engine}, {rows:,} prompts", dead,
        answered, lost, answered - len(faulty.paid), overspent, time.monotonic() - started,
    )  # fmt: skip


def _spent(there: Project) -> float:
    with there.workspace.paths.open_cache(reading=True) as cache:
        return cache.spent(MODEL)


def _run(folder: Path, engine: str) -> subprocess.Popen[bytes]:
    where = ["--address", "local[2,100]"] if engine == "spark" else []
    command = ["generate", "--only", "user", "--engine", engine, "--workers", str(_WORKERS), *where]
    log = (folder / "log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "kar_aug", "-c", str(folder / "kar.toml"), *command],
        env=os.environ | {"OPENAI_API_KEY": "k"}, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip


def _kill(run: subprocess.Popen[bytes], victim: str, folder: Path) -> int:
    """Whether there was one to kill."""
    if victim == "driver":
        pids = [run.pid]
    elif victim == "raylet":
        pids = [pid for pid in _below(run.pid) if "raylet/raylet" in _command(pid)]
    else:
        with contextlib.suppress(sqlite3.Error), sqlite3.connect(folder / "answers.sqlite") as connection:
            pids = [pid for (pid,) in connection.execute("SELECT pid FROM workers")]
        pids = [pid for pid in pids if "kar_aug" not in _command(pid).split("\0")[:3] and _command(pid)]
    for pid in pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return 1
    return 0


def _end(run: subprocess.Popen[bytes]) -> None:
    """Wait for what is left of a run whose driver or raylet was killed, and make sure of it: only its own processes."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(60)
    for pid in [*_below(run.pid), run.pid]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    run.wait(30)
    for pid in _of_session(run.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
    found, layer = [], {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        found += sorted(layer)
    return found


def _of_session(session: int) -> list[int]:
    """Processes of a run that outlived it: they have its session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(path.parent.name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def storms(kills: int, rows: int, engines: Sequence[str], victims: Sequence[str]) -> bool:
    """Print them; whether all promises held."""
    table = Table("storm", "killed", "answered", "lost", "paid twice", "at most", "overspent", "s", title="Storms")
    bad = False
    for engine, victim in itertools.product(engines, victims):
        if (engine, victim) == ("spark", "raylet"):
            continue
        done = storm(engine, victim, kills, rows)
        bad |= done.is_bad
        cells = (
            done.kills,
            done.answered,
            done.lost,
            done.twice,
            done.kills * A_KILL,
            f"{max(0, done.overspent):g}",
        )
        table.add_row(done.what, *map(str, cells), f"{done.seconds:.0f}")
        console.print(f"{done.what}: {done}")
    console.print(table)
    return not bad


# Rates and growth


def cpu(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds, that some work takes."""
    began, clock = time.process_time(), time.monotonic()
    work()
    return time.process_time() - began, time.monotonic() - clock


def prompts(count: int) -> Iterator[Prompt]:
    """Prompts of the length of a short history."""
    text = "A user has watched these films: " + "Movie (1990), rated 5; " * EVENTS
    return (Prompt("user", i, ({"role": "user", "content": f"{text} {i}"},), "v1") for i in range(count))


def fill(path: Path, count: int) -> None:
    """A cache in which so many prompts are answered: one row as the cache writes it, and others like it by SQL, of
    which the cache would make a half in this time. The ledger, which skipping does not read, has the one.
    """
    model, partial = LanguageModel(MODEL), path.with_suffix(".partial")
    _one_answer(partial, model)
    with sqlite3.connect(partial, isolation_level=None) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;")
        copies = []
        for name, changed in (("answers", ("key", "messages")), ("knowledge", ("key", "entity_id"))):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            values = ", ".join("?" if column in changed else f'"{column}"' for column in columns)
            order = [column for column in columns if column in changed]
            connection.execute(f"CREATE TEMP TABLE one_{name} AS SELECT * FROM {name}")
            connection.execute(f"DELETE FROM {name}")
            copies.append((f"INSERT INTO {name} SELECT {values} FROM one_{name}", order))
        for some in batched(prompts(count), 100_000):
            found = [
                {"key": Question.of(model, prompt).key, "entity_id": str(prompt.entity_id),
                 "messages": json.dumps(list(prompt.messages))}
                for prompt in some
            ]  # fmt: skip
            found.sort(key=lambda row: row["key"])  # so that an index is written from one end to the other
            connection.execute("BEGIN")
            for statement, order in copies:
                connection.executemany(statement, [[row[column] for column in order] for row in found])
            connection.execute("COMMIT")
    partial.rename(path)


def _one_answer(path: Path, model: LanguageModel) -> None:
    (prompt,) = prompts(1)
    question = Question.of(model, prompt)
    answer = Answer(question.key, "ok", "Likes dramas. " * 20, MODEL, prompt.messages, 7, 3, raw=b"{}", rules=RULES)
    with TextCache(path) as cache:
        cache.put_many([(answer, [Link("user", prompt.entity_id, question.key, "v1")])])


def rates(rows: int) -> None:
    """Print what a core asks by itself, and inside an engine's worker."""
    table = Table("way", "prompts", "prompts a CPU second", "of one process", title="Asking, by CPU seconds")
    os.environ["OPENAI_API_KEY"] = "k"
    alone, by_batches = _of_one_process(rows), _of_batches(rows)
    for way, rate in (("kar-aug generate", alone), ("Ask, batches of 1,024", by_batches)):
        table.add_row(way, f"{rows:,}", f"{rate:,.0f}", f"{rate / alone:.2f}")
    console.print(table)


def _of_one_process(rows: int) -> float:
    with tempfile.TemporaryDirectory() as name, served(0.02, 0.0) as (url, _), TextCache(f"{name}/a.sqlite") as cache:
        model = LanguageModel(MODEL, url, max_tokens=3, concurrency=IN_FLIGHT)
        generate(_warm(), cache, model)
        return rows / cpu(lambda: generate(prompts(rows), cache, model))[0]


def _of_batches(rows: int) -> float:
    with tempfile.TemporaryDirectory() as name, served(0.02, 0.0) as (url, _):
        ask = asking(Path(name) / "a.sqlite", base_url=url, max_tokens=3, concurrency=IN_FLIGHT)
        batches = [prompt_batch(some) for some in batched(prompts(rows), 1024)]
        ask(prompt_batch(_warm()))
        return rows / cpu(lambda: [ask(batch) for batch in batches])[0]


def asking(cache: Path, **model: Any) -> Ask:
    """The function on batches, with a cache."""
    settings = {"generate": {"model": MODEL, "cache": str(cache), **model}, "data": {"interactions": "none"}}
    return Ask(Project(settings), texts=False)


def _warm() -> list[Prompt]:
    return [Prompt("user", "warm", ({"role": "user", "content": "warm"},), "v1")]


class Stage(NamedTuple):
    """What a stage took of the processor: by itself, and in the system, which gives it memory and reads its files."""

    name: str
    own: float  # seconds
    system: float
    bytes: int

    @property
    def seconds(self) -> float:
        return self.own + self.system


def growth(sizes: Sequence[int], most: int) -> bool:
    """Print time and bytes of each stage by size, and the exponents; whether nothing grows faster than linear.

    Of more than `most` users, some batches alone are rendered.
    """
    stages: dict[str, list[Stage]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            for stage in _stages(Path(name), size, math.ceil(size / most)):
                stages.setdefault(stage.name, []).append(stage)
                console.print(f"{size:,}: {stage}")
    shown = [column for size in sizes for column in (f"{size:,}: CPU s", "of it system", "rows/s", "bytes a row")]
    table = Table("stage", *shown, "exponent", "its own", title="Growth, one process")
    linear = True
    for name, found in stages.items():
        cells = [
            cell
            for size, stage in zip(sizes, found, strict=True)
            for cell in (f"{stage.seconds:.2f}", f"{stage.system:.2f}", f"{size / stage.seconds:,.0f}",
                         f"{stage.bytes / size:,.0f}" if stage.bytes else "")
        ]  # fmt: skip
        longer = math.log(sizes[-1] / sizes[-2])
        exponent = math.log(found[-1].seconds / found[-2].seconds) / longer
        own = math.log(found[-1].own / found[-2].own) / longer
        linear &= own < 1.15  # what the clock of a shared machine adds
        table.add_row(name, *cells, f"{exponent:.2f}", f"{own:.2f}")
    console.print(table)
    console.print(f"A GB of memory that this process had not before takes {_of_memory():.2f} s of the system.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"Peak memory of this process: {peak:,.0f} MB. Exponents: between the last two sizes.")
    return linear


def _of_memory() -> float:
    """Seconds of the system: on a virtual machine, the host hands out its memory when it is touched."""
    touching = Clocked()
    touching.call(np.ones, 1 << 30, np.uint8)
    return touching.system


def _stages(folder: Path, size: int, every: int) -> Iterator[Stage]:
    """Each stage. Nothing holds all rows; one batch in `every` is rendered."""
    there, preparing = project(folder, size), Clocked()
    workspace = there.workspace
    preparing.call(there.prepare)
    yield preparing.stage(f"prepare ({EVENTS} events a user)", _bytes(workspace.config.work))
    rows, rendering = Clocked(), Clocked()
    made = rendered = 0
    render = Render(workspace, "user", items=workspace.asking.tables.items)
    for place, batch in enumerate(rows.each(rows_of(workspace, "user", 1024))):
        made += batch.nbytes
        if place % every == 0:
            rendered += every * rendering.call(render, batch).nbytes
    yield rows.stage("rows with histories", made)
    yield rendering.stage("render", rendered, every)
    answers = folder / "filled.sqlite"
    fill(answers, size)
    ask, skipping = asking(answers), Clocked()
    for some in batched(prompts(size), 1024):
        skipping.call(ask, prompt_batch(some))
    yield skipping.stage("skip what is answered", answers.stat().st_size)
    encoding, joining = Clocked(), Clocked()
    with TextCache(answers, reading=True) as cache:
        encoding.call(encode, _Own(cache), folder / "vectors", HashEncoder(64))
    yield encoding.stage("encode (hashes, 64 numbers)", _bytes(folder / "vectors"))
    store = VectorStore.open(folder / "vectors")
    ids = np.random.default_rng(0).permutation(size)
    for start in range(0, size, 4096):
        joining.call(store.matrix, ids[start : start + 4096])
    yield joining.stage("join", 0)


class _Own:
    """Of every user a text of its own, as a model would write: gone through as often as one likes."""

    def __init__(self, cache: TextCache) -> None:
        self._cache = cache

    def __iter__(self) -> Iterator[Knowledge]:
        for text in self._cache.knowledge("user"):
            yield replace(text, text=f"{text.text} {text.entity_id}")


class Clocked:
    """Seconds of the processor that some work takes which is done bit by bit: its own, and the system's."""

    def __init__(self) -> None:
        self.own = self.system = 0.0

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What the work gives."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            return work(*arguments)
        finally:
            after = resource.getrusage(resource.RUSAGE_SELF)
            self.own += after.ru_utime - before.ru_utime
            self.system += after.ru_stime - before.ru_stime

    def each(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, each of which takes its time to come."""
        while (batch := self.call(next, batches, None)) is not None:
            yield batch

    def stage(self, name: str, bytes_: int, times: int = 1) -> Stage:
        """What it came to, so many times."""
        return Stage(name, times * self.own, times * self.system, bytes_)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["storms", "rates", "growth", []], default=[])
    parser.add_argument("--quick", action="store_true", help="small numbers")
    parser.add_argument("--kills", type=int, help="of each storm")
    parser.add_argument("--rows", type=int, help="prompts of a storm, or of a rate")
    parser.add_argument("--sizes", type=int, nargs="+", help="of the growth table")
    parser.add_argument(
        "--render", type=int, default=1_000_000, help="about so many users at most, of more one batch in some"
    )
    parser.add_argument("--engines", nargs="+", default=["ray", "spark"])
    parser.add_argument("--victims", nargs="+", default=["worker", "driver", "raylet"])
    asked = parser.parse_args()
    what = asked.what or ["rates", "growth", "storms"]
    fine = True
    if "rates" in what:
        rates(asked.rows or (2_000 if asked.quick else 20_000))
    if "growth" in what:
        fine &= growth(asked.sizes or ([1_000, 10_000] if asked.quick else [10_000, 100_000, 1_000_000]), asked.render)
    if "storms" in what:
        fine &= storms(asked.kills or (3 if asked.quick else 30), asked.rows or (600 if asked.quick else 20_000),
                       asked.engines, asked.victims)  # fmt: skip
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
