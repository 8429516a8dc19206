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
from kar_aug.cache.vectors.moments import Moments, moments
from kar_aug.cache.vectors.parts import Parts, gathered
from kar_aug.errors import StoreError

Array = npt.NDArray[Any]
_SMALL_INDEX = 1 << 18  # ids: some megabytes, which take some milliseconds


@dataclass(frozen=True)
class _Part:
    """The mapped files of one part."""

    vectors: Array
    ids: Array
    keys: Array
    times: Array | None = None


@dataclass(frozen=True)
class _Deleted:
    """Those of a group of deletions."""

    ids: Array
    times: Array | None = None


@dataclass(frozen=True)
class Snapshot:
    """A published state of a store, read-only. Opening maps its files, and reads of them a small index alone, which is
    compared with its checksum.
    """

    path: Path
    manifest: Manifest
    _parts: tuple[_Part | _Deleted, ...] = field(repr=False)
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
        """How many ids have a vector."""
        return len(self._latest.ids)

    @property
    def versioned(self) -> bool:
        """Whether an id may have several vectors, each of what was known by some moment. Who asks without a time gets
        the last of each.
        """
        return self.manifest.versioned

    @property
    def versions(self) -> int:
        """How many vectors all ids have together: as many as ids, where the store is not of versions."""
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
        return "i" if self._parts[0].ids.dtype.kind == "i" else "U"

    @cached_property
    def _index(self) -> IdIndex:
        """Ids to rows: the index on disk, and what was published after it, which its writer had no time to index."""
        newer_ids: list[Array] = []
        newer_rows: list[Array] = []
        newer_times: list[Array] = []
        start = 0
        for group, part in zip(self.manifest.parts, self._parts, strict=True):
            skip = min(max(self.manifest.indexed - start, 0), group.rows) if isinstance(part, _Part) else 0
            newer_ids.append(part.ids[skip:])
            if part.times is not None:
                newer_times.append(part.times[skip:])
            if isinstance(part, _Part):
                newer_rows.append(np.arange(start + skip, start + group.rows))
                start += group.rows
            else:
                newer_rows.append(np.full(len(part.ids), -1))
        times = np.concatenate(newer_times) if newer_times else None
        newer = IdIndex.build(np.concatenate(newer_ids), np.concatenate(newer_rows), times) if newer_ids else None
        if self._disk_index is None:
            return _NOTHING if newer is None else newer.live
        if newer is None or not len(newer.ids):
            return self._disk_index
        return self._disk_index.followed_by(newer)

    @property
    def index(self) -> IdIndex:
        """Ids, and times where they have versions, to rows."""
        return self._index

    @cached_property
    def _latest(self) -> IdIndex:
        """The last version of each id."""
        return self._index.latest

    @property
    def ids(self) -> list[EntityId]:
        """The ids that have a vector, in the order of their rows."""
        return given_ids(self._latest.ids[np.argsort(self._latest.rows)])

    @property
    def live_rows(self) -> Array:
        """The rows that are an id's: those neither superseded by another of the same id (and time) nor deleted."""
        return self._index.rows

    def ids_at(self, rows: Array) -> list[EntityId]:
        """The ids of rows of the store."""
        ids = [part.ids for part in self._vector_parts]
        width = max((part.dtype.itemsize for part in ids), default=1)
        return given_ids(gathered(ids, rows, (), np.int64 if self.id_kind == "i" else f"S{width}"))

    @property
    def keys(self) -> dict[EntityId, str]:
        """Per id, the key of the text its vector encodes."""
        return dict(zip(given_ids(self._latest.ids), self.keys_at(self._latest.rows), strict=True))

    def keys_of(self, ids: Sequence[EntityId], versions: Moments | None = None) -> list[str | None]:
        """Per id the key of the text its vector encodes, None where it has no vector.

        Args:
            versions: per id the moment of the version that is meant; the last one if None.
        """
        rows = self.rows(ids, versions)
        keys: list[str | None] = [None] * len(rows)
        known = np.flatnonzero(rows >= 0)
        for place, key in zip(known.tolist(), self.keys_at(rows[known]), strict=True):
            keys[place] = key
        return keys

    @cached_property
    def vectors(self) -> Array:
        """All rows in the store's own order, superseded ones included: (rows, dimension). Memory-mapped if the store
        is one part; else joined in memory (`gather`, `matrix` and `align` never do that).
        """
        return self.mapped if isinstance(self.mapped, np.ndarray) else np.asarray(self.mapped)

    @property
    def mapped(self) -> Array | Parts:
        """The same, memory-mapped in any case: rows are read where they are asked for."""
        parts = [part.vectors for part in self._vector_parts]
        if not parts:
            return np.empty((0, self.spec.dimension), self.spec.dtype)
        return parts[0] if len(parts) == 1 else Parts(parts)

    def rows(self, ids: Sequence[EntityId | None] | Array, versions: Moments | None = None) -> npt.NDArray[np.int32]:
        """Per id its row in `vectors`, -1 where it has none.

        Args:
            versions: per id the moment of the version that is meant; the last one if None.

        Raises:
            StoreError: Versions are asked for of a store that holds one vector an id.
        """
        if versions is not None:
            self.require_versions()
        rows = self._index.find(ids) if versions is None else self._index.exactly(ids, versions)
        return rows.astype(np.int32)

    def rows_at(self, ids: Sequence[EntityId | None] | Array, times: Any) -> npt.NDArray[np.int32]:
        """Per id and time the row of the id's last version that is strictly before it, -1 where there is none.

        Args:
            times: of each id, what `kar_aug.cache.vectors.moments.moments` reads.

        Raises:
            StoreError: The store holds one vector an id, and nobody can tell since when.
            ValueError: `times` are no times, too coarse, or not as many as ids.
        """
        self.require_versions()
        asked = moments(times)
        if asked.shape != (len(ids),):
            raise ValueError(f"`times` must be one for each of {len(ids)} ids. Received shape: {asked.shape}")
        return self._index.before(*self._index.spans(ids), asked).astype(np.int32)

    def require_versions(self) -> None:
        """Raise StoreError unless the store is of versions: what is of no time can be asked for at none."""
        if not self.versioned and len(self._parts):
            raise StoreError(
                f"{self.path} holds one vector an id, and not since when it may be used: leave the times out, or "
                'encode versions ([prompts] selection = "blocks").',
                path=self.path,
            )

    def vectors_at(self, rows: Array) -> Array:
        """Vectors at rows of the store, zeros for row -1: (len(rows), dimension), read from the mapped files."""
        return gathered([part.vectors for part in self._vector_parts], rows, (self.spec.dimension,), self.spec.dtype)

    def blocks(self, size: int) -> Iterator[tuple[list[EntityId], list[str], Array]]:
        """The last version of each id in the order of the store, `size` at a time: ids, keys, and (ids, dimension)
        vectors.
        """
        order = np.argsort(self._latest.rows)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = self._latest.rows[chosen]
            yield given_ids(self._latest.ids[chosen]), self.keys_at(rows), self.vectors_at(rows)

    def version_blocks(self, size: int) -> Iterator[tuple[list[EntityId], Moments | None, list[str], Array]]:
        """The same of all live rows, with the moment of each; None where the store is not of versions."""
        order, index = np.argsort(self._index.rows), self._index
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows, times = index.rows[chosen], None if index.times is None else index.times[chosen]
            yield given_ids(index.ids[chosen]), times, self.keys_at(rows), self.vectors_at(rows)

    def versions_of(self, ids: Sequence[EntityId]) -> tuple[list[EntityId], Moments]:
        """All versions of some ids: the id and the moment of each."""
        first, stop = self._index.spans(ids)
        counts = stop - first
        places = np.repeat(stop - np.cumsum(counts), counts) + np.arange(counts.sum())
        times = np.empty(0, np.int64) if self._index.times is None else self._index.times[places]
        return given_ids(self._index.ids[places]), times

    def moments_at(self, rows: Array) -> Moments:
        """Until when the texts at rows of a store of versions knew."""
        times = [part.times for part in self._vector_parts if part.times is not None]
        return gathered(times, rows, (), np.int64)

    @property
    def _vector_parts(self) -> list[_Part]:
        return [part for part in self._parts if isinstance(part, _Part)]

    def keys_at(self, rows: Array) -> list[str]:
        """The keys of the texts at rows of the store."""
        parts = [part.keys for part in self._vector_parts]
        width = max((part.dtype.itemsize for part in parts), default=1)
        return given_text(gathered(parts, rows, (), f"S{width}"))


_NOTHING = IdIndex(np.empty(0, np.int64), np.empty(0, np.int64))


def _map(path: Path, manifest: Manifest) -> tuple[tuple[_Part | _Deleted, ...], IdIndex | None]:
    """Every file of a state, mapped and compared with what the manifest says of it."""
    parts: list[_Part | _Deleted] = []
    id_type = None
    for group in manifest.parts:
        ids = read_array(path, group, "ids", _id_type(path, group, id_type) + f" ({group.rows},)")
        id_type = ids.dtype.kind
        times = _times(path, group)
        if group.deletes:
            parts.append(_Deleted(ids, times))
            continue
        shape = f"({group.rows}, {manifest.spec.dimension})"
        vectors = read_array(path, group, "vectors", f"{manifest.spec.dtype} {shape}")
        parts.append(_Part(vectors, ids, read_array(path, group, "keys", f"S ({group.rows},)"), times))
    if manifest.index is None:
        return tuple(parts), None
    if manifest.index.rows <= _SMALL_INDEX:
        for kind in manifest.index.files:
            check_now(path, manifest.index, kind)
    length = f"({manifest.index.rows},)"
    ids = read_array(path, manifest.index, "ids", f"{id_type or 'S'} {length}")
    rows = read_array(path, manifest.index, "rows", f"int64 {length}")
    return tuple(parts), IdIndex(ids, rows, _times(path, manifest.index))


def _times(path: Path, group: Group) -> Array | None:
    return read_array(path, group, "times", f"int64 ({group.rows},)") if "times" in group.files else None


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
