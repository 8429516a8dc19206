"""What models may read of a column: a category, several, a number on a scale, or nothing, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.counting import counted
from kar_aug.data.encodings import numbers_of
from kar_aug.data.guessing.clicks import is_flag
from kar_aug.data.guessing.seen import Seen, shown
from kar_aug.data.guessing.words import (
    AGGREGATES,
    BEHAVIOUR,
    CATEGORIES,
    CONTEXT,
    IDS,
    LATER,
    ORDERED,
    SESSIONS,
    TEXTS,
    rank_as_id,
    says,
    says_outcome,
    words,
)

_ROWS_A_VALUE = 2  # on average; of fewer nothing is learnt
_MOST_VALUES = 10_000
_ROWS_AN_ID, _ROWS_A_SESSION, _MOST_IDS = 10, 50, 1000  # of a column that is called an id, but may be a category
_MOST_WORDS, _MOST_CHARACTERS = 4, 40  # of a category, on average
_MOST_IN_A_LIST = 50
_FEW_INTEGERS, _FEW_NUMBERS = 10, 30
_NUMBERED = {"no", "nr", "number", "reference", "ref"}  # "order_number": of what comes one after another
_SKEWED = 1.5
_TOLD_BY = 0.95  # AUC of a column alone, which knows what came of the event
_FEWEST_CLICKS = 20
_BY_CHANCE = 1e-6  # that all rows of a value are clicked: below it, they are so since the value comes of a click
_BUCKETS = 20
_TELLS_ITEM = 0.2  # by how much more often two rows of an item agree than any two, of what is left to agree on
_FEWEST_PAIRS = 100  # of rows of one item
_ONE_VALUE = 0.95  # share of an item's rows that have its commonest value, on average
COUNTED = "counted over all of the log by its name: it would know what is tested on"
MEAN_RATINGS = {"rating", "ratings", "stars"}  # as a number of users or items
RESERVED = {
    "user_id", "item_id", "timestamp", "rating", "label", "weight", "order", "impression_id", "user", "item", "part",
    "moment", "drawn",
}  # fmt: skip
SAID = {
    "impression_id": "says what was shown together: GAUC is computed within each",
    "weight": 'how much a row counts, if you say so: weight = "weight"',
}


@dataclass(frozen=True)
class Use:
    """What a column is good for.

    Args:
        when: "now" it is known of the sample itself; "earlier" it tells of earlier events alone; "never".
        why: what was seen.
        scale: of a number; None of a category or a list.
    """

    when: str
    why: str
    scale: str | None = None


def use(seen: Seen) -> Use:
    """What a column of users or items is good for."""
    if seen.kind in ("integer", "number") and says(seen.name, MEAN_RATINGS):
        return Use("never", COUNTED)
    return _use(seen)


def _use(seen: Seen) -> Use:
    if (why := _unfit(seen)) is not None:
        return Use("never", why)
    if seen.kind == "list":
        return _of_lists(seen)
    if seen.kind in ("integer", "number") and not _is_category(seen):
        return Use("now", *_scale(seen))
    few = seen.distinct <= _MOST_VALUES and seen.distinct * _ROWS_A_VALUE <= len(seen.there)
    if not few:
        return Use("never", f"{seen.distinct:,} values in {len(seen.there):,} rows: too few rows each to learn from")
    return Use("now", f"{counted(seen.distinct, 'value')}: {seen.examples()}{_gaps(seen)}")


def use_in_events(seen: Seen, clicked: npt.NDArray[np.bool_] | None, *, is_rated: bool) -> Use:
    """What a column of the interactions is good for.

    Args:
        clicked: per row, whether it is a click; None where nothing tells.
        is_rated: whether rows are ratings, so that what stands beside one was written with it.
    """
    if seen.name == "order" and seen.kind in ("integer", "number"):
        return Use("never", "sorts the events of a user")
    found = _use(seen)
    if found.when == "never":
        return found
    if says(seen.name, LATER):
        return Use("never", "grows after the event")
    if is_rated and not says(seen.name, CONTEXT):
        return Use("earlier", f"{found.why}; written with the rating, and not known before", found.scale)
    if says_outcome(seen.name):
        return Use("earlier", f"{found.why}; known when the event is over", found.scale)
    if clicked is None and is_flag(seen):
        return Use("earlier", f"{found.why}; it may say what came of the event: known when it is over", found.scale)
    if clicked is not None and seen.kind != "list":
        if tells_clicks(seen, clicked):
            told = "it nearly says what was clicked: known when the event is over"
            return Use("earlier", f"{found.why}; {told}", found.scale)
        if (value := comes_of_clicks(seen, clicked)) is not None:
            told = f"each of the rows with {value} is a click, so it may come of one: known when the event is over"
            return Use("earlier", f"{found.why}; {told}", found.scale)
    return found


def is_of(entity: pd.Series, seen: Seen) -> bool:
    """Whether users, or items, have one value each in a column of the interactions: it is a column about them."""
    if seen.kind in ("list", "unreadable", "empty"):
        return False
    there = seen.cells.notna().to_numpy()
    pairs = pd.DataFrame({"id": entity.to_numpy()[there], "value": seen.cells[there].astype(str).to_numpy()})
    again = pairs["id"].duplicated(keep=False)
    if not again.any():
        return False
    counts = pairs[again].groupby(["id", "value"], sort=False).size().groupby("id", sort=False)
    share, anyway = float((counts.max() / counts.sum()).mean()), float(seen.counts.iloc[0] / seen.counts.sum())
    return share > _ONE_VALUE and share - anyway > (1 - anyway) / 2  # of what is rare, nearly all rows say no anyway


def tells_item(item: pd.Series, seen: Seen) -> bool:
    """Whether a column of the interactions nearly says which item a row is of, as the price at that time does: two rows
    of one item have the same value, or a near one, clearly more often than any two rows.
    """
    if seen.kind in ("list", "unreadable", "empty", "time"):
        return False
    values, items = _buckets(seen), pd.factorize(item)[0]
    if (pairs := _same(items)) < _FEWEST_PAIRS:
        return False
    again, anyway = (
        _same(items * (values.max() + 1) + values) / pairs,
        _same(values) / (len(values) * (len(values) - 1)),
    )
    return bool(again - anyway > _TELLS_ITEM * (1 - anyway))


def _same(groups: npt.NDArray[np.int64]) -> float:
    """How many ordered pairs of rows are of one group."""
    counts = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum())


def _unfit(seen: Seen) -> str | None:
    """Why nothing can be learnt from a column; None if something can."""
    if seen.kind == "empty":
        return "empty"
    if seen.kind == "unreadable":
        return f'structs, which are no values; of one key of them: columns = {{ {seen.name} = "{seen.name}.KEY" }}'
    if seen.name in SAID:
        return SAID[seen.name]
    if seen.name in RESERVED or seen.name.startswith("hist_"):
        return "called as something of kar-aug's own: rename it to have it"
    if seen.distinct < 2 and seen.missing < 0.05:
        return "one value"
    if seen.kind == "time":
        return "times"
    if seen.is_address:
        return "addresses"
    told = set(words(seen.name))
    aggregates = told & AGGREGATES - ({"number"} if words(seen.name)[-1:] == ("number",) else set())
    if (aggregates and told & BEHAVIOUR) or "popularity" in told or told >= {"sales", "rank"}:
        return COUNTED
    last = (words(seen.name) or ("",))[-1]
    if seen.kind in ("text", "list") and last in TEXTS:
        return "free text: for prompts"
    if seen.kind == "number" and (seen.numbers % 1 != 0).any():
        return None  # "session_seconds": no id is a fraction
    if last in IDS - {"code", "number"} or told & SESSIONS or rank_as_id(seen.name, "item") == 1:
        rows = _ROWS_A_SESSION if told & SESSIONS else 1 if told & CATEGORIES else _ROWS_AN_ID
        if seen.distinct > _MOST_IDS or seen.distinct * rows > len(seen.there):
            return "ids"
    elif seen.kind in ("text", "list") and (seen.words > _MOST_WORDS or seen.length > _MOST_CHARACTERS):
        return "free text: for prompts"
    return None


def _of_lists(seen: Seen) -> Use:
    said = f"lists of up to {seen.longest} of {seen.distinct:,} values: {seen.examples()}"
    if seen.longest > _MOST_IN_A_LIST or seen.distinct > _MOST_VALUES:
        return Use("never", f"{said}; too many")
    if seen.distinct * _ROWS_A_VALUE > seen.counts.sum():
        return Use("never", f"{said}; too few rows each to learn from")
    return Use("now", f"{said}{_gaps(seen)}")


def _is_category(seen: Seen) -> bool:
    """Whether numbers are names: codes, or few whole ones that are no measure."""
    if seen.distinct <= 2 or (says(seen.name, CATEGORIES) and seen.kind == "integer"):
        return True
    if seen.kind == "integer" and words(seen.name)[-1:] and words(seen.name)[-1] in IDS - _NUMBERED:
        return True
    ordered = says(seen.name, ORDERED)
    return seen.kind == "integer" and seen.distinct <= _FEW_INTEGERS and not ordered


def _scale(seen: Seen) -> tuple[str, str]:
    """(what was seen, the kind of scale) of numbers."""
    numbers = seen.numbers
    low, middle, high = np.quantile(numbers, [0, 0.5, 1])
    said = f"{seen.distinct:,} numbers from {low:g} to {high:g}, half of them below {middle:g}{_gaps(seen)}"
    if seen.distinct <= _FEW_NUMBERS:
        return f"{said}; few, so each bucket is learnt by itself", "buckets"
    if low >= 0 and _skew(numbers) > _SKEWED:
        return f"{said}; a few are very large, so their logarithms are read", "log"
    return said, "standard"


def _skew(numbers: npt.NDArray[np.float64]) -> float:
    """How far the large numbers reach: the third moment about the mean, by the deviation."""
    apart = numbers - numbers.mean()
    return float((apart**3).mean() / max(float(numbers.std()), 1e-12) ** 3)


def _gaps(seen: Seen) -> str:
    return f"; {seen.missing:.1%} missing" if seen.missing else ""


def _auc(seen: Seen, clicked: npt.NDArray[np.bool_]) -> float:
    """How well a column alone tells clicks: the AUC of the click rates of its values, rare ones together."""
    if min(clicked.sum(), (~clicked).sum()) < _FEWEST_CLICKS:
        return 0.5
    values = _buckets(seen)
    rate = np.bincount(values, weights=clicked) / np.maximum(np.bincount(values), 1)
    ranks = pd.Series(rate[values]).rank().to_numpy()
    positives, negatives = clicked.sum(), (~clicked).sum()
    return float((ranks[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def tells_clicks(seen: Seen, clicked: npt.NDArray[np.bool_]) -> bool:
    """Whether a column nearly says what was clicked: more than anybody knows before."""
    return seen.kind != "list" and _auc(seen, clicked) > _TOLD_BY


def comes_of_clicks(seen: Seen, clicked: npt.NDArray[np.bool_]) -> str | None:
    """A value that is there only where something was clicked, as an application is only after a click on the ad; None
    if there is none. It need not be in many rows, so that the whole column may tell little.
    """
    if seen.distinct > _BUCKETS:
        return None
    rare = np.log(_BY_CHANCE) / np.log(min(max(clicked.mean(), 1e-9), 1 - 1e-9))
    for value, count in seen.counts.items():
        if count >= max(rare, _FEWEST_CLICKS) and clicked[(seen.cells == value).fillna(False).to_numpy(bool)].all():
            return shown(value)
    return None


def _buckets(seen: Seen) -> npt.NDArray[np.int64]:
    """Rows as up to 20 groups of equal or near values, and one of those that are missing."""
    if seen.kind in ("integer", "number") and seen.distinct > _BUCKETS:
        numbers = numbers_of(seen.cells)
        edges = np.unique(np.quantile(seen.numbers, np.arange(1, _BUCKETS) / _BUCKETS))
        return np.where(np.isfinite(numbers), np.searchsorted(edges, numbers, side="right") + 1, 0)
    common: Mapping[object, int] = {value: place for place, value in enumerate(seen.counts.index[:_BUCKETS], start=2)}
    there = seen.cells.notna().to_numpy()
    return np.where(there, seen.cells.map(lambda cell: common.get(cell, 1)).to_numpy(), 0).astype(np.int64)
