"""Columns of the users and items tables that were computed from test rows: popularity, mean rating, last purchase.

Such a column cannot be told by its name. It is compared with what it could be: counts, click rates, mean ratings and
times of each user or item, once over all rows and once without the test part. If it follows the first and not the
second, it knows the test part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.audit.findings import Check, Finding, found, shown
from kar_aug.data.cells import flat
from kar_aug.data.room import blocks
from kar_aug.data.times import seconds

Array = npt.NDArray[np.float64]
# Users or items that a statistic must tell apart before it can be more than chance.
_FEWEST = 10
_FEWEST_OTHERS = 5
_MOST_CATEGORIES = 20
_SUMS = {
    "events": ("label", "count"),
    "clicks": ("label", "sum"),
    "time": ("time", "max"),
    "ratings": ("rating", "count"),
    "rating": ("rating", "sum"),
}


def columns(entity: str, table: pd.DataFrame, names: Sequence[str], split: pd.DataFrame) -> Check:
    """Whether no column that a model or a prompt reads follows a statistic of the test part.

    Args:
        names: the columns; those that the table lacks are passed over.
    """
    key = f"{entity}_id"
    present = [name for name in dict.fromkeys(names) if name in table and name != key]
    table = table.assign(**{name: flat(table[name]) for name in present})
    findings = []
    if present:
        known = list(_statistics(split, key, table[key]))
        for name in present:
            followed = next((each for each in known if _knows(table[name], each)), None)
            if followed is not None:
                findings.append(
                    Finding(
                        "statistic",
                        1,
                        f"{entity}s: {name!r} follows {followed.what}, counted with the test part, and not without it.",
                        _example(table, key, name),
                    )
                )
    return Check(f"columns of {entity}s know nothing of the test part", len(present), "columns", found(*findings))


class _Statistic(NamedTuple):
    """What a column may have been computed as, over all rows and without the test part; a number an entity."""

    what: str
    full: Array
    before: Array


def _statistics(split: pd.DataFrame, key: str, entities: pd.Series) -> Iterator[_Statistic]:
    counted = pd.concat([_counted(split.iloc[block], key) for block in blocks(len(split))])
    both = (_told(each, key, entities) for each in (counted, counted[~counted["test"]]))
    for (what, full), (_, before) in zip(*both, strict=True):
        yield _Statistic(what, full, before)


def _counted(events: pd.DataFrame, key: str) -> pd.DataFrame:
    """Sums of some events, a row a user or item, and whether they are of the test part."""
    frame = events[[key, "label"]].assign(time=seconds(events["timestamp"]), test=events["part"] == "test")
    frame["rating"] = events["rating"].astype(np.float64) if "rating" in events else np.nan
    return frame.groupby([key, "test"], as_index=False).agg(**_SUMS)


def _told(counted: pd.DataFrame, key: str, entities: pd.Series) -> Iterator[tuple[str, Array]]:
    sums = counted.groupby(key).agg(dict.fromkeys(_SUMS, "sum") | {"time": "max"}).reindex(entities)
    yield "the number of events", sums["events"].fillna(0).to_numpy(np.float64)
    yield "the number of clicks", sums["clicks"].fillna(0).to_numpy(np.float64)
    yield "the click rate", _ratio(sums["clicks"], sums["events"])
    yield "the time of the last event", sums["time"].to_numpy(np.float64, na_value=np.nan)
    if counted["ratings"].any():
        yield "the mean rating", _ratio(sums["rating"], sums["ratings"])
        yield "the sum of ratings", sums["rating"].fillna(0).to_numpy(np.float64)


def _ratio(total: pd.Series, count: pd.Series) -> Array:
    return (total / count.where(count > 0)).to_numpy(np.float64)


def _knows(column: pd.Series, statistic: _Statistic) -> bool:
    """Whether the column follows a statistic of all rows, and not that of the rows before the test part."""
    _, full, before = statistic
    numbers = _numbers(column)
    values = _category_means(column, full) if numbers is None else numbers
    told_apart = np.isfinite(full) & np.isfinite(values) & ~np.isclose(full, before)
    if told_apart.sum() < _FEWEST or len(np.unique(values[told_apart])) < 2:
        return False
    equal = (_equal(values, each)[told_apart].mean() for each in (full, before))
    if numbers is not None and next(equal) > 0.9 and next(equal) < 0.5:
        return True
    return _ordered(values, full) and not _ordered(values, before)


def _numbers(column: pd.Series) -> Array | None:
    """The column as numbers, times as seconds; None where it holds none."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return seconds(column)
    numbers = pd.to_numeric(column, errors="coerce")
    return (
        numbers.to_numpy(np.float64, na_value=np.nan) if numbers.notna().sum() >= 0.9 * column.notna().sum() else None
    )


def _category_means(column: pd.Series, statistic: Array) -> Array:
    """The statistic's mean in each category; nothing where there are too many categories to be bins of it."""
    if column.nunique() > _MOST_CATEGORIES:
        return np.full(len(column), np.nan)
    return pd.Series(statistic).groupby(column.to_numpy()).transform("mean").to_numpy(np.float64)


def _equal(values: Array, statistic: Array) -> npt.NDArray[np.bool_]:
    """The same, or rounded to two digits after the point."""
    return np.isclose(values, statistic, rtol=1e-6, atol=0.0051)


def _ordered(values: Array, statistic: Array) -> bool:
    """Whether the column is the statistic under any rising or falling function: its logarithm, rank, or bins."""
    both = np.isfinite(values) & np.isfinite(statistic)
    values, statistic = values[both], statistic[both]
    if min(_outside_the_commonest(values), _outside_the_commonest(statistic)) < _FEWEST_OTHERS:
        return False
    spans = pd.Series(statistic).groupby(values).agg(["min", "max"])  # by rising value
    low, high = spans["min"].to_numpy(), spans["max"].to_numpy()
    if len(spans) > _MOST_CATEGORIES:  # ranks, which may part what is equal
        return bool((low[1:] >= high[:-1]).all() or (high[1:] <= low[:-1]).all())
    return bool((low[1:] > high[:-1]).all() or (high[1:] < low[:-1]).all())


def _outside_the_commonest(values: Array) -> int:
    """How many have another than the most frequent value."""
    return len(values) - int(np.unique(values, return_counts=True)[1].max(initial=0))


def _example(table: pd.DataFrame, key: str, name: str) -> str:
    row = table[table[name].notna()].iloc[0]
    return f"{key} {shown(row[key])} has {shown(row[name])}"
