"""Options that several commands share, and the project that they open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kar_aug._helpers import interrupts
from kar_aug.cli.progress import Terminal
from kar_aug.config import ENTITIES
from kar_aug.registry import Registry

if TYPE_CHECKING:
    from kar_aug import Project


class Command(click.Command):
    """A command that imports what it works with once it runs: not to show its help, nor to find an option wrong.

    All that commands import at their modules' heads is light: types are for type checkers alone, and the rest is
    imported by the functions that use it. What takes long of it, pandas and SQLAlchemy, is imported here, before a
    command's first line, while Ctrl-C still ends the process at once.
    """

    def invoke(self, context: click.Context) -> Any:
        from kar_aug import Project  # noqa: F401 - or the error that names the extra

        with interrupts.raised():
            return super().invoke(context)


class Group(click.Group):
    """Commands that are such."""

    command_class = Command


def command() -> Callable[[Callable[..., Any]], Command]:
    """A function as such a command."""
    return click.command(cls=Command)


def named(*option: str, registry: Registry, **settings: Any) -> Callable[..., Any]:
    """An option for a name of a registry, or "module:attribute", which is looked for beside the settings file as well,
    once that is read.
    """

    def checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        module, _, attribute = (value or "").partition(":")
        if value is not None and value not in registry.names() and not (module and attribute):
            raise click.BadParameter(f"{registry.unknown(value)}, or MODULE:ATTRIBUTE", context, parameter)
        return value

    metavar = f"[{'|'.join(registry.names())}|MODULE:ATTRIBUTE]"
    return click.option(*option, metavar=metavar, callback=checked, **settings)


def opened(config: str, **changes: Any) -> Project:
    """The project of a settings file, with what options say over it, `kar-aug --sample` included."""
    from kar_aug import Project

    if (sample := click.get_current_context().find_root().params.get("sample")) is not None:
        changes["data"] = {**changes.get("data", {}), "sample_users": sample}
    return Project.open(config, watch=Terminal(), **changes)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which model to ask, where, and how many requests at a time."""
    for option in (
        click.option("--model", help="Name of the language model at the server."),
        click.option(
            "--base-url", help='An OpenAI-compatible server, or "local". The key is read from OPENAI_API_KEY.'
        ),
        click.option("--concurrency", type=click.IntRange(1), help="Requests in flight."),
    ):
        command = option(command)
    return command


def engine_options(*engines: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """By which engine a stage runs, and where that is."""

    def options(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(
            (
                click.option("--engine", type=click.Choice(engines), help="Let its workers do it, on many machines."),
                click.option("--address", help="With --engine: of its cluster.  [default: this machine alone]"),
                click.option(
                    "--workers", type=click.IntRange(1), help="With --engine: how many.  [default: one a core]"
                ),
            )
        ):
            command = option(command)
        return command

    return options


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to ask about users and items, as in [prompts]."""
    for entity in reversed(ENTITIES):
        command = click.option(f"--{entity}-recipe", help=f"How to ask about {entity}s, as in [prompts].")(command)
        groups = f"Ask about so many groups of {entity}s, as in [prompts]."
        command = click.option(f"--{entity}-clusters", type=click.IntRange(1), help=groups)(command)
    return command
