"""Histories block by block: what is known of a user grows with the log, and each version is of what was before it.

A user's events, of all parts of the log, are cut from the first on into blocks of as many as a prompt shows. The model
is asked about each block once, by itself: no other event, nor the user's row as it is today, can change the question,
so that a block that is full keeps its answer however the log grows. The last one is not asked about before it is full,
unless one wants that: then it is asked again whenever it has grown.

What is known of the user at the end of a block is what was said of it and of all before, one after the other, and it
may be used by what comes strictly after its last event: a version, whose as-of time that is.

Asking once about each part of a lifelong history, as it fills, is after LIBER (Zhu et al. 2024, arXiv:2411.14713: the
partition of behaviour streams) and the chunks of HiT-LBM (Xia et al. 2025, arXiv:2505.19505). Both show the answer
about one block in the question about the next; that would tie each answer to all before it, and is left out here: an
answer that is lost or mended changes no other question.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from kar_aug.data import Tables
from kar_aug.data.room import MEMORY, Room
from kar_aug.prompts.histories.events import Events
from kar_aug.prompts.prompt import Prompt, version_with
from kar_aug.prompts.recipe import Recipe
from kar_aug.prompts.scenario import Scenario

BLOCKS = "blocks"
_OF_BLOCKS = ":blocks-"  # in the name of a kind of knowledge
Id = int | str


def block_prompts(
    scenario: Scenario,
    tables: Tables,
    timeline: pd.DataFrame,
    users: Sequence[Id],
    *,
    size: int,
    recipe: Recipe,
    unfinished: bool = False,
    room: Room = MEMORY,
) -> Iterator[Prompt]:
    """The questions about the blocks of some users, each user's in order of time.

    Args:
        timeline: the events, in the columns of a split whose part is "history" throughout.
        size: events of a block.
        unfinished: whether to ask about the last block before it is full.
        room: where columns as long as the log are put.
    """
    if "rating" not in timeline:
        scenario = scenario.for_clicks()
    version = version_with(recipe.version(scenario, "user"), {"history": BLOCKS, "events": size})
    knowledge, schema = blocks_knowledge(recipe.knowledge("user"), size), recipe.schema("user")
    ask = partial(recipe.ask, scenario, "user")
    events = Events(scenario, tables, timeline, room)
    for user_id in users:
        first, end = events.span(user_id)
        for number, start in enumerate(range(first, end, size), 1):
            stop = min(start + size, end)
            if stop - start < size and not unfinished:
                continue
            rows = events.rows(range(start, stop), stop - 1)
            prompt = scenario.user_prompt(user_id, {}, rows, events.as_of(stop - 1), ask)
            name = block_of(user_id, number)
            yield replace(prompt, knowledge=knowledge, entity_id=name, version=version, schema=schema)


def count(lengths: Iterable[int], size: int, *, unfinished: bool = False) -> int:
    """How many blocks are asked about, of users with so many events."""
    return sum(-(-length // size) if unfinished else length // size for length in lengths)


def users_by_events(timeline: pd.DataFrame, min_events: int = 1) -> list[Id]:
    """Users with at least so many events, those with most first."""
    counts = timeline["user_id"].value_counts().rename_axis("id").reset_index()
    counts = counts[counts["count"] >= min_events]
    return counts.sort_values(["count", "id"], ascending=[False, True])["id"].tolist()


def blocks_knowledge(knowledge: str, size: int) -> str:
    """How the knowledge of blocks is called in the text cache: "user:kar:blocks-30", "user:profile:blocks-30"."""
    return f"{knowledge if ':' in knowledge else knowledge + ':kar'}{_OF_BLOCKS}{size}"


def is_of_blocks(knowledge: str) -> bool:
    """Whether a kind of knowledge is of blocks, and its ids are theirs."""
    return _OF_BLOCKS in knowledge


def block_of(user_id: Id, number: int) -> str:
    """The id of a block: the user's as Python writes it, and its number, from 1."""
    return f"{user_id!r} {number}"


def owner(block: Id) -> tuple[Id, int]:
    """Whose block it is, and which."""
    user_id, _, number = str(block).rpartition(" ")
    return ast.literal_eval(user_id), int(number)
