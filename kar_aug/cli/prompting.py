"""The `kar-aug prompts` command: what the language model is asked, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kar_aug._helpers.files import write_atomic
from kar_aug.cli.options import command, opened
from kar_aug.cli.progress import output, say, table, tell
from kar_aug.config import ENTITIES
from kar_aug.errors import ConfigError

if TYPE_CHECKING:
    from kar_aug.pipeline.prompting import Prompts


@command()
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
    from kar_aug.prompts.recipe import DIRECT

    if recipe and no_factors:
        raise ConfigError("--recipe and --no-factors exclude each other.")
    if stats and (other or user or item):
        raise ConfigError("--stats is about all prompts: leave out --user, --item and --diff.")
    project, recipe = opened(config), DIRECT if no_factors else recipe
    wanted = {"user": user, "item": item}
    entities = [entity for entity in ENTITIES if wanted[entity] is not None or not any(wanted.values())]
    if recipe is not None:  # of several, those that it asks about
        entities = [entity for entity in entities if entity in project.asks(recipe)] or entities
    chosen = [project.prompts(entity, recipe=recipe) for entity in entities]
    counted = chosen[0].counted
    if stats:
        _print_statistics(chosen)
    for prompts in [] if stats else chosen:
        if other is None:
            _print_prompt(prompts, wanted[prompts.entity])
        else:
            _print_difference(prompts, wanted[prompts.entity], other)
    tell(f"prompt tokens are {counted}")


def write_scenario(name: str, settings: Path, *, force: bool) -> None:
    """Write a scenario of kar-aug into a file beside the settings, to edit."""
    from kar_aug.prompts import scenario_text

    content = scenario_text(name)
    path = settings.with_name(f"{name}.toml")
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already. Move it, or give --force to write over it.")
    write_atomic(path, content)
    output(f"Wrote {path}: factors, fields and templates, to edit.")


def _print_prompt(prompts: Prompts, id: str | None) -> None:
    prompt = prompts.of(id)
    shortened = f"; shortened: {', '.join(prompt.cut)}" if prompt.cut else ""
    as_of = f", as of {prompt.as_of}" if prompt.as_of else ""
    say(
        f"{prompt.knowledge} {prompt.entity_id} (version {prompt.version}{as_of}, "
        f"{prompts.tokens(prompt):,} tokens{shortened})",
        style="bold",
    )
    output(prompt.text + "\n")


def _print_difference(prompts: Prompts, id: str | None, other: str) -> None:
    found = prompts.difference(id, other)
    old, new = found.old, found.new
    before, after = prompts.tokens(old), prompts.tokens(new)
    say(
        f"{new.knowledge} {new.entity_id}: version {old.version} -> {new.version}, {before:,} -> {after:,} tokens "
        f"({after - before:+,})",
        style="bold",
    )
    for line in found.lines:
        output(line)
    if old.messages == new.messages:
        tell("the model sees the same")


def _print_statistics(chosen: Sequence[Prompts]) -> None:
    from kar_aug.prompts.statistics import QUANTILES

    rows: list[tuple[str, ...]] = []
    cut: list[tuple[str, ...]] = []
    for prompts in chosen:
        found = prompts.statistics()
        numbers = [len(found.tokens), sum(found.tokens), min(found.tokens, default=0)]
        numbers += [*map(found.quantile, QUANTILES), max(found.tokens, default=0)]
        rows.append((prompts.knowledge, *(f"{number:,}" for number in numbers)))
        cut += [(prompts.knowledge, field, f"{times:,}") for field, times in found.cut.most_common()]
    columns = ("", "prompts", "tokens", "least", *(f"{share:.0%}" for share in QUANTILES), "most")
    table("Tokens a prompt", columns, rows)
    if cut:
        table("Shortened", ("", "what", "prompts"), cut)
    else:
        tell("nothing was shortened")
