"""Vectors taken out of a store for good: of its state, of older ones, and of what killed writers left."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from kar_aug.cache.vectors.index import EntityId, stored_ids
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.cache.vectors.writer import open_writer


def vectors_of(path: Path, ids: Collection[EntityId]) -> int:
    """How many rows of any file in the folder of a store are of these ids, superseded and deleted ones included."""
    return sum(_rows_of(file, ids) for file in path.glob("[0-9]*-*.ids.npy"))


def forget_vectors(path: Path, ids: Collection[EntityId]) -> None:
    """Write the store anew without these ids, and delete all files of before.

    Readers that have it open keep what they see until they close it.

    Raises:
        StoreError: Another process writes the store, or it is damaged.
    """
    store = Snapshot.open(path)
    with open_writer(path, store.spec) as writer:
        writer.delete([id for id in ids if _fits(id, store.id_kind)])
        writer.compact()
    with open_writer(path, store.spec) as writer:
        writer.prune()


def _rows_of(file: Path, ids: Collection[EntityId]) -> int:
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    fitting = [id for id in ids if _fits(id, "i" if array.dtype.kind == "i" else "U")]
    if not fitting or not len(array):
        return 0
    return int(np.isin(array, stored_ids(fitting)).sum())


def _fits(id: EntityId, kind: str) -> bool:
    return isinstance(id, str) == (kind == "U")
