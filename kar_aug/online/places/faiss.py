"""A faiss index of inner products, and beside it the ids of its rows: `items.faiss` and `items.faiss.parquet`.

An index holds numbers alone, and cannot take back single rows cheaply: it is always written whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kar_aug._files import atomic_path
from kar_aug.errors import MissingDependencyError, StoreError
from kar_aug.online.rows import SIZE, Rows

try:
    import faiss
except ImportError:
    raise MissingDependencyError("faiss", "faiss") from None


class Faiss:
    """The vectors of one entity, in a file that ends in .faiss."""

    def __init__(self, where: str, id_column: str) -> None:
        self._path, self._ids = Path(where), id_column
        self._names = self._path.with_name(f"{self._path.name}.parquet")

    def state(self) -> pd.DataFrame:
        """See `Place`: as if nothing were there, so that all is written."""
        return pd.DataFrame({"version": [], "key": []})

    def read(self) -> Iterator[pa.RecordBatch]:
        """See `Place`."""
        try:
            index, names = faiss.read_index(str(self._path)), pq.read_table(self._names)
        except (OSError, RuntimeError, pa.ArrowException) as error:
            raise StoreError(f"{self._path} is no index of vectors with its ids beside it ({error}).") from None
        if index.ntotal != names.num_rows:
            raise StoreError(f"{self._path} has {index.ntotal:,} vectors, and {self._names} {names.num_rows:,} ids.")
        self._check(names.schema)
        start = 0
        for batch in names.to_batches(SIZE):
            vectors: Any = index.reconstruct_n(start, batch.num_rows)
            start += batch.num_rows
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, pa.array(list(vectors))], names=[*batch.schema.names, "vector"]
            )

    def forget(self, ids: Collection[Any], *, dry_run: bool = False) -> int:
        """See `Place`."""
        batches = list(self.read())
        held = [[id in ids for id in batch.column(self._ids).to_pylist()] for batch in batches]
        count = sum(map(sum, held))
        if count and not dry_run:
            left = [b.filter(pa.array([not each for each in some])) for b, some in zip(batches, held, strict=True)]
            old: Any = faiss.read_index(str(self._path))
            self._write(old.d, iter(left), pq.read_schema(self._names))
        return count

    def _check(self, schema: pa.Schema) -> None:
        if self._ids not in schema.names:
            raise StoreError(f"{self._path} holds no vectors of {self._ids}.", path=self._path)

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """See `Place`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._names.exists():
            self._check(pq.read_schema(self._names))
        self._write(rows.store.spec.dimension, batches, pa.schema(list(rows.schema)[:5]))

    def _write(self, dimension: int, batches: Iterator[pa.RecordBatch], names: pa.Schema) -> None:
        index: Any = faiss.IndexFlatIP(dimension)
        with atomic_path(self._names) as beside, atomic_path(self._path) as temporary:
            with pq.ParquetWriter(beside, names) as file:
                for batch in batches:
                    flat = batch.column("vector").flatten().to_numpy()
                    index.add(np.ascontiguousarray(flat.reshape(batch.num_rows, -1), np.float32))
                    file.write_batch(batch.select(names.names))
            faiss.write_index(index, str(temporary))
