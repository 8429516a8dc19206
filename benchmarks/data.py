"""What a log costs, stage by stage, up to one epoch of training: rows a second, and memory.

    python benchmarks/data.py [--rows 5000000] [--text] [--tags [KIND]] [--memory "1 GB"]
                              [--stages prepare stream ...] [--folder /tmp/log] [--output table.md]

The log is synthetic and skewed: few users and items have most of the events. It is Parquet with integers, or with
--text CSV with ids and times as text, which take the most memory of all that is read; with --tags each event has up to
eight tags, which models read of each earlier event: texts, numbers, decimals, or numbers with
gaps. Each stage is a process of its own, whose memory is told beyond that of the imported libraries, at its peak: "own"
is what nobody else can have, and what must fit into the machine; "with mapped" has the pages of mapped files too, which
the system writes out or forgets when memory is short, and which all processes that read a prepared folder share. On a
busy machine the seconds that the cores worked ("of all cores") say more than the others. prompts and dry-run are told
in prompts, not rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from kar_aug import Project
from kar_aug.pipeline.workspace import Workspace

_CHUNK = 1 << 20
_BATCH = 4096
_MOST_STREAMED = 3_000_000  # of an epoch
_ITEMS = 50_000
_GENRES = ["Action", "Comedy", "Documentary", "Drama", "Horror", "Romance", "Sci-Fi", "War"]
# What the tags of an event are, and their type where it is not text.
TAGS = {"texts": pa.string(), "numbers": pa.int64(), "decimals": pa.float64(), "gaps": pa.int64()}
_MB = 1e6
_SECONDS = 0.02  # between two looks at the memory


def write_log(folder: Path, rows: int, text: bool, tags: str | None, memory: str) -> None:
    """The tables, and a kar.toml beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    quality, users = random.random(_ITEMS), max(100, rows // 100)
    name = "interactions.csv" if text else "interactions.parquet"
    columns = ("user_id", "item_id", "rating", "timestamp", *(["tags"] if tags else []))
    types = {"rating": pa.int64(), "tags": pa.string() if text else pa.list_(TAGS.get(tags or "", pa.string()))}
    usual = pa.string() if text else pa.int64()
    schema = pa.schema([(each, types.get(each, usual)) for each in columns])
    with (csv.CSVWriter if text else pq.ParquetWriter)(folder / name, schema) as writer:
        for start in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - start)
            user = (users * random.random(count) ** 2).astype(np.int64)
            item = (_ITEMS * random.random(count) ** 4).astype(np.int64)
            rating = 1 + (5 * np.clip(quality[item] + random.normal(0, 0.3, count), 0, 0.999)).astype(np.int64)
            timestamp = random.integers(1_500_000_000, 1_700_000_000, count)
            values: tuple[Any, ...] = (user, item, rating, timestamp)
            if text:
                times = np.datetime_as_string(timestamp.astype("datetime64[s]"))
                values = (_named("u", user), _named("i", item), rating, times)
            if tags:
                values = (*values, _tags(random, count, None if text else tags))
            writer.write_table(pa.table(dict(zip(columns, values, strict=True)), schema))
    genres = ["|".join(random.choice(_GENRES, 1 + i % 3, replace=False)) for i in range(_ITEMS)]
    ids = np.arange(_ITEMS)
    items = pd.DataFrame({"item_id": _named("i", ids) if text else ids, "genres": genres})
    items["year"] = random.integers(1950, 2024, _ITEMS)
    items["title"] = [f"Film {i}" for i in range(_ITEMS)]
    items.to_parquet(folder / "items.parquet")
    (folder / "kar.toml").write_text(
        f'[data]\ninteractions = "{name}"\nitems = "items.parquet"\nitem_features = ["genres", "year"]\n'
        f'memory = "{memory}"\n' + ('event_features = ["rating", "genres", "year", "tags", "since"]\n' if tags else "")
    )


def _tags(random: np.random.Generator, count: int, kind: str | None) -> pa.Array:
    """Up to as many an event as `[data] event_values` reads, of a thousand; in one text, if they are of no kind."""
    offsets = np.concatenate([[0], np.cumsum(random.integers(0, 9, count))]).astype(np.int32)
    chosen = (1000 * random.random(offsets[-1]) ** 3).astype(np.int64)
    missing = random.random(len(chosen)) < 0.1 if kind == "gaps" else None
    values = {
        "numbers": lambda: pa.array(chosen),
        "decimals": lambda: pa.array(chosen / 8),
        "gaps": lambda: pa.array(chosen, mask=missing),
    }
    named = values.get(kind or "", lambda: pa.array(_named("t", chosen)).cast(pa.string()))
    lists = pa.ListArray.from_arrays(offsets, named())
    return pc.binary_join(lists, "|") if kind is None else lists


def _named(letter: str, ids: Any) -> pd.Series:
    return letter + pd.Series(ids).astype(str)


def prepare(folder: Path) -> dict[str, Any]:
    """Read, split, build and write."""
    shutil.rmtree(folder / ".kar", ignore_errors=True)
    return {"rows": len(_opened(folder).samples.timestamps)}


def audit(folder: Path) -> dict[str, Any]:
    """Read and split once more, and look for leaks."""
    workspace = _opened(folder)
    assert not Project(workspace.config).audit().leaks
    return {"rows": len(workspace.samples.timestamps)}


def prompts(folder: Path, users: int | None) -> dict[str, Any]:
    """Render the prompts of all users who have a history, or of so many, and count their tokens."""
    return {"rows": len(_asking(folder, users).prompts("user").statistics().tokens)}


def dry_run(folder: Path, users: int | None) -> dict[str, Any]:
    """The prompts of users, all or so many, and of items, and what they would cost."""
    return {"rows": _asking(folder, users).dry_run().estimate.found.total}


def stream(folder: Path) -> dict[str, Any]:
    """Batches of a training's order as it gets them, with all that a model can read; nothing is trained."""
    from kar_aug.compare.batches import TrainingBatches

    samples = _opened(folder).samples
    batches = TrainingBatches(samples, {feature.name for feature in (*samples.features, *samples.keys)}, _BATCH, 0)
    batches.start(0)
    steps = min(batches.steps, _MOST_STREAMED // _BATCH)
    started = time.monotonic(), time.process_time()
    rows = sum(len(batch[1]) for batch in batches.dataset(stop=steps))
    return {"rows": rows, "seconds": time.monotonic() - started[0], "cpu": time.process_time() - started[1]}


def epoch(folder: Path) -> dict[str, Any]:
    """A DeepFM's first epoch, and its validation."""
    from kar_aug.compare import Arm
    from kar_aug.compare.training import train

    workspace = _opened(folder)
    samples = workspace.samples
    settings = replace(workspace.config.compare.training, epochs=1, batch_size=_BATCH)
    train(Arm("DeepFM"), 0, samples, {}, settings)
    return {"rows": len(samples.of("train"))}


ASKING = ("prompts", "dry-run")
WITH_TENSORFLOW = ("stream", "epoch")
STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": prepare,
    "audit": audit,
    "prompts": prompts,
    "dry-run": dry_run,
    "stream": stream,
    "epoch": epoch,
}


def _opened(folder: Path) -> Workspace:
    return Project.open(folder / "kar.toml").workspace


def _asking(folder: Path, users: int | None) -> Project:
    return Project.open(folder / "kar.toml", prompts={} if users is None else {"max_users": users})


def _measured(stage: str, folder: Path, users: int | None) -> dict[str, float]:
    """Rows and seconds of a stage, and its megabytes at the peak: its own, and with mapped files."""
    limit = [] if users is None else ["--users", str(users)]
    done = subprocess.run(
        [sys.executable, __file__, "--stage", stage, "--folder", str(folder), *limit],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _run(stage: str, folder: Path, users: int | None) -> None:
    if stage in WITH_TENSORFLOW:
        import kar_aug.compare.training  # noqa: F401  (an imported library is not the stage's)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, watch, started = _memory(), _Watch(), (time.monotonic(), time.process_time())
    found = STAGES[stage](folder, users) if stage in ASKING else STAGES[stage](folder)
    seconds, cpu = time.monotonic() - started[0], time.process_time() - started[1]
    own, mapped = watch.end() - before["RssAnon"], _memory()["VmHWM"] - before["RssAnon"] - before["RssFile"]
    print(json.dumps({"seconds": seconds, "cpu": cpu, **found, "own": own, "mapped": mapped}))


class _Watch(threading.Thread):
    """Sees how much memory this process has for itself, at most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._most, self._ended = 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._most = max(self._most, _memory()["RssAnon"])

    def end(self) -> float:
        """Megabytes."""
        self._ended.set()
        self.join()
        return self._most


def _memory() -> dict[str, float]:
    """Megabytes of this process by /proc: at its peak, of its own, of files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) * 1024 / _MB for name in ("VmHWM", "RssAnon", "RssFile")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the log: 5000000, or 50000000")
    parser.add_argument("--users", type=int, help="whom prompts and dry-run ask about; all if not given")
    parser.add_argument("--text", action="store_true", help="CSV, with ids and times as text")
    parser.add_argument(
        "--tags",
        nargs="?",
        const="texts",
        choices=TAGS,
        help="up to eight of each event, which models read; gaps: numbers, some missing",
    )
    parser.add_argument("--memory", default="1 GB", help="[data] memory")
    parser.add_argument("--folder", type=Path, help="of the log; a temporary one if not given")
    parser.add_argument("--output", type=Path, help="a Markdown file to write the table into")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=[*STAGES], help="which, in this order")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        _run(options.stage, options.folder, options.users)
        return
    lines = [
        "| stage | rows | seconds | of all cores | rows/s | rows/s a core | MB, own | MB, with mapped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "kar.toml").exists():
            write_log(folder, options.rows, options.text, options.tags, options.memory)
        for stage in options.stages:
            found = _measured(stage, folder, options.users)
            rates = (found["rows"] / found["seconds"], found["rows"] / found["cpu"])
            cells = [stage, f"{found['rows']:,}", f"{found['seconds']:.1f}", f"{found['cpu']:.1f}"]
            cells += [f"{number:,.0f}" for number in (*rates, found["own"], found["mapped"])]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
        size = sum(file.stat().st_size for file in (folder / ".kar" / "prepared").rglob("*") if file.is_file()) / _MB
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {date.today()}"
    command = f"python benchmarks/data.py --rows {options.rows} --memory '{options.memory}'"
    command += " --text" * options.text + (f" --tags {options.tags}" if options.tags else "")
    command += f" --stages {' '.join(options.stages)}"
    lines += ["", f"On disk, prepared: {size:,.0f} MB. {machine}: `{command}`"]
    table = "\n".join(lines) + "\n"
    print(table)
    if options.output is not None:
        with options.output.open("a") as file:
            file.write(f"\n{options.rows:,} events\n\n{table}")


if __name__ == "__main__":
    main()
