"""Commands and their options. Each parses, calls a stage, and lets errors become one line."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kar_aug._helpers.files import write_atomic
from kar_aug._helpers.servers.addresses import masked
from kar_aug._version import __version__
from kar_aug.cli.cache import cache
from kar_aug.cli.checking import check
from kar_aug.cli.costs import cost
from kar_aug.cli.factors import factors
from kar_aug.cli.forgetting import forget
from kar_aug.cli.generation import generate
from kar_aug.cli.inspecting import inspect, view
from kar_aug.cli.options import Group, model_options
from kar_aug.cli.progress import Terminal, say, stage, table, tell
from kar_aug.cli.progress import output as output_text
from kar_aug.cli.prompting import prompts, write_scenario
from kar_aug.cli.stages import audit, codes, compare, encode, export, prepare, print_comparison, print_results
from kar_aug.cli.vectors import vectors
from kar_aug.config import Config
from kar_aug.errors import ConfigError, KarError, MissingDependencyError

if TYPE_CHECKING:
    from kar_aug import Project

_FIRST_USERS, _FIRST_ITEMS = 20, 40  # of the demonstration, asked about before all others


class _Cli(Group):
    """Errors that a user can mend become one line and exit code 2; Ctrl-C says so and exits 130."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KarError as error:
            say(masked(f"kar-aug: {error}"))
            sys.exit(2)
        except OSError as error:  # a file that cannot be written, a full disk
            say(masked(f"kar-aug: {error.filename or 'a file'}: {error.strerror or error}"))
            sys.exit(2)
        except KeyboardInterrupt as interrupt:
            say(f"\nInterrupted. {interrupt}\nNothing finished is lost: run the same command to go on.")
            sys.exit(130)


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kar-aug")
@click.option(
    "--config",
    "-c",
    "path",
    default="kar.toml",
    show_default=True,
    envvar="KAR_CONFIG",
    help="The settings file.",
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="USERS",
    help="So many users alone, for a first look through every stage. Answers about them are not asked for again.",
)
@click.pass_context
def main(context: click.Context, path: str, sample: int | None) -> None:
    """Give classical CTR models the knowledge of a large language model.

    The stages, in order: prompts, generate, encode, compare, export. Each can be stopped at any
    moment and run again: it does only what is missing.
    """
    context.obj = path


@main.command()
@click.option("--output", help="The file to write.  [default: that of -c, kar.toml]")
@click.option("--data", "paths", multiple=True, metavar="FILE_OR_FOLDER...", help="Your files, to fill in [data] from.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--user", metavar="COLUMN", help="The column of users' ids, where its name does not tell.")
@click.option("--item", metavar="COLUMN", help="Likewise of items'.")
@click.option("--time", metavar="COLUMN", help="Likewise of when it was.")
@click.option("--scenario", help="Also write this scenario into a file of your own, to edit: books, news, music, ...")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_obj
def init(
    config: str, /, output: str | None, paths: tuple[str, ...], more: tuple[str, ...], scenario: str | None,
    force: bool, **columns: str | None,
) -> None:  # fmt: skip
    """Write a kar.toml with every setting explained; with --data, for your own files, each guess
    with what was seen; with --scenario, a scenario beside it.

    \b
    Example:
      kar-aug init
      kar-aug init --data interactions.parquet items.csv
      kar-aug init --data logs/ --scenario books
      kar-aug init --data loans.csv titles.csv --user borrower
    """
    from kar_aug._helpers.toml import edited
    from kar_aug.pipeline.starting import command, start, template

    output = output or config
    if more and not paths:
        raise ConfigError(f"{more[0]}: files are named after --data.")
    named = {what: column for what, column in columns.items() if column is not None}
    if named and not paths:
        raise ConfigError(f"--{next(iter(named))} is of the files that --data names.")
    if paths:
        started = start((*paths, *more), output, scenario=scenario, named=named, force=force)
        output_text(started)
        return
    content = template(scenario)
    if scenario is not None:
        content = edited(content, lambda settings: settings["prompts"].update(scenario=f"{scenario}.toml"))
        write_scenario(scenario, Path(output), force=force)
        if Path(output).exists() and not force:
            output_text(f'{output} is there already. Set in it: [prompts] scenario = "{scenario}.toml"')
            return
    if Path(output).exists() and not force:
        raise ConfigError(f"{output} is there already. Name another with --output, or give --force.")
    write_atomic(Path(output), content)
    if scenario in (None, "movies"):
        output_text(f"Wrote {output}. Next: {command(output, 'prompts')}")
    else:
        filled = f"kar-aug init --data FILES --scenario {scenario} --force"
        output_text(f"Wrote {output}. Next: name your tables in its [data], or let them be looked at: {filled}")


@main.command()
@model_options
@click.option("--users", type=click.IntRange(1), help="Users to ask about.  [default: 150]")
@click.option("--items", type=click.IntRange(1), help="Items to ask about.  [default: 300]")
@click.option("--seeds", type=click.IntRange(1), help="Trainings an arm.  [default: 3]")
@click.option("--epochs", type=click.IntRange(1), help="Most epochs of a training.  [default: 10]")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer.  [default: 64]")
@click.option("--workdir", help="Folder for all that is made.  [default: .kar/demo]")
@click.option("--report", type=click.Path(path_type=Path), help="The HTML file to write.  [default: in the workdir]")
def demo(
    users: int | None, items: int | None, seeds: int | None, epochs: int | None, max_tokens: int | None,
    workdir: str | None, report: Path | None, **changes: Any,
) -> None:  # fmt: skip
    """Run every stage on MovieLens-100K, with a small language model on this machine.

    The first table comes after some three minutes, of few answers and one seed; the report after all.

    \b
    Example:
      kar-aug demo
      OPENAI_API_KEY=... kar-aug demo --base-url https://api.openai.com/v1 --model gpt-4o-mini
    """
    from kar_aug import Project
    from kar_aug._helpers.toml import edited

    for package in ("openai", "sentence_transformers", "tensorflow", "deepctr"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "demo")
    content = _packaged("demo.toml")
    if workdir:
        content = edited(content, lambda settings: settings.update(workdir=workdir))
    config = Config.parse(
        content,
        "the demonstration's settings",
        Path(),
        {
            "prompts": {"max_users": users, "max_items": items},
            "generate": {**changes, "max_tokens": max_tokens},
            "compare": {"seeds": seeds, "epochs": epochs},
        },
    )
    project = Project(config, watch=Terminal())
    seconds: dict[str, float] = {}
    with stage("Fetch and split MovieLens-100K", seconds):
        parts = project.workspace.data.split["part"].value_counts()
        tell(", ".join(f"{parts[part]:,} {part}" for part in parts.index))
    if (first := _first_look(project)) is not None:
        with stage("A first look: a few answers, one seed", seconds):
            tell(first.generate())
            first.encode()
            print_results(first.compare(), "First look: what a few answers bring")
    with stage(f"Ask {config.generate.model}", seconds):
        tell(project.generate())
    with stage("Encode the answers", seconds):
        project.encode()
    with stage("Train and compare", seconds):
        title = f"MovieLens-100K, knowledge by {config.generate.model}"
        print_comparison(project.compare(), report, title=title, reproduce="kar-aug demo")
    table("", ("stage", "seconds"), [(name, f"{value:.0f}") for name, value in seconds.items()])


_COMMANDS = (
    audit, cache, check, codes, compare, cost, encode, export, factors, forget, generate, inspect, prepare, prompts,
    vectors, view,
)  # fmt: skip
for command in _COMMANDS:
    main.add_command(command)


def _first_look(project: Project) -> Project | None:
    """The same with few answers, one seed and no controls, where the whole takes much longer: a result within minutes.
    What it asks, encodes and trains is part of the whole.
    """
    from kar_aug import Project

    if project.status().to_ask < 3 * (_FIRST_USERS + _FIRST_ITEMS):
        return None
    config = project.config
    few = replace(config.prompts, max_users=_FIRST_USERS, max_items=_FIRST_ITEMS)
    small = replace(config.compare, injections=config.compare.injections[-1:], controls=(), seeds=1)
    return Project(replace(config, prompts=few, compare=small), watch=project.watch)


def _packaged(name: str) -> str:
    return files("kar_aug.cli").joinpath(name).read_text(encoding="utf-8")
