"""Commands and their options. Each parses, calls a stage, and lets errors become one line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from kar_aug._files import write_atomic
from kar_aug._toml import edited
from kar_aug._version import __version__
from kar_aug.cache import VectorStore
from kar_aug.cli import prompting, stages
from kar_aug.cli.cache import cache
from kar_aug.cli.factors import factors
from kar_aug.cli.progress import notes, results, stage, table
from kar_aug.config import Config
from kar_aug.errors import ConfigError, KarError, MissingDependencyError
from kar_aug.pipeline.workspace import SOURCES, Workspace


class _Cli(click.Group):
    """Errors that a user can mend become one line and exit code 2; Ctrl-C says so and exits 130."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KarError as error:
            notes.print(f"kar-aug: {error}", markup=False, soft_wrap=True)
            sys.exit(2)
        except OSError as error:  # a file that cannot be written, a full disk
            notes.print(
                f"kar-aug: {error.filename or 'a file'}: {error.strerror or error}", markup=False, soft_wrap=True
            )
            sys.exit(2)
        except KeyboardInterrupt as interrupt:
            notes.print(
                f"\nInterrupted. {interrupt}\nNothing finished is lost: run the same command to go on.",
                markup=False,
            )
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
@click.pass_context
def main(context: click.Context, path: str) -> None:
    """Give classical CTR models the knowledge of a large language model.

    The stages, in order: prompts, generate, encode, compare, export. Each can be stopped at any
    moment and run again: it does only what is missing.
    """
    context.obj = path


def _model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--model", help="Name of the language model at the server."),
        click.option(
            "--base-url", help='An OpenAI-compatible server, or "local". The key is read from OPENAI_API_KEY.'
        ),
        click.option("--concurrency", type=click.IntRange(1), help="Requests in flight."),
    ):
        command = option(command)
    return command


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for source in reversed(SOURCES):
        command = click.option(f"--{source}-recipe", help=f"How to ask about {source}s, as in [prompts].")(command)
        groups = f"Ask about so many groups of {source}s, as in [prompts]."
        command = click.option(f"--{source}-clusters", type=click.IntRange(1), help=groups)(command)
    return command


@main.command()
@click.option("--output", default="kar.toml", show_default=True, help="The file to write.")
@click.option("--scenario", help="Also write this scenario into a file of your own, to edit: books, news, music, ...")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(output: str, scenario: str | None, force: bool) -> None:
    """Write a kar.toml with every setting explained; with --scenario, a scenario beside it.

    \b
    Example:
      kar-aug init
      kar-aug init --scenario books
    """
    content = _packaged("template.toml")
    if scenario is not None:
        content = edited(content, lambda settings: settings["prompts"].update(scenario=f"{scenario}.toml"))
        prompting.write_scenario(scenario, Path(output), force=force)
        if Path(output).exists() and not force:
            results.print(f'{output} is there already. Set in it: [prompts] scenario = "{scenario}.toml"', markup=False)
            return
    if Path(output).exists() and not force:
        raise ConfigError(f"{output} is there already. Name another with --output, or give --force.")
    write_atomic(Path(output), content)
    results.print(f"Wrote {output}. Next: kar-aug prompts", markup=False)


@main.command()
@_model_options
@_recipe_options
@click.option("--only", type=click.Choice(SOURCES), help="Ask about users, or items, only.")
@click.option("--rpm", type=click.FloatRange(0, min_open=True), help="Most requests a minute.")
@click.option("--tpm", type=click.FloatRange(0, min_open=True), help="Most tokens a minute.")
@click.option(
    "--max-cost",
    type=click.FloatRange(0),
    help="US dollars that the model's answers may cost in all, earlier runs included.",
)
@click.option("--max-requests", type=click.IntRange(1), help="Requests that this run may send.")
@click.option("--dry-run", is_flag=True, help="Count prompts, tokens and dollars; send nothing.")
@click.option("--status", is_flag=True, help="Show what is answered, and what failed and why; send nothing.")
@click.option("--retry-failed", is_flag=True, help="Ask again what was rejected, refused or answered with nothing.")
@click.option("--batch", is_flag=True, help="Use the Batch API: half the price, within a day.")
@click.option("--batch-size", type=click.IntRange(1), default=50_000, show_default=True, help="Requests of one batch.")
@click.option("--no-wait", is_flag=True, help="With --batch: do not wait; the same command later collects.")
@click.option(
    "--poll", type=click.FloatRange(0.1), default=30, show_default=True, help="Seconds between looks at batches."
)
@click.option("--export-jsonl", type=click.Path(path_type=Path), help="Write the requests into a file; send nothing.")
@click.option(
    "--import-jsonl",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Bring in a file of responses; may be repeated.",
)
@click.option("--shard", help="The share of this process, as 2/8; each with its own --cache.")
@click.option("--cache", help="The file of answers, or a postgresql:// URL.")
@click.pass_obj
def generate(
    config: str, /, only: str | None, dry_run: bool, status: bool, retry_failed: bool, batch: bool, batch_size: int,
    no_wait: bool, poll: float, export_jsonl: Path | None, import_jsonl: tuple[Path, ...], shard: str | None,
    user_recipe: str | None, item_recipe: str | None, user_clusters: int | None, item_clusters: int | None,
    **changes: Any,
) -> None:  # fmt: skip
    """Ask the language model about users and items; answers that are there already are not asked for again.

    \b
    Example:
      kar-aug generate --dry-run
      OPENAI_API_KEY=... kar-aug generate --model gpt-4o-mini --max-cost 5
      kar-aug generate --base-url http://localhost:11434/v1 --model llama3.2
    """
    from kar_aug.cli import generation

    chosen = [dry_run, status, batch, export_jsonl is not None, bool(import_jsonl)]
    if sum(chosen) > 1:
        raise ConfigError("--dry-run, --status, --batch, --export-jsonl and --import-jsonl exclude each other.")
    ways: dict[str, Any] = {"user_recipe": user_recipe, "item_recipe": item_recipe}
    ways |= {"user_clusters": user_clusters, "item_clusters": item_clusters}
    workspace = Workspace(Config.load(config, {"prompts": ways, "generate": changes}))
    job = generation.Job(workspace, (only,) if only else SOURCES, generation.parse_shard(shard), retry_failed)
    if dry_run:
        generation.dry_run(job)
    elif status:
        generation.status(job)
    elif batch:
        generation.ask_in_batches(job, most_requests=batch_size, wait=not no_wait, poll_seconds=poll)
    elif export_jsonl is not None:
        generation.export_requests(job, export_jsonl)
    elif import_jsonl:
        generation.import_responses(job, import_jsonl)
    else:
        generation.ask(job)


@main.command()
@click.option(
    "--encoder",
    help="A sentence-transformers name or folder, or another kind: openvino:NAME, transformers:NAME, "
    "model2vec:NAME, openai:NAME.",
)
@_recipe_options
@click.pass_obj
def encode(config: str, /, encoder: str | None, **recipes: Any) -> None:
    """Turn the answers into knowledge vectors; those that are up to date stay.

    \b
    Example:
      kar-aug encode --encoder sentence-transformers/all-MiniLM-L6-v2
    """
    stages.encode(Workspace(Config.load(config, {"prompts": recipes, "encode": {"encoder": encoder}})))


@main.command()
@click.option("--backbone", multiple=True, help="Compare these only; may be given several times.")
@click.option("--seeds", type=click.IntRange(1), help="Trainings an arm.")
@click.option("--tune", type=click.IntRange(0), help="Trials an arm of the search for settings.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that train side by side.  [default: one a core]")
@click.option("--report", default="report.html", show_default=True, help="The HTML file to write.")
@click.option("--unaudited", is_flag=True, help="Compare though the audit may find leaks; the report says so.")
@_recipe_options
@click.pass_obj
def compare(
    config: str, /, backbone: tuple[str, ...], report: str, unaudited: bool, seeds: int | None, tune: int | None,
    jobs: int | None, **recipes: Any,
) -> None:  # fmt: skip
    """Train each backbone with and without knowledge, and with controls; say which gain is real.

    Nothing is trained where the audit (kar-aug audit) finds leaks.

    \b
    Example:
      kar-aug compare --backbone DIN --seeds 5
      kar-aug compare --item-recipe tags     # models that were trained already are not trained again
      kar-aug compare --tune 10 --jobs 8
    """
    training = {"backbones": backbone or None, "seeds": seeds, "tune": tune, "jobs": jobs}
    workspace = Workspace(Config.load(config, {"prompts": recipes, "compare": training}))
    title = "CTR models with and without knowledge"
    chosen = "".join(f" --{name.replace('_', '-')} {value}" for name, value in recipes.items() if value)
    stages.compare(workspace, Path(report), reproduce=f"kar-aug compare{chosen}", title=title, unaudited=unaudited)


@main.command()
@click.pass_context
def audit(context: click.Context) -> None:
    """Look for leaks: anything by which knowledge or features know what a comparison tests on.

    Checks the split, the models' inputs, the stored prompts with their as-of times, and the vectors. Exit code 1 if
    there are leaks, 0 if there are none.

    \b
    Example:
      kar-aug audit
    """
    context.exit(0 if stages.audit(Workspace(Config.load(context.obj))) else 1)


@main.command()
@click.option("--backbone", default="FiBiNET", show_default=True, help="Which of the compared models.")
@click.option("--seed", default=0, show_default=True, help="Which of its trainings.")
@click.option("--output", default="serving", show_default=True, help="The folder to write.")
@_recipe_options
@click.pass_obj
def export(config: str, /, backbone: str, seed: int, output: str, **recipes: Any) -> None:
    """Write a compared model as a SavedModel with prestored vectors, which TensorFlow alone can serve.

    \b
    Example:
      kar-aug export --backbone DIN --output serving/1
    """
    # The backbone among the settings: its name is checked there.
    loaded = Config.load(config, {"prompts": recipes, "compare": {"backbones": [backbone]}})
    stages.export(Workspace(loaded), backbone, seed, Path(output))


@main.command()
@click.option("--user", help="Id of a user to show.")
@click.option("--item", help="Id of an item to show; with --vectors also its title.")
@click.option("--vectors", is_flag=True, help="Show the vectors: counts, coverage, norms; the neighbours of an --item.")
@_recipe_options
@click.pass_obj
def inspect(config: str, /, user: str | None, item: str | None, vectors: bool, **recipes: Any) -> None:
    """Show what is known about a user or an item; without either, what there is.

    \b
    Example:
      kar-aug inspect --item 50
      kar-aug inspect --vectors --item "Fargo (1996)"
    """
    workspace = Workspace(Config.load(config, {"prompts": recipes}))
    if vectors:
        if user is not None:
            raise ConfigError("inspect --vectors shows the neighbours of items only: give --item.")
        stages.inspect_vectors(workspace, item)
        return
    for source, given in (("user", user), ("item", item)):
        if given is not None:
            _show_entity(workspace, source, given)
    if user is None and item is None:
        _show_counts(workspace)


@main.command()
@_model_options
@click.option("--users", type=click.IntRange(1), help="Users to ask about.  [default: 250]")
@click.option("--items", type=click.IntRange(1), help="Items to ask about.  [default: 500]")
@click.option("--seeds", type=click.IntRange(1), help="Trainings an arm.  [default: 3]")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer.  [default: 64]")
@click.option("--workdir", help="Folder for all that is made.  [default: .kar/demo]")
@click.option("--report", default="report.html", show_default=True, help="The HTML file to write.")
def demo(
    users: int | None, items: int | None, seeds: int | None, max_tokens: int | None,
    workdir: str | None, report: str, **changes: Any,
) -> None:  # fmt: skip
    """Run every stage on MovieLens-100K, with a small language model on this machine.

    \b
    Example:
      kar-aug demo
      OPENAI_API_KEY=... kar-aug demo --base-url https://api.openai.com/v1 --model gpt-4o-mini
    """
    for package in ("openai", "sentence_transformers", "tensorflow", "deepctr"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "demo")
    from kar_aug.cli import generation

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
            "compare": {"seeds": seeds},
        },
    )
    workspace = Workspace(config)
    seconds: dict[str, float] = {}
    with stage("Fetch and split MovieLens-100K", seconds):
        parts = workspace.split["part"].value_counts()
        notes.print("  " + ", ".join(f"{parts[part]:,} {part}" for part in parts.index))
    with stage(f"Ask {config.generate.model}", seconds):
        generation.ask(generation.Job(workspace))
    with stage("Encode the answers", seconds):
        stages.encode(workspace)
    with stage("Train and compare", seconds):
        title = f"MovieLens-100K, knowledge by {config.generate.model}"
        stages.compare(workspace, Path(report), reproduce="kar-aug demo", title=title)
    table("", ("stage", "seconds"), [(name, f"{value:.0f}") for name, value in seconds.items()])


main.add_command(cache)
main.add_command(prompting.prompts)
main.add_command(factors)


def _packaged(name: str) -> str:
    return files("kar_aug.cli").joinpath(name).read_text(encoding="utf-8")


def _show_entity(workspace: Workspace, source: str, given: str) -> None:
    with workspace.open_cache() as cache:
        ids = [id for id in workspace.tables.ids(source) if str(id) == given]
        name = workspace.knowledge_source(source)
        link = cache.linked(name, ids[:1]).get(ids[0]) if ids else None
        answer = cache.get(link.key) if link else None
        failed = [f for f in cache.failures() if ids and (f.source, f.entity_id) == (name, ids[0])]
    for failure in failed:
        notes.print(f"failed: {failure.reason} ({failure.attempts} tries)", markup=False)
    if link is None or answer is None:
        raise ConfigError(f"Nothing was asked about {source} {given!r} yet, or the answer failed.")
    for message in answer.messages:
        results.print(f"[{message['role']}]\n{message['content']}\n", markup=False, soft_wrap=True)
    results.print(f"[answer]\n{answer.text}\n", markup=False, soft_wrap=True)
    cost = "no price" if answer.cost is None else f"${answer.cost:.6f}"
    notes.print(
        f"{answer.served_model or answer.model}, {answer.status}, {answer.prompt_tokens} + {answer.completion_tokens} "
        f"tokens, {cost}, {answer.seconds:.1f} s, {answer.created}, prompt version {link.prompt_version}"
        + (f", as of {link.as_of}" if link.as_of else ""),
        markup=False,
        soft_wrap=True,
    )


def _show_counts(workspace: Workspace) -> None:
    with workspace.open_cache() as cache:
        counts = cache.counts()
    table("Answers", ("", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    if counts["failed"]:
        notes.print("  what failed and why: kar-aug generate --status", markup=False)
    rows: list[tuple[str, ...]] = []
    for source in SOURCES:
        try:
            store = VectorStore.open(workspace.store_path(source))
        except KarError:
            continue
        ids = workspace.split[f"{source}_id"].tolist()
        rows.append(
            (
                source,
                f"{len(store):,}",
                f"{store.spec.dimension}",
                f"{store.coverage(ids):.0%}",
                store.spec.encoder,
            )
        )
    table("Vectors", ("source", "count", "dimension", "coverage of events", "encoder"), rows)
