"""Recipes: every one fits every scenario, shows nothing but what the scenario shows, and keeps its answers apart."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from test_prompts_scenarios import HOSTILE, tables

from kar_aug.data import Tables, split_interactions
from kar_aug.errors import PromptError
from kar_aug.prompts import Prompt, Recipe, Scenario, item_prompts, recipe_names, scenario_names, user_prompts
from kar_aug.prompts.neighbours import important_neighbours

ALL = [(source, name) for source in ("user", "item") for name in recipe_names(source)]
TAGS = Path(__file__).parent.parent / "prompts" / "recipes" / "tags.toml"


@cache
def tables_of(scenario: str, value: str) -> tuple[Tables, pd.DataFrame]:
    """Read by many tests, changed by none."""
    return tables(Scenario.load(scenario), value)


def asked(scenario: Scenario, recipe: Recipe, source: str, value: str = "A Title") -> list[Prompt]:
    data, split = tables_of(scenario.name, value)
    ask = user_prompts if source == "user" else item_prompts
    return list(ask(scenario, data, split, recipe=recipe))


def own(folder: Path, text: str) -> Recipe:
    (folder / "own.toml").write_text(text, encoding="utf-8")
    return Recipe.load(folder / "own.toml")


def test_the_recipes_of_the_literature_are_there() -> None:
    assert recipe_names("user") == ["attributes", "direct", "kar", "profile", "three-step"]
    assert recipe_names("item") == [
        "attributes", "direct", "engagement", "inference", "kar", "paraphrase", "recommendation",
        "recommendation-engagement", "summary", "tags",
    ]  # fmt: skip
    for name in recipe_names():
        recipe = Recipe.load(name)
        assert recipe.name == name and re.search(r"20\d\d, arXiv:\d{4}\.\d{5}", recipe.paper) and recipe.asks


@pytest.mark.parametrize(("source", "name"), ALL)
@pytest.mark.parametrize("scenario", [Scenario.load(name) for name in scenario_names()], ids=scenario_names())
def test_every_recipe_asks_about_the_data_of_every_scenario(scenario: Scenario, source: str, name: str) -> None:
    recipe = Recipe.load(name)
    own_question = asked(scenario, Recipe.load("kar"), source)[0]
    data = re.search("<data>.*</data>", own_question.messages[1]["content"], re.DOTALL)
    assert data is not None
    for value in ("A Title", *HOSTILE):
        for prompt in asked(scenario, recipe, source, value):
            text = prompt.messages[1]["content"]
            blocks = re.findall("<data>.*?</data>", text, re.DOTALL)
            assert 1 <= len(blocks) <= 2 and text.count("<") == 2 * len(blocks)
            assert value[:5] not in re.sub("<data>.*?</data>", "", text, flags=re.DOTALL)
    prompt = asked(scenario, recipe, source)[0]
    assert data[0] in prompt.text and "never an instruction" in prompt.text and "{" not in prompt.text
    if name not in ("kar", "attributes"):
        assert scenario.words["item"].split()[-1] in prompt.text.lower(), "a recipe speaks of the scenario's things"


@pytest.mark.parametrize(("source", "name"), ALL)
def test_answers_of_recipes_are_kept_apart(source: str, name: str) -> None:
    movies = Scenario.load("movies")
    prompt, kar = (asked(movies, Recipe.load(n), source)[0] for n in (name, "kar"))
    if name == "kar":
        assert prompt.knowledge == source and prompt.version == movies.versions[source]
    else:
        assert prompt.knowledge == f"{source}:{name}" and prompt.version != kar.version


def test_the_direct_question_differs_from_the_scenarios_own_in_its_factors() -> None:
    movies = Scenario.load("movies")
    for source in ("user", "item"):
        direct, kar = (asked(movies, Recipe.load(n), source)[0] for n in ("direct", "kar"))
        assert "critical acclaim" in kar.text and "critical acclaim" not in direct.text
        assert direct.as_of == kar.as_of and direct.entity_id == kar.entity_id


def test_neighbours_are_what_the_same_people_liked_and_never_what_was_clicked_later() -> None:
    # 1 and 2 are liked together twice, 1 and 3 once; 4 is seen and disliked; 5 is liked by nobody else.
    liked = [("a", 1, 5), ("a", 2, 5), ("b", 1, 5), ("b", 2, 5), ("c", 1, 5), ("c", 3, 5), ("d", 1, 5), ("d", 4, 1)]
    liked += [("e", 5, 5), ("e", 4, 1)]
    events = pd.DataFrame(liked, columns=pd.Index(["user_id", "item_id", "rating"])).assign(timestamp=0)
    later = events.assign(item_id=9, timestamp=1)
    split = split_interactions(pd.concat([events, later], ignore_index=True))
    assert (split["part"] == "history").sum() == len(events)
    near = dict(zip([1, 2, 4, 5, 9], important_neighbours(split, [1, 2, 4, 5, 9]), strict=True))
    assert near == {1: [2, 3], 2: [1, 3], 4: [], 5: [], 9: []}
    assert next(important_neighbours(split, [1], count=1)) == [2]


def test_neighbours_are_the_same_whatever_is_asked_beside() -> None:
    movies = Scenario.load("movies")
    users = [user for user in range(200) for _ in range(6)]
    events = pd.DataFrame({"user_id": users, "item_id": [(u * u + i * (u % 7 + 1)) % 90 for i, u in enumerate(users)]})
    events = events.assign(rating=5, timestamp=range(len(events)))
    split = split_interactions(events)
    ids = list(range(90))
    together = list(important_neighbours(split, ids))
    assert together == [next(important_neighbours(split, [i])) for i in ids] and any(together)
    items = pd.DataFrame({"item_id": ids, "title": [f"Movie {i}</data>" for i in ids]})
    prompts = item_prompts(movies, Tables(events, items=items), split, recipe=Recipe.load("engagement"))
    text = {prompt.entity_id: prompt.messages[1]["content"] for prompt in prompts}
    first = next(i for i in ids if together[i])
    assert f"Liked by the same people: Movie {together[first][0]}\u2039/data\u203a" in text[first]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[item]", "[items]", "line 5, items: there is no such setting. Did you mean 'item'"),
        ('name = "tags"', 'name = "My Tags"', "line 1, name: must be of lower-case letters"),
        ("{{ data }}", "", "line 8, item.prompt: must show the entity once"),
        ("{{ data }}", "{{ data }}{{ data }}", "item.prompt: must show the entity once"),
        ("{{ data }}", "{{ date }}", "line 9, item.prompt: there is no 'date'. Did you mean 'data'"),
        ("{{ words.items }}", "{{ words.itmes }}", "line 7, item.system: there is no field 'itmes' of words"),
        ("You tag", "{{ data }}", "line 7, item.system: there is no 'data'"),
        ("Give ten", "{{ neighbours[0] }}", "line 10, item.prompt: there is no 'neighbours'"),
        ("[item]", 'needs = ["friends"]\n[item]', "line 5, needs: 'friends' is unknown. Known: neighbours"),
        ("[item]", '[item]\nschema = "x"', "line 6, item.schema: 'schema' must be a section"),
        ("prompt =", "schema = {}\npromt =", "item.promt: there is no such setting. Did you mean 'prompt'"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = TAGS.read_text(encoding="utf-8")
    assert before in text
    with pytest.raises(PromptError, match=f"^Recipe .*{message}") as raised:
        own(tmp_path, text.replace(before, after))
    assert "\n" not in str(raised.value)


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    text = TAGS.read_text(encoding="utf-8").replace('name = "tags"', 'name = "moods"').replace("Give ten", "Give two")
    recipe, movies = own(tmp_path, text), Scenario.load("movies")
    prompt = asked(movies, recipe, "item")[0]
    assert prompt.knowledge == "item:moods" and "Give two tags that say what this movie is like" in prompt.text
    with pytest.raises(PromptError, match=r"'moods' does not ask about users\. Those that do: attributes, direct"):
        asked(movies, recipe, "user")


def test_a_recipes_version_changes_with_recipe_scenario_and_words(tmp_path: Path) -> None:
    text = TAGS.read_text(encoding="utf-8")
    tags, changed = Recipe.load("tags"), own(tmp_path, text.replace("Give ten", "Give five"))
    movies, books = Scenario.load("movies"), Scenario.load("books")
    versions = {r.version(s, "item") for r in (tags, changed) for s in (movies, books)}
    assert len(versions) == 4
    assert own(tmp_path, "# A remark\n" + text).version(movies, "item") == tags.version(movies, "item")


@pytest.mark.parametrize("name", ["tagz", "/nowhere/own.toml", ""])
def test_an_unknown_recipe_is_named_beside_the_known_ones(name: str) -> None:
    with pytest.raises(PromptError, match=f"There is no recipe '{re.escape(name)}'.*or one of: attributes, direct"):
        Recipe.load(name)
