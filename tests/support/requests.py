"""Requests to an exported model, written from the raw tables with no code of kar-aug's: what a caller has at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_SECOND = pd.Timedelta(seconds=1)


def request(
    split: pd.DataFrame, rows: Sequence[int], inputs: Sequence[dict[str, Any]], sequences: dict[str, str] | None = None
) -> dict[str, np.ndarray]:
    """What is sent for some rows of the interactions.

    Args:
        split: the interactions in order; their columns by name.
        inputs: as kar_aug.json describes them.
        sequences: sequence of events -> expression over the interactions' columns; "hist" and "past" hold all of
            them.
    """
    kinds = dict.fromkeys(("hist", "past"), "user_id == user_id") | (sequences or {})
    times = {name: (cells - pd.Timestamp(0)) / _SECOND for name, cells in split.items() if cells.dtype.kind == "M"}
    frame = split.assign(**times)
    happened = frame[~frame["drawn"]] if "drawn" in frame else frame
    none: dict[str, Any] = {"local_dict": {}, "global_dict": {}}  # a look at variables here ended Python 3.13.0
    before = {
        name: [_before(happened.query(how, **none), frame.loc[row]) for row in rows] for name, how in kinds.items()
    }
    found = {}
    for each in inputs:
        name, kind, missing = each["name"], each["dtype"], each["missing"]
        missing = np.nan if missing == "NaN" else missing
        if each["shape"] == ["rows"]:
            cells = frame.loc[list(rows), name]
            values: Any = [missing if pd.isna(cell) else cell for cell in cells]
        elif each["shape"] == ["rows", "values"]:
            values = _padded([list(cell) if cell is not None else [] for cell in frame.loc[list(rows), name]], missing)
        else:
            sequence = next(kind for kind in kinds if name.startswith(f"{kind}_"))
            column = name.removeprefix(f"{sequence}_")
            events = [list(e[column]) for e in before[sequence]]
            if each["shape"][2:] == ["values"]:
                values = _padded_twice(events, missing)
            else:
                values = _padded([[missing if pd.isna(cell) else cell for cell in row] for row in events], missing)
        found[name] = np.asarray(values, object if kind == "string" else kind)
    return found


def _before(events: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    return events[(events["user_id"] == row["user_id"]) & (events["moment"] < row["moment"])]


def _padded(lists: list[list[Any]], missing: Any) -> list[list[Any]]:
    width = max(map(len, lists), default=0)
    return [[*values, *[missing] * (width - len(values))] for values in lists]


def _padded_twice(lists: list[list[list[Any]]], missing: Any) -> np.ndarray:
    most = max((len(values) for row in lists for values in row), default=0)
    padded = np.full((len(lists), max(map(len, lists), default=0), most), missing, object)
    for i, row in enumerate(lists):
        for j, values in enumerate(row):
            padded[i, j, : len(values)] = values
    return padded
