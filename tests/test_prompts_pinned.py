"""What was asked once is asked in the same words for ever: every message of every scenario and recipe, pinned.

`pinned_prompts.json` holds hashes of messages, versions and as-of times as the first release rendered them. A change of
one makes every user pay again for answers that are stored already, and pins vector stores to texts that are gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_prompts_scenarios import HOSTILE, older, own, tables

from kar_aug.cache import Knowledge
from kar_aug.pipeline.workspace.groups import Clusters, cluster_prompts
from kar_aug.pipeline.workspace.metadata import metadata_scenario, metadata_texts
from kar_aug.prompts import (
    Prompt,
    Recipe,
    Scenario,
    item_prompts,
    recipe_names,
    scenario_names,
    scenario_text,
    user_prompts,
)

PINNED = Path(__file__).parent / "pinned_prompts.json"
VALUES = {"a title": "A Title", "nothing": "", "several": "Crime|Drama", "hostile": HOSTILE[-1]}
RECIPES = {entity: [Recipe.load(name) for name in recipe_names(entity)] for entity in ("user", "item")}
GROUPS = {"user": ((1, 2), (3,)), "item": ((901, 903), (902,))}


def renderings(scenario: Scenario) -> Iterator[tuple[str, Iterable[Prompt | Knowledge]]]:
    """(a name, what is rendered) for every recipe, value, long history and group."""
    for name, value in VALUES.items():
        data, split = tables(scenario, value)
        for recipe in RECIPES["user"]:
            yield f"user, {recipe.name}, {name}", user_prompts(scenario, data, split, recipe=recipe)
        for recipe in RECIPES["item"]:
            yield f"item, {recipe.name}, {name}", item_prompts(scenario, data, split, recipe=recipe)
        yield f"cut, {name}", user_prompts(scenario, data, split, max_events=2)
    data, split = tables(scenario)
    for recipe in RECIPES["user"]:
        yield (
            f"summarised, {recipe.name}",
            user_prompts(
                scenario, data, split, recipe=recipe, max_events=1, selection="summarised", answers=_summaries
            ),
        )
    for entity, members in GROUPS.items():
        for recipe in RECIPES[entity]:
            groups = cluster_prompts(scenario, data, split, Clusters(entity, members), recipe, len(members))
            yield f"groups of {entity}s, {recipe.name}", groups
    for ask in (user_prompts, item_prompts):
        yield f"metadata, {ask.__name__}", metadata_texts(ask(metadata_scenario(scenario), data, split))
    german = replace(scenario, language="German")
    yield "user, German", user_prompts(german, data, split)
    yield "item, German", item_prompts(german, data, split, recipe=Recipe.load("tags"))


def _summaries(prompts: Iterable[Prompt]) -> list[str]:
    return [f"</data> Likes {len(prompt.text)}." for prompt in prompts]


def _digest(rendered: Iterable[Prompt | Knowledge]) -> str:
    said = [
        [each.entity_id, each.as_of, *((each.version, each.messages, each.cut) if isinstance(each, Prompt)
         else (each.prompt_version, each.text))]
        for each in rendered
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def digests(scenario: Scenario) -> dict[str, str]:
    return {name: _digest(rendered) for name, rendered in renderings(scenario)}


@pytest.mark.slow
@pytest.mark.parametrize("name", scenario_names())
def test_no_message_that_was_ever_paid_for_changes(name: str) -> None:
    assert digests(Scenario.load(name)) == json.loads(PINNED.read_text())[name]


@pytest.mark.parametrize("name", ["movies", "music"])
def test_a_file_of_the_older_form_asks_the_same_and_has_the_same_version(name: str, tmp_path: Path) -> None:
    assert digests(own(tmp_path, older(scenario_text(name)))) == json.loads(PINNED.read_text())[name]
