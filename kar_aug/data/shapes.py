"""Logs of other shapes: impressions with all that they showed in one row; logs that tell of their items themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.cells import SEPARATOR, is_list, values_of
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


def without_items(
    impressions: pd.DataFrame, lists: Sequence[str], are_gone: Callable[[pd.Series], npt.NDArray[np.bool_]]
) -> tuple[pd.DataFrame, int]:
    """The impressions without some of the items that they showed, and how many they were; one that showed no other is
    left out.

    Args:
        lists: the columns `shown` and `clicked`.
        are_gone: given ids, as they stand there, which are to go.
    """
    changed: dict[str, Any] = {}
    touched = np.zeros(len(impressions), bool)
    for name in lists:
        cells = impressions[name].tolist()
        listed = [_ids(cell) for cell in cells]
        lengths = np.fromiter(map(len, listed), np.int64, len(listed))
        gone = are_gone(pd.Series([id for ids in listed for id in ids], dtype=object))
        rows = np.repeat(np.arange(len(listed)), lengths)
        here, ends = np.bincount(rows[gone], minlength=len(listed)) > 0, np.cumsum(lengths)
        for row in np.flatnonzero(here).tolist():
            left = ~gone[ends[row] - lengths[row] : ends[row]]
            values = cells[row] if is_list(cells[row]) else values_of(cells[row])
            kept = [value for value, stays in zip(values, left, strict=True) if stays]
            cells[row] = kept if is_list(cells[row]) else SEPARATOR.join(kept)
        changed[name], touched = pd.Series(cells, impressions.index), touched | here
    showed = changed[lists[0]].map(lambda cell: len(_ids(cell)) > 0 and not (isinstance(cell, str) and not cell))
    return impressions.assign(**changed)[~touched | showed.to_numpy(bool)], int(touched.sum())


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
