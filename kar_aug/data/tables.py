"""A user's own data: three tables, checked.

| table        | required columns            | meaning                                                        |
|--------------|-----------------------------|----------------------------------------------------------------|
| interactions | user_id, item_id, timestamp | one event a row; timestamp in seconds since 1970 or a datetime |
|              | rating *or* label           | a rating, made a click where above a threshold; or 0/1 itself  |
|              | order (optional)            | sorts a user's events where timestamps are rough; equal: ties  |
| items        | item_id                     | optional table; any further column may be a feature or prompt field |
| users        | user_id                     | optional table; likewise                                       |

Ids are integers or strings. Several values in one cell are separated by `|`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kar_aug._files import read_table
from kar_aug.errors import DataError

_LATEST = 9_200_000_000  # seconds: the year 2261, after which no nanosecond timestamp exists


@dataclass(frozen=True)
class Tables:
    """The three tables, checked on construction. `items` and `users` may be empty frames with an id column.

    Raises:
        DataError: A column is missing, an id repeats or is missing, or a value is not what it must be.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"item_id": []}))
    users: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"user_id": []}))

    def __post_init__(self) -> None:
        _require(self.interactions, "interactions", ["user_id", "item_id", "timestamp"])
        if self.interactions.empty:
            raise DataError("interactions: the table has no rows.", table="interactions")
        if not {"rating", "label"} & set(self.interactions.columns):
            raise DataError(
                "interactions: there is neither a column 'rating' nor a column 'label'.", table="interactions"
            )
        value = "label" if "label" in self.interactions else "rating"
        for column in ("user_id", "item_id", "timestamp", value):
            _no_gaps(self.interactions, "interactions", column)
        time = self.interactions["timestamp"]
        if not (pd.api.types.is_numeric_dtype(time) or pd.api.types.is_datetime64_any_dtype(time)):
            raise _wrong("timestamp", "must hold seconds since 1970, or datetimes, not text.")
        if pd.api.types.is_float_dtype(time) and not np.isfinite(time).all():
            raise _wrong("timestamp", "holds infinity.")
        if pd.api.types.is_numeric_dtype(time) and time.max() > _LATEST:
            raise _wrong(
                "timestamp", f"holds {time.max()}, seconds beyond the year 2261. Milliseconds? Divide by 1000."
            )
        if "order" in self.interactions:
            _no_gaps(self.interactions, "interactions", "order")
            if not pd.api.types.is_numeric_dtype(self.interactions["order"]):
                raise _wrong("order", "must hold numbers: a user's events are sorted by them.")
        if not pd.api.types.is_numeric_dtype(self.interactions[value]):
            raise _wrong(value, "must hold numbers, not text.")
        if value == "label" and not self.interactions["label"].isin([0, 1]).all():
            raise _wrong("label", "must hold 0 or 1 only.")
        for frame, name, key in ((self.items, "items", "item_id"), (self.users, "users", "user_id")):
            _require(frame, name, [key])
            _no_gaps(frame, name, key)
            repeated = frame[key][frame[key].duplicated()]
            if len(repeated):
                raise DataError(
                    f"{name}: {key} {repeated.tolist()[0]!r} stands in more than one row. Keep one row an id.",
                    table=name, column=key, row=int(frame[key].duplicated().argmax()),
                )  # fmt: skip
            expected = _kind(self.interactions, "interactions", key)
            if len(frame) and (kind := _kind(frame, name, key)) != expected:
                raise DataError(
                    f"{name}: {key} holds {kind}s but interactions hold {expected}s, so that no id would be found. "
                    "Give both the same type.",
                    table=name, column=key, left=expected, right=kind,
                )  # fmt: skip

    def ids(self, source: str) -> list[int | str]:
        """Every known id of a source ("user" or "item"), sorted: those of its table and of the interactions."""
        table = self.users if source == "user" else self.items
        column = f"{source}_id"
        known = set(self.interactions[column].tolist()) | set(table[column].tolist())
        return sorted(known)


def load_tables(
    interactions: Path,
    items: Path | None = None,
    users: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
) -> Tables:
    """Read the three tables from Parquet or CSV files.

    Args:
        columns: the files' own names, by ours: `{"user_id": "uid", "timestamp": "ts"}`. A name holds for every table
            that has such a column; all other columns keep theirs.

    Raises:
        DataError: A file is not there, cannot be read, or holds a wrong table; or no table has a column so named.
    """
    paths = {"interactions": interactions, "items": items, "users": users}
    frames = {name: read_table(path) for name, path in paths.items() if path is not None}
    return Tables(**_renamed(frames, columns or {}))


def _renamed(frames: Mapping[str, pd.DataFrame], columns: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The tables under our names; those of the interactions with their dates read."""
    for ours, theirs in columns.items():
        if not any(theirs in frame for frame in frames.values()):
            has = "; ".join(f"{name} has {', '.join(map(str, frame.columns))}" for name, frame in frames.items())
            raise DataError(
                f"[data] columns: no table has a column {theirs!r}, which {ours!r} is to be read from. {has}",
                column=theirs,
            )
    names = {theirs: ours for ours, theirs in columns.items()}
    renamed = {name: frame.rename(columns=names) for name, frame in frames.items()}
    renamed["interactions"] = _with_dates(renamed["interactions"])
    return renamed


def _with_dates(interactions: pd.DataFrame) -> pd.DataFrame:
    """CSV knows no datetimes: "2024-01-31 18:00:00" is one all the same."""
    if "timestamp" not in interactions or pd.api.types.infer_dtype(interactions["timestamp"]) != "string":
        return interactions
    try:
        return interactions.assign(timestamp=pd.to_datetime(interactions["timestamp"], format="ISO8601", utc=True))
    except ValueError:
        return interactions  # checked, and refused, as any other table


def _require(frame: pd.DataFrame, name: str, columns: list[str]) -> None:
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(
            f"{name}: column '{repeated[0]}' is there twice. Rename one.", table=name, column=str(repeated[0])
        )
    for column in columns:
        if column not in frame:
            raise DataError(
                f"{name}: column '{column}' is missing. It has: {', '.join(map(str, frame.columns))}. If it is one of "
                f'them, say so in kar.toml: [data] columns = {{ {column} = "..." }}',
                table=name,
                column=column,
            )


def _no_gaps(frame: pd.DataFrame, name: str, column: str) -> None:
    gaps = frame[column].isna()
    if gaps.any():
        first = int(gaps.argmax())
        raise DataError(
            f"{name}: '{column}' is empty in {gaps.sum()} rows, the first is row {first}.",
            table=name, column=column, row=first,
        )  # fmt: skip


def _wrong(column: str, what: str) -> DataError:
    return DataError(f"interactions: '{column}' {what}", table="interactions", column=column)


def _kind(frame: pd.DataFrame, name: str, key: str) -> str:
    """ "integer" or "string": what ids may be, because stores and caches keep these two apart and no other."""
    kind = pd.api.types.infer_dtype(frame[key], skipna=False)
    if kind not in ("integer", "string"):
        raise DataError(
            f"{name}: '{key}' must hold integers or strings, all of one kind; it holds: {kind}.",
            table=name, column=key, right=kind,
        )  # fmt: skip
    if kind == "integer" and len(frame) and int(frame[key].max()) >= 2**63:
        raise DataError(
            f"{name}: '{key}' holds {frame[key].max()}, more than 64-bit integers can. Make the ids strings.",
            table=name, column=key, row=int(frame[key].argmax()),
        )  # fmt: skip
    return kind
