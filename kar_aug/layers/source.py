"""One knowledge source of `KnowledgeAugmentation`: what it is, where its vectors are, the weights that belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kar_aug._keras import tf
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.cache.vectors.table import KnowledgeTable
from kar_aug.errors import StoreError
from kar_aug.layers.lookup import positions, sorted_keys

_CHECKED_ROWS = 65_536


@dataclass(frozen=True)
class Identity:
    """What a saved model says of a source: enough to find its vectors again, or to make room for them.

    Args:
        store, fingerprint: where they come from, None for vectors given as an array.
        vocabulary: how many ids the model has.
        raw: whether it reads the ids of the store itself, not places in a vocabulary.
        vectors: shape of all vectors, [count, dimension].
        dtype: of the vectors.
    """

    store: str | None
    fingerprint: str | None
    vocabulary: int
    raw: bool
    vectors: list[int]
    dtype: str


class Given(NamedTuple):
    """A source's knowledge as it was given, or as a saved model asks for it."""

    table: KnowledgeTable
    keys: npt.NDArray[np.int64] | None  # of its raw ids (`lookup.sorted_keys`), None where ids are places

    @property
    def identity(self) -> Identity:
        """What to save of it."""
        vectors = self.table.vectors
        return Identity(
            self.table.store,
            self.table.fingerprint,
            len(self.table.rows),
            self.keys is not None,
            list(vectors.shape),
            vectors.dtype.name,
        )


@dataclass(eq=False)
class Source:
    """The record that the layer keeps of a source. Keras does not look into it: each weight is tracked by the layer.

    Args:
        vectors: (count, dimension); a tensor outside Keras's weights where they come from a store, so that no
            checkpoint copies them, else a weight.
        rows: weight, (vocabulary + 1,): per id its row of `vectors`, -1 where it has none; the last is that of
            an id outside the vocabulary.
        keys: weight, (vocabulary,): ascending keys of raw ids.
        fingerprint: weight, the store's as an integer.
        default: weight, (width,): the vector of ids without knowledge.
    """

    name: str
    identity: Identity
    vectors: Any = None
    rows: Any = None
    keys: Any = None
    fingerprint: Any = None
    default: Any = None

    @property
    def dimension(self) -> int:
        """Length of a knowledge vector."""
        return self.identity.vectors[1]

    @property
    def coverage(self) -> float:
        """Share of the vocabulary that has knowledge."""
        return float(np.mean(np.asarray(self.rows)[:-1] >= 0))

    def places(self, ids: Any) -> Any:
        """Per id its place in the vocabulary, and the place behind the last for an id outside it."""
        keys = None if self.keys is None else tf.convert_to_tensor(self.keys)
        return positions(ids, self.identity.vocabulary, keys)

    def vectors_at(self, places: Any, dtype: Any) -> tuple[Any, Any]:
        """Knowledge vectors at `places` (those without get another's, unused), and which are known."""
        row = tf.gather(tf.convert_to_tensor(self.rows), places)
        vectors = tf.gather(tf.convert_to_tensor(self.vectors), tf.maximum(row, 0))
        return tf.cast(vectors, dtype), row >= 0

    def check_fingerprint(self) -> None:
        """Raise StoreError if the weights that were loaded say another store than the layer was built with."""
        loaded, ours = int(np.asarray(self.fingerprint)), self.identity.fingerprint
        if loaded != int(as_int64(ours)):
            raise StoreError(
                f"The weights were trained with {self.name} from a store with fingerprint {loaded % 2**64:016x}, but "
                f"this layer has {self.identity.store} with {ours}. Build it with the unchanged store, then `refresh`.",
                path=self.identity.store,
                source=self.name,
                left=f"{loaded % 2**64:016x}",
                right=ours,
            )


def as_int64(fingerprint: str | None) -> npt.NDArray[np.int64]:
    """A fingerprint's 64 bits as a weight can hold them; 0 for none."""
    return np.asarray(int(fingerprint or "0", 16), np.uint64).astype(np.int64)


def read(name: str, source: Any, embedded: bool) -> Given:
    """A source as `KnowledgeAugmentation` takes it, or as its `get_config` wrote it.

    Raises:
        StoreError: A vector holds NaN or a row points past the vectors; or a saved source's store is gone or another.
    """
    if isinstance(source, Mapping):
        return _saved(name, Identity(**source), embedded)
    keys = None
    if isinstance(source, VectorStore):
        keys, order = sorted_keys(source.ids)
        source = source.align([source.ids[i] for i in order])
    table = source if isinstance(source, KnowledgeTable) else KnowledgeTable.from_array(source)
    _check(name, table)
    return Given(table, keys)


_locations: ContextVar[Mapping[str, str]] = ContextVar("store_locations")


@contextmanager
def store_locations(stores: Mapping[str, Path | str]) -> Iterator[None]:
    """Where vector stores are that moved since a model was saved, for all models loaded inside the block.

    Example:
        with store_locations({"item_id": "/mnt/vectors/item"}):
            model = keras.models.load_model("model.keras")

    Args:
        stores: source name -> folder. Another block around this one is still heard for other sources.
    """
    token = _locations.set({**_locations.get({}), **{name: str(folder) for name, folder in stores.items()}})
    try:
        yield
    finally:
        _locations.reset(token)


def _saved(name: str, identity: Identity, embedded: bool) -> Given:
    """What a saved model asks for: its store's vectors, and room for all that is a weight, which is loaded later."""
    rows = np.full(identity.vocabulary, -1, np.int32)
    keys = np.zeros(identity.vocabulary, np.int64) if identity.raw else None
    if identity.store is None or embedded:
        vectors = np.zeros(identity.vectors, identity.dtype)
    else:
        vectors = _stored_vectors(name, identity)
    return Given(KnowledgeTable(vectors, rows, identity.store, identity.fingerprint), keys)


def _stored_vectors(name: str, identity: Identity) -> npt.NDArray[Any]:
    store = VectorStore.open(_locations.get({}).get(name) or str(identity.store))
    if store.fingerprint != identity.fingerprint:
        raise StoreError(
            f"The model knows {name} from store {identity.store} with fingerprint {identity.fingerprint}, "
            f"but {store.path} now has {store.fingerprint}. Give load_model the unchanged store, or augment anew.",
            path=store.path,
            source=name,
            left=identity.fingerprint,
            right=store.fingerprint,
        )
    return store.vectors


def _check(name: str, table: KnowledgeTable) -> None:
    """Refuse a table whose rows or vectors cannot be right, with the integer id that is wrong."""
    if not len(table.rows) or table.vectors.ndim != 2:
        raise StoreError(f"{name}: a table needs a vocabulary, and vectors of shape (count, dimension).", source=name)
    outside = np.flatnonzero((table.rows >= len(table.vectors)) | (table.rows < -1))
    if len(outside):
        raise StoreError(
            f"{name}: integer id {outside[0]} points to row {table.rows[outside[0]]}, but there are "
            f"{len(table.vectors)} vectors. Align the vocabulary with the store again.",
            source=name,
            entity_id=int(outside[0]),
            row=int(table.rows[outside[0]]),
        )
    for start in range(0, len(table.vectors), _CHECKED_ROWS):  # a mapped store is never in memory whole
        finite = np.isfinite(table.vectors[start : start + _CHECKED_ROWS]).all(axis=1)
        if finite.all():
            continue
        bad = np.flatnonzero(np.isin(table.rows, start + np.flatnonzero(~finite)))
        if len(bad):  # a bad row that no id points to harms nobody
            raise StoreError(
                f"{name}: the vector of integer id {bad[0]} holds NaN or infinity. Encode it again.",
                source=name,
                entity_id=int(bad[0]),
            )
