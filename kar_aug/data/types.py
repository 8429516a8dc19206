"""Columns of any type, as the few types that the project keeps.

| came as                                                    | is kept as                                          |
|------------------------------------------------------------|-----------------------------------------------------|
| numbers, booleans, datetimes, strings of numpy and pandas  | themselves                                          |
| nullable and Arrow columns                                 | the same without gaps; integers with gaps as Int64  |
| categoricals                                               | their values                                        |
| datetimes with a zone                                      | datetimes in UTC, without one                       |
| bytes                                                      | strings, if they are UTF-8                          |
| lists, and lists written as text ("['a', 'b']")            | lists: see `kar_aug.data.cells`                     |
| structs, lists of structs, other bytes                     | `Unreadable`, an error for whoever reads one        |
"""

from __future__ import annotations

import ast
import json
import logging
import re
from typing import Any

import pandas as pd
import pyarrow as pa

from kar_aug.data.cells import Unreadable, is_list, mended
from kar_aug.data.place import Place, Table, first, spread
from kar_aug.data.room import MEMORY, Room

_log = logging.getLogger("kar_aug")
_NUMPY_LIST = re.compile(r"(?<=['\"])\s+(?=['\"])")  # "['a' 'b']": pandas writes lists of numpy so into CSV files
_USUAL_KEYS = ("name", "title", "value")


def plain(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """The frame, each column of a type that the project keeps."""
    if not frame.columns.is_unique:
        return frame  # refused where its columns are required
    changed = {}
    for name, column in frame.items():
        kept = plain_column(column, table[str(name)])
        if kept is not column:
            changed[name] = kept
    return frame.assign(**changed) if changed else frame  # type: ignore[arg-type]


def plain_column(column: pd.Series, place: Place) -> pd.Series:
    """The same for one column."""
    dtype = column.dtype
    if dtype == "object":
        return _of_objects(column, place)
    if isinstance(dtype, pd.CategoricalDtype):
        return plain_column(_of_categories(column), place)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert(None)
    if isinstance(dtype, pd.ArrowDtype):
        arrow = column.array.__arrow_array__()
        read = arrow.to_pandas(integer_object_nulls=True)
        return plain_column(pd.Series(read.array, column.index, name=column.name), place)
    if isinstance(dtype, pd.StringDtype):
        return _of_text(column if dtype.na_value is not pd.NA else _without_na(column), place)
    if pd.api.types.is_extension_array_dtype(dtype) and hasattr(dtype, "numpy_dtype"):
        return _of_nullable(column)
    return column


def numbers(column: pd.Series, place: Place, room: Room = MEMORY) -> pd.Series:
    """A column of plain type as numbers; what is missing stays so.

    Args:
        room: where they are put.

    Raises:
        DataError: A value is no number.
    """
    if pd.api.types.is_numeric_dtype(column):
        return column
    there = column.dropna()
    kind = pd.api.types.infer_dtype(there)
    if kind == "string":
        read = room.made(there, numbers_of_text)
        if read.isna().any():
            raise place.error(
                f"must hold numbers, not text. {first(column, read.isna())} Write them with a point: 4.5."
            )
        return spread(read, column)
    if kind in ("decimal", "integer", "floating", "mixed-integer-float", "boolean", "empty"):
        return pd.to_numeric(column.astype(object).where(column.notna(), None)).astype("float64")
    raise place.error(f"must hold numbers. {first(column, there.notna())}")


def numbers_of_text(texts: pd.Series) -> pd.Series:
    """Texts as the numbers that they are; missing where one is none."""
    return pd.to_numeric(texts, errors="coerce")


def take(column: pd.Series, keys: str) -> pd.Series:
    """What stands under keys ("name", "a.b") of the structs of a column, or of each of its lists' structs."""
    return column.map(lambda cell: _under(keys.split("."), cell)).astype(object)


def _under(keys: list[str], cell: Any) -> Any:
    if not keys:
        return cell
    if isinstance(cell, str):
        cell = _literal(cell)
    if isinstance(cell, dict):
        return _under(keys[1:], cell.get(keys[0]))
    return [_under(keys, each) for each in cell] if is_list(cell) else None


def _of_categories(column: pd.Series) -> pd.Series:
    kind = column.cat.categories.dtype
    try:
        return column.astype(kind)
    except (TypeError, ValueError):  # whole numbers, and one is missing
        return _without_na(column)


def _of_nullable(column: pd.Series) -> pd.Series:
    if column.notna().all():
        return column.astype(column.dtype.numpy_dtype)  # type: ignore[union-attr]
    if pd.api.types.is_float_dtype(column):
        return column.astype("float64")
    return _without_na(column) if pd.api.types.is_bool_dtype(column) else column


def _without_na(column: pd.Series) -> pd.Series:
    """None in place of <NA>, which is neither true nor false."""
    return column.astype(object).where(column.notna(), None).infer_objects()


def _of_objects(column: pd.Series, place: Place) -> pd.Series:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "string":
        return _of_text(_mended(column), place)
    if kind == "bytes":
        return _of_bytes(column, place)
    if kind == "integer":
        return _of_integers(column)
    if kind == "boolean" and column.notna().all():
        return column.astype(bool)  # a key of structs, say
    if kind in ("datetime", "datetime64"):
        return pd.to_datetime(column, utc=True).dt.tz_convert(None)
    if kind == "mixed":
        return _of_mixed(column, place)
    return column


def _mended(column: pd.Series) -> pd.Series:
    """Texts without halves of characters, which neither Arrow nor a file takes."""
    try:
        pa.array(column, pa.large_string(), from_pandas=True)
    except UnicodeEncodeError:
        return column.map(mended, na_action="ignore").astype(object)
    return column


def _of_bytes(column: pd.Series, place: Place) -> pd.Series:
    try:
        return column.map(lambda cell: cell.decode() if isinstance(cell, bytes) else None)
    except UnicodeDecodeError:
        return _unreadable(column, f"{place} holds bytes that are no UTF-8 text, and so no values.")


def _of_integers(column: pd.Series) -> pd.Series:
    try:
        return column.astype("Int64" if column.isna().any() else "int64")
    except OverflowError:
        return column  # more than 64 bits


def _of_mixed(column: pd.Series, place: Place) -> pd.Series:
    cell = next((cell for cell in column if _tells(cell)), None)
    fault = _fault(cell, place)
    return column if fault is None else _unreadable(column, fault)


def _of_text(column: pd.Series, place: Place) -> pd.Series:
    """Lists that were written as text, if all of the column is such; else the column."""
    if not len(column) or not str(column.iloc[int(column.notna().to_numpy().argmax())]).startswith("["):
        return column
    there = column.dropna()
    if not there.str.startswith("[").all():
        return column
    read: Any = next((cell for cell in map(_literal, there) if cell != []), [])
    if (fault := _fault(read, place)) is not None:
        return _unreadable(column, fault)
    lists = there.map(_literal)
    if not lists.map(is_list).all():
        return column
    _log.warning("%s holds lists written as text. They are read as several values: %s", place, there.iloc[0])
    return spread(lists.astype(object), column)


def _literal(text: str) -> Any:
    """What a text says in JSON or as a Python literal; itself, if it says nothing."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(_NUMPY_LIST.sub(", ", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _tells(cell: Any) -> bool:
    """Whether a cell tells what its column holds: it is not missing, and no empty list."""
    return len(cell) > 0 if is_list(cell) else bool(pd.notna(cell))


def _fault(cell: Any, place: Place) -> str | None:
    """What is wrong with a column that holds such cells; None if they are values."""
    inner = next((each for each in cell if _tells(each)), None) if is_list(cell) else cell
    if isinstance(inner, dict):
        keys = [str(key) for key in inner]
        key = next((usual for usual in _USUAL_KEYS if usual in keys), keys[0] if keys else "key")
        return (
            f"{place} holds structs ({', '.join(keys)}), which are no values. Say which key to take: "
            f'[data] columns = {{ {place.name} = "{place.column}.{key}" }}'
        )
    if is_list(cell) and is_list(inner):
        return f"{place} holds lists of lists, which are no values. Bring each into one list."
    return None


def _unreadable(column: pd.Series, fault: str) -> pd.Series:
    return column.astype(object).where(column.isna(), Unreadable(fault))
