"""A folder of Parquet files, which Feast and every data warehouse read: the first holds all, each later one what
changed. The rows of all files are the history of every entity, each from its event_timestamp on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from kar_aug._helpers.files import atomic_path
from kar_aug._helpers.targets import check_folder, check_free, local
from kar_aug.errors import StoreError
from kar_aug.online.rows import SIZE, Rows

_NAME = re.compile(r"\d{5,}\.parquet")


class Parquet:
    """The files of one entity; or a single file, by a path that ends in .parquet, which is always written whole."""

    def __init__(self, where: str, id_column: str) -> None:
        self._path, self._ids = local(where, "a folder, or a .parquet file"), id_column
        if os.path.isdir(self._path) if self._single else os.path.isfile(self._path):
            kind, wanted = ("folder", "file") if self._single else ("file", "folder")
            raise StoreError(f"{where} is a {kind}, and a {wanted} is wanted there. Name another place.", path=where)

    def state(self) -> pd.DataFrame:
        """See `Place`."""
        if self._single or not self._files:
            return pd.DataFrame({"version": [], "key": []})
        latest = self._latest()
        return latest[latest["key"].notna()][["version", "key"]]

    def read(self) -> Iterator[pa.RecordBatch]:
        """See `Place`."""
        if not self._files:
            raise StoreError(f"{self._path} holds no vectors. Write some: kar-aug vectors export", path=self._path)
        latest = self._latest()
        live = latest["file"].where(latest["key"].notna(), -1)
        for number, path in enumerate(self._files):
            with self._reading(path) as file:
                for batch in file.iter_batches(SIZE):
                    wanted = live.reindex(batch.column(self._ids).to_pylist()).to_numpy() == number
                    if wanted.any():
                        yield batch.filter(pa.array(wanted))

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """See `Place`. Older files stay until the new one is there, and for good unless it is in place of all."""
        check_folder(self._path.parent if self._single else self._path)
        if not self._single and not self._files:
            check_free(self._path)  # who reads the folder reads all that is in it
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._path.with_name(f".{self._path.name}.lock")):  # two exports would take one number
            self._write(batches, rows, whole=whole)

    def _write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        older = self._files
        if self._single and older:
            self._reading(self._path).close()  # it is of the same entity
        number = 1 + max((int(path.stem) for path in older if not self._single), default=-1)
        target = self._path if self._single else self._path / f"{number:05d}.parquet"
        first = next(batches, None)
        if first is None and not (whole or self._single):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        said = {"kar_aug": json.dumps({"version": rows.version, "entity": rows.entity})}
        schema = rows.schema.with_metadata(said)
        with atomic_path(target) as temporary, pq.ParquetWriter(temporary, schema) as file:
            for batch in () if first is None else (first, *batches):
                file.write_table(pa.Table.from_batches([batch]).replace_schema_metadata(said))
        for path in older if whole and not self._single else ():
            path.unlink()

    def forget(self, ids: Collection[Any], *, dry_run: bool = False) -> int:
        """See `Place`: each file that has rows of these ids is written anew."""
        count = 0
        for path in self._files:
            with self._reading(path) as file:
                held = [id in ids for id in file.read(columns=[self._ids])[self._ids].to_pylist()]
                count += sum(held)
                if any(held) and not dry_run:
                    left = file.read().filter(pa.array([not each for each in held]))
                    with atomic_path(path) as temporary:
                        pq.write_table(left, temporary)
        return count

    @property
    def _single(self) -> bool:
        return self._path.suffix.lower() == ".parquet"

    @property
    def _files(self) -> list[Path]:
        if self._single:
            return [self._path] if self._path.exists() else []
        return sorted(path for path in self._path.glob("*.parquet") if _NAME.fullmatch(path.name))

    def _latest(self) -> pd.DataFrame:
        """Of each id the last row: version, key and the number of the file. A row without a vector has no key."""
        frames = []
        for number, path in enumerate(self._files):
            with self._reading(path) as file:
                frame = file.read(columns=[self._ids, "version", "key"]).to_pandas()
            frames.append(frame.assign(file=number))
        rows = pd.concat(frames, ignore_index=True)
        return rows.drop_duplicates(self._ids, keep="last").set_index(self._ids)

    def _reading(self, path: Path) -> pq.ParquetFile:
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path} is no Parquet file of vectors ({error}).", path=path) from None
        if not {self._ids, "version", "key", "vector"} <= set(file.schema_arrow.names):
            raise StoreError(
                f"{path} holds no vectors of {self._ids}: its columns are {', '.join(file.schema_arrow.names)}.",
                path=path,
            )
        return file
