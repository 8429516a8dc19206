"""Training with knowledge vectors as inputs, which come from disk batch by batch: no table is in the graph.

    python benchmarks/vectors_input.py --rows 100000 1000000 10000000 --dimension 64

A store of random vectors for each number of rows, and one model of an item's id (hashed into 1,000 places) and its
knowledge, by `augment(..., vectors="input")`, trained on random ids with `kar_aug.models.join`. "MB of its own" is what
the process holds that the system cannot take back (RssAnon), of which the vocabulary of the ids is 12 bytes an id;
"MB mapped" are pages of files, the store's among them, that stay in memory as long as nobody else needs it. Each size
has a process of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PIECE = 100_000


def megabytes(kind: str) -> int:
    """Of this process: RssAnon or RssFile."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) // 1024 if found else 0


def measure(rows: int, dimension: int, batch: int, batches: int, folder: Path) -> None:
    """Print one line of the table, its cells with tabs between."""
    import tensorflow as tf

    from kar_aug import VectorStore, augment
    from kar_aug.cache import StoreSpec
    from kar_aug.layers import VectorAugmentation
    from kar_aug.models import join

    random = np.random.default_rng(0)
    some = random.standard_normal((PIECE, dimension), "float32").astype("float16")
    begun = time.perf_counter()
    with VectorStore.writer(folder, StoreSpec("benchmark", dimension)) as writer:
        for start in range(0, rows, PIECE):
            size = min(PIECE, rows - start)
            writer.append(np.arange(start, start + size), [""] * size, some[:size] + np.float16(start % 7))
    written = time.perf_counter() - begun
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
    begun = time.perf_counter()
    model.fit(data, verbose=0)
    seconds = time.perf_counter() - begun
    grown = megabytes("RssAnon") - before
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    cells = (
        f"{rows:,} x {dimension}", f"{size:,.0f}", f"{written:.0f}", f"{batch * batches / seconds:,.0f}", f"{before:,}",
        f"{grown:+,}", f"{megabytes('RssFile'):,}",
    )  # fmt: skip
    sys.stdout.write("\t".join(cells) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4_096)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where stores are written for a while")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        measure(given.rows[0], given.dimension, given.batch, given.batches, given.folder)
        return
    from kar_aug.cli.progress import table

    lines = []
    for rows in given.rows:
        folder = Path(tempfile.mkdtemp(dir=given.folder))
        try:
            sizes = [f"--{name}={getattr(given, name)}" for name in ("dimension", "batch", "batches")]
            command = [sys.executable, __file__, "--here", f"--rows={rows}", *sizes, f"--folder={folder / 'store'}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines.append(tuple(done.stdout.strip().splitlines()[-1].split("\t")))
        finally:
            shutil.rmtree(folder)
    columns = ("vectors", "MB on disk", "s to write", "rows/s", "MB of its own", "and after", "MB mapped")
    title = f"{given.batches} batches of {given.batch:,}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    table(title, columns, lines)


if __name__ == "__main__":
    main()
