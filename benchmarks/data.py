"""What a log costs before anything is trained: preparing it, and streaming it in batches as trainings do.

    python benchmarks/data.py [--rows 5000000] [--folder /tmp/log] [--output table.md]

The log is synthetic and skewed: few users and items have most of the events. Each stage is a process of its own, whose
memory is told beyond that of the imported libraries. Pages of the prepared folder are shared by all processes that read
it. "build" is what each process had to do, if there were no such folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kar_aug.compare.batches import shuffled
from kar_aug.config import Config
from kar_aug.data.building import build_samples
from kar_aug.data.inputs import inputs
from kar_aug.pipeline.workspace import Workspace

_CHUNK = 1 << 20
_BATCH = 4096
_MOST_STREAMED = 3_000_000
_ITEMS = 50_000
_GENRES = ["Action", "Comedy", "Documentary", "Drama", "Horror", "Romance", "Sci-Fi", "War"]
_MB = 1e6


def write_log(folder: Path, rows: int) -> None:
    """The tables, and a kar.toml beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    quality, users = random.random(_ITEMS), max(100, rows // 100)
    columns = ("user_id", "item_id", "rating", "timestamp")
    schema = pa.schema([(name, pa.int64()) for name in columns])
    with pq.ParquetWriter(folder / "interactions.parquet", schema) as writer:
        for start in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - start)
            user = (users * random.random(count) ** 2).astype(np.int64)
            item = (_ITEMS * random.random(count) ** 4).astype(np.int64)
            rating = 1 + (5 * np.clip(quality[item] + random.normal(0, 0.3, count), 0, 0.999)).astype(np.int64)
            timestamp = random.integers(1_500_000_000, 1_700_000_000, count)
            writer.write_table(pa.table(dict(zip(columns, (user, item, rating, timestamp), strict=True)), schema))
    genres = ["|".join(random.choice(_GENRES, 1 + i % 3, replace=False)) for i in range(_ITEMS)]
    items = pd.DataFrame({"item_id": np.arange(_ITEMS), "genres": genres, "year": random.integers(1950, 2024, _ITEMS)})
    items.to_parquet(folder / "items.parquet")
    (folder / "kar.toml").write_text(
        '[data]\ninteractions = "interactions.parquet"\nitems = "items.parquet"\nitem_features = ["genres", "year"]\n'
    )


def build(folder: Path) -> dict[str, Any]:
    """Read, split and build in memory alone."""
    data = _opened(folder).data
    samples = build_samples(data.feature_tables, data.split, inputs(data.config))
    return {"rows": len(samples.timestamps), "held": (data, samples)}


def prepare(folder: Path) -> dict[str, Any]:
    """Read, split, build and write."""
    shutil.rmtree(folder / ".kar", ignore_errors=True)
    samples = _opened(folder).samples
    return {"rows": len(samples.timestamps)}


def stream(folder: Path) -> dict[str, Any]:
    """Batches of a training's order, with all that a model can read; nothing is trained."""
    samples = _opened(folder).samples
    train = samples.of("train")
    order = train[shuffled(len(train), np.random.default_rng(0))][:_MOST_STREAMED]
    names = {feature.name for feature in (*samples.features, *samples.keys)}
    started = time.monotonic()
    for _ in samples.batches(order, _BATCH, names):
        pass
    return {"rows": len(order), "seconds": time.monotonic() - started, "held": samples}


STAGES = {"build": build, "prepare": prepare, "stream": stream}


def _opened(folder: Path) -> Workspace:
    return Workspace(Config.load(folder / "kar.toml"))


def _measured(stage: str, folder: Path) -> dict[str, float]:
    """Rows and seconds of a stage, and megabytes: at its peak, its own at the end, and shared at the end."""
    done = subprocess.run(
        [sys.executable, __file__, "--stage", stage, "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _run(stage: str, folder: Path) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, started = _memory(), time.monotonic()
    found = STAGES[stage](folder)
    seconds = time.monotonic() - started
    after = {name: megabytes - before[name] for name, megabytes in _memory().items()}
    found.pop("held", None)
    print(json.dumps({"seconds": seconds, **found, **after}))


def _memory() -> dict[str, float]:
    """Megabytes of this process by /proc: at its peak, of its own, of files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) * 1024 / _MB for name in ("VmHWM", "RssAnon", "RssFile")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the log: 5000000, or 50000000")
    parser.add_argument("--folder", type=Path, help="of the log; a temporary one if not given")
    parser.add_argument("--output", type=Path, help="a Markdown file to write the table into")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        _run(options.stage, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_log(folder, options.rows)
        lines = [
            "| stage | rows | seconds | rows/s | MB at the peak | of its own at the end | shared |",
            "|---|---|---|---|---|---|---|",
        ]
        for stage in STAGES:
            found = _measured(stage, folder)
            rate = found["rows"] / found["seconds"]
            memory = (found["VmHWM"], found["RssAnon"], found["RssFile"])
            cells = (f"{found['rows']:,}", f"{found['seconds']:.1f}", f"{rate:,.0f}", *(f"{mb:,.0f}" for mb in memory))
            lines.append(f"| {stage} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
        size = sum(file.stat().st_size for file in (folder / ".kar" / "prepared").rglob("*") if file.is_file()) / _MB
        lines.append(f"\nOn disk: {size:,.0f} MB.")
    table = "\n".join(lines) + "\n"
    print(table)
    if options.output is not None:
        options.output.write_text(table)


if __name__ == "__main__":
    main()
