"""The `kar-aug generate` command: asking, and what can be seen of it without asking."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kar_aug.cli.options import command, engine_options, model_options, opened, recipe_options
from kar_aug.cli.progress import output, table, tell
from kar_aug.config import ENTITIES
from kar_aug.errors import ConfigError

if TYPE_CHECKING:
    from kar_aug.pipeline.generation import DryRun, Exported, Generated, Status

_LISTED = 20  # failures shown one by one
_INCOMPLETE = 3  # the exit code where the job went through and some prompts have no answer


@command()
@model_options
@recipe_options
@click.option("--only", type=click.Choice(ENTITIES), help="Ask about users, or items, only.")
@click.option("--rpm", type=click.FloatRange(0, min_open=True), help="Most requests a minute.")
@click.option("--tpm", type=click.FloatRange(0, min_open=True), help="Most tokens a minute.")
@click.option(
    "--max-cost",
    type=click.FloatRange(0),
    help="US dollars that the model may cost in all: earlier runs, other jobs and batches included.",
)
@click.option("--max-requests", type=click.IntRange(1), help="Requests that this run may send.")
@click.option("--dry-run", is_flag=True, help="Count prompts, tokens and dollars; send nothing.")
@click.option("--status", is_flag=True, help="Show what is answered, and what failed and why; send nothing.")
@click.option("--retry-failed", is_flag=True, help="Ask again what was rejected, refused or answered with nothing.")
@click.option(
    "--replace-imported", is_flag=True, default=None, help="Ask also about those whose knowledge is a text of yours."
)
@click.option("--batch", is_flag=True, help="Use the Batch API: half the price, within a day.")
@click.option("--batch-size", type=click.IntRange(1), default=50_000, show_default=True, help="Requests of one batch.")
@click.option("--no-wait", is_flag=True, help="With --batch: do not wait; the same command later collects.")
@click.option(
    "--poll", type=click.FloatRange(0.1), default=30, show_default=True, help="Seconds between looks at batches."
)
@click.option(
    "--forget-batch",
    "forget_batches",
    multiple=True,
    metavar="ID",
    help="With --batch: ask the prompts of a batch again that the server does not know any more; may be repeated.",
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
@engine_options("ray", "spark")
@click.pass_obj
def generate(
    config: str, /, only: str | None, dry_run: bool, status: bool, retry_failed: bool, batch: bool, batch_size: int,
    no_wait: bool, poll: float, forget_batches: tuple[str, ...], export_jsonl: Path | None,
    import_jsonl: tuple[Path, ...], shard: str | None, engine: str | None, address: str | None, workers: int | None,
    user_recipe: str | None, item_recipe: str | None, user_clusters: int | None, item_clusters: int | None,
    **changes: Any,
) -> None:  # fmt: skip
    """Ask the language model about users and items; answers that are there already are not asked for again.

    The exit code is 0 if every prompt was answered (or is in a batch), 3 if the job went through and some have no
    answer, and 2 if it cannot go on: the server refuses or cannot be reached, or a limit is reached. So `kar-aug
    generate && kar-aug encode` encodes when all is answered; what there is can be encoded at any time.

    \b
    Example:
      kar-aug generate --dry-run
      OPENAI_API_KEY=... kar-aug generate --model gpt-4o-mini --max-cost 5
      kar-aug generate --base-url http://localhost:11434/v1 --model llama3.2
      kar-aug generate --engine ray --address auto --workers 64
    """
    chosen = [dry_run, status, batch, export_jsonl is not None, bool(import_jsonl)]
    if sum(chosen) > 1:
        raise ConfigError("--dry-run, --status, --batch, --export-jsonl and --import-jsonl exclude each other.")
    if forget_batches and not batch:
        raise ConfigError("--forget-batch goes with --batch.")
    if (engine and any(chosen)) or ((address or workers) and not engine):
        raise ConfigError("--engine asks, by requests; --address and --workers go with it.")
    ways: dict[str, Any] = {"user_recipe": user_recipe, "item_recipe": item_recipe}
    ways |= {"user_clusters": user_clusters, "item_clusters": item_clusters}
    project = opened(config, prompts=ways, generate=changes)
    part: dict[str, Any] = {"only": only, "shard": parse_shard(shard)}
    if dry_run:
        _print_dry_run(project.dry_run(retry_failed=retry_failed, **part))
    elif status:
        _print_status(project.status(**part))
    elif export_jsonl is not None:
        _print_files(project.export_requests(export_jsonl, retry_failed=retry_failed, **part))
    elif import_jsonl:
        _end(project.import_responses(*import_jsonl, **part))
    else:
        done = project.generate(
            retry_failed=retry_failed,
            batch=batch,
            wait=not no_wait,
            most_requests=batch_size,
            poll_seconds=poll,
            forget_batches=forget_batches,
            engine=engine,
            address=address,
            workers=workers,
            **part,
        )
        _end(done)


def _end(done: Generated) -> None:
    """Say what was done, and by the exit code whether it was all."""
    tell(done)
    if not done.complete:
        click.get_current_context().exit(_INCOMPLETE)


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "2/8" as (2, 8)."""
    if text is None:
        return 1, 1
    try:
        number, shards = map(int, text.split("/"))
    except ValueError:
        number, shards = 0, 0
    if not 1 <= number <= shards:
        raise ConfigError(f"--shard must be written as 2/8, the second of eight, not {text!r}.")
    return number, shards


def _print_dry_run(done: DryRun) -> None:
    from kar_aug.pipeline.generation import left_out

    found, progress = done.estimate, done.estimate.found
    tell(f"prompts: {progress.changes}")
    rows: list[tuple[str, ...]] = [
        ("prompts", f"{progress.total:,}"),
        ("already answered, or equal to another", f"{progress.cached:,}"),
        ("to ask", f"{found.questions:,}"),
        ("prompt tokens", f"{found.prompt_tokens:,}"),
        ("completion tokens at most", f"{found.most_completion_tokens:,}"),
    ]
    if found.likely_completion_tokens is not None:
        rows.append(("completion tokens by answers so far", f"{found.likely_completion_tokens:,}"))
    table(f"{done.model.model}: nothing was sent", ("", "count"), rows)
    if found.price is None:
        tell(f"the price of {done.model.model} is not known: name a file with [generate] prices = ...")
    else:
        table(f"US dollars, by prices of {found.price_date}", ("", "at most", "likely"), _costs(done))
    tell(f"prompt tokens are {found.counted}")
    if done.without_events:
        tell(left_out(done.without_events))
    if done.waiting:
        tell(
            f"{done.waiting:,} users with long histories have summaries that are still to be asked: prompts that will "
            "show these are counted, their tokens by the length that is asked for"
        )


def _costs(done: DryRun) -> list[tuple[str, ...]]:
    return [(str(tier), *("" if cost is None else f"{cost:,.4f}" for cost in costs)) for tier, *costs in done.costs]


def _print_status(done: Status) -> None:
    from kar_aug.pipeline.generation import batch_line

    tell(f"{done.progress.changes}; {done.to_ask:,} to ask")
    table("Answers", ("", "count"), [(name, f"{count:,}") for name, count in done.answers.items()])
    if done.failed:
        reasons = Counter((failure.reason, failure.permanent) for failure in done.failed)
        rows: list[tuple[str, ...]] = [
            (reason, f"{count:,}", "with --retry-failed" if permanent else "by the next run")
            for (reason, permanent), count in reasons.most_common()
        ]
        table("Failed", ("reason", "count", "asked again"), rows)
        for failure in done.failed[:_LISTED]:
            tell(f"{failure.knowledge} {failure.entity_id}: {failure.reason} ({failure.attempts} tries)")
        if len(done.failed) > _LISTED:
            tell(f"and {len(done.failed) - _LISTED:,} more")
    for batch in done.running:
        tell(batch_line(batch))


def _print_files(done: Exported) -> None:
    tell(f"{done.progress.requests:,} requests; {done.progress.changes}")
    for file in done.files:
        output(file)
    if not done.files:
        tell("nothing to ask: no file was written")
    if done.waiting:
        tell(done.users_waiting)
