"""Whom to ask about: the prompts of the users and items of some tables, as a stream, the most active first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd

from kar_aug.data import Tables
from kar_aug.errors import PromptError
from kar_aug.prompts.history import Vectors, selection
from kar_aug.prompts.neighbours import important_neighbours
from kar_aug.prompts.prompt import Prompt, version_with
from kar_aug.prompts.recipe import KAR, Recipe
from kar_aug.prompts.scenario import Scenario
from kar_aug.prompts.text import clean, shown

_log = logging.getLogger("kar_aug")
MAX_EVENTS = 30


def user_prompts(
    scenario: Scenario,
    tables: Tables,
    split: pd.DataFrame,
    *,
    limit: int | None = None,
    max_events: int = MAX_EVENTS,
    recipe: Recipe | None = None,
    min_events: int = 1,
    mode: str = "recent",
    vectors: Vectors | None = None,
    vectors_version: str = "",
) -> Iterator[Prompt]:
    """Prompts of the users who have a history, those with the longest first.

    Args:
        split: what `split_interactions` returned; only its history rows are read.
        limit: how many users to ask about, all if None.
        max_events: how many history events are shown.
        min_events: users with a shorter history are not asked about.
        mode: which events of a longer history: see `kar_aug.prompts.history`.
        vectors: of items, for the mode "diverse"; `vectors_version` changes with them.
        recipe: how to ask; the scenario's own question if None.
    """
    recipe = recipe or Recipe.load(KAR)
    source, schema = recipe.source("user"), recipe.schema("user")
    version = recipe.version(scenario, "user")
    more: dict[str, Any] = {} if max_events == MAX_EVENTS else {"events": max_events}
    if mode != "recent":
        more |= {"history": mode, "vectors": vectors_version if mode == "diverse" else ""}
    version = version_with(version, more)
    rephrase = partial(recipe.rephrase, scenario, "user")
    profiles = _rows(tables.users, "user_id")
    items = _rows(tables.items, "item_id")
    fields = scenario.user.get("item_fields", [])
    history = split[split["part"] == "history"]
    wanted = users_with_history(split, min_events)[:limit]
    # Columns and slices of them: a frame a user would cost more than the prompt.
    history = history.sort_values("user_id", kind="stable")
    ends = np.cumsum(history["user_id"].value_counts(sort=False).sort_index().to_numpy())
    end_of = dict(zip(np.sort(history["user_id"].unique()).tolist(), ends.tolist(), strict=True))
    item_ids = history["item_id"].tolist()
    times = _dates(history["timestamp"])
    dates = (times.dt.day.astype(str) + times.dt.strftime(" %b %Y")).tolist()
    ratings = history["rating" if "rating" in history else "label"].tolist()
    _check_scale(scenario, ratings)
    choose = selection(mode, item_ids, ratings, vectors)
    start_of = dict(zip(end_of, [0, *ends[:-1].tolist()], strict=True))
    for user_id in wanted:
        start, end = start_of[user_id], end_of[user_id]
        seen = [start + i for i in choose(item_ids[start:end], ratings[start:end], max_events)]
        last = times.iloc[end - 1]
        rows: list[dict[str, Any]] = [
            {
                **shown(items.get(item_ids[i], {}), fields),
                "date": dates[i],
                "rating": f"{ratings[i]:g}",
                "stars": scenario.ratings.stars(ratings[i]),
                "verdict": scenario.ratings.verdict(ratings[i]),
                "ago": ago((last - times.iloc[i]).days),
            }
            for i in seen
        ]
        prompt = scenario.user_prompt(user_id, profiles.get(user_id, {}), rows, last.isoformat(), rephrase)
        yield replace(prompt, source=source, version=version, schema=schema)


def item_prompts(
    scenario: Scenario,
    tables: Tables,
    split: pd.DataFrame,
    *,
    limit: int | None = None,
    recipe: Recipe | None = None,
) -> Iterator[Prompt]:
    """Prompts of the items, those most often in users' histories first; with `limit`, only so many.

    Popularity is counted in the histories alone: which items have knowledge must not tell what was clicked later.
    An item without one of the scenario's `item.required` fields is left out: a language model could only invent.
    """
    recipe = recipe or Recipe.load(KAR)
    source, version, schema = recipe.source("item"), recipe.version(scenario, "item"), recipe.schema("item")
    rows = _rows(tables.items, "item_id")
    counted = split.loc[split["part"] == "history", "item_id"]
    ordered = _most_frequent(counted[counted.isin(rows.keys())], None)
    seen = set(ordered)
    ordered += [item_id for item_id in tables.items["item_id"].tolist() if item_id not in seen]
    required = scenario.item.get("required", [])
    asked: list[int | str] = []
    nameless: list[int | str] = []
    for item_id in ordered[:limit]:
        named = all(clean(rows[item_id].get(field, "")) for field in required)
        (asked if named else nameless).append(item_id)
    neighbours: Iterator[list[int | str]] = repeat([])
    if "neighbours" in recipe.needs:
        neighbours = important_neighbours(split, asked)
    for item_id, near in zip(asked, neighbours, strict=False):
        names = [scenario.name_of(rows[other]) for other in near if other in rows]
        rephrase = partial(recipe.rephrase, scenario, "item", neighbours=[name for name in names if name])
        prompt = scenario.item_prompt(item_id, rows[item_id], rephrase)
        yield replace(prompt, source=source, version=version, schema=schema)
    if nameless:
        _log.warning(
            "%s items are not asked about, because their %s is empty; the first is item_id %s",
            f"{len(nameless):,}",
            " or ".join(required),
            nameless[0],
        )


def users_with_history(split: pd.DataFrame, min_events: int = 1) -> list[int | str]:
    """Users with at least so many events in their history, those with most first."""
    history = split.loc[split["part"] == "history", "user_id"]
    counts = history.value_counts()
    return _most_frequent(history[history.isin(counts.index[counts >= min_events])], None)


def ago(days: int) -> str:
    """How long before the last event something was, in words."""
    for size, unit in ((365, "year"), (30, "month"), (7, "week"), (1, "day")):
        if days >= size:
            count = days // size
            return f"{count} {unit}{'s' if count > 1 else ''} before"
    return "the same day"


def _check_scale(scenario: Scenario, ratings: list[float]) -> None:
    """Words and stars for ratings of another scale would say the opposite of what users said."""
    scale = scenario.ratings
    if ratings and scenario.tells_ratings and not (scale.low <= min(ratings) and max(ratings) <= scale.high):
        raise PromptError(
            f"Scenario {scenario.name}: its words and stars are for ratings from {scale.low:g} to {scale.high:g}, the "
            f"data hold {min(ratings):g} to {max(ratings):g}. Set low, high and words in [ratings] of the scenario."
        )


def _rows(table: pd.DataFrame, key: str) -> dict[int | str, dict[str, Any]]:
    return table.set_index(key).to_dict("index")  # type: ignore[return-value]


def _most_frequent(ids: pd.Series, limit: int | None) -> list[int | str]:
    counts = ids.value_counts().rename_axis("id").reset_index()
    return counts.sort_values(["count", "id"], ascending=[False, True])["id"].tolist()[:limit]


def _dates(timestamp: pd.Series) -> pd.Series:
    return timestamp if pd.api.types.is_datetime64_any_dtype(timestamp) else pd.to_datetime(timestamp, unit="s")
