"""The vector store at scale, beside what else one could do: the JSON that KAR's scripts write, Parquet, and np.load.

    python benchmarks/store.py --rows 10000000 --folder /tmp/store-benchmark

Needs 8.5 GB of disk for 10^7 x 384 fp16, and about 2 GB more for the others, which run at the sizes that each can
manage. Peak memory is of the process that builds. The folder is emptied before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kar_aug
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cli.progress import table

DIMENSION = 384
ASKED = 8192
CHUNK = 200_000


def chunk(start: int, rows: int) -> Any:
    return np.random.default_rng(start).standard_normal((rows, DIMENSION), np.float32).astype(np.float16)


def build(path: Path, rows: int) -> None:
    """Run in a process of its own: prints seconds and peak megabytes."""
    started = time.monotonic()
    generating = 0.0
    order = np.random.default_rng(1)
    with VectorStore.writer(path, StoreSpec("benchmark", DIMENSION)) as writer:
        for start in range(0, rows, CHUNK):
            size = min(CHUNK, rows - start)
            begun = time.monotonic()
            vectors = chunk(start, size)
            generating += time.monotonic() - begun
            ids = order.permutation(size) + start  # ids do not lie in the order of their rows
            writer.append(ids, [f"{start + i:032x}" for i in range(size)], vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.monotonic() - started - generating, peak]))


def timed(action: Callable[[], Any], repeat: int = 5) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeat):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[repeat // 2]


def measure_store(folder: Path, rows: int) -> tuple[str, ...]:
    path = folder / f"store-{rows}"
    done = subprocess.run(
        [sys.executable, __file__, "--build", str(path), "--rows", str(rows)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, peak = json.loads(done.stdout)
    opened = timed(lambda: VectorStore.open(path))
    store = VectorStore.open(path)
    draw = np.random.default_rng(2)
    warm_up = 40  # enough draws that the pages are mapped as in a training run that has begun
    batches = iter([draw.integers(0, rows, ASKED) for _ in range(warm_up + 21)])
    for _ in range(warm_up):
        store.gather(next(batches))
    gathered = timed(lambda: store.gather(next(batches)), 21)
    vocabulary = [None, *draw.permutation(rows)[: min(rows, 1_000_000)].tolist()]
    begun = time.perf_counter()
    matrix, _ = store.matrix(vocabulary)
    aligned = time.perf_counter() - begun
    size = sum(file.stat().st_size for file in path.iterdir())
    del matrix
    return row("VectorStore", rows, size, seconds, peak, opened, gathered, aligned)


def measure_numpy(folder: Path, rows: int) -> tuple[str, ...]:
    path = folder / "plain.npy"
    vectors = np.concatenate([chunk(start, min(CHUNK, rows - start)) for start in range(0, rows, CHUNK)])
    begun = time.perf_counter()
    np.save(path, vectors)
    seconds = time.perf_counter() - begun
    opened = timed(lambda: np.load(path), 3)
    draw = np.random.default_rng(2)
    gathered = timed(lambda: vectors[draw.integers(0, rows, ASKED)], 21)
    return row("np.load into memory, rows known", rows, path.stat().st_size, seconds, None, opened, gathered, None)


def measure_parquet(folder: Path, rows: int) -> tuple[str, ...]:
    import pyarrow.parquet as pq

    path = folder / "vectors.parquet"
    store = VectorStore.open(folder / f"store-{rows}")
    begun = time.perf_counter()
    store.to_parquet(path)
    seconds = time.perf_counter() - begun
    opened = timed(lambda: pq.ParquetFile(path).close(), 3)
    ids = np.random.default_rng(2).integers(0, rows, ASKED).tolist()
    gathered = timed(lambda: pq.read_table(path, columns=["id", "vector"], filters=[("id", "in", ids)]), 1)
    return row("Parquet, filtered by id", rows, path.stat().st_size, seconds, None, opened, gathered, None)


def measure_json(folder: Path, rows: int) -> tuple[str, ...]:
    path = folder / "vectors.json"
    vectors = chunk(0, rows).astype(np.float32)
    begun = time.perf_counter()
    path.write_text(json.dumps({str(i): vector for i, vector in enumerate(vectors.tolist())}))
    seconds = time.perf_counter() - begun
    loaded: dict[str, Any] = {}
    opened = timed(lambda: loaded.update(json.loads(path.read_text())), 1)
    ids = np.random.default_rng(2).integers(0, rows, ASKED).tolist()
    gathered = timed(lambda: np.asarray([loaded[str(i)] for i in ids], np.float32), 3)
    return row("JSON, as KAR's scripts", rows, path.stat().st_size, seconds, None, opened, gathered, None)


def row(
    name: str, rows: int, size: int, seconds: float, peak: float | None, opened: float, gathered: float,
    aligned: float | None,
) -> tuple[str, ...]:  # fmt: skip
    return (
        name, f"{rows:,}", f"{size / 1e9:.2f}", f"{seconds:.1f}", f"{peak:,.0f}" if peak else "",
        f"{1000 * opened:,.1f}", f"{1000 * gathered:,.1f}", f"{aligned:.1f}" if aligned else "",
    )  # fmt: skip


COLUMNS = ("how", "rows", "GB", "write s", "peak MB", "open ms", f"gather {ASKED:,} ms", "matrix of 10^6 ids s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("store-benchmark"))
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build(given.build, given.rows)
        return
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    small = min(given.rows, 200_000)
    sizes = list(dict.fromkeys([small, given.rows]))
    try:
        rows = [measure_store(given.folder, size) for size in sizes]
        rows.append(measure_numpy(given.folder, min(given.rows, 2_000_000)))
        rows.append(measure_parquet(given.folder, small))
        rows.append(measure_json(given.folder, min(given.rows, 20_000)))
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)
    cores = len(os.sched_getaffinity(0))
    table(
        f"Vectors of {DIMENSION} fp16; kar-aug {kar_aug.__version__}, NumPy {np.__version__}, {cores} cores",
        COLUMNS,
        rows,
    )


if __name__ == "__main__":
    main()
