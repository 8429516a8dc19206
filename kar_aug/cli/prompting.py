"""The `kar-aug prompts` command: what the language model is asked, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kar_aug._files import write_atomic
from kar_aug.cli.progress import bar, notes, results, table
from kar_aug.config import Config
from kar_aug.errors import ConfigError
from kar_aug.generate.cost import Counter, token_counter
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.workspace import SOURCES, Workspace
from kar_aug.prompts import Prompt, Recipe, scenario_text
from kar_aug.prompts.histories.summaries import KNOWLEDGE as SUMMARIES
from kar_aug.prompts.recipe import DIRECT
from kar_aug.prompts.statistics import QUANTILES, Statistics, difference

ASKED = "asked"


@click.command()
@click.option("--user", help="Id of a user whose prompt to print.")
@click.option("--item", help="Id of an item whose prompt to print.")
@click.option("--recipe", help="How to ask, instead of what kar.toml says: a name, or a .toml file.")
@click.option("--no-factors", is_flag=True, help="Ask directly, without the scenario's factors: the recipe 'direct'.")
@click.option("--stats", is_flag=True, help="Count the tokens of all prompts, and what was shortened in them.")
@click.option(
    "--diff",
    "other",
    metavar="SCENARIO",
    help='What changed since another version: a scenario by name or file, or "asked": the prompt last answered.',
)
@click.pass_obj
def prompts(
    config: str,
    user: str | None,
    item: str | None,
    recipe: str | None,
    no_factors: bool,
    stats: bool,
    other: str | None,
) -> None:
    """Print the prompt of a user or an item with its tokens; without either, one of each. Nothing is sent.

    \b
    Example:
      kar-aug prompts --user 42 --item 50
      kar-aug prompts --user 42 --recipe three-step
      kar-aug prompts --stats
      kar-aug prompts --item 50 --diff movies-before.toml
    """
    if recipe and no_factors:
        raise ConfigError("--recipe and --no-factors exclude each other.")
    if stats and (other or user or item):
        raise ConfigError("--stats is about all prompts: leave out --user, --item and --diff.")
    wanted = {"user": user, "item": item}
    sources = [source for source in SOURCES if wanted[source] is not None or not any(wanted.values())]
    recipe = DIRECT if no_factors else recipe
    workspace, sources = _with_recipe(config, recipe, sources)
    count, counted = token_counter(workspace.config.generate.model)
    if stats:
        _print_statistics(workspace, sources, count)
    for source in [] if stats else sources:
        prompt = _prompt_of(workspace, source, wanted[source])
        if other is None:
            _print_prompt(prompt, count)
        else:
            _print_difference(_other_version(workspace, prompt, other), prompt, count)
    notes.print(f"  prompt tokens are {counted}", markup=False)


def write_scenario(name: str, settings: Path, *, force: bool) -> None:
    """Write a scenario of kar-aug into a file beside the settings, to edit."""
    content = scenario_text(name)
    path = settings.with_name(f"{name}.toml")
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already. Move it, or give --force to write over it.")
    write_atomic(path, content)
    results.print(f"Wrote {path}: factors, fields and templates, to edit.", markup=False)


def _with_recipe(config: str, recipe: str | None, sources: list[str]) -> tuple[Workspace, list[str]]:
    """The workspace with that recipe, and those of the sources that it asks about."""
    if recipe is None:
        return Workspace(Config.load(config)), sources
    folder = Config.load(config).folder
    asks = Recipe.load(folder / recipe if recipe.endswith(".toml") else recipe).sections
    sources = [source for source in sources if source in asks]
    if not sources:
        raise ConfigError(f"The recipe {recipe!r} asks about {' and '.join(asks)}s only.")
    changes: dict[str, Any] = {f"{source}_recipe": recipe for source in sources}
    return Workspace(Config.load(config, {"prompts": changes})), sources


def _prompt_of(workspace: Workspace, source: str, given: str | None) -> Prompt:
    """The prompt of an id as typed; of the first entity if none was given."""
    with workspace.open_cache() as cache:
        answers = StoredSummaries(cache, workspace.config.generate, stand_in=True)
        for prompt in workspace.prompts(source, everyone=True, answers=answers):
            if prompt.knowledge != SUMMARIES and (given is None or str(prompt.entity_id) == given):
                return prompt
    reason = "with a history" if source == "user" else "in the items table"
    raise ConfigError(f"There is no {source} {given!r} {reason}.")


def _print_prompt(prompt: Prompt, count: Counter) -> None:
    shortened = f"; shortened: {', '.join(prompt.cut)}" if prompt.cut else ""
    as_of = f", as of {prompt.as_of}" if prompt.as_of else ""
    notes.print(
        f"{prompt.knowledge} {prompt.entity_id} (version {prompt.version}{as_of}, "
        f"{count(prompt.messages):,} tokens{shortened})",
        markup=False,
        style="bold",
    )
    results.print(prompt.text + "\n", markup=False, soft_wrap=True)


def _print_statistics(workspace: Workspace, sources: list[str], count: Counter) -> None:
    rows: list[tuple[str, ...]] = []
    cut: list[tuple[str, ...]] = []
    for source in sources:
        name = workspace.knowledge_source(source)
        total = workspace.count(source) + sum(workspace.summaries(source))
        with bar(f"prompts of {source}s", total) as show, workspace.open_cache() as cache:
            answers = StoredSummaries(cache, workspace.config.generate, stand_in=True)
            stream = _shown(workspace.prompts(source, answers=answers), show)
            found = Statistics.of(stream, count)
        numbers = [len(found.tokens), sum(found.tokens), min(found.tokens, default=0)]
        numbers += [*map(found.quantile, QUANTILES), max(found.tokens, default=0)]
        rows.append((name, *(f"{number:,}" for number in numbers)))
        cut += [(name, field, f"{times:,}") for field, times in found.cut.most_common()]
    columns = ("", "prompts", "tokens", "least", *(f"{share:.0%}" for share in QUANTILES), "most")
    table("Tokens a prompt", columns, rows)
    if cut:
        table("Shortened", ("", "what", "prompts"), cut)
    else:
        notes.print("  nothing was shortened", markup=False)


def _shown(prompts: Iterator[Prompt], show: Callable[[int, str], None]) -> Iterator[Prompt]:
    for number, prompt in enumerate(prompts, 1):
        yield prompt
        show(number, "")


def _other_version(workspace: Workspace, prompt: Prompt, other: str) -> Prompt:
    """The same entity's prompt by another scenario, or as it was last answered."""
    if other != ASKED:
        settings = replace(workspace.config.prompts, scenario=other)
        earlier = Workspace(replace(workspace.config, prompts=settings))
        return _prompt_of(earlier, prompt.knowledge.partition(":")[0], str(prompt.entity_id))
    with workspace.open_cache() as cache:
        link = cache.linked(prompt.knowledge, [prompt.entity_id]).get(prompt.entity_id)
        answer = cache.get(link.key) if link else None
    if link is None or answer is None:
        raise ConfigError(f"Nothing was asked about {prompt.knowledge} {prompt.entity_id!r} yet.")
    messages: tuple[Any, ...] = tuple(answer.messages)
    return Prompt(prompt.knowledge, prompt.entity_id, messages, link.prompt_version, link.as_of)


def _print_difference(old: Prompt, new: Prompt, count: Counter) -> None:
    before, after = count(old.messages), count(new.messages)
    notes.print(
        f"{new.knowledge} {new.entity_id}: version {old.version} -> {new.version}, {before:,} -> {after:,} tokens "
        f"({after - before:+,})",
        markup=False,
        style="bold",
    )
    for line in difference(old.messages, new.messages):
        results.print(line, markup=False, soft_wrap=True)
    if old.messages == new.messages:
        notes.print("  the model sees the same", markup=False)
