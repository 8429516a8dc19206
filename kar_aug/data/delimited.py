"""Text files of cells with a separator between them: CSV and its kin."""

from __future__ import annotations

import csv
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from kar_aug.data.ids import ids_of_text, with_ids
from kar_aug.data.opening import HEAD, ROWS, in_its_encoding, text
from kar_aug.data.parts import Value
from kar_aug.data.place import Place
from kar_aug.errors import DataError

_log = logging.getLogger("kar_aug")
# By ending, the separators that a file may have; the first where its first lines do not tell.
SEPARATORS = {".csv": ",\t;|", ".tsv": "\t,;|", ".tab": "\t,;|", ".txt": "\t,;| "}
T = TypeVar("T")
_PADDED = re.compile("-?0[0-9]")
_COMMA, _POINT = re.compile(r"[+-]?[0-9]+,[0-9]+"), re.compile(r"[+-]?[0-9]+\.[0-9]+")
_COMMA_OR_GROUP = re.compile(r"[+-]?[0-9]{1,3},[0-9]{3}")
_MARKS = {",": ".", ".": ",", "'": "."}  # between thousands, and before decimals
_TRUTHS = {spelt: spelt.lower() == "true" for spelt in ("True", "TRUE", "true", "False", "FALSE", "false")}
_CODE = 20  # digits
_BLOCK = 1 << 20  # characters
_GROUPED = "grouped"  # numbers whose thousands stand apart
_READ_AS = {"boolean": "bool", _GROUPED: "float64"}
_ARROW = {"bool": pa.bool_(), "int64": pa.int64(), "uint64": pa.uint64(), "float64": pa.float64(), "str": pa.string()}


@dataclass(frozen=True)
class TextFormat:
    """How text files are written, as far as a person says it.

    Args:
        separator, encoding: what stands between two cells, and how characters are kept; told from the file if None.
        thousands: what stands between the digits of numbers: "," of "1,234.5". Nothing if None. A column that is not
            written so throughout stays text, and so do ids.
    """

    separator: str | None = None
    encoding: str | None = None
    thousands: str | None = None


UNSAID = TextFormat()


@dataclass(frozen=True)
class _Layout:
    """What the first lines of a file tell of all.

    Args:
        options: of pandas.
        encoding: the text's.
        doubtful: a cell whose comma may be for thousands, where none tells; None where one does.
    """

    options: dict[str, Any]
    encoding: str
    doubtful: str | None

    @property
    def decimal(self) -> str:
        """What stands before decimals."""
        return str(self.options["decimal"])


@dataclass(frozen=True)
class Delimited:
    """A file of cells. Only an empty one is missing: a title or an id may be spelt "None" or "NA".

    Args:
        ending: one of `SEPARATORS`.
        ids: columns of ids, which lose no zeros unsaid: see `kar_aug.data.ids`.
        id_type: "integer" or "string", where a person says so.
        given: further columns, of one value each: see `kar_aug.data.parts`.
    """

    path: Path
    ending: str
    ids: Collection[str] = ()
    id_type: str | None = None
    written: TextFormat = UNSAID
    given: Mapping[str, Value] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """All rows."""
        frame, texts = in_its_encoding(self.path, self.written.encoding, self._frame)
        read = {name: ids_of_text(frame[name], Place(str(self.path), name), self.id_type) for name in texts}
        return frame.assign(**read)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows, so many at a time. The file is gone through twice: its last row may tell the type of a column."""
        return DelimitedParts([self], self.path).batches(rows)

    @property
    def texts(self) -> Collection[str]:
        """The ids that are read as text: see `batches`."""
        return in_its_encoding(
            self.path, self.written.encoding, lambda encoding: list(self._texts(self._layout(encoding)))
        )

    def head(self, rows: int) -> pd.DataFrame:
        """The first rows; cells that begin with a zero are text."""
        return DelimitedParts([self], self.path).head(rows)

    def cells(self, rows: int) -> tuple[pd.DataFrame, str]:
        """The first rows as they are written, and what stands before decimals in them."""
        return in_its_encoding(self.path, self.written.encoding, lambda encoding: self._cells(encoding, rows))

    def kinds(self, rows: int) -> tuple[dict[str, set[str]], _Layout]:
        """By column the types that so many rows at a time need, and the layout by which they could be read."""
        return in_its_encoding(self.path, self.written.encoding, lambda encoding: self._kinds(encoding, rows))

    def _cells(self, encoding: str, rows: int) -> tuple[pd.DataFrame, str]:
        layout = self._layout(encoding)
        with text(self.path, encoding) as lines:
            texts = self._even(lambda: pd.read_csv(lines, dtype=str, nrows=rows, **layout.options))
        given = {n: pd.Series([None if v is None else str(v)] * len(texts), dtype="str") for n, v in self.given.items()}
        return texts.assign(**given), layout.decimal

    def _frame(self, encoding: str) -> tuple[pd.DataFrame, list[str]]:
        layout = self._layout(encoding)
        texts = self._texts(layout)
        self._say_what_commas_are(layout)
        with text(self.path, encoding) as lines:
            frame = self._even(lambda: pd.read_csv(lines, dtype=texts, **layout.options))
        grouped = [name for name, cells in frame.items() if self._is_grouped(cells, layout.decimal)]
        numbers = {name: self._ungrouped(frame[name], layout.decimal) for name in grouped}
        return frame.assign(**numbers), [name for name in texts if name in frame]

    def chunks(self, layout: _Layout, dtypes: dict[str, str], rows: int) -> Iterator[pd.DataFrame]:
        """All rows, so many at a time, each column of the type that is asked for."""
        grouped = [name for name, dtype in dtypes.items() if dtype == _GROUPED]
        with text(self.path, layout.encoding) as lines:
            chunks = pd.read_csv(lines, dtype=dtypes | dict.fromkeys(grouped, "str"), chunksize=rows, **layout.options)
            while (chunk := self._even(lambda: next(chunks, None))) is not None:
                numbers = {name: self._ungrouped(chunk[name], layout.decimal) for name in grouped if name in chunk}
                given = {n: _repeated(value, dtypes.get(n), chunk.index) for n, value in self.given.items()}
                yield chunk.assign(**numbers, **given)

    def _even(self, read: Callable[[], T]) -> T:
        """What `read()` gives, unless pandas had to leave cells out."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                return read()
            except pd.errors.ParserWarning:
                raise DataError(
                    f"{self.path} cannot be read: its rows have more cells than its first line has names."
                ) from None

    def _kinds(self, encoding: str, rows: int) -> tuple[dict[str, set[str]], _Layout]:
        found: dict[str, set[str]] = {}
        layout = self._layout(encoding)
        texts = self._texts(layout)
        self._say_what_commas_are(layout)
        for chunk in self.chunks(layout, texts, rows):
            for name, column in chunk.items():
                kind = _GROUPED if self._is_grouped(column, layout.decimal) else _kind(column)
                found.setdefault(str(name), set()).add(texts.get(str(name)) or kind)
        return found, layout

    def _texts(self, layout: _Layout) -> dict[str, str]:
        """The columns of ids that must be read as text. As numbers they are read in a sixth of the time."""
        return dict.fromkeys(self.ids, "str") if self.id_type == "string" or self._padded(layout) else {}

    def _padded(self, layout: _Layout) -> bool:
        """Whether any cell would be another as a number: one that begins with a zero, or 12E4, which is no 120000.
        Programs that shorten numbers write 1.2E+05.
        """
        if any(_PADDED.match(str(self.given[name])) for name in self.ids if name in self.given):
            return True
        mark = f'[\n\r"{re.escape(layout.options["sep"][-1])}]'
        padded = re.compile(f"{mark}(?:0[0-9]|[0-9]{{1,{_CODE}}}[eE][0-9]{{1,{_CODE}}}(?:{mark}|$))")
        with text(self.path, layout.encoding) as lines:
            end = ""
            while block := lines.read(_BLOCK):
                if padded.search(end + block):
                    return True
                end = block[-2 * _CODE - 3 :]
        return False

    def _layout(self, encoding: str) -> _Layout:
        with text(self.path, encoding) as lines:
            head = lines.read(HEAD)
        separator = self.written.separator
        if separator is None:
            separator = separator_of(head, SEPARATORS[self.ending], whole=len(head) < HEAD)
        mark = self.written.thousands or ""
        decimal = _MARKS[mark] if mark in (",", ".") else decimal_of(head.replace(mark, ""), separator)
        doubtful = _doubtful(head, separator) if decimal == "," and not mark else None
        options: dict[str, Any] = {
            "sep": separator,
            "decimal": decimal,
            "keep_default_na": False,
            "na_values": [""],
            "index_col": False,
        }
        if len(separator) > 1:
            return _Layout({**options, "sep": re.escape(separator), "engine": "python"}, encoding, doubtful)
        # A column has one type, not one for each of its parts.
        return _Layout({**options, "low_memory": False}, encoding, doubtful)

    def _say_what_commas_are(self, layout: _Layout) -> None:
        """Where they may stand for either: 38,150."""
        if layout.doubtful is not None:
            _log.warning(
                '%s: %s is read as %s. If the comma is for thousands: [data] thousands = ","',
                self.path, layout.doubtful, layout.doubtful.replace(",", "."),
            )  # fmt: skip

    def _is_grouped(self, cells: pd.Series, decimal: str) -> bool:
        """Whether all cells of a column of text are numbers whose thousands stand apart."""
        if self.written.thousands is None or cells.name in self.ids or not isinstance(cells.dtype, pd.StringDtype):
            return False
        return _all_grouped(cells.dropna(), self.written.thousands, decimal)

    def _ungrouped(self, cells: pd.Series, decimal: str) -> pd.Series:
        """Such cells as numbers."""
        plain = cells.str.replace(self.written.thousands or "", "", regex=False).str.replace(decimal, ".", regex=False)
        return pd.to_numeric(plain).astype("float64")

    def of_texts(self, column: pd.Series, decimal: str) -> pd.Series:
        """Cells as the numbers or truths that all of them spell; else as they are."""
        if self._is_grouped(column, decimal):
            return self._ungrouped(column, decimal)
        there = column.dropna()
        if there.isin(_TRUTHS).all():
            return column.map(_TRUTHS)
        numbers = pd.to_numeric(there.str.replace(decimal, ".", regex=False), errors="coerce")
        if numbers.isna().any() or there.str.match(_PADDED).any():
            return column
        return numbers.reindex(column.index)


@dataclass(frozen=True)
class DelimitedParts:
    """Files of cells that are one table: of the same columns, in any order, each under a line that names them.

    Args:
        parts: one at least.
        path: the file, or the folder of all.
    """

    parts: Sequence[Delimited]
    path: Path

    def frame(self) -> pd.DataFrame:
        """All rows."""
        frame = pa.Table.from_batches(self.batches(ROWS)).to_pandas()
        return with_ids(frame, self.texts, self.path, self.parts[0].id_type)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows, so many at a time. Each file is gone through twice: any row may tell the type of a column."""
        parts = self._alike()
        read = [part.kinds(rows) for part in parts]
        found: dict[str, set[str]] = {}
        for part, (kinds, _) in zip(parts, read, strict=True):
            _require_same(kinds, read[0][0], part, parts[0])
            for name, some in kinds.items():
                found.setdefault(name, set()).update(some)
        dtypes = {name: _common(kinds) for name, kinds in found.items()}
        schema = pa.schema([(name, _ARROW[_READ_AS.get(dtype, dtype)]) for name, dtype in dtypes.items()])
        for part, (_, layout) in zip(parts, read, strict=True):
            for chunk in part.chunks(layout, dtypes, rows):
                yield pa.RecordBatch.from_pandas(chunk, schema=schema, preserve_index=False)

    @cached_property
    def texts(self) -> Collection[str]:
        """The ids that are read as text: those of all parts, if they are so in one."""
        return next((found for part in self.parts if (found := part.texts)), ())

    def head(self, rows: int) -> pd.DataFrame:
        """The first rows; cells that begin with a zero are text."""
        cells, decimal = self.parts[0].cells(rows)
        read = [cells]
        for part in self.parts[1:]:
            if sum(map(len, read)) >= rows:
                break
            further, _ = part.cells(rows - sum(map(len, read)))
            _require_same(list(map(str, further)), list(map(str, cells)), part, self.parts[0])
            read.append(further)
        texts = pd.concat(read, ignore_index=True) if len(read) > 1 else cells
        return texts.apply(self.parts[0].of_texts, decimal=decimal) if len(texts) else texts

    def _alike(self) -> Sequence[Delimited]:
        """The parts, whose ids are text in all of them where they must be in one."""
        if len(self.parts) == 1 or not self.texts:
            return self.parts
        return [replace(part, id_type="string") for part in self.parts]


def _require_same(columns: Collection[str], first: Collection[str], part: Delimited, of: Delimited) -> None:
    """Raise DataError where a part has other columns than the first."""
    if set(columns) != set(first):
        raise DataError(
            f"{part.path} has the columns {', '.join(columns)}, and {of.path.name} beside it has "
            f"{', '.join(first)}. Parts of one table have the same, each under a first line that names them: "
            "name a folder of such files alone, or one file.",
            path=part.path,
        )


def _repeated(value: Value, dtype: str | None, index: pd.Index) -> pd.Series:
    """One value in each row. Of no type that is asked for, of its own."""
    if value is None:
        return pd.Series([None] * len(index), index, dtype=dtype or "str")
    return pd.Series([str(value) if dtype == "str" else value] * len(index), index, dtype=dtype or None)


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


def thousands_of(frame: pd.DataFrame) -> tuple[str, str, str] | None:
    """What stands between the digits of numbers in a file that was read without it, a column that shows it, and a cell;
    None if none shows it for sure.
    """
    for name, cells in frame.items():
        there = cells.dropna() if isinstance(cells.dtype, pd.StringDtype) else cells.iloc[:0]
        for mark, decimal in _MARKS.items():
            if _all_grouped(there, mark, decimal):
                return mark, str(name), str(there[there.str.contains(mark, regex=False)].iloc[0])
    return None


def _all_grouped(there: pd.Series, mark: str, decimal: str) -> bool:
    """Whether all texts are numbers, some of them with that mark between thousands."""
    mark, point = re.escape(mark), re.escape(decimal)
    number = rf"\s*[+-]?(?:[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+|[0-9]+)(?:{point}[0-9]+)?\s*"
    return len(there) > 0 and bool(there.str.fullmatch(number).all() and there.str.contains(mark).any())


def cells_of(head: str, separator: str) -> set[str]:
    """What stands in the first lines, each cell once."""
    return {cell.strip() for row in csv.reader(head.splitlines(), delimiter=separator) for cell in row}


def decimal_of(head: str, separator: str) -> str:
    """What stands before decimals: a comma, where numbers in the first lines have one, and none has a point."""
    if separator == "," or len(separator) > 1:
        return "."
    cells = cells_of(head, separator)
    return "," if any(map(_COMMA.fullmatch, cells)) and not any(map(_POINT.fullmatch, cells)) else "."


def _doubtful(head: str, separator: str) -> str | None:
    """A number whose comma may be for thousands, where that is so of all in the first lines."""
    found = [cell for cell in cells_of(head, separator) if _COMMA.fullmatch(cell)]
    return min(found) if all(map(_COMMA_OR_GROUP.fullmatch, found)) else None


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
    if named <= {"int64", "uint64", "float64", _GROUPED}:
        return _GROUPED
    return "str"
