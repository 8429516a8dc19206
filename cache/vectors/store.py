"""Knowledge vectors on disk: memory-mapped part files, a sorted index of ids, and a manifest that says what they are.

    store/
      manifest.json                 format, encoder, dimension, ..., checksums, and the list of files: the only way in
      00000-part.vectors.npy        (rows, dimension) fp16 or fp32
      00000-part.ids.npy            (rows,) int64, or strings as UTF-8
      00000-part.keys.npy           (rows,) the key of the text that each vector encodes
      00000-part.times.npy          (rows,) until when that text knew; of a store of versions alone
      00001-index.ids.npy           (ids,) sorted
      00001-index.rows.npy          (ids,) the row of each
      00001-index.times.npy         (ids,) of a store of versions, whose ids stand once for each

Files are written once and never changed. The manifest that names them replaces the old one in a single rename: a
reader sees the store before or after, never between, and a writer that is killed leaves the last published
generation. A later row supersedes an earlier one of the same id. An open store has all its files mapped, so that
nothing a writer does, pruning included, changes or breaks it.

A store of versions keeps several vectors an id, each with the time of the last event that its text knew. Who asks with
times gets for each the last version strictly before it, and nothing where there is none: whatever is trained on that
looks ahead nowhere. Who asks without (a model that is served, an online store) gets the last version of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.files import AGAIN, StoreSpec, check_sum
from kar_aug.cache.vectors.index import EntityId, IdIndex, listed
from kar_aug.cache.vectors.join import join
from kar_aug.cache.vectors.parts import all_finite, gathered
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.cache.vectors.table import KnowledgeTable
from kar_aug.cache.vectors.vocabulary import rows_of
from kar_aug.cache.vectors.writer import StoreWriter, open_writer
from kar_aug.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
_CHECKED_ROWS = 65_536


class VectorStore(Snapshot):
    """A published state of a store, read-only. Opening maps its files, and reads of them a small index alone, which is
    compared with its checksum; `verify` compares all.
    """

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

    def gather(self, ids: Sequence[EntityId] | Array, times: Any = None) -> Array:
        """Vectors of `ids`, shape (len(ids), dimension).

        Args:
            times: of a store of versions, one for each id: its last version strictly before is gathered, zeros where
                there is none yet (`coverage` says how often that is, `rows_at` where). See `rows_at`.

        Raises:
            StoreError: An id has no vector, and no times are given; the message names the first. Or ids are in no
                order, as those of a dictionary or a set.
        """
        ids = listed(ids)
        if times is not None:
            return self.vectors_at(self.rows_at(ids, times))
        rows = self._index.find(ids)
        if (rows < 0).any():
            missing = ids[int((rows < 0).argmax())]
            missing = missing.item() if isinstance(missing, np.generic) else missing
            raise StoreError(f"{self.path} has no vector of {missing!r}.", path=self.path, entity_id=missing)
        return self.vectors_at(rows)

    def align(self, vocabulary: Sequence[EntityId | None] | Array, times: Any = None) -> KnowledgeTable:
        """The knowledge of a model's vocabulary: `vocabulary[i]` is the id that the model calls i, or None.

        Args:
            times: of a store of versions, one for each id of the vocabulary, in which an id may stand several times:
                what the model calls i is `vocabulary[i]` as it was known before `times[i]`. Where nothing was, it is an
                unknown id to the layer, and counted as such (`KnowledgeTable.coverage`). See `rows_at`.

        Raises:
            StoreError: An id is of another kind than the store's, or none has a vector; or ids are in no order.
        """
        rows = rows_of(self, vocabulary)
        if times is not None:
            rows = self.rows_at(listed(vocabulary), times)
        return KnowledgeTable(self.mapped, rows, str(self.path.resolve()), self.fingerprint, self.version)

    def matrix(self, vocabulary: Sequence[EntityId | None] | Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """The vectors of a vocabulary in its own order, (vocabulary, dimension), zeros where there is none; and
        (vocabulary,) whether there is one. Reads only the rows that it returns.
        """
        rows = self._index.find(listed(vocabulary))
        return self.vectors_at(rows), rows >= 0

    def coverage(self, ids: Sequence[EntityId] | Array, times: Any = None) -> float:
        """Share of `ids` that have a vector, before their times if such are given; repeated ids count each time."""
        ids = listed(ids)
        rows = self._index.find(ids) if times is None else self.rows_at(ids, times)
        return float((rows >= 0).mean()) if len(ids) else 0.0

    def join(self, dataset: Any, name: str, vocabulary: Sequence[EntityId | None] | Array, **options: Any) -> Any:
        """A `tf.data.Dataset` of batches with the vectors of its input `name`, gathered from disk as it is read; see
        `kar_aug.models.join`.
        """
        return join(dataset, {name: (self, vocabulary)}, **options)

    def batches(self, size: int = 65_536) -> Iterator[pa.RecordBatch]:
        """All live rows in the order of the store, as Arrow batches with columns id, key and vector; of a store of
        versions as_of, too.

        Raises:
            MissingDependencyError: pyarrow is not installed; so `to_parquet` and `from_parquet`.
        """
        from kar_aug.cache.vectors import parquet

        return parquet.batches(self, size)

    def to_parquet(self, path: Path | str) -> None:
        """Write all live rows to one Parquet file, all of it or nothing. The spec goes into the file's metadata."""
        from kar_aug.cache.vectors import parquet

        parquet.write(self, Path(path))

    @classmethod
    def from_parquet(cls, parquet: Path | str, path: Path | str, spec: StoreSpec | None = None) -> VectorStore:
        """Append the rows of a Parquet file (columns id, vector and perhaps key) to the store at `path`; as versions,
        where as_of says when the last event was that each text knew.

        Args:
            spec: what the vectors are; only needed where `to_parquet` did not write the file.

        Raises:
            StoreError: The file cannot be read or does not say what its vectors are, or they do not belong into
                this store.
        """
        from kar_aug.cache.vectors.parquet import append

        append(parquet, Path(path), spec)
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
                some = part.vectors[start : start + _CHECKED_ROWS]
                if not all_finite(some):
                    row = start + int(np.isfinite(some).all(axis=1).argmin())
                    raise StoreError(
                        f"{place}.vectors.npy: row {row} holds NaN or infinity. {self._mend}", path=self.path, row=row
                    )
        if self._disk_index is not None:
            self._verify_index(self._disk_index)
        return total

    def _verify_index(self, index: IdIndex) -> None:
        place = f"{self.path / (self.manifest.index or self.manifest.parts[0]).name}"
        again = index.ids[1:] == index.ids[:-1]
        if index.times is not None:
            again &= index.times[1:] <= index.times[:-1]
        if (again | (index.ids[1:] < index.ids[:-1])).any():
            raise StoreError(f"{place}.ids.npy: ids repeat or are out of order. {self._mend}", path=self.path)
        if (index.rows < 0).any() or (index.rows >= self.manifest.indexed).any():
            raise StoreError(f"{place}.rows.npy names rows that there are not. {self._mend}", path=self.path)
        ids = [part.ids for part in self._vector_parts]
        for start in range(0, len(index.ids), _CHECKED_ROWS):
            rows = index.rows[start : start + _CHECKED_ROWS]
            if (gathered(ids, rows, (), index.ids.dtype) != index.ids[start : start + _CHECKED_ROWS]).any():
                raise StoreError(f"{place} disagrees with the ids of its rows. {self._mend}", path=self.path)
            times = None if index.times is None else index.times[start : start + _CHECKED_ROWS]
            if times is not None and (self.moments_at(rows) != times).any():
                raise StoreError(f"{place} disagrees with the times of its rows. {self._mend}", path=self.path)

    @property
    def _mend(self) -> str:
        return f"Delete {self.path} and {AGAIN}"

    @staticmethod
    @contextmanager
    def writer(path: Path | str, spec: StoreSpec) -> Iterator[StoreWriter]:
        """The one writer of a store. It continues a store of the same spec, and indexes what it wrote when it ends.

        Raises:
            StoreError: Another process writes it, or the store was made with another encoder or prompt version.
        """
        with open_writer(Path(path), spec) as writer:
            yield writer
