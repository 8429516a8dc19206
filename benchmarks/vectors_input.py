"""Training with knowledge vectors as inputs, which come from disk batch by batch: no table is in the graph.

    python benchmarks/vectors_input.py --rows 100000 1000000 10000000 --dimension 64

A store of random vectors (float16) for each number of rows, and one model of an item's id (hashed into 1,000 places)
and its knowledge, by `augment(..., vectors="input")`, trained on random ids with `kar_aug.models.join`. "MB of its own"
is what the process holds that the system cannot take back (RssAnon), of which the vocabulary of the ids is 12 bytes an
id; its peak in training is the largest of ten looks a second. "MB mapped" are pages of files, the store's among them,
that stay in memory as long as nobody else needs it. Each size is written by one process, and trained on in another.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PIECE = 100_000


def megabytes(kind: str) -> int:
    """Of this process: RssAnon or RssFile."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


def highest(run: Callable[[], object]) -> tuple[float, int]:
    """Seconds that something took, and the most megabytes of its own that this process held meanwhile."""
    seen, over = [megabytes("RssAnon")], threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            seen.append(megabytes("RssAnon"))

    looking = threading.Thread(target=look)
    looking.start()
    begun = time.perf_counter()
    run()
    seconds = time.perf_counter() - begun
    over.set()
    looking.join()
    return seconds, max(seen)


def write(rows: int, dimension: int, folder: Path) -> None:
    """Make the store, and print the seconds that it took and the peak of memory."""
    from kar_aug.cache import StoreSpec, VectorStore

    some = np.random.default_rng(0).standard_normal((PIECE, dimension), "float32").astype("float16")

    def all_pieces() -> None:
        with VectorStore.writer(folder, StoreSpec("benchmark", dimension)) as writer:
            for start in range(0, rows, PIECE):
                size = min(PIECE, rows - start)
                writer.append(np.arange(start, start + size), [""] * size, some[:size] + np.float16(start % 7))

    seconds, most = highest(all_pieces)
    sys.stdout.write(f"{seconds:.0f}\t{most:,}\n")


def train(rows: int, dimension: int, batch: int, batches: int, folder: Path) -> None:
    """Print the figures of training, with tabs between."""
    import tensorflow as tf

    from kar_aug import VectorStore, augment
    from kar_aug.layers import VectorAugmentation
    from kar_aug.models import join

    store, vocabulary = VectorStore.open(folder), np.arange(rows)
    ids = tf.keras.Input((1,), name="item_id", dtype="int64")
    embedded = tf.keras.layers.Flatten()(tf.keras.layers.Embedding(1_000, 16)(ids % 1_000))
    hidden = tf.keras.layers.Dense(64, "relu")(embedded)
    plain = tf.keras.Model(ids, tf.keras.layers.Dense(1, "sigmoid")(hidden))
    layer = VectorAugmentation({"item_id": store})
    model = augment(plain, layer)
    model.compile("adam", "binary_crossentropy", jit_compile=False)

    def drawn(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        chosen = tf.random.stateless_uniform((batch, 1), (1, number), 0, rows, tf.int64)
        return {"item_id": chosen}, tf.cast(chosen % 2, "float32")

    data = join(tf.data.Dataset.range(batches).map(drawn), {"item_id": (store, vocabulary)})
    model.fit(data.take(5), verbose=0)
    before = megabytes("RssAnon")
    seconds, most = highest(lambda: model.fit(data, verbose=0))
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    cells = (
        f"{size:,.0f}", f"{batches / seconds:.2f}", f"{batch * batches / seconds:,.0f}", f"{before:,}", f"{most:,}",
        f"{megabytes('RssAnon') - before:+,}", f"{megabytes('RssFile'):,}",
    )  # fmt: skip
    sys.stdout.write("\t".join(cells) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4_096)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where stores are written for a while")
    parser.add_argument("--step", choices=["write", "train"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step == "write":
        write(given.rows[0], given.dimension, given.folder)
        return
    if given.step == "train":
        train(given.rows[0], given.dimension, given.batch, given.batches, given.folder)
        return
    from kar_aug.cli.progress import table

    lines = []
    for rows in given.rows:
        folder = Path(tempfile.mkdtemp(dir=given.folder))
        try:
            sizes = [f"--{name}={getattr(given, name)}" for name in ("dimension", "batch", "batches")]
            command = [sys.executable, __file__, f"--rows={rows}", *sizes, f"--folder={folder / 'store'}"]
            cells = [f"{rows:,} x {given.dimension}"]
            for step in ("write", "train"):
                done = subprocess.run([*command, f"--step={step}"], stdout=subprocess.PIPE, text=True, check=True)
                cells += done.stdout.strip().splitlines()[-1].split("\t")
            lines.append(tuple(cells))
        finally:
            shutil.rmtree(folder)
    columns = (
        "vectors", "s to write", "peak MB", "MB on disk", "steps/s", "rows/s", "MB of its own", "its peak", "and after",
        "MB mapped",
    )  # fmt: skip
    title = f"{given.batches} batches of {given.batch:,}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    table(title, columns, lines)


if __name__ == "__main__":
    main()
