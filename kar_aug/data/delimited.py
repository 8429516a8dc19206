"""Text files of cells with a separator between them: CSV and its kin."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from kar_aug.data.opening import HEAD, in_its_encoding, text
from kar_aug.errors import DataError

# By ending, the separators that a file may have; the first where its first lines do not tell.
SEPARATORS = {".csv": ",\t;|", ".tsv": "\t,;|", ".tab": "\t,;|", ".txt": "\t,;| "}
_ARROW = {"bool": pa.bool_(), "int64": pa.int64(), "uint64": pa.uint64(), "float64": pa.float64(), "str": pa.string()}


@dataclass(frozen=True)
class Delimited:
    """A file of cells. Only an empty one is missing: a title or an id may be spelt "None" or "NA".

    Args:
        ending: one of `SEPARATORS`.
        texts: columns whose cells stay text, digits or not.
        separator, encoding: told from the file if None.
    """

    path: Path
    ending: str
    texts: Collection[str] = ()
    separator: str | None = None
    encoding: str | None = None

    def frame(self) -> pd.DataFrame:
        """All rows."""
        frame = in_its_encoding(self.path, self.encoding, self._frame)
        if not isinstance(frame.index, pd.RangeIndex):
            raise DataError(f"{self.path} cannot be read: its rows have more cells than its first line has names.")
        return frame

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows, so many at a time. The file is gone through twice: its last row may tell the type of a column."""
        dtypes, encoding = in_its_encoding(self.path, self.encoding, lambda encoding: self._dtypes(encoding, rows))
        schema = pa.schema([(name, _ARROW[dtype.replace("boolean", "bool")]) for name, dtype in dtypes.items()])
        for chunk in self._chunks(encoding, dtypes, rows):
            yield pa.RecordBatch.from_pandas(chunk, schema=schema, preserve_index=False)

    def _frame(self, encoding: str) -> pd.DataFrame:
        options = self._options(encoding)
        with text(self.path, encoding) as lines:
            return pd.read_csv(lines, dtype=dict.fromkeys(self.texts, "str"), **options)

    def _chunks(self, encoding: str, dtypes: dict[str, str], rows: int) -> Iterator[pd.DataFrame]:
        options = self._options(encoding)
        with text(self.path, encoding) as lines:
            yield from pd.read_csv(lines, dtype=dtypes, chunksize=rows, **options)

    def _dtypes(self, encoding: str, rows: int) -> tuple[dict[str, str], str]:
        """By column the type that holds all of its chunks, and the encoding in which they could be read."""
        found: dict[str, set[str]] = {}
        for chunk in self._chunks(encoding, dict.fromkeys(self.texts, "str"), rows):
            for name, column in chunk.items():
                found.setdefault(str(name), set()).add(_kind(column))
        return {name: "str" if name in self.texts else _common(kinds) for name, kinds in found.items()}, encoding

    def _options(self, encoding: str) -> dict[str, Any]:
        separator = self.separator
        if separator is None:
            with text(self.path, encoding) as lines:
                head = lines.read(HEAD)
            separator = separator_of(head, SEPARATORS[self.ending], whole=len(head) < HEAD)
        options: dict[str, Any] = {"sep": separator, "keep_default_na": False, "na_values": [""]}
        if len(separator) > 1:
            return {**options, "sep": re.escape(separator), "engine": "python"}
        # A column has one type, not one for each of its parts.
        return {**options, "low_memory": False}


def separator_of(head: str, candidates: str, *, whole: bool = True) -> str:
    """The separator by which the first lines have the most cells, each as many; or else the first of them.

    Args:
        whole: whether the last line is.
    """
    lines = head.splitlines(keepends=True)
    lines = lines if whole or len(lines) == 1 else lines[:-1]
    widths = {each: [len(row) for row in csv.reader(lines, delimiter=each) if row] for each in candidates}
    even = [each for each, found in widths.items() if found[:1] > [1] and len(set(found)) == 1]
    return max(even or candidates, key=lambda each: widths[each][:1])


def _kind(column: pd.Series) -> str:
    if column.isna().all():
        return "missing"
    if column.dtype == object and pd.api.types.infer_dtype(column) == "boolean":
        return "boolean"
    return str(column.dtype)


def _common(kinds: set[str]) -> str:
    """The type that holds values of all of these."""
    named = kinds - {"missing"}
    if not named:
        return "float64"
    if named <= {"bool", "boolean"}:
        return "bool" if kinds == {"bool"} else "boolean"
    if named <= {"int64", "uint64", "float64"}:
        return kinds.pop() if len(kinds) == 1 else "float64"
    return "str"
