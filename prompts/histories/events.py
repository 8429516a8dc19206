"""The events of the users' histories, as the rows that a scenario's template shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.times import dates
from kar_aug.data import Tables
from kar_aug.data.room import MEMORY, Room
from kar_aug.errors import PromptError
from kar_aug.prompts.scenario import Scenario
from kar_aug.prompts.text import shown


class Events:
    """All events of all histories, each user's together and in order of time; a position is a place among them.

    Args:
        split: what `split_interactions` returned; only its history rows are read.
        room: where columns are put that are as long as the histories of all users together.

    Raises:
        PromptError: The scenario's words and stars are for another scale than the ratings'.
    """

    def __init__(self, scenario: Scenario, tables: Tables, split: pd.DataFrame, room: Room = MEMORY) -> None:
        # Columns and slices of them: a frame a user would cost more than the prompt.
        part = split["part"]
        rows = room.true(room.filled(len(split), bool, lambda block: part.iloc[block] == "history"))
        users = room.ordered(split["user_id"], rows)
        if not users.is_monotonic_increasing:
            rows = rows[users.argsort(kind="stable")]
        counts = users.value_counts(sort=False).sort_index()
        ends = np.cumsum(counts.to_numpy()).tolist()
        self._spans = dict(zip(counts.index.tolist(), zip([0, *ends][:-1], ends, strict=True), strict=True))
        self._scenario = scenario
        self._fields = scenario.user.get("item_fields", [])
        told = scenario.user.get("event_fields", [])
        self._told = {name: _Values(room.ordered(split[name], rows)) for name in told if name in split}
        self._items: dict[Any, dict[str, Any]] = tables.items.set_index("item_id").to_dict("index")  # type: ignore[assignment]
        self._times = room.made(room.ordered(split["timestamp"], rows), dates)
        self._zoned = self._times.dt.tz is not None
        ratings = room.ordered(split["rating" if "rating" in split else "label"], rows)
        self.item_ids = _Values(room.ordered(split["item_id"], rows))
        self.ratings = _Values(ratings)
        _check_scale(scenario, ratings)

    def span(self, user_id: int | str) -> tuple[int, int]:
        """The positions of a user's events: (first, one after the last)."""
        return self._spans[user_id]

    def rows(self, positions: Iterable[int], last: int) -> list[dict[str, Any]]:
        """What a template may show of these events; recency is told from the one at `last`."""
        places = np.fromiter(positions, np.intp)
        told = self._scenario.user.get("event_fields", [])
        columns = {name: column.many(places) for name, column in self._told.items()}
        dates, days = self._days(places, last)
        ratings = [rating if rating == rating else None for rating in self.ratings.many(places)]
        said = {rating: self._said(rating) for rating in set(ratings)}
        return [
            {
                **shown(self._items.get(item_id, {}), self._fields),
                **shown({name: _rounded(column[row]) for name, column in columns.items()}, told),
                "date": dates[row],
                **said[rating],
                "ago": ago(days[row]),
            }
            for row, (item_id, rating) in enumerate(zip(self.item_ids.many(places), ratings, strict=True))
        ]

    def _days(self, places: npt.NDArray[np.intp], last: int) -> tuple[list[str], list[int]]:
        """Of each event its day, and how many days it was before the one at `last`."""
        times: Any = self._times.array[np.append(places, last)]  # a series of them would take longer than the rest
        moments = np.asarray(times.tz_convert(None) if self._zoned else times)
        walls = np.asarray(times.tz_localize(None)) if self._zoned else moments
        before = (moments[-1] - moments[:-1]) // np.timedelta64(1, "D")
        return list(map(_day_of, walls[:-1].astype("datetime64[D]").astype(int).tolist())), before.tolist()

    def _said(self, rating: float | None) -> dict[str, str]:
        """A rating as templates may tell it; nothing of an event without one."""
        if rating is None:
            return dict.fromkeys(("rating", "stars", "verdict"), "")
        scale = self._scenario.ratings
        return {"rating": f"{rating:g}", "stars": scale.stars(rating), "verdict": scale.verdict(rating)}

    def as_of(self, position: int) -> str:
        """The time of an event, in ISO 8601."""
        return str(self._times.iloc[position].isoformat())

    def period(self, start: int, end: int) -> str:
        """From the day of the event at `start` to that of the last before `end`."""
        first, last = (_day(self._times.iloc[place]) for place in (start, end - 1))
        return first if first == last else f"{first} to {last}"


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
    """A column as Python's own values, made when they are asked for."""

    def __init__(self, column: pd.Series) -> None:
        self._array = column.array if isinstance(column.array, pd.arrays.ArrowStringArray) else column.to_numpy()

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, place: Any) -> Any:
        found = self._array[place]
        return found.tolist() if hasattr(found, "tolist") else found

    def many(self, places: npt.NDArray[np.intp]) -> list[Any]:
        """Those at some places."""
        if self._array.dtype == object:  # which may hold values that are not Python's own
            return [self[place] for place in places]
        return list(self._array[places].tolist())


def _day(time: pd.Timestamp) -> str:
    return f"{time.day}{time.strftime(' %b %Y')}"


@lru_cache(10_000)
def _day_of(days: int) -> str:
    """The day so many days after 1 January 1970."""
    return _day(pd.Timestamp(days, unit="D"))


def _check_scale(scenario: Scenario, ratings: pd.Series) -> None:
    """Words and stars for ratings of another scale would say the opposite of what users said."""
    scale = scenario.ratings
    if (
        ratings.notna().any()
        and scenario.tells_ratings
        and not (scale.low <= ratings.min() and ratings.max() <= scale.high)
    ):
        raise PromptError(
            f"Scenario {scenario.name}: its words and stars are for ratings from {scale.low:g} to {scale.high:g}, the "
            f"data hold {ratings.min():g} to {ratings.max():g}. Set low, high and words in [ratings] of the scenario."
        )
