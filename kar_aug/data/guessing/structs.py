"""Columns as settings can name them.

Nested JSON holds under keys what a table has in columns: {"venue": {"city": "Graz"}}. And a category has a name that
layers of TensorFlow can be called after: no "Device Type", and no "Küche".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from kar_aug.data.cells import is_list
from kar_aug.data.features import is_name_of_layer, name_for_layer
from kar_aug.data.types import take

_TRIED = 200  # cells whose keys are looked at
_MOST_KEYS = 50  # more are no names of columns: what happened by day, say


def apart(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame, in which each key of structs, and of lists of structs, is a column, and each column is called after
    what a layer can be; and what the file calls these, by their names: {"venue_city": "venue.city", "Kueche": "Küche"}.
    A key whose name another column has is left out; a column of which no letter is Latin, or whose name another has,
    keeps its own.
    """
    called: dict[str, str] = {}
    columns: dict[str, pd.Series] = {}
    for name, cells in frame.items():
        for theirs, values in _columns(str(name), cells):
            ours = "" if theirs == name and is_name_of_layer(theirs) else name_for_layer(theirs)
            if ours and ours not in frame and ours not in columns:
                columns[ours], called[ours] = values, theirs
            elif theirs == name:
                columns[theirs] = values
    return (pd.DataFrame(columns, frame.index) if called else frame), called


def _columns(name: str, cells: pd.Series) -> Iterator[tuple[str, pd.Series]]:
    """(its name, a column), of a column: itself, or one a key."""
    keys = _keys(cells)
    if not 0 < len(keys) <= _MOST_KEYS:
        yield name, cells
        return
    for key in keys:
        yield from _columns(f"{name}.{key}", take(cells, key))


def _keys(cells: pd.Series) -> list[str]:
    """The keys of structs that a column holds, or lists of which it holds. One with a point in it cannot be named."""
    if cells.dtype != object:
        return []
    there = (each for cell in cells.dropna().head(_TRIED) for each in (cell if is_list(cell) else [cell]))
    keys: dict[Any, None] = {}
    for each in there:
        if not isinstance(each, dict):
            return []
        keys |= dict.fromkeys(each)
    return [str(key) for key in keys if "." not in str(key)]
