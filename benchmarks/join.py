"""Training with vectors in the graph, and with vectors that `store.join` gathers from disk for each batch.

    python benchmarks/join.py --rows 1000000

One model (a dense layer over the vector and an id embedding), random ids, the same batches; rounds in turn, medians.
"no vectors" is the same model with a constant instead: what is left is the price of the vectors. Memory is what the
process grew by when the arm was built and had trained a round: mapped pages that the system can take back count too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import kar_aug
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cli.progress import table

DIMENSION = 384
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
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir="."))
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
    cores = len(os.sched_getaffinity(0))
    title = f"{given.rows:,} x {DIMENSION} fp16, batches of {BATCH}; kar-aug {kar_aug.__version__}, TF {tf.__version__}"
    table(f"{title}, {cores} cores", ("vectors", "ms a batch", "MB more"), rows)


if __name__ == "__main__":
    main()
