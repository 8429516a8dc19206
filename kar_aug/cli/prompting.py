"""The `kar-aug prompts` command: what the language model is asked, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kar_aug.cli.progress import notes, results
from kar_aug.config import Config
from kar_aug.errors import ConfigError
from kar_aug.files import write_atomic
from kar_aug.generate.cost import token_counter
from kar_aug.prompts import Prompt, Recipe, scenario_text
from kar_aug.prompts.recipe import DIRECT
from kar_aug.workspace import SOURCES, Workspace


@click.command()
@click.option("--user", help="Id of a user whose prompt to print.")
@click.option("--item", help="Id of an item whose prompt to print.")
@click.option("--recipe", help="How to ask, instead of what kar.toml says: a name, or a .toml file.")
@click.option("--no-factors", is_flag=True, help="Ask directly, without the scenario's factors: the recipe 'direct'.")
@click.pass_obj
def prompts(config: str, user: str | None, item: str | None, recipe: str | None, no_factors: bool) -> None:
    """Print the prompt of a user or an item with its tokens; without either, one of each. Nothing is sent.

    \b
    Example:
      kar-aug prompts --user 42 --item 50
      kar-aug prompts --user 42 --recipe three-step
    """
    if recipe and no_factors:
        raise ConfigError("--recipe and --no-factors exclude each other.")
    wanted = {"user": user, "item": item}
    sources = [source for source in SOURCES if wanted[source] is not None or not any(wanted.values())]
    workspace, sources = _with_recipe(config, DIRECT if no_factors else recipe, sources)
    count, counted = token_counter(workspace.config.generate.model)
    for source in sources:
        prompt = _prompt_of(workspace, source, wanted[source])
        notes.print(
            f"[bold]{prompt.source} {prompt.entity_id}[/bold] (version {prompt.version}, as of {prompt.as_of}, "
            f"{count(prompt.messages):,} tokens{_cut(prompt)})"
        )
        results.print(prompt.text + "\n", markup=False, soft_wrap=True)
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
    for prompt in workspace.prompts(source, everyone=True):
        if given is None or str(prompt.entity_id) == given:
            return prompt
    reason = "with a history" if source == "user" else "in the items table"
    raise ConfigError(f"There is no {source} {given!r} {reason}.")


def _cut(prompt: Prompt) -> str:
    return f"; shortened: {', '.join(prompt.cut)}" if prompt.cut else ""
