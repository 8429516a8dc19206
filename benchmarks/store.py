"""The vector store at scale, beside what else one could do: LMDB, Lance, np.load, Parquet, and KAR's own JSON.

    python benchmarks/store.py --rows 1000000 --rounds 3 --folder /tmp/store-benchmark

Every way keeps the same rows, ids, 384 fp16 numbers and the key of the text that they encode (np.load and JSON: no
keys), ids in no order. It writes in a process of its own, and reads in another, in turns with the others: medians over
the rounds. A reader is cold at first: its files were put out of the page cache. Then open and gather are warm, after
40 gathers, as in a training run that has begun; the matrix follows. Parquet and JSON, which are slow, read once, and
get the most rows that they can manage. Peak memory counts mapped pages, which the kernel takes back when it needs them.
Ways with the same rows must give the same vectors.

LMDB and Lance: pip install 'kar-aug[bench]'; without, their rows are left out. 10^6 rows take about 4 GB of disk, 10^7
rows 30 GB. The folder is emptied before and after.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kar_aug
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cli.progress import notes, table

DIMENSION = 384
ASKED = 8192
CHUNK = 200_000
MATRIX = 1_000_000
WARM_UP = 40
VECTOR_BYTES = 2 * DIMENSION


class Rows:
    """(ids, keys, vectors), chunk by chunk; `seconds` is what making them took."""

    def __init__(self, rows: int) -> None:
        self.rows, self.seconds = rows, 0.0

    def __iter__(self) -> Iterator[tuple[Any, list[str], Any]]:
        begun = time.perf_counter()
        draw = np.random.default_rng(1)
        first = draw.standard_normal((min(CHUNK, self.rows), DIMENSION), np.float32).astype(np.float16)
        for start in range(0, self.rows, CHUNK):
            size = min(CHUNK, self.rows - start)
            vectors = np.roll(first[:size], start // CHUNK, axis=1)
            ids = draw.permutation(size) + start  # not in the order of their rows
            keys = [f"{start + i:032x}" for i in range(size)]
            self.seconds += time.perf_counter() - begun
            yield ids, keys, vectors
            begun = time.perf_counter()

    def in_order(self) -> Any:
        """All vectors, row i that of id i."""
        ordered = np.empty((self.rows, DIMENSION), np.float16)
        for ids, _, vectors in self:
            ordered[ids] = vectors
        return ordered


class OurStore:
    name = "VectorStore"

    def write(self, path: Path, rows: Rows) -> None:
        with VectorStore.writer(path, StoreSpec("benchmark", DIMENSION)) as writer:
            for ids, keys, vectors in rows:
                writer.append(ids, keys, vectors)

    def open(self, path: Path) -> Any:
        return VectorStore.open(path)

    def gather(self, store: Any, ids: Any) -> Any:
        return store.gather(ids)

    def matrix(self, store: Any, ids: Any) -> Any:
        return store.matrix(ids)[0]


class Lmdb:
    """Key: the id. Value: the vector, then the key of its text."""

    name, needs = "LMDB", "lmdb"

    def write(self, path: Path, rows: Rows) -> None:
        import lmdb

        with lmdb.open(str(path), map_size=1 << 40) as env:
            for ids, keys, vectors in rows:
                order = np.argsort(ids)  # LMDB fills its pages when keys come in order
                texts = (keys[i].encode() for i in order)
                values = map(bytes.__add__, _slices(vectors[order], VECTOR_BYTES), texts)
                with env.begin(write=True) as transaction, transaction.cursor() as cursor:
                    cursor.putmulti(zip(_keys(ids[order]), values, strict=True), append=True)

    def open(self, path: Path) -> Any:
        import lmdb

        return lmdb.open(str(path), map_size=1 << 40, readonly=True, lock=False, readahead=False)

    def gather(self, env: Any, ids: Any) -> Any:
        with env.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            values = b"".join([value for _, value in cursor.getmulti(_keys(ids))])
        return np.frombuffer(values, np.float16).reshape(len(ids), -1)[:, :DIMENSION].copy()

    def matrix(self, env: Any, ids: Any) -> Any:
        found = np.empty((len(ids), DIMENSION), np.float16)
        order = np.argsort(ids)  # neighbours share a page
        for start in range(0, len(ids), ASKED):
            chosen = order[start : start + ASKED]
            found[chosen] = self.gather(env, ids[chosen])
        return found


class Lance:
    """Rows by Lance's own index of ids."""

    name, needs = "Lance, by its index", "lance"

    def write(self, path: Path, rows: Rows) -> None:
        import lance
        import pyarrow as pa

        vector = pa.list_(pa.float16(), DIMENSION)
        schema = pa.schema({"id": pa.int64(), "key": pa.string(), "vector": vector})

        def batches() -> Iterator[Any]:
            for ids, keys, vectors in rows:
                flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION)
                yield pa.RecordBatch.from_arrays([pa.array(ids), pa.array(keys), flat], schema=schema)

        written = lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), str(path))
        written.create_scalar_index("id", "BTREE")

    def open(self, path: Path) -> Any:
        import lance

        return lance.dataset(str(path))

    def gather(self, dataset: Any, ids: Any) -> Any:
        wanted = f"id IN ({','.join(map(str, np.unique(ids).tolist()))})"
        found = dataset.to_table(columns=["id", "vector"], filter=wanted)
        at = found.column("id").to_numpy()
        order = np.argsort(at)
        return _matrix_of(found.column("vector"))[order[np.searchsorted(at, ids, sorter=order)]]

    def matrix(self, dataset: Any, ids: Any) -> Any:
        pieces = [self.gather(dataset, ids[start : start + ASKED]) for start in range(0, len(ids), ASKED)]
        return np.concatenate(pieces)


class LanceRows(Lance):
    """The ids are read when it is opened, and sorted, so that rows are known."""

    name = "Lance, ids in memory"

    def open(self, path: Path) -> Any:
        dataset = super().open(path)
        ids = dataset.to_table(columns=["id"]).column("id").to_numpy()
        order = np.argsort(ids)
        return dataset, ids[order], order

    def gather(self, opened: Any, ids: Any) -> Any:
        dataset, known, rows = opened
        return _matrix_of(dataset.take(rows[np.searchsorted(known, ids)], columns=["vector"]).column("vector"))

    def matrix(self, opened: Any, ids: Any) -> Any:
        return self.gather(opened, ids)


class Numpy:
    name, most = "np.load into memory, rows known", 2_000_000

    def write(self, path: Path, rows: Rows) -> None:
        vectors = rows.in_order()
        begun = time.perf_counter()
        with path.open("wb") as file:
            np.save(file, vectors)
        rows.seconds = time.perf_counter() - begun - rows.seconds

    def open(self, path: Path) -> Any:
        return np.load(path)

    def gather(self, vectors: Any, ids: Any) -> Any:
        return vectors[ids]

    matrix = gather


class Parquet:
    name, most, gathers = "Parquet, filtered by id", 200_000, 1

    def write(self, path: Path, rows: Rows) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = []
        for ids, keys, vectors in rows:
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION)
            tables.append(pa.table({"id": ids, "key": keys, "vector": flat}))
        pq.write_table(pa.concat_tables(tables), path)

    def open(self, path: Path) -> Any:
        import pyarrow.parquet as pq

        pq.ParquetFile(path).close()
        return path

    def gather(self, path: Path, ids: Any) -> Any:
        import pyarrow.parquet as pq

        found = pq.read_table(path, columns=["id", "vector"], filters=[("id", "in", ids.tolist())])
        at = found.column("id").to_numpy()
        order = np.argsort(at)
        return _matrix_of(found.column("vector"))[order[np.searchsorted(at, ids, sorter=order)]]


class Json:
    name, most, gathers = "JSON, as KAR's scripts", 20_000, 1

    def write(self, path: Path, rows: Rows) -> None:
        path.write_text(json.dumps({str(i): v for i, v in enumerate(rows.in_order().astype(np.float32).tolist())}))

    def open(self, path: Path) -> Any:
        return json.loads(path.read_text())

    def gather(self, loaded: Any, ids: Any) -> Any:
        return np.asarray([loaded[str(i)] for i in ids], np.float32)


WAYS: list[Any] = [OurStore(), Lmdb(), Lance(), LanceRows(), Numpy(), Parquet(), Json()]


def _slices(array: Any, size: int) -> Iterator[bytes]:
    raw = array.tobytes()
    return (raw[at : at + size] for at in range(0, len(raw), size))


def _keys(ids: Any) -> list[bytes]:
    """In the order of the ids, of which none is negative."""
    return list(_slices(ids.astype(">i8"), 8))


def _matrix_of(column: Any) -> Any:
    return np.asarray(column.combine_chunks().flatten()).reshape(-1, DIMENSION)


def written(way: Any, path: Path, rows: int) -> dict[str, float]:
    """Seconds without those that making the rows took, and peak megabytes."""
    given = Rows(rows)
    begun = time.perf_counter()
    way.write(path, given)
    return {"write": time.perf_counter() - begun - given.seconds, "write_peak": peak()}


def read(way: Any, path: Path, rows: int, seed: int) -> dict[str, float]:
    """Milliseconds and peak megabytes of one reader."""
    draw = np.random.default_rng(seed)
    way_gathers = getattr(way, "gathers", 21)
    leave_page_cache(path)
    figures = {"open_cold": timed(lambda: way.open(path))}
    opened = way.open(path)
    ids = draw.integers(0, rows, ASKED)
    begun = time.perf_counter()
    first = way.gather(opened, ids)
    figures["gather_cold"] = time.perf_counter() - begun
    figures["sum"] = float(first.astype(np.float64).sum())
    for _ in range(WARM_UP if way_gathers > 1 else 0):
        way.gather(opened, draw.integers(0, rows, ASKED))
    batches = iter([draw.integers(0, rows, ASKED) for _ in range(way_gathers)])
    figures["gather"] = timed(lambda: way.gather(opened, next(batches)), way_gathers)
    del opened
    figures["open"] = timed(lambda: way.open(path), 5 if way_gathers > 1 else 1)
    if hasattr(way, "matrix"):
        opened = way.open(path)
        vocabulary = draw.permutation(rows)[: min(rows, MATRIX)]
        figures["matrix"] = timed(lambda: way.matrix(opened, vocabulary))
    return figures | {"read_peak": peak()}


def timed(action: Callable[[], Any], repeat: int = 1) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeat):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


def peak() -> float:
    """Most megabytes that this process had in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def files_of(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def leave_page_cache(path: Path) -> None:
    for file in files_of(path):
        with file.open("rb") as opened:
            os.fdatasync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass
class Place:
    """A way, the rows that it is given, and where."""

    way: Any
    rows: int
    path: Path

    def run(self, what: str, seed: int = 0) -> dict[str, float]:
        """In a process of its own."""
        number = [way.name for way in WAYS].index(self.way.name)
        command = [sys.executable, __file__, "--child", what, str(number), str(self.path), str(self.rows), str(seed)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures


def child(what: str, number: str, path: str, rows: str, seed: str) -> None:
    way = WAYS[int(number)]
    importlib.import_module(getattr(way, "needs", "numpy"))  # what is imported once is not what is measured
    found = written(way, Path(path), int(rows)) if what == "write" else read(way, Path(path), int(rows), int(seed))
    print(json.dumps(found))


def places(folder: Path, rows: int, wanted: list[str]) -> list[Place]:
    """The ways that are wanted and installed, each with the most rows that it can manage."""
    found = []
    for way in WAYS:
        if wanted and not any(way.name.lower().startswith(start.lower()) for start in wanted):
            continue
        needs = getattr(way, "needs", None)
        if needs and importlib.util.find_spec(needs) is None:
            notes.print(f"{way.name}: left out, {needs} is not installed (pip install 'kar-aug[bench]')", markup=False)
            continue
        size = min(rows, getattr(way, "most", rows))
        found.append(Place(way, size, folder / f"{type(way).__name__.removesuffix('Rows')}-{size}"))
    return found


def row_of(place: Place, wrote: dict[str, float], reads: list[dict[str, float]]) -> tuple[str, ...]:
    def middle(name: str, scale: float, digits: int) -> str:
        values = [figures[name] for figures in reads if name in figures]
        return f"{scale * float(np.median(values)):,.{digits}f}" if values else ""

    size = sum(file.stat().st_size for file in files_of(place.path))
    write = [f"{wrote['write']:,.1f}", f"{wrote['write_peak']:,.0f}"] if wrote else ["", ""]
    return (
        place.way.name, f"{place.rows:,}", f"{size / 1e9:.2f}", *write,
        middle("open_cold", 1000, 1), middle("open", 1000, 1),
        middle("gather_cold", 1000, 0), middle("gather", 1000, 1), middle("matrix", 1, 2), middle("read_peak", 1, 0),
    )  # fmt: skip


COLUMNS = (
    "how", "rows", "GB", "write s", "peak MB", "open cold", "warm ms", f"gather {ASKED:,} cold", "warm ms",
    "matrix of 10^6 ids s", "peak MB",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="The beginning of a way's name; may be repeated.")
    parser.add_argument("--folder", type=Path, default=Path("store-benchmark"))
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    before = os.getloadavg()[0]
    try:
        chosen = places(given.folder, given.rows, given.only)
        wrote = [{} if place.path.exists() else place.run("write") for place in chosen]
        reads: list[list[dict[str, float]]] = [[] for _ in chosen]
        for seed in range(given.rounds):
            for place, figures in zip(chosen, reads, strict=True):
                if seed == 0 or not hasattr(place.way, "gathers"):
                    figures.append(place.run("read", seed))
        check_the_same(chosen, [figures[0] for figures in reads])
        rows = [row_of(*measured) for measured in zip(chosen, wrote, reads, strict=True)]
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)
    table(
        f"Vectors of {DIMENSION} fp16, {given.rounds} rounds; kar-aug {kar_aug.__version__}, NumPy {np.__version__}, "
        f"{len(os.sched_getaffinity(0))} cores, load {before:.1f} before and {os.getloadavg()[0]:.1f} after",
        COLUMNS,
        rows,
    )


def check_the_same(chosen: list[Place], reads: list[dict[str, float]]) -> None:
    """Ways that hold as many rows gave the same vectors."""
    sums: dict[int, set[float]] = {}
    for place, figures in zip(chosen, reads, strict=True):
        sums.setdefault(place.rows, set()).add(round(figures["sum"], 3))
    if any(len(different) > 1 for different in sums.values()):
        raise SystemExit(f"The ways disagree about the vectors: {sums}")


if __name__ == "__main__":
    main()
