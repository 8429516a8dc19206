"""One published state of a vector store, mapped into memory: from ids to rows, from rows to vectors and keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.files import AGAIN, Group, Manifest, StoreSpec, check_now, read_array
from kar_aug.cache.vectors.index import EntityId, IdIndex, given_ids, given_text
from kar_aug.errors import StoreError

Array = npt.NDArray[Any]
_SMALL_INDEX = 1 << 18  # ids: some megabytes, which take some milliseconds


@dataclass(frozen=True)
class _Part:
    """The mapped files of one part."""

    vectors: Array
    ids: Array
    keys: Array


@dataclass(frozen=True)
class Snapshot:
    """A published state of a store, read-only. Opening maps its files, and reads of them a small index alone, which is
    compared with its checksum.
    """

    path: Path
    manifest: Manifest
    _parts: tuple[_Part | Array, ...] = field(repr=False)  # mapped parts; ids alone where they were deleted
    _disk_index: IdIndex | None = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the latest published state of a store.

        Raises:
            StoreError: There is none, a file of it cannot be read or is not what the manifest says, or it has
                another format.
        """
        path = Path(path)
        manifest = Manifest.read(path)
        while True:
            try:
                return cls(path, manifest, *_map(path, manifest))
            except FileNotFoundError as error:
                newest = Manifest.read(path)
                if newest.generation == manifest.generation:
                    raise StoreError(f"{error.filename} is gone. Delete {path} and {AGAIN}", path=path) from None
                manifest = newest  # somebody published and pruned while we looked

    @property
    def spec(self) -> StoreSpec:
        """What all vectors have in common."""
        return self.manifest.spec

    @property
    def version(self) -> str:
        """8 hex digits over the spec and the PCA that all vectors went through: a model that learnt to read vectors of
        one version reads noise in those of another. It stays when entities come, go and change.
        """
        return self.manifest.version or self.spec.version

    def __len__(self) -> int:
        return len(self._index.ids)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the spec and everything that was appended or deleted: equal stores, equal fingerprints."""
        return self.manifest.content[:16]

    @property
    def id_kind(self) -> str:
        """NumPy's letter for the type of the ids: "i" for integers, "U" for strings; "" while there is none."""
        if not self._parts:
            return ""
        first = self._parts[0]
        return "i" if (first.ids if isinstance(first, _Part) else first).dtype.kind == "i" else "U"

    @cached_property
    def _index(self) -> IdIndex:
        """Ids to rows: the index on disk, and what was published after it, which its writer had no time to index."""
        newer_ids: list[Array] = []
        newer_rows: list[Array] = []
        start = 0
        for group, part in zip(self.manifest.parts, self._parts, strict=True):
            if isinstance(part, _Part):
                skip = min(max(self.manifest.indexed - start, 0), group.rows)
                newer_ids.append(part.ids[skip:])
                newer_rows.append(np.arange(start + skip, start + group.rows))
                start += group.rows
            else:
                newer_ids.append(part)
                newer_rows.append(np.full(len(part), -1))
        newer = IdIndex.build(np.concatenate(newer_ids), np.concatenate(newer_rows)) if newer_ids else None
        if self._disk_index is None:
            return _NOTHING if newer is None else _only_live(newer)
        if newer is None or not len(newer.ids):
            return self._disk_index
        return self._disk_index.followed_by(newer)

    @property
    def ids(self) -> list[EntityId]:
        """The ids that have a vector, in the order of their rows."""
        return given_ids(self._index.ids[np.argsort(self._index.rows)])

    @property
    def live_rows(self) -> Array:
        """The rows that are an id's: those neither superseded nor deleted."""
        return self._index.rows

    def ids_at(self, rows: Array) -> list[EntityId]:
        """The ids of rows of the store."""
        ids = [part.ids for part in self._vector_parts]
        width = max((part.dtype.itemsize for part in ids), default=1)
        return given_ids(self._at(rows, ids, (), np.int64 if self.id_kind == "i" else f"S{width}"))

    @property
    def keys(self) -> dict[EntityId, str]:
        """Per id, the key of the text its vector encodes."""
        return dict(zip(given_ids(self._index.ids), self._keys_at(self._index.rows), strict=True))

    def keys_of(self, ids: Sequence[EntityId]) -> list[str | None]:
        """Per id the key of the text its vector encodes, None where it has no vector."""
        rows = self._index.find(ids)
        keys: list[str | None] = [None] * len(rows)
        known = np.flatnonzero(rows >= 0)
        for place, key in zip(known.tolist(), self._keys_at(rows[known]), strict=True):
            keys[place] = key
        return keys

    @cached_property
    def vectors(self) -> Array:
        """All rows in the store's own order, superseded ones included: (rows, dimension). Memory-mapped if the store
        is one part; else joined in memory (`gather` and `matrix` never do that).
        """
        parts = [part.vectors for part in self._vector_parts]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self.spec.dimension), self.spec.dtype), *parts])

    def rows(self, ids: Sequence[EntityId | None] | Array) -> npt.NDArray[np.int32]:
        """Per id its row in `vectors`, -1 where it has none."""
        return self._index.find(ids).astype(np.int32)

    def vectors_at(self, rows: Array) -> Array:
        """Vectors at rows of the store, zeros for row -1: (len(rows), dimension), read from the mapped files."""
        return self._at(rows, [part.vectors for part in self._vector_parts], (self.spec.dimension,), self.spec.dtype)

    def blocks(self, size: int) -> Iterator[tuple[list[EntityId], list[str], Array]]:
        """All live rows in the order of the store, `size` at a time: ids, keys, and (ids, dimension) vectors."""
        order = np.argsort(self._index.rows)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = self._index.rows[chosen]
            yield given_ids(self._index.ids[chosen]), self._keys_at(rows), self.vectors_at(rows)

    @property
    def _vector_parts(self) -> list[_Part]:
        return [part for part in self._parts if isinstance(part, _Part)]

    def _keys_at(self, rows: Array) -> list[str]:
        parts = [part.keys for part in self._vector_parts]
        width = max((part.dtype.itemsize for part in parts), default=1)
        return given_text(self._at(rows, parts, (), f"S{width}"))

    def _at(self, rows: Array, parts: list[Array], shape: tuple[int, ...], dtype: Any) -> Array:
        """Rows of arrays that lie one behind the other, zeros for row -1."""
        if len(parts) == 1 and len(rows) and rows.min() >= 0:
            return np.asarray(parts[0])[rows].astype(dtype, copy=False)
        found = np.zeros((len(rows), *shape), dtype)
        starts = np.cumsum([0, *map(len, parts)])
        part_of = np.searchsorted(starts, rows, side="right") - 1
        for number in np.unique(part_of[rows >= 0]).tolist():
            here = np.flatnonzero((part_of == number) & (rows >= 0))
            found[here] = np.asarray(parts[number])[rows[here] - starts[number]]
        return found


_NOTHING = IdIndex(np.empty(0, np.int64), np.empty(0, np.int64))


def _only_live(index: IdIndex) -> IdIndex:
    live = index.rows >= 0
    return IdIndex(index.ids[live], index.rows[live])


def _map(path: Path, manifest: Manifest) -> tuple[tuple[_Part | Array, ...], IdIndex | None]:
    """Every file of a state, mapped and compared with what the manifest says of it."""
    parts: list[_Part | Array] = []
    id_type = None
    for group in manifest.parts:
        ids = read_array(path, group, "ids", _id_type(path, group, id_type) + f" ({group.rows},)")
        id_type = ids.dtype.kind
        if group.deletes:
            parts.append(ids)
            continue
        shape = f"({group.rows}, {manifest.spec.dimension})"
        vectors = read_array(path, group, "vectors", f"{manifest.spec.dtype} {shape}")
        parts.append(_Part(vectors, ids, read_array(path, group, "keys", f"S ({group.rows},)")))
    if manifest.index is None:
        return tuple(parts), None
    if manifest.index.rows <= _SMALL_INDEX:
        for kind in manifest.index.files:
            check_now(path, manifest.index, kind)
    length = f"({manifest.index.rows},)"
    ids = read_array(path, manifest.index, "ids", f"{id_type or 'S'} {length}")
    return tuple(parts), IdIndex(ids, read_array(path, manifest.index, "rows", f"int64 {length}"))


def _id_type(path: Path, group: Group, known: str | None) -> str:
    """NumPy's letter for the ids of a group: that of the parts before it, or what the first file says."""
    if known is not None:
        return known
    try:
        kind = np.load(path / f"{group.name}.ids.npy", mmap_mode="r", allow_pickle=False).dtype
        return "S" if kind.kind == "S" else "int64"
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError):
        return "int64"
