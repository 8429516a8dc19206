"""What each recipe asks and what comes back: five prompts and answers each, their tokens and seconds.

    python benchmarks/recipes.py --data .kar/demo/data --output docs/recipes-answers.md

The films are five of MovieLens-100K, as its table shows them; their neighbours are found on its clicks. The users are
invented, of films that everybody knows: the licence of the data set does not allow to publish histories of its users.
The local model answers, one question at a time; answers are kept in --answers, and are not asked for twice.
Prints one table; --output is the page with every prompt and answer.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from kar_aug.cache import Answer, TextCache
from kar_aug.config import LanguageModel
from kar_aug.data import Tables, split_interactions
from kar_aug.datasets import movielens_100k
from kar_aug.generate import generate, local
from kar_aug.prompts import Prompt, Recipe, Scenario, item_prompts, recipe_names, user_prompts

FILMS = (
    "Star Wars (1977)",
    "Fargo (1996)",
    "Casablanca (1942)",
    "Alien (1979)",
    "Snow White and the Seven Dwarfs (1937)",
)
# Invented: gender, age, occupation, and films with ratings in the order in which they were watched.
USERS = (
    ("F", 29, "engineer", {"Alien (1979)": 5, "Blade Runner (1982)": 5, "Grease (1978)": 2, "Aliens (1986)": 4}),
    ("M", 61, "retired", {"Casablanca (1942)": 5, "Vertigo (1958)": 5, "Twister (1996)": 1, "Psycho (1960)": 4}),
    ("F", 12, "student", {"Dumbo (1941)": 4, "Mary Poppins (1964)": 5, "Psycho (1960)": 1, "Aladdin (1992)": 5}),
    ("M", 35, "lawyer", {"Fargo (1996)": 5, "GoodFellas (1990)": 5, "Dumbo (1941)": 2, "Pulp Fiction (1994)": 4}),
    ("F", 44, "writer", {"Grease (1978)": 5, "Casablanca (1942)": 4, "Alien (1979)": 1, "Mary Poppins (1964)": 4}),
)  # fmt: skip
DAY = 86_400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".kar/demo/data"), help="where MovieLens-100K is, or goes")
    parser.add_argument("--answers", type=Path, help="the text cache; a temporary one if not given")
    parser.add_argument("--output", type=Path, help="the page to write")
    parser.add_argument("--max-tokens", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, local.serve(slots=1) as base_url:
        model = LanguageModel(local.MODEL, base_url=base_url, max_tokens=options.max_tokens, concurrency=1)
        with TextCache(options.answers or Path(folder) / "answers.sqlite") as cache:
            measured = []
            for recipe, asked in questions(movielens_100k(options.data)):
                generate(asked, cache, model, key="local")
                answers = [answer_of(cache, prompt) for prompt in asked]
                measured.append((recipe, asked, answers))
                print(row(recipe, asked[0].knowledge, answers), flush=True)
    if options.output:
        options.output.write_text("\n".join(page(measured, options.max_tokens)) + "\n", encoding="utf-8")


def questions(tables: Tables) -> Iterator[tuple[Recipe, list[Prompt]]]:
    """Per recipe and source, five prompts."""
    scenario = Scenario.load("movies")
    split = split_interactions(tables.interactions)
    invented, history = invented_users(tables.items)
    ids = dict(zip(tables.items["title"], tables.items["item_id"], strict=True))
    wanted = [ids[title] for title in FILMS]
    for source in ("user", "item"):
        for recipe in map(Recipe.load, recipe_names(source)):
            if source == "user":
                yield recipe, list(user_prompts(scenario, invented, history, recipe=recipe))
            else:
                found = {p.entity_id: p for p in item_prompts(scenario, tables, split, recipe=recipe)}
                yield recipe, [found[id] for id in wanted]


def invented_users(items: pd.DataFrame) -> tuple[Tables, pd.DataFrame]:
    """Tables of the invented users, and their events, all history."""
    ids = dict(zip(items["title"], items["item_id"], strict=True))
    rows = [
        {"user_id": user, "item_id": ids[title], "timestamp": 880_000_000 + day * DAY, "rating": rating}
        for user, (*_, films) in enumerate(USERS, 1)
        for day, (title, rating) in enumerate(films.items())
    ]
    users = [dict(zip(("gender", "age", "occupation"), user[:3], strict=True)) for user in USERS]
    events = pd.DataFrame(rows)
    frame = pd.DataFrame(users).assign(user_id=range(1, len(USERS) + 1))
    return Tables(events, items, frame), events.assign(label=events["rating"] > 3, part="history")


def answer_of(cache: TextCache, prompt: Prompt) -> Answer | None:
    """The answer about an entity; None if there is none that fits the recipe."""
    return cache.of_entity(prompt.knowledge, prompt.entity_id)


def row(recipe: Recipe, source: str, answers: Sequence[Answer | None]) -> str:
    """A row of the table: means over the answers."""
    there = [answer for answer in answers if answer is not None]
    count = max(1, len(there))
    asked, said = sum(a.prompt_tokens for a in there) / count, sum(a.completion_tokens for a in there) / count
    cut = sum(a.status == "truncated" for a in there)
    seconds = sum(a.seconds for a in there) / count
    source = source.partition(":")[0]
    counts = f"{asked:.0f} | {said:.0f} | {cut} | {len(answers) - len(there)} | {seconds:.1f}"
    return f"| `{recipe.name}` | {source} | {counts} |"


def page(
    measured: Sequence[tuple[Recipe, Sequence[Prompt], Sequence[Answer | None]]], max_tokens: int
) -> Iterator[str]:
    """The page, line by line."""
    llama = importlib.metadata.version("xllamacpp")
    yield "# What the recipes ask, and what a small model answers\n"
    yield (
        f"Made by `benchmarks/recipes.py` on {date.today()}: {local.MODEL} by xllamacpp {llama}, {os.cpu_count()} CPU "
        f"cores, one question at a time, at most {max_tokens} tokens an answer. Films and "
        "their neighbours are those of MovieLens-100K; the users are invented, of well-known films.\n"
    )
    yield (
        "A model of 135 million parameters knows next to nothing of films, and says it fluently: read the answers for "
        "their form, the tokens for what a recipe costs, and nothing here as knowledge. Seconds follow the number of "
        "tokens, and whatever else the machine does: compare those only that were measured on an idle one.\n"
    )
    yield "Means over five entities; *cut*: answers at the limit; *failed*: those that fit no schema, twice.\n"
    yield "| recipe | of | prompt tokens | answer tokens | cut | failed | seconds |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for recipe, asked, answers in measured:
        yield row(recipe, asked[0].knowledge, answers)
    for recipe, asked, answers in measured:
        source = asked[0].knowledge.partition(":")[0]
        yield f"\n## `{recipe.name}`, {source}s\n\n{recipe.asks.capitalize()}."
        for number, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
            name = FILMS[number] if source == "item" else f"invented user {prompt.entity_id}"
            yield f"\n<details><summary>{name}</summary>\n\n```text\n{fenced(prompt.text)}\n```\n\n```text"
            yield f"[answer]\n{fenced(answer.text)}" if answer else "[no answer fits]"
            yield "```\n\n</details>"


def fenced(text: str) -> str:
    """Text that does not end the block that it stands in."""
    return "\n".join(line.rstrip() for line in text.replace("```", "'''").splitlines())


if __name__ == "__main__":
    main()
