"""Structs as columns: nested JSON holds what a table has in columns under keys, {"venue": {"city": "Graz"}}."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from kar_aug.data.cells import is_list
from kar_aug.data.types import take

_TRIED = 200  # cells whose keys are looked at
_MOST_KEYS = 50  # more are no names of columns: what happened by day, say


def apart(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame, in which each key of structs, and of lists of structs, is a column; and what the file calls these, by
    their names: {"venue_city": "venue.city"}. A key whose name another column has is left out.
    """
    called: dict[str, str] = {}
    columns: dict[str, pd.Series] = {}
    for name, cells in frame.items():
        for theirs, values in _columns(str(name), cells):
            ours = re.sub(r"\W+", "_", theirs).strip("_") if theirs != name else str(name)
            if theirs == name or (ours not in frame and ours not in columns):
                columns[ours] = values
                called |= {} if theirs == name else {ours: theirs}
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
