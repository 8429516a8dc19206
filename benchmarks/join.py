"""Training with vectors in the graph, and with vectors that `store.join` gathers from disk for each batch.

    python benchmarks/join.py --rows 1000000
    python benchmarks/join.py --times --rows 1000000

One model (a dense layer over the vector and an id embedding), random ids, the same batches; rounds in turn, medians.
"no vectors" is the same model with a constant instead: what is left is the price of the vectors. Memory is what the
process grew by when the arm was built and had trained a round: mapped pages that the system can take back count too.

With --times nothing is trained: so many rows are looked up in a store of versions, ten an id, by their times, and the
last of each without; and the same rows are read in batches by `join`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import kar_aug
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cache.vectors.versions import Versions
from kar_aug.cli.progress import table

DIMENSION = 384
NARROW = 64  # with --times: it is looking up that is measured
DAY, BEGIN = 86_400, 1_700_000_000  # seconds; those of the first version
BATCH = 1024


def build_store(folder: Path, rows: int) -> VectorStore:
    random = np.random.default_rng(0)
    with VectorStore.writer(folder, StoreSpec("benchmark", DIMENSION)) as writer:
        for start in range(0, rows, 100_000):
            size = min(100_000, rows - start)
            writer.append(
                np.arange(start, start + size), [""] * size, random.standard_normal((size, DIMENSION), "float32")
            )
    return VectorStore.open(folder)


def build_versions(folder: Path, rows: int) -> VectorStore:
    """Ten versions an id, at random moments, appended in ten parts."""
    random = np.random.default_rng(0)
    ids = np.arange(rows // 10)
    with VectorStore.writer(folder, StoreSpec("benchmark", NARROW)) as writer:
        for part in range(10):
            moments = (BEGIN + part * DAY + random.integers(0, DAY, len(ids))) * 1_000_000
            vectors = random.standard_normal((len(ids), NARROW), "float32")
            writer.append(ids, [""] * len(ids), vectors, versions=moments)
    return VectorStore.open(folder)


def measure_versions(store: VectorStore, rows: int, rounds: int) -> list[tuple[str, ...]]:
    """(what, million rows a second) of look-ups, and of reading through `join`."""
    random = np.random.default_rng(1)
    ids, times = random.integers(0, rows // 10, rows).astype("int32"), BEGIN + random.integers(0, 10 * DAY, rows)
    vocabulary = np.arange(rows // 10)
    versions = Versions(store, vocabulary)
    inputs = {"user_id": ids, "at": times}
    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(BATCH)
    joined = store.join(dataset, "user_id", vocabulary, times="at")
    latest = store.join(dataset, "user_id", vocabulary)
    arms: dict[str, Callable[[], Any]] = {
        "rows_at(ids, times)": lambda: store.rows_at(ids, times),
        "rows(ids), the last of each": lambda: store.rows(ids),
        "by codes of a vocabulary, as join does": lambda: versions.rows(ids, times),
        "join with times, all batches": lambda: sum(1 for _ in joined),
        "join without, all batches": lambda: sum(1 for _ in latest),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, run in arms.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return [(name, f"{float(np.median(taken)):.2f}") for name, taken in seconds.items()]


def model(vectors: Any) -> Any:
    """From an id and what `vectors` makes of the inputs to a probability."""
    id = tf.keras.Input((), name="item_id", dtype="int32")
    inputs, found = vectors(id)
    hidden = tf.keras.layers.Dense(64, activation="relu")(tf.cast(found, "float32"))
    embedded = tf.keras.layers.Embedding(1000, 16)(id % 1000)
    output = tf.keras.layers.Dense(1, activation="sigmoid")(tf.concat([hidden, embedded], 1))
    built = tf.keras.Model([id, *inputs], output)
    built.compile("adam", "binary_crossentropy", jit_compile=False)
    return built


def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", action="store_true", help="look up versions by time instead of training")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir="."))
    cores = len(os.sched_getaffinity(0))
    if given.times:
        try:
            measured = measure_versions(build_versions(folder, given.rows), given.rows, given.rounds)
        finally:
            shutil.rmtree(folder)
        title = f"{given.rows:,} rows of {given.rows:,} versions x {NARROW} fp16; kar-aug {kar_aug.__version__}"
        table(f"{title}, {cores} cores", ("what", "seconds"), measured)
        return
    try:
        store = build_store(folder, given.rows)
        random = np.random.default_rng(1)
        ids = random.integers(0, given.rows, given.batches * BATCH).astype("int32")
        label = random.integers(0, 2, len(ids)).astype("float32")
        batches = tf.data.Dataset.from_tensor_slices(({"item_id": ids}, label)).batch(BATCH).cache()
        vocabulary = np.arange(given.rows)

        def joined(id: Any) -> Any:
            vectors = tf.keras.Input((DIMENSION,), name="item_id_vectors", dtype="float16")
            return [vectors], vectors

        def table_in_graph(id: Any) -> Any:
            matrix = tf.constant(store.align(vocabulary).vectors)
            return [], tf.keras.layers.Lambda(lambda ids: tf.gather(matrix, ids))(id)

        def none(id: Any) -> Any:
            return [], tf.keras.layers.Lambda(lambda ids: tf.ones((tf.shape(ids)[0], DIMENSION), "float16"))(id)

        def without_known(inputs: Any, label: Any) -> Any:
            return {name: value for name, value in inputs.items() if name != "item_id_known"}, label

        arms = {
            "no vectors": (none, lambda: batches.prefetch(2)),
            "joined, from disk": (joined, lambda: store.join(batches, "item_id", vocabulary).map(without_known)),
            "table in the graph": (table_in_graph, lambda: batches.prefetch(2)),
        }
        built, grown = {}, {}
        for name, (vectors, dataset) in arms.items():
            before = resident()
            built[name] = (model(vectors), dataset())
            built[name][0].fit(built[name][1], verbose=0)
            grown[name] = resident() - before
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(given.rounds):
            for name, (trained, dataset) in built.items():
                begun = time.perf_counter()
                trained.fit(dataset, verbose=0)
                seconds[name].append(time.perf_counter() - begun)
    finally:
        shutil.rmtree(folder)
    rows: list[tuple[str, ...]] = [
        (name, f"{1000 * float(np.median(seconds[name])) / given.batches:.2f}", f"{grown[name]:,.0f}") for name in arms
    ]
    title = f"{given.rows:,} x {DIMENSION} fp16, batches of {BATCH}; kar-aug {kar_aug.__version__}, TF {tf.__version__}"
    table(f"{title}, {cores} cores", ("vectors", "ms a batch", "MB more"), rows)


if __name__ == "__main__":
    main()
