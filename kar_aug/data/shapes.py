"""Logs of other shapes: impressions with all that they showed in one row; logs that tell of their items themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kar_aug.data.cells import is_list, values_of
from kar_aug.data.place import Table
from kar_aug.errors import DataError

_NO_ITEMS_OWN = ("user_id", "item_id", "timestamp", "rating", "label", "order", "weight")


def candidates(impressions: pd.DataFrame, shown: str, clicked: str, table: Table) -> pd.DataFrame:
    """A row for each item that an impression showed, in its order, with `item_id`, `label` (whether it was clicked)
    and, where there are no such columns, `position` (1, 2, ...) and `impression_id`; all other columns as they are.

    Args:
        shown, clicked: columns with several ids in a cell: lists, or text that `|` separates.

    Raises:
        DataError: There is no such column, or no click is on an item that its impression showed.
    """
    for name, column in (("shown", shown), ("clicked", clicked)):
        if column not in impressions:
            has = ", ".join(map(str, impressions.columns))
            raise DataError(f"[data] {name}: {table.name} has no column {column!r}. It has: {has}", column=column)
    listed = [_ids(cell) for cell in impressions[shown]]
    liked = [set(_ids(cell)) for cell in impressions[clicked]]
    lengths = np.fromiter(map(len, listed), np.int64, len(listed))
    rows = np.repeat(np.arange(len(listed)), lengths)
    label = [id in likes for ids, likes in zip(listed, liked, strict=True) for id in ids]
    if any(liked) and not any(label):
        raise DataError(
            f"[data] clicked: no id in '{clicked}' is among those in '{shown}' of its row. {table.name}, row "
            f"{next(row for row, likes in enumerate(liked) if likes)}: {next(filter(None, liked))} of {listed[:1]}"
        )
    first = np.cumsum(lengths) - lengths
    found = impressions.drop(columns=[shown, clicked]).iloc[rows].reset_index(drop=True)
    added: dict[str, Any] = {
        "item_id": pd.Series([id for ids in listed for id in ids]),
        "label": np.array(label, np.float32),
    }
    for name, values in (("position", np.arange(len(rows)) - first[rows] + 1), ("impression_id", rows)):
        if name not in found:
            added[name] = values
    return found.assign(**added)


def items_of(interactions: pd.DataFrame, columns: Sequence[str], table: Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the interactions without some columns, a table of items with them): of each item the values of its first event
    that has some, which no later event could change.

    Raises:
        DataError: There is no such column.
    """
    for column in columns:
        if column in _NO_ITEMS_OWN:
            raise DataError(
                f"[data] item_columns: {column!r} is no column of an item alone. Leave it out.", column=column
            )
        if column not in interactions:
            has = ", ".join(map(str, interactions.columns))
            raise DataError(f"[data] item_columns: {table.name} has no column {column!r}. It has: {has}", column=column)
    by_time = np.argsort(interactions["timestamp"].to_numpy(), kind="stable")
    told = interactions[["item_id", *columns]].iloc[by_time]
    return interactions.drop(columns=[*columns]), told.groupby("item_id", as_index=False)[[*columns]].first()


def _ids(cell: Any) -> Sequence[Any]:
    if is_list(cell):
        return cell.tolist() if isinstance(cell, np.ndarray) else list(cell)
    return [int(value) if value.isdecimal() else value for value in values_of(cell)]
