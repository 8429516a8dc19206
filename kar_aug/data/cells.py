"""What stands in a cell: one value, several, or something that is no value; and a cell as text.

Several values are a text with `|` between them, or a list of any kind (a Parquet list, a JSON array, a tuple), which
keeps a value that holds a `|` itself in one piece. Lists stay in a table as they came, but for those of text that are
kept on the disk (`kar_aug.data.reading`); every reader of cells asks here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kar_aug.errors import DataError

SEPARATOR = "|"
_LISTS = (list, tuple, set, frozenset, np.ndarray)


@dataclass(frozen=True)
class Unreadable:
    """Stands in each cell of a column that holds no values (structs, bytes that are no text). Who reads one is told."""

    fault: str


def values_of(cell: Any) -> tuple[str, ...]:
    """The values of a cell, () where it is missing.

    Raises:
        DataError: They are no values: structs, lists of lists.
    """
    if isinstance(cell, str):
        return tuple(cell.split(SEPARATOR))
    if is_list(cell):
        return tuple(text for text in map(word, _elements(cell)) if text)
    _check(cell)
    return () if pd.isna(cell) else tuple(str(cell).split(SEPARATOR))


def text_of(cell: Any) -> str:
    """A cell as text, "" where it is missing; several values with `|` between them, none of which holds one.

    Raises:
        DataError: They are no values: structs, lists of lists.
    """
    if isinstance(cell, str):
        return cell
    if is_list(cell):
        return SEPARATOR.join(value.replace(SEPARATOR, "/") for value in values_of(cell))
    _check(cell)
    return "" if pd.isna(cell) else str(cell)


def flat(column: pd.Series) -> pd.Series:
    """The column, its lists as text that `|` separates, so that equal ones are equal, and can be counted and sorted."""
    if column.dtype != "object" or not any(is_list(cell) or isinstance(cell, Unreadable) for cell in column):
        return column
    return column.map(_flat).astype(object)


def is_list(cell: Any) -> bool:
    """Whether a cell holds several values that no `|` separates."""
    return isinstance(cell, _LISTS)


def mended(text: str) -> str:
    """The text without halves of characters (a lone \\ud83d of JSON), which no file and no server takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _elements(cell: Iterable[Any]) -> Iterable[Any]:
    return sorted(cell, key=str) if isinstance(cell, (set, frozenset)) else cell


def word(value: Any) -> str:
    """A value of a list as text; "" for one that is missing."""
    if isinstance(value, str):
        return value if value.isascii() else mended(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if is_list(value):
        raise DataError("A cell holds a list of lists. Values are texts or numbers: bring it into one list.")
    _check(value)
    if pd.isna(value):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # a list of whole numbers with one gap comes as decimals
    return str(value)


def _check(cell: Any) -> None:
    if isinstance(cell, Unreadable):
        raise DataError(cell.fault)
    if isinstance(cell, dict):
        keys = ", ".join(map(str, cell))
        raise DataError(f"A cell holds a struct ({keys}), which is no value. Take one of its keys.")


def _flat(cell: Any) -> Any:
    if is_list(cell):
        return text_of(cell) or None
    _check(cell)
    return cell
