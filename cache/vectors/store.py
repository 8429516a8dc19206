"""Knowledge vectors on disk: memory-mapped part files, a sorted index of ids, and a manifest that says what they are.

    store/
      manifest.json                 format, encoder, dimension, ..., checksums, and the list of files: the only way in
      00000-part.vectors.npy        (rows, dimension) fp16 or fp32
      00000-part.ids.npy            (rows,) int64, or strings as UTF-8
      00000-part.keys.npy           (rows,) the key of the text that each vector encodes
      00001-index.ids.npy           (ids,) sorted
      00001-index.rows.npy          (ids,) the row of each

Files are written once and never changed. The manifest that names them replaces the old one in a single rename: a
reader sees the store before or after, never between, and a writer that is killed leaves the last published
generation. A later row supersedes an earlier one of the same id. An open store has all its files mapped, so that
nothing a writer does, pruning included, changes or breaks it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kar_aug._files import atomic_path
from kar_aug.cache.vectors.files import AGAIN, Group, Manifest, StoreSpec, check_sum, read_array
from kar_aug.cache.vectors.index import EntityId, IdIndex, given_ids, given_text
from kar_aug.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

    from kar_aug.cache.vectors.writer import StoreWriter

Array = npt.NDArray[Any]
_CHECKED_ROWS = 65_536


@dataclass(frozen=True)
class KnowledgeTable:
    """The vectors of a vocabulary, ready for the layer: `vectors[rows[i]]` belongs to the model's integer i.

    Args:
        vectors: (count, dimension) knowledge vectors in the store's own order.
        rows: (vocabulary size,) int32 row of `vectors`, or -1 where the id has no knowledge.
        store, fingerprint: where the vectors come from, None for vectors given as an array.
    """

    vectors: Array
    rows: npt.NDArray[np.int32]
    store: str | None = None
    fingerprint: str | None = None

    @classmethod
    def from_array(cls, vectors: npt.ArrayLike, known: npt.ArrayLike | None = None) -> KnowledgeTable:
        """A table of vectors that are in the model's order already; `known` is False where there is no knowledge."""
        matrix = np.asarray(vectors)
        if matrix.ndim != 2:
            raise ValueError(f"`vectors` must have shape (vocabulary, dimension). Received shape: {matrix.shape}")
        mask = np.ones(len(matrix), bool) if known is None else np.asarray(known, bool)
        if mask.shape != (len(matrix),):
            raise ValueError(f"`known` must have shape ({len(matrix)},). Received shape: {mask.shape}")
        bad = np.flatnonzero(mask & ~np.isfinite(matrix).all(axis=1))
        if len(bad):
            raise StoreError(
                f"The vector of integer id {bad[0]} holds NaN or infinity. Mark it unknown or mend it.",
                entity_id=int(bad[0]),
            )
        return cls(matrix, np.where(mask, np.arange(len(matrix)), -1).astype(np.int32))

    @property
    def coverage(self) -> float:
        """Share of the vocabulary that has knowledge."""
        return float((self.rows >= 0).mean()) if len(self.rows) else 0.0

    def matrix(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """(vocabulary, dimension) vectors in the model's order, zeros where there is none, and (vocabulary,) whether
        there is one."""
        known = self.rows >= 0
        matrix = np.zeros((len(self.rows), self.vectors.shape[1]), self.vectors.dtype)
        matrix[known] = self.vectors[self.rows[known]]
        return matrix, known


@dataclass(frozen=True)
class _Part:
    """The mapped files of one part."""

    vectors: Array
    ids: Array
    keys: Array


@dataclass(frozen=True)
class VectorStore:
    """A published state of a store, read-only. Opening maps its files and reads none of them."""

    path: Path
    manifest: Manifest
    _parts: tuple[_Part | Array, ...] = field(repr=False)  # mapped parts; ids alone where they were deleted
    _disk_index: IdIndex | None = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> VectorStore:
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
        is one part; else joined in memory (`gather` and `matrix` never do that)."""
        parts = [part.vectors for part in self._vector_parts]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self.spec.dimension), self.spec.dtype), *parts])

    @property
    def projection(self) -> Array | None:
        """The PCA that all vectors went through, (1 + dimension, encoder's dimension): the mean, then components."""
        group = self.manifest.projection
        if group is None:
            return None
        try:
            return np.load(self.path / f"{group.name}.matrix.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            file = f"{self.path / group.name}.matrix.npy"
            raise StoreError(f"{file} cannot be read ({error}). Delete {self.path} and {AGAIN}", path=file) from None

    def rows(self, ids: Sequence[EntityId | None] | Array) -> npt.NDArray[np.int32]:
        """Per id its row in `vectors`, -1 where it has none."""
        return self._index.find(ids).astype(np.int32)

    def gather(self, ids: Sequence[EntityId] | Array) -> Array:
        """Vectors of `ids`, shape (len(ids), dimension).

        Raises:
            StoreError: An id has no vector; the message names the first.
        """
        rows = self._index.find(ids)
        if (rows < 0).any():
            missing = ids[int((rows < 0).argmax())]
            raise StoreError(f"{self.path} has no vector of {missing!r}.", path=self.path, entity_id=missing)
        return self.vectors_at(rows)

    def vectors_at(self, rows: Array) -> Array:
        """Vectors at rows of the store, zeros for row -1: (len(rows), dimension), read from the mapped files."""
        return self._at(rows, [part.vectors for part in self._vector_parts], (self.spec.dimension,), self.spec.dtype)

    def align(self, vocabulary: Sequence[EntityId | None] | Array) -> KnowledgeTable:
        """The knowledge of a model's vocabulary: `vocabulary[i]` is the id that the model calls i, or None."""
        return KnowledgeTable(self.vectors, self.rows(vocabulary), str(self.path.resolve()), self.fingerprint)

    def matrix(self, vocabulary: Sequence[EntityId | None] | Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The vectors of a vocabulary in its own order, (vocabulary, dimension), zeros where there is none; and
        (vocabulary,) whether there is one. Reads only the rows that it returns."""
        rows = self._index.find(vocabulary)
        return self.vectors_at(rows), rows >= 0

    def coverage(self, ids: Sequence[EntityId] | Array) -> float:
        """Share of `ids` that have a vector; repeated ids count each time."""
        return float((self._index.find(ids) >= 0).mean()) if len(ids) else 0.0

    def join(self, dataset: Any, name: str, vocabulary: Sequence[EntityId | None] | Array, **options: Any) -> Any:
        """A `tf.data.Dataset` of batches with the vectors of its input `name`, gathered from disk as it is read; see
        `kar_aug.models.join.join`."""
        from kar_aug.models.join import join

        return join(dataset, {name: (self, vocabulary)}, **options)

    def batches(self, size: int = 65_536) -> Iterator[pa.RecordBatch]:
        """All live rows in the order of the store, as Arrow batches with columns id, key and vector."""
        import pyarrow as pa

        kind = pa.float16() if self.spec.dtype == "float16" else pa.float32()
        order = np.argsort(self._index.rows)
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            rows = self._index.rows[chosen]
            flat = pa.array(self.vectors_at(rows).reshape(-1), kind)
            vectors = pa.FixedSizeListArray.from_arrays(flat, self.spec.dimension)
            ids = pa.array(given_ids(self._index.ids[chosen]))
            yield pa.RecordBatch.from_arrays([ids, pa.array(self._keys_at(rows)), vectors], ["id", "key", "vector"])

    def to_parquet(self, path: Path | str) -> None:
        """Write all live rows to one Parquet file, all of it or nothing. The spec goes into the file's metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not len(self):
            raise StoreError(f"{self.path} holds no vector to write to {path}.", path=self.path)
        batches = self.batches()
        first = next(batches)
        described = {"kar_aug": json.dumps({"spec": asdict(self.spec), "as_of": self.manifest.as_of})}
        schema = first.schema.with_metadata(described)
        with atomic_path(Path(path)) as temporary, pq.ParquetWriter(temporary, schema) as file:
            for batch in (first, *batches):
                file.write_table(pa.Table.from_batches([batch]).replace_schema_metadata(described))

    @classmethod
    def from_parquet(cls, parquet: Path | str, path: Path | str, spec: StoreSpec | None = None) -> VectorStore:
        """Append the rows of a Parquet file (columns id, vector and perhaps key) to the store at `path`.

        Args:
            spec: what the vectors are; only needed where `to_parquet` did not write the file.

        Raises:
            StoreError: The file cannot be read or does not say what its vectors are, or they do not belong into
                this store.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(parquet) as file:
                described = json.loads((file.schema_arrow.metadata or {}).get(b"kar_aug", b"null"))
                if described is not None:
                    spec = spec or StoreSpec.from_dict(described["spec"])
                if spec is None:
                    raise StoreError(f"{parquet} does not say how its vectors were made. Give `spec`.", path=parquet)
                with cls.writer(path, spec) as writer:
                    for batch in file.iter_batches(65_536):
                        ids, vectors = batch.column("id").to_pylist(), batch.column("vector").flatten()
                        keys = batch.column("key").to_pylist() if "key" in batch.schema.names else [""] * len(ids)
                        matrix = np.asarray(vectors).reshape(len(ids), -1)
                        writer.append(ids, keys, matrix, as_of=described["as_of"] if described else None)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"{parquet} is not a Parquet file of vectors ({error}).", path=parquet) from None
        return cls.open(path)

    def verify(self, on_progress: Callable[[int], None] = lambda size: None) -> int:
        """Read everything and compare it with the checksums, the index and the rules. Returns the bytes read.

        Args:
            on_progress: called with the bytes of each file that is found sound.

        Raises:
            StoreError: The first damage: a changed or missing byte, a vector that is not finite, an id twice in a
                part, an index that disagrees with its rows. It names the file and what to do.
        """
        total = 0
        for group in self.manifest.groups:
            for kind in group.files:
                size = check_sum(self.path, group, kind)
                total += size
                on_progress(size)
        groups = [group for group in self.manifest.parts if not group.deletes]
        for group, part in zip(groups, self._vector_parts, strict=True):
            place = self.path / group.name
            for start in range(0, group.rows, _CHECKED_ROWS):
                bad = np.flatnonzero(~np.isfinite(part.vectors[start : start + _CHECKED_ROWS]).all(axis=1))
                if len(bad):
                    row = start + int(bad[0])
                    raise StoreError(
                        f"{place}.vectors.npy: row {row} holds NaN or infinity. {self._mend}", path=self.path, row=row
                    )
        if self._disk_index is not None:
            self._verify_index(self._disk_index)
        return total

    def _verify_index(self, index: IdIndex) -> None:
        place = f"{self.path / (self.manifest.index or self.manifest.parts[0]).name}"
        if (index.ids[1:] <= index.ids[:-1]).any():
            raise StoreError(f"{place}.ids.npy: ids repeat or are out of order. {self._mend}", path=self.path)
        if (index.rows < 0).any() or (index.rows >= self.manifest.indexed).any():
            raise StoreError(f"{place}.rows.npy names rows that there are not. {self._mend}", path=self.path)
        ids = [part.ids for part in self._vector_parts]
        for start in range(0, len(index.ids), _CHECKED_ROWS):
            rows = index.rows[start : start + _CHECKED_ROWS]
            if (self._at(rows, ids, (), index.ids.dtype) != index.ids[start : start + _CHECKED_ROWS]).any():
                raise StoreError(f"{place} disagrees with the ids of its rows. {self._mend}", path=self.path)

    @property
    def _mend(self) -> str:
        return f"Delete {self.path} and {AGAIN}"

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

    @staticmethod
    @contextmanager
    def writer(path: Path | str, spec: StoreSpec) -> Iterator[StoreWriter]:
        """The one writer of a store. It continues a store of the same spec, and indexes what it wrote when it ends.

        Raises:
            StoreError: Another process writes it, or the store was made with another encoder or prompt version.
        """
        from kar_aug.cache.vectors.writer import open_writer

        with open_writer(Path(path), spec) as writer:
            yield writer


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
