"""Files of JSON, an object a line; or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa

from kar_aug._helpers.batched import batched
from kar_aug.data.cells import mended
from kar_aug.data.ids import with_ids
from kar_aug.data.opening import ROWS, in_its_encoding, text
from kar_aug.data.parts import Value
from kar_aug.errors import DataError

_LIST = pa.list_(pa.string())
_Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class JsonLines:
    """A file of objects. A key that an object lacks is missing in its row; what is of different types becomes text.

    Args:
        given: further columns, of one value each: see `kar_aug.data.parts`.
    """

    path: Path
    encoding: str | None = None
    given: Mapping[str, Value] = field(default_factory=dict)

    def some(self, rows: int, most: int | None = None) -> list[tuple[int, _Columns]]:
        """What `read` gives, so often at most."""
        return in_its_encoding(self.path, self.encoding, lambda encoding: list(islice(self.read(encoding, rows), most)))

    def schema(self, rows: int) -> tuple[pa.Schema, str]:
        """Of all rows, and the encoding in which they could be read."""
        return in_its_encoding(
            self.path, self.encoding, lambda encoding: (_common(self.read(encoding, rows)), encoding)
        )

    def read(self, encoding: str, rows: int) -> Iterator[tuple[int, _Columns]]:
        """(how many rows, their columns), of no more types than each part needs."""
        with text(self.path, encoding) as lines:
            for objects in batched(self._objects(lines), rows):
                names = dict.fromkeys(chain.from_iterable(objects))
                columns = {name: _array([each.get(name) for each in objects]) for name in names}
                given = {name: _array([value] * len(objects)) for name, value in self.given.items()}
                yield len(objects), columns | given

    def _objects(self, lines: IO[str]) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, start=1):
            if number == 1 and line.lstrip().startswith("["):
                yield from self._array(line + lines.read())
                return
            if line.strip():
                yield self._object(_loaded(line), f"line {number}")

    def _array(self, content: str) -> Iterator[dict[str, Any]]:
        found = _loaded(content)
        if not isinstance(found, list):
            raise DataError(f"{self.path}, line 1: this is neither a JSON object nor an array of them.")
        for number, each in enumerate(found):
            yield self._object(each, f"row {number}")

    def _object(self, found: Any, where: str) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise DataError(f"{self.path}, {where}: this is no JSON object.")
        return found


@dataclass(frozen=True)
class JsonParts:
    """Such files as one table.

    Args:
        parts: one at least.
        path: the file, or the folder of all.
        texts: the ids among the columns that the names of folders give. Of all others JSON says whether they are text.
        id_type: "integer" or "string", where a person says what such ids are.
    """

    parts: Sequence[JsonLines]
    path: Path
    texts: Collection[str] = ()
    id_type: str | None = None

    def frame(self) -> pd.DataFrame:
        """All rows."""
        frame = _frame([some for part in self.parts for some in part.some(ROWS)])
        return with_ids(frame, self.texts, self.path, self.id_type)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows, so many at a time. Each file is gone through twice: any row may tell the type of a column."""
        found = [part.schema(rows) for part in self.parts]
        common = _of_all(schema for schema, _ in found)
        for part, (_, encoding) in zip(self.parts, found, strict=True):
            for many, columns in part.read(encoding, rows):
                yield _batch(many, columns, common)

    def head(self, rows: int) -> pd.DataFrame:
        """The first rows."""
        read: list[tuple[int, _Columns]] = []
        for part in self.parts:
            if left := rows - sum(many for many, _ in read):
                read += part.some(left, 1)
        return _frame(read)


def _loaded(content: str) -> Any:
    """What JSON says; None for what is no JSON."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return _mended(found) if "\\ud" in content.lower() else found


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {mended(key): _mended(each) for key, each in value.items()}
    return [_mended(each) for each in value] if isinstance(value, list) else value


def _array(values: Sequence[Any]) -> pa.Array:
    """Values as a column: text, or lists of text, where they are of different types."""
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        return _lists(values) if any(isinstance(value, list) for value in values) else _texts(values)
    if pa.types.is_floating(column.type) and any(isinstance(value, bool) for value in values):
        return _texts(values)  # true is no 1
    return column


def _texts(values: Iterable[Any]) -> pa.Array:
    return pa.array([_text(value) for value in values], pa.string())


def _lists(values: Iterable[Any]) -> pa.Array:
    lists = [value if isinstance(value, list) or value is None else [value] for value in values]
    return pa.array([None if each is None else [_text(value) for value in each] for each in lists], _LIST)


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers beside others come as decimals
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _frame(read: Sequence[tuple[int, _Columns]]) -> pd.DataFrame:
    schema = _common(read)
    return pa.Table.from_batches([_batch(*some, schema) for some in read], schema).to_pandas()


def _common(parts: Iterable[tuple[int, _Columns]]) -> pa.Schema:
    """Names and types of all parts; text, or lists of text, where they differ."""
    return _of_all(pa.schema([(name, column.type) for name, column in columns.items()]) for _, columns in parts)


def _of_all(schemas: Iterable[pa.Schema]) -> pa.Schema:
    kinds: dict[str, pa.DataType] = {}
    for each in schemas:
        for column in each:
            kinds[column.name] = _either(kinds.get(column.name, pa.null()), column.type)
    return pa.schema(list(kinds.items()))


def _either(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    try:
        fields = [pa.schema([("", kind)]) for kind in (one, other)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return _LIST if pa.types.is_list(one) or pa.types.is_list(other) else pa.string()


def _batch(rows: int, columns: _Columns, schema: pa.Schema) -> pa.RecordBatch:
    """A part as all of them are to be."""
    cast = [_cast(columns.get(field.name, pa.nulls(rows)), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(cast, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    values = column.to_pylist()
    if kind == _LIST:
        return _lists(values)
    return _texts(values) if kind == pa.string() else pa.array(values, kind)
