"""The events of the users' histories, as the rows that a scenario's template shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from kar_aug._times import dates
from kar_aug.data import Tables
from kar_aug.errors import PromptError
from kar_aug.prompts.scenario import Scenario
from kar_aug.prompts.text import shown

_A_DAY = np.timedelta64(1, "D")


class Events:
    """All events of all histories, each user's together and in order of time; a position is a place among them.

    Args:
        split: what `split_interactions` returned; only its history rows are read.

    Raises:
        PromptError: The scenario's words and stars are for another scale than the ratings'.
    """

    def __init__(self, scenario: Scenario, tables: Tables, split: pd.DataFrame) -> None:
        # Columns and slices of them: a frame a user would cost more than the prompt.
        rows = np.flatnonzero(split["part"] == "history")
        users = split["user_id"].iloc[rows]
        if not users.is_monotonic_increasing:
            rows = rows[users.argsort(kind="stable")]
        counts = users.value_counts(sort=False).sort_index()
        ends = np.cumsum(counts.to_numpy()).tolist()
        self._spans = dict(zip(counts.index.tolist(), zip([0, *ends][:-1], ends, strict=True), strict=True))
        self._scenario = scenario
        self._fields = scenario.user.get("item_fields", [])
        told = scenario.user.get("event_fields", [])
        self._told = {name: _Values(split[name].iloc[rows]) for name in told if name in split}
        self._items: dict[Any, dict[str, Any]] = tables.items.set_index("item_id").to_dict("index")  # type: ignore[assignment]
        self._moments = dates(split["timestamp"].iloc[rows]).to_numpy()
        ratings = split["rating" if "rating" in split else "label"].iloc[rows]
        self.item_ids = _Values(split["item_id"].iloc[rows])
        self.ratings = _Values(ratings)
        _check_scale(scenario, ratings)

    def span(self, user_id: int | str) -> tuple[int, int]:
        """The positions of a user's events: (first, one after the last)."""
        return self._spans[user_id]

    def rows(self, positions: Iterable[int], last: int) -> list[dict[str, Any]]:
        """What a template may show of these events; recency is told from the one at `last`."""
        stars, verdict = self._scenario.ratings.stars, self._scenario.ratings.verdict
        told = self._scenario.user.get("event_fields", [])
        places = np.fromiter(positions, np.int64)
        before = (self._moments[last] - self._moments[places]) // _A_DAY
        return [
            {
                **shown(self._items.get(item_id, {}), self._fields),
                **shown({name: _rounded(column[i]) for name, column in self._told.items()}, told),
                "date": _day(day),
                "rating": f"{rating:g}",
                "stars": stars(rating),
                "verdict": verdict(rating),
                "ago": ago(days),
            }
            for i, item_id, day, rating, days in zip(
                places.tolist(),
                self.item_ids[places],
                self._days(places),
                self.ratings[places],
                before.tolist(),
                strict=True,
            )
        ]

    def as_of(self, position: int) -> str:
        """The time of an event, in ISO 8601."""
        return str(pd.Timestamp(self._moments[position]).isoformat())

    def period(self, start: int, end: int) -> str:
        """From the day of the event at `start` to that of the last before `end`."""
        first, last = map(_day, self._days([start, end - 1]))
        return first if first == last else f"{first} to {last}"

    def _days(self, places: Any) -> list[int]:
        """Of events, the days since 1970."""
        return list(self._moments[places].astype("datetime64[D]").astype(np.int64).tolist())


def _rounded(value: Any) -> Any:
    """82.99126734113159 seconds as 82.99."""
    return round(value, 2) if isinstance(value, float) else value


def ago(days: int) -> str:
    """How long before the last event something was, in words."""
    for size, unit in ((365, "year"), (30, "month"), (7, "week"), (1, "day")):
        if days >= size:
            count = days // size
            return f"{count} {unit}{'s' if count > 1 else ''} before"
    return "the same day"


class _Values(Sequence[Any]):
    """A column as Python's own values, made when they are asked for: by a place, a slice, or an array of places."""

    def __init__(self, column: pd.Series) -> None:
        self._array = column.array if isinstance(column.array, pd.arrays.ArrowStringArray) else column.to_numpy()

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, place: Any) -> Any:
        found = self._array[place]
        return found.tolist() if hasattr(found, "tolist") else found


@lru_cache(1 << 15)  # 90 years
def _day(number: int) -> str:
    """A day since 1970, in words."""
    time = pd.Timestamp(number, unit="D")
    return f"{time.day}{time.strftime(' %b %Y')}"


def _check_scale(scenario: Scenario, ratings: pd.Series) -> None:
    """Words and stars for ratings of another scale would say the opposite of what users said."""
    scale = scenario.ratings
    if len(ratings) and scenario.tells_ratings and not (scale.low <= ratings.min() and ratings.max() <= scale.high):
        raise PromptError(
            f"Scenario {scenario.name}: its words and stars are for ratings from {scale.low:g} to {scale.high:g}, the "
            f"data hold {ratings.min():g} to {ratings.max():g}. Set low, high and words in [ratings] of the scenario."
        )
