"""Whom to ask about: the prompts of the users and items of some tables, as a stream, the most active first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import pandas as pd

from kar_aug.data import Tables
from kar_aug.data.room import MEMORY, Room
from kar_aug.prompts.histories import select, summaries
from kar_aug.prompts.histories.events import Events
from kar_aug.prompts.histories.select import Vectors
from kar_aug.prompts.neighbours import important_neighbours
from kar_aug.prompts.prompt import Prompt, version_with
from kar_aug.prompts.recipe import KAR, Recipe
from kar_aug.prompts.scenario import Scenario
from kar_aug.prompts.text import clean

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
    selection: str = "recent",
    vectors: Vectors | None = None,
    vectors_version: str = "",
    answers: summaries.Answers | None = None,
    room: Room = MEMORY,
    every: int = 1,
) -> Iterator[Prompt]:
    """Prompts of the users who have a history, those with the longest first.

    Args:
        split: what `split_interactions` returned; only its history rows are read.
        limit: how many users to ask about, all if None.
        max_events: how many history events are shown.
        min_events: users with a shorter history are not asked about.
        selection: which events of a longer history: see `kar_aug.prompts.histories.select`.
        vectors: of items, for the selection "diverse"; `vectors_version` changes with them.
        answers: for the selection "summarised": to the questions about parts of longer histories. These questions come
            before their user's own, which comes when all are answered: see `kar_aug.prompts.histories.summaries`.
        recipe: how to ask; the scenario's own question if None.
        room: where columns as long as all histories are put.
        every: of so many users in this order one, to estimate by what is asked about all.
    """
    if "rating" not in split:
        scenario = scenario.for_clicks()
    recipe = recipe or Recipe.load(KAR)
    knowledge, schema = recipe.knowledge("user"), recipe.schema("user")
    version = recipe.version(scenario, "user")
    more: dict[str, Any] = {} if max_events == MAX_EVENTS else {"events": max_events}
    if selection != "recent":
        more |= {"history": selection, "vectors": vectors_version if select.needs_vectors(selection) else ""}
    events = Events(scenario, tables, split, room)
    summarised = selection == summaries.SUMMARISED
    if summarised:
        if answers is None:
            raise ValueError(f"selection {selection!r} needs `answers`")
        summariser = summaries.Summariser(scenario, events, answers, max_events)
        more["summaries"] = summariser.version
    version = version_with(version, more)
    ask = partial(recipe.ask, scenario, "user")
    profiles = _rows(tables.users, "user_id")
    choose = select.selection(selection, events.item_ids, events.ratings, vectors)
    for user_id in users_with_history(split, min_events)[:limit:every]:
        start, end = events.span(user_id)
        profile, last = profiles.get(user_id, {}), end - 1
        if summarised and end - start > max_events:
            short = yield from summariser.shorten(user_id)
            if short is None:
                continue
            rows = events.rows(range(short.start, end), last)
            head = summariser.head(short.summaries)
            prompt = scenario.user_prompt(user_id, profile, rows, events.as_of(last), ask, head=head)
            if any(summary.cut for summary in short.summaries):
                prompt = replace(prompt, cut=(*prompt.cut, "summaries"))
        else:
            chosen = choose(events.item_ids[start:end], events.ratings[start:end], max_events)
            rows = events.rows((start + i for i in chosen), last)
            prompt = scenario.user_prompt(user_id, profile, rows, events.as_of(last), ask)
        yield replace(prompt, knowledge=knowledge, version=version, schema=schema)


def item_prompts(
    scenario: Scenario,
    tables: Tables,
    split: pd.DataFrame,
    *,
    limit: int | None = None,
    recipe: Recipe | None = None,
    whole_catalogue: bool = True,
    every: int = 1,
) -> Iterator[Prompt]:
    """Prompts of the items, those most often in users' histories first; with `limit`, only so many; of the whole
    catalogue, or of those items alone that have an event in any part, which are all that a comparison reads; `every` as
    of `user_prompts`.

    Popularity is counted in the histories alone: which items have knowledge must not tell what was clicked later.
    An item without one of the scenario's `item.required` fields is left out: a language model could only invent.
    """
    recipe = recipe or Recipe.load(KAR)
    knowledge, version, schema = recipe.knowledge("item"), recipe.version(scenario, "item"), recipe.schema("item")
    rows = _rows(tables.items, "item_id")
    required = scenario.item.get("required", [])
    asked: list[int | str] = []
    nameless: list[int | str] = []
    for item_id in items_to_ask(tables, split, limit, whole_catalogue=whole_catalogue)[::every]:
        named = all(clean(rows[item_id].get(field, "")) for field in required)
        (asked if named else nameless).append(item_id)
    neighbours: Iterator[list[int | str]] = repeat([])
    if "neighbours" in recipe.needs:
        neighbours = important_neighbours(split, asked)
    for item_id, near in zip(asked, neighbours, strict=False):
        names = [scenario.name_of(rows[other]) for other in near if other in rows]
        ask = partial(recipe.ask, scenario, "item", neighbours=[name for name in names if name])
        prompt = scenario.item_prompt(item_id, rows[item_id], ask)
        yield replace(prompt, knowledge=knowledge, version=version, schema=schema)
    if nameless:
        _log.warning(
            "%s items are not asked about, because their %s is empty; the first is item_id %s",
            f"{len(nameless):,}",
            " or ".join(required),
            nameless[0],
        )


def items_to_ask(
    tables: Tables, split: pd.DataFrame, limit: int | None = None, *, whole_catalogue: bool = True
) -> list[int | str]:
    """The items that `item_prompts` asks about, in its order; those among them that have no name, too."""
    counted = split.loc[split["part"] == "history", "item_id"]
    others = tables.items["item_id"]
    counts = counted.value_counts()
    ordered = _most_frequent(counts[counts.index.isin(others)])
    seen = set(ordered)
    if not whole_catalogue:
        others = others[others.isin(split["item_id"])]
    return [*ordered, *(item_id for item_id in others.tolist() if item_id not in seen)][:limit]


def users_with_history(split: pd.DataFrame, min_events: int = 1) -> list[int | str]:
    """Users with at least so many events in their history, those with most first."""
    counts = split.loc[split["part"] == "history", "user_id"].value_counts()
    return _most_frequent(counts[counts >= min_events])


def _rows(table: pd.DataFrame, key: str) -> dict[int | str, dict[str, Any]]:
    return table.set_index(key).to_dict("index")  # type: ignore[return-value]


def _most_frequent(counts: pd.Series) -> list[int | str]:
    """The ids of `value_counts`, the most frequent first, equal ones by their id."""
    sorted_counts = counts.rename_axis("id").rename("count").reset_index()
    return sorted_counts.sort_values(["count", "id"], ascending=[False, True])["id"].tolist()
