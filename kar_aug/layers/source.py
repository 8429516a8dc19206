"""One knowledge source of `KnowledgeAugmentation`: what it is, where its vectors are, the weights that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.parts import Parts, all_finite, blocks
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.cache.vectors.table import KnowledgeTable, RowCodes
from kar_aug.errors import StoreError
from kar_aug.layers._ops import ops
from kar_aug.layers.copies import found, nothing_known, offered
from kar_aug.layers.ids import STRINGS, Kind, kind_of
from kar_aug.layers.lookup import positions, sorted_keys, values_of

_CHECKED_ROWS = 65_536
_OF_A_FILE = {"store", "fingerprint", "vocabulary", "raw", "vectors", "dtype"}  # what each config says of a source
_NOT_YET = np.asarray(-1, ops.KEYS)  # the fingerprint of a layer without knowledge, which waits for weights


@dataclass(frozen=True)
class Identity:
    """What a saved model says of a source: enough to find its vectors again, or to make room for them.

    Args:
        store, fingerprint: where they come from, None for vectors given as an array.
        vocabulary: how many ids the model has.
        raw: whether it reads the ids of the store itself, not places in a vocabulary.
        vectors: shape of all vectors, [count, dimension].
        dtype: of the vectors.
        ids: the kind of raw ids (`ids.Kind`), None where they are places.
        content: under which copies of the layer find it in the same process (`copies.offered`).
        version: of the vectors that the experts learnt to read (`VectorStore.version`), of whichever these here are;
            None where they learnt on an array, and in files that do not say.
    """

    store: str | None
    fingerprint: str | None
    vocabulary: int
    raw: bool
    vectors: list[int]
    dtype: str
    ids: Kind = None
    content: str = ""
    version: str | None = None

    @property
    def origin(self) -> dict[str, Any]:
        """Where the vectors come from, in words for people and other programs."""
        said = {"store": self.store, "fingerprint": self.fingerprint, "version": self.version}
        return {name: value for name, value in said.items() if value is not None}


class Given(NamedTuple):
    """A source's knowledge as it was given, or as a saved model asks for it.

    Args:
        keys: of its raw ids (`lookup.sorted_keys`), None where ids are places.
        ids: their kind, None where they are places.
        is_known: False where there is only room, for weights that are to be loaded.
    """

    table: KnowledgeTable
    keys: npt.NDArray[np.int64] | None
    ids: Kind = None
    is_known: bool = True

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
            self.ids,
            version=self.table.version,
        )

    @property
    def fingerprint(self) -> npt.NDArray[np.int64]:
        """As a weight: the store's, 0 for none."""
        return as_int64(self.table.fingerprint).astype(ops.KEYS) if self.is_known else _NOT_YET


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
        codes: of each of the vectors, where they were given along; the layer itself has no use for them.
        adapt: (vectors, rows) -> augmented vectors, compiled once they were asked for.
    """

    name: str
    identity: Identity
    vectors: Any = None
    rows: Any = None
    keys: Any = None
    fingerprint: Any = None
    default: Any = None
    codes: RowCodes | None = None
    adapt: Callable[[Any, Any], Any] | None = None

    @property
    def dimension(self) -> int:
        """Length of a knowledge vector."""
        return self.identity.vectors[1]

    @property
    def kind(self) -> Kind:
        """Of the ids that it is looked up by."""
        return self.identity.ids if self.identity.raw else self.identity.vocabulary - 1

    @property
    def coverage(self) -> float:
        """Share of the vocabulary that has knowledge."""
        self.check()
        return float(np.mean(values_of(self.rows)[:-1] >= 0))

    @property
    def given(self) -> Given:
        """Its knowledge, of raw ids in the order of their keys."""
        self.check()
        vectors, rows = values_of(self.vectors), values_of(self.rows)[:-1]
        identity = self.identity
        table = KnowledgeTable(vectors, rows, identity.store, identity.fingerprint, identity.version, self.codes)
        return Given(table, None if self.keys is None else values_of(self.keys), identity.ids)

    def learn_from(self, former: Source) -> None:
        """Take over what another of this name learnt, with its vectors: the default, and their version."""
        self.default.assign(values_of(former.default))
        self.identity = replace(self.identity, version=former.identity.version or self.identity.version)

    @property
    def saved(self) -> Identity:
        """What a config says of it. Copies that are made of the config get its knowledge in this process."""
        if int(values_of(self.fingerprint)) == int(_NOT_YET):
            return self.identity
        return replace(self.identity, content=offered(self))

    def held(self) -> list[npt.NDArray[Any]]:
        """What no store can tell a copy: rows, keys, and vectors that were given as an array."""
        weights = [self.fingerprint, self.rows, self.keys, self.vectors if self.identity.store is None else None]
        return [values_of(weight) for weight in weights if weight is not None]

    def places(self, ids: Any) -> Any:
        """Per id its place in the vocabulary, and the place behind the last for an id outside it."""
        keys = None if self.keys is None else ops.convert_to_tensor(self.keys)
        return positions(ids, self.identity.vocabulary, keys)

    def vectors_at(self, places: Any, dtype: Any) -> tuple[Any, Any]:
        """Knowledge vectors at `places` (those without get another's, unused), and which are known."""
        row = ops.rows_at(ops.convert_to_tensor(self.rows), places)
        vectors = ops.rows_at(ops.convert_to_tensor(self.vectors), ops.maximum(row, 0))
        return ops.cast(vectors, dtype), row >= 0

    def check(self) -> None:
        """Raise StoreError if the weights say another store than the layer was built with, or were never loaded.

        It is asked whenever the layer is called, and says nothing where the weights cannot be read yet.
        """
        weight, ours = ops.value_now(self.fingerprint), self.identity.fingerprint
        if weight is None:
            return
        loaded = int(weight)
        if loaded == int(_NOT_YET):
            raise nothing_known(f"Source {self.name!r}")
        whole = as_int64(ours)
        if loaded not in (int(whole), int(whole.astype(np.int32))):  # JAX keeps 32 bits of it
            raise StoreError(
                f"The weights were trained with {self.name} from a store with fingerprint {loaded % 2**64:016x}, but "
                f"this layer has {self.identity.store} with {ours}. Build it with the unchanged store, then `refresh`.",
                path=self.identity.store,
                source=self.name,
                left=f"{loaded % 2**64:016x}",
                right=ours,
            )

    def if_right(self, augmented: Any) -> Any:
        """Augmented vectors; where `check` would raise and a traced function cannot ask it, an error on TensorFlow, and
        NaN on JAX.
        """
        ours = self.identity
        otherwise = (
            f"The weights were trained with {self.name} from another store than {ours.store} with {ours.fingerprint}, "
            "which this layer has. Build it with the unchanged store, then `refresh`."
        )
        return ops.if_equal(self.fingerprint, as_int64(ours.fingerprint), augmented, otherwise)


def as_int64(fingerprint: str | None) -> npt.NDArray[np.int64]:
    """A fingerprint's 64 bits as a weight can hold them; 0 for none."""
    return np.asarray(int(fingerprint or "0", 16), np.uint64).astype(np.int64)


def read(name: str, source: Any, embedded: bool) -> Given:
    """A source as `KnowledgeAugmentation` takes it, or as its `get_config` wrote it.

    Raises:
        StoreError: A vector holds NaN or a row points past the vectors; or a saved source's store is gone or another.
    """
    if isinstance(source, Mapping) and source.keys() >= _OF_A_FILE:
        return _saved(name, Identity(**source), embedded)
    keys, kind = None, None
    if isinstance(source, VectorStore):
        ids = source.ids
        keys, order = sorted_keys(ids)
        source, kind = source.align([ids[i] for i in order]), kind_of(ids)
    table = source if isinstance(source, KnowledgeTable) else _of_array(name, source)
    _check(name, table)
    return Given(table, keys, kind)


def check_same_ids(name: str, raw: bool, kind: Kind, given: Given) -> None:
    """Raise ValueError if a source is to be looked up by other ids than those that the model reads.

    Args:
        raw, kind: whether it is looked up by the store's own ids so far, and of which kind these are.
    """
    if given.is_known and (given.keys is not None) != raw:
        ours, wanted = "a store's own ids", "the VectorStore itself"
        if not raw:
            ours, wanted = "the integers of a vocabulary", "store.align(vocabulary), or an array in its order"
        raise ValueError(f"The model reads {ours} of {name!r}, and these would be taken for others. Give {wanted}.")
    if given.is_known and raw and kind is not None and (kind == STRINGS) != (given.ids == STRINGS):
        kinds = ("strings", "integers") if kind == STRINGS else ("integers", "strings")
        raise ValueError(f"The ids of {name!r} are {kinds[0]} to the model, and {kinds[1]} in this store.")


def _of_array(name: str, source: Any) -> KnowledgeTable:
    """Vectors that were given without a store.

    Raises:
        ValueError: They are no matrix of numbers.
    """
    if isinstance(source, str | Path):
        raise ValueError(f"The knowledge of {name!r} is a path. Open it: VectorStore.open({str(source)!r})")
    matrix = None if isinstance(source, Mapping) else np.asarray(source)
    if matrix is None or (matrix.dtype.kind not in "fiub" and "float" not in matrix.dtype.name):  # bfloat16
        kind = type(source).__name__ if matrix is None else f"an array of {matrix.dtype}"
        raise ValueError(
            f"The knowledge of {name!r} must be a VectorStore, what its `align` returned, or an array of numbers, "
            f"(vocabulary, dimension), in the order of the model's integers. Received: {kind}"
        )
    return KnowledgeTable.from_array(matrix)


@dataclass(frozen=True)
class _Locations:
    """Where stores are, and by which names models asked: one set for each block."""

    folders: Mapping[str, str] = field(default_factory=dict)
    asked: tuple[set[str], ...] = ()


_NOWHERE = _Locations()
_locations: ContextVar[_Locations] = ContextVar("store_locations")


@contextmanager
def store_locations(stores: Mapping[str, Path | str]) -> Iterator[set[str]]:
    """Where vector stores are that moved since a model was saved, for all models loaded inside the block.

    Example:
        with store_locations({"item_id": "/mnt/vectors/item"}):
            model = keras.models.load_model("model.keras")

    Args:
        stores: source name -> folder. Another block around this one is still heard for other sources.

    Yields:
        The names of the sources that the models loaded inside have: filled as they are loaded.
    """
    outer, asked = _locations.get(_NOWHERE), set[str]()
    folders = {**outer.folders, **{name: str(folder) for name, folder in stores.items()}}
    token = _locations.set(_Locations(folders, (*outer.asked, asked)))
    try:
        yield asked
    finally:
        _locations.reset(token)


_vectors_left_out: ContextVar[bool] = ContextVar("vectors_left_out", default=False)


@contextmanager
def vectors_left_out() -> Iterator[None]:
    """Models loaded inside the block have their experts, but not the vectors of stores, which may be gone or have
    changed: such a model adapts vectors, and predicts nothing.

    Example:
        with vectors_left_out():
            former = load_model("ranker.keras")  # of a class with a `call` of its own, whose store has grown since
        ranker = Ranker(former.knowledge.refreshed({"item_id": VectorStore.open("vectors/item")}))
        ranker.click = former.click  # the trained layers
    """
    token = _vectors_left_out.set(True)
    try:
        yield
    finally:
        _vectors_left_out.reset(token)


def note_loaded(sources: Iterable[str]) -> None:
    """Say that a layer with these sources is made from a config."""
    for asked in _locations.get(_NOWHERE).asked:
        asked.update(sources)


def _saved(name: str, identity: Identity, embedded: bool) -> Given:
    """What a saved model asks for: its store's vectors, and what a layer of this process holds of the same content. If
    there is none, room for all that is a weight, which is loaded later.
    """
    note_loaded([name])
    like, store = found(Source, identity.content), identity.store
    if like is None:
        rows = np.full(identity.vocabulary, -1, np.int32)
        keys = np.zeros(identity.vocabulary, ops.KEYS) if identity.raw else None
    else:
        rows, keys = like.given.table.rows, like.given.keys
    vectors: npt.NDArray[Any] | Parts
    if store is None or embedded:
        vectors = np.zeros(identity.vectors, identity.dtype) if like is None else values_of(like.vectors)
    elif _vectors_left_out.get():
        vectors = np.zeros((1, identity.vectors[1]), identity.dtype)
    else:
        opened = _opened(name, identity)
        vectors, store = opened.mapped, str(opened.path.resolve())
    table = KnowledgeTable(vectors, rows, store, identity.fingerprint, identity.version)
    return Given(table, keys, identity.ids, is_known=like is not None)


def _opened(name: str, identity: Identity) -> VectorStore:
    """The store that a saved model names, or where it is now.

    Raises:
        StoreError: There is none, or it is another one.
    """
    folders = _locations.get(_NOWHERE).folders
    try:
        store = VectorStore.open(folders.get(name) or str(identity.store))
    except StoreError as error:
        if not folders or name in folders:
            raise
        raise StoreError(
            f"The model knows {name!r} from {identity.store}, and `stores` says only where {', '.join(folders)} is. "
            f"Say where it is now: stores={{'{name}': ...}}. {error}",
            path=error.path,
            source=name,
        ) from None
    if store.fingerprint != identity.fingerprint:
        raise StoreError(
            f"The model knows {name} from store {identity.store} with fingerprint {identity.fingerprint}, "
            f"but {store.path} now has {store.fingerprint}. Give load_model the unchanged store; or, to go on with "
            f"what is known now, load_model(path, tables={{{name!r}: ...}}) with what `refresh` takes.",
            path=store.path,
            source=name,
            left=identity.fingerprint,
            right=store.fingerprint,
        )
    return store


def _check(name: str, table: KnowledgeTable) -> None:
    """Refuse a table whose rows or vectors cannot be right, with the integer id that is wrong."""
    if not len(table.rows) or table.vectors.ndim != 2 or not table.vectors.shape[1]:
        raise StoreError(
            f"{name}: a table needs a vocabulary, and vectors of shape (count, dimension). A store that is empty is "
            "filled by kar-aug encode.",
            source=name,
        )
    outside = np.flatnonzero((table.rows >= len(table.vectors)) | (table.rows < -1))
    if len(outside):
        raise StoreError(
            f"{name}: integer id {outside[0]} points to row {table.rows[outside[0]]}, but there are "
            f"{len(table.vectors)} vectors. Align the vocabulary with the store again.",
            source=name,
            entity_id=int(outside[0]),
            row=int(table.rows[outside[0]]),
        )
    for start, some in blocks(table.vectors, _CHECKED_ROWS):  # a mapped store is never in memory whole
        if all_finite(some):
            continue
        wrong = start + np.flatnonzero(~np.isfinite(some).all(axis=1))
        bad = np.flatnonzero(np.isin(table.rows, wrong))
        if len(bad):  # a bad row that no id points to harms nobody
            raise StoreError(
                f"{name}: the vector of integer id {bad[0]} holds NaN or infinity. Encode it again.",
                source=name,
                entity_id=int(bad[0]),
            )
