"""A Lance dataset: a version a write, and an index over vectors where its owner makes one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from kar_aug._helpers.targets import check_folder, local
from kar_aug.errors import MissingDependencyError, StoreError
from kar_aug.online.rows import SIZE, Rows

os.environ.setdefault("LANCE_LOG", "error")  # else it warns of each data set that is not there yet
try:
    import lance
except ImportError:
    raise MissingDependencyError("lance", "lance") from None


class Lance:
    """The rows of one entity, one an id, in a folder that ends in .lance."""

    def __init__(self, where: str, id_column: str) -> None:
        self._where, self._ids = str(local(where, "a path that ends in .lance")), id_column

    def state(self) -> pd.DataFrame:
        """See `Place`."""
        if not Path(self._where).exists():
            return pd.DataFrame({"version": [], "key": []})
        table: Any = self._dataset().to_table(columns=[self._ids, "version", "key"])
        return table.to_pandas().drop_duplicates(self._ids).set_index(self._ids)

    def read(self) -> Iterator[pa.RecordBatch]:
        """See `Place`."""
        return iter(self._dataset().to_batches(batch_size=SIZE))

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """See `Place`. A reader sees each version of the dataset before or after, never between."""
        check_folder(Path(self._where).parent)
        dimension = rows.store.spec.dimension
        fixed = rows.schema.set(5, pa.field("vector", pa.list_(pa.float32(), dimension)))
        gone: list[Any] = []

        def living() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                if batch.column("vector").null_count:
                    gone.extend(batch.column(self._ids).to_pylist())
                else:
                    yield pa.RecordBatch.from_arrays(
                        [*batch.columns[:5], batch.column("vector").cast(fixed.field(5).type)], schema=fixed
                    )

        reader = pa.RecordBatchReader.from_batches(fixed, living())
        if whole or not Path(self._where).exists():
            lance.write_dataset(reader, self._where, mode="overwrite")
            return
        dataset = self._dataset()
        merge = dataset.merge_insert(self._ids).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(reader)
        for start in range(0, len(gone), SIZE):
            chosen = ", ".join(_literal(each) for each in gone[start : start + SIZE])
            lance.dataset(self._where).delete(f"{self._ids} IN ({chosen})")

    def forget(self, ids: Collection[Any], *, dry_run: bool = False) -> int:
        """See `Place`: earlier versions of the dataset go, too."""
        dataset = self._dataset()
        is_text = pa.types.is_string(dataset.schema.field(self._ids).type)
        fitting = [_literal(id) for id in ids if isinstance(id, str) == is_text]
        if not fitting:
            return 0
        theirs = f"{self._ids} IN ({', '.join(fitting)})"
        count = int(dataset.count_rows(theirs))
        if not dry_run:
            dataset.delete(theirs)
            dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
            lance.dataset(self._where).cleanup_old_versions(timedelta(0), delete_unverified=True)
        return count

    def _dataset(self) -> Any:
        try:
            dataset: Any = lance.dataset(self._where)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self._where} is no Lance dataset of vectors ({error}). Name another place.", path=self._where
            ) from None
        if self._ids not in dataset.schema.names:
            raise StoreError(f"{self._where} holds no vectors of {self._ids}.", path=self._where)
        return dataset


def _literal(id: int | str) -> str:
    return str(id) if isinstance(id, int) else "'" + id.replace("'", "''") + "'"
