"""Columns of structs, as JSON has them, taken apart: the key `id` of `user` is the column user_id."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kar_aug.data.cells import is_list
from kar_aug.data.types import take

_TRIED = 200  # cells whose keys are looked for
_MOST_KEYS = 24  # of a struct; one of more keys holds names, not columns


def taken_apart(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """A column for each key of structs, or of lists of structs, in place of theirs.

    Returns:
        The frame, and under each new name how [data] columns calls it: "user_id" -> "user.id". A column whose keys'
        names would be those of others stays as it is.
    """
    apart: dict[str, str] = {}
    columns: dict[str, pd.Series] = {}
    for name, column in frame.items():
        keys = _keys(column) if frame.columns.is_unique and column.dtype == "object" else []
        found = {f"{name}_{key}": f"{name}.{key}" for key in keys}
        if not found or set(found) & ({*frame.columns} | {*columns}):
            columns[str(name)] = column
            continue
        columns |= {ours: take(column, key) for ours, key in zip(found, keys, strict=True)}
        apart |= found
    return (pd.concat(columns, axis=1), apart) if apart else (frame, {})


def _keys(column: pd.Series) -> list[str]:
    """Those of the first structs; none where a cell is something else, or a key could not be told from two."""
    keys: dict[str, None] = {}
    for cell in column.dropna().head(_TRIED):
        for each in cell if is_list(cell) else [cell]:
            if not isinstance(each, dict):
                return []
            keys |= dict.fromkeys(map(_key, each))
    return [*keys] if len(keys) <= _MOST_KEYS and all(keys) else []


def _key(key: Any) -> str:
    return key if isinstance(key, str) and "." not in key else ""
