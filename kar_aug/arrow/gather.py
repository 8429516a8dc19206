"""Ids into the vectors of a store, for engines that join them to rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kar_aug.arrow.columns import Batch, with_columns
from kar_aug.arrow.worker import OpensOnce, stamp
from kar_aug.cache import VectorStore
from kar_aug.cache.vectors.files import MANIFEST


class Gather(OpensOnce[Mapping[str, VectorStore]]):
    """Gives a batch, for each column of ids, a column of vectors: `item_id` gets `item_id_vector`, null where there is
    no knowledge, or no id.

    Args:
        stores: column of ids -> folder of a store, which each worker maps into its memory.

    Raises:
        StoreError: There is no such store; when the first batch comes.
    """

    def __init__(self, stores: Mapping[str, Path | str]) -> None:
        self._stores = {column: Path(path).resolve() for column, path in stores.items()}

    @property
    def opens(self) -> tuple[object, ...]:
        """Columns and folders."""
        return tuple(self._stores.items())

    def open(self) -> Mapping[str, VectorStore]:
        """The stores."""
        return {column: VectorStore.open(path) for column, path in self._stores.items()}

    @property
    def stamps(self) -> tuple[tuple[int, ...] | None, ...]:
        """Of the stores' manifests, each of which is replaced whole."""
        return tuple(stamp(path / MANIFEST) for path in self._stores.values())

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the vectors of its ids."""
        columns = {}
        for name, store in self.opened.items():
            rows = store.rows(batch.column(name).to_pylist())  # an id of another kind has none
            vectors = np.zeros((len(rows), store.spec.dimension), store.spec.dtype)
            vectors[rows >= 0] = store.vectors_at(rows[rows >= 0])
            columns[f"{name}_vector"] = vector_column(vectors, rows < 0)
        return with_columns(batch, columns)


def vector_column(vectors: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> Any:
    """(rows, dimension) as a column, null where `missing`."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(missing))
