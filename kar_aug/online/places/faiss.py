"""A faiss index of inner products with the ids of its rows: `items.faiss/vectors.index` and `items.faiss/ids.parquet`.

An index holds numbers alone, and cannot take back single rows cheaply: it is always written whole. `items.faiss` is a
link to a folder that holds both files, `.items.faiss.00003`, and never changes; a write makes another, and the link
leads there from one moment to the next. Who resolves the link once reads two files that belong together, for as long as
the next write takes: the folder before the present one stays.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from kar_aug._helpers.targets import check_folder, local
from kar_aug.errors import MissingDependencyError, StoreError
from kar_aug.online.rows import SIZE, Rows

try:
    import faiss
except ImportError:
    raise MissingDependencyError("faiss", "faiss") from None

VECTORS, IDS = "vectors.index", "ids.parquet"


class Faiss:
    """The vectors of one entity, at a path that ends in .faiss."""

    def __init__(self, where: str, id_column: str) -> None:
        self._path, self._ids = local(where, "a path that ends in .faiss"), id_column
        self._folder = re.compile(rf"\.{re.escape(self._path.name)}\.(\d{{5,}})")

    def state(self) -> pd.DataFrame:
        """See `Place`: as if nothing were there, so that all is written."""
        return pd.DataFrame({"version": [], "key": []})

    def read(self) -> Iterator[pa.RecordBatch]:
        """See `Place`."""
        vectors_file, ids_file = self._files()
        try:
            index, names = faiss.read_index(str(vectors_file)), pq.read_table(ids_file)
        except (OSError, RuntimeError, pa.ArrowException) as error:
            raise StoreError(f"{self._path} is no index of vectors with its ids beside it ({error}).") from None
        if index.ntotal != names.num_rows:
            raise StoreError(f"{self._path} has {index.ntotal:,} vectors, and {ids_file} {names.num_rows:,} ids.")
        self._check(names.schema)
        start = 0
        for batch in names.to_batches(SIZE):
            vectors: Any = index.reconstruct_n(start, batch.num_rows)
            start += batch.num_rows
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, pa.array(list(vectors))], names=[*batch.schema.names, "vector"]
            )

    def forget(self, ids: Collection[Any], *, dry_run: bool = False) -> int:
        """See `Place`. No reader keeps a former folder: all but the new one go at once."""
        batches = list(self.read())
        held = [[id in ids for id in batch.column(self._ids).to_pylist()] for batch in batches]
        count = sum(map(sum, held))
        if dry_run:
            return count
        if count:
            left = [b.filter(pa.array([not each for each in some])) for b, some in zip(batches, held, strict=True)]
            dimension = int(faiss.read_index(str(self._files()[0])).d)
            names = pq.read_schema(self._files()[1])
            self._replace(lambda folder: self._fill(folder, iter(left), dimension, names))
        present = self._path.resolve()
        for path in self._folders().values():
            if path.resolve() != present:
                shutil.rmtree(path, ignore_errors=True)
        return count

    def _files(self) -> tuple[Path, Path]:
        """The index and its ids, which belong together: the link is resolved once."""
        folder = self._path.resolve()
        if folder.is_dir():
            return folder / VECTORS, folder / IDS
        return self._path, self._former_ids  # as they were written before there was a link

    @property
    def _former_ids(self) -> Path:
        return self._path.with_name(f"{self._path.name}.parquet")

    def _check(self, schema: pa.Schema) -> None:
        if self._ids not in schema.names:
            raise StoreError(f"{self._path} holds no vectors of {self._ids}.", path=self._path)

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """See `Place`."""
        check_folder(self._path.parent)
        if self._path.is_dir() and not self._path.is_symlink():
            raise StoreError(
                f"{self._path} is a folder, and a link to one is written there. Name another place.", path=self._path
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._files()[1].exists():
            self._check(pq.read_schema(self._files()[1]))
        names = pa.schema(list(rows.schema)[:5])
        self._replace(lambda folder: self._fill(folder, batches, rows.store.spec.dimension, names))

    def _replace(self, fill: Callable[[Path], None]) -> None:
        """Lead readers to a new folder that `fill` fills."""
        with FileLock(self._path.with_name(f".{self._path.name}.lock")):  # two exports would take one folder
            before, former = self._path.resolve(), self._folders()
            folder = self._path.with_name(f".{self._path.name}.{1 + max(former, default=-1):05d}")
            try:
                folder.mkdir()
                fill(folder)
                self._lead_to(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._former_ids.unlink(missing_ok=True)
            for path in former.values():
                if path.resolve() != before:  # of older writes, or of one that was killed
                    shutil.rmtree(path, ignore_errors=True)

    def _fill(self, folder: Path, batches: Iterator[pa.RecordBatch], dimension: int, names: pa.Schema) -> None:
        index: Any = faiss.IndexFlatIP(dimension)
        with pq.ParquetWriter(folder / IDS, names) as file:
            for batch in batches:
                if not batch.num_rows:
                    continue
                flat = batch.column("vector").flatten().to_numpy()
                index.add(np.ascontiguousarray(flat.reshape(batch.num_rows, -1), np.float32))
                file.write_batch(batch.select(names.names))
        faiss.write_index(index, str(folder / VECTORS))
        for name in (VECTORS, IDS):
            with (folder / name).open("r+b") as written:
                os.fsync(written.fileno())

    def _lead_to(self, folder: Path) -> None:
        """The one moment at which readers see other vectors."""
        link = folder.with_name(f"{folder.name}.link")
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        os.replace(link, self._path)

    def _folders(self) -> dict[int, Path]:
        """Those that there are, by number."""
        found = [(self._folder.fullmatch(path.name), path) for path in self._path.parent.iterdir()]
        return {int(match[1]): path for match, path in found if match}
