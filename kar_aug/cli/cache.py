"""The `kar-aug cache` commands: what is stored, whether it can be trusted, and moving it about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kar_aug.cache.texts.status import FLAGS
from kar_aug.cli.costs import spending_table
from kar_aug.cli.options import Group, opened
from kar_aug.cli.progress import output as print_output
from kar_aug.cli.progress import table, tell

if TYPE_CHECKING:
    from kar_aug.cache.texts.imported import Imported

_LISTED = 20


@click.group(cls=Group)
def cache() -> None:
    """Look at the stored answers, check them, and move them.

    \b
    Example:
      kar-aug cache verify
    """


@cache.command()
@click.pass_obj
def stats(config: str) -> None:
    """Count answers, tokens and dollars."""
    found = opened(config).cache.stats()
    table(found.name, ("", "count"), [(status, f"{count:,}") for status, count in found.counts.items()])
    linked = [(knowledge, f"{count:,}") for knowledge, count in found.linked.items()]
    table("Entities with an answer", ("source", "count"), linked)
    rows: list[tuple[str, ...]] = [
        (model, tier or "standard", f"{n:,}", f"{asked:,}", f"{answered:,}", "" if cost is None else f"{cost:,.4f}")
        for model, tier, n, asked, answered, cost in found.usage
    ]
    table("Usage", ("model", "tier", "answers", "prompt tokens", "completion tokens", "US dollars"), rows)
    spending_table("Spending (by day: kar-aug cost)", ("model",), [(row.model,) for row in found.spent], found.spent)
    if found.running:
        tell(f"{len(found.running)} batches run: kar-aug generate --status")


@cache.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--no-messages", is_flag=True, help="Leave the prompts out: they show rows of your data.")
@click.option("--shards", type=click.IntRange(1), help="So many files by the answers' keys; PATH is their folder.")
@click.pass_obj
def export(config: str, path: Path, no_messages: bool, shards: int | None) -> None:
    """Write all answers into a Parquet file, or into a folder of them."""
    tell(f"{opened(config).cache.export(path, messages=not no_messages, shards=shards):,} rows")
    print_output(path)


@cache.command(name="import")
@click.argument("where")
@click.option("--text", help="The column of texts, where WHERE is a table of texts.  [default: text]")
@click.option("--author", help="Who wrote the texts, as reports say.  [default: the file's name]")
@click.pass_obj
def import_(config: str, where: str, text: str | None, author: str | None) -> None:
    """Bring in texts that you have, or the answers of another cache.

    WHERE is a table (Parquet, CSV, JSON lines ..., or a folder of parts) with item_id or user_id, or what [data]
    columns calls it, and a column of texts, which become the knowledge of these items or users; or a Parquet file of
    answers that `cache export` wrote, or a folder of such files; or a .jsonl file of answers that a job could not
    store; or another cache: a file, or a postgresql:// URL. An answer that is newer here stays.

    \b
    Example:
      kar-aug cache import plots.parquet --text plot --author IMDb
      kar-aug cache import other.sqlite
    """
    from kar_aug.pipeline.answers import holds_texts

    answers = opened(config).cache
    if text or author or holds_texts(where):
        _print_texts(answers.import_texts(where, text=text or "text", author=author))
    else:
        tell(answers.import_answers(where))


def _print_texts(done: Imported) -> None:
    tell(
        f"{done.texts:,} texts are knowledge of {done.entity}s now"
        + (f"; {done.empty:,} rows have none" if done.empty else "")
        + (f"; {done.unknown:,} ids are not in the data" if done.unknown else "")
        + ". Next: kar-aug encode"
    )


@cache.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write every flag into this CSV file.")
@click.option(
    "--exclude", "kinds", type=click.Choice(FLAGS), multiple=True, help="Take answers flagged so out of the knowledge."
)
@click.pass_obj
def verify(config: str, output: Path | None, kinds: tuple[str, ...]) -> None:
    """Check the stored answers and vectors.

    Answers are flagged that are damaged, empty, refused, cut off, duplicated, in another language, or plainly wrong;
    vectors are compared with their checksums. What is excluded counts as refused: it is not encoded, and `kar-aug
    generate --retry-failed` asks for it again.
    """
    answers = opened(config).cache
    found = answers.verify(kinds)
    rows: list[tuple[str, ...]] = [(kind, f"{count:,}") for kind, count in found.counts.items()]
    table(f"Flags on {found.answers:,} answers", ("kind", "count"), rows)
    for kind in FLAGS:
        for flag in [flag for flag in found.flags if flag.kind == kind][: max(1, _LISTED // len(FLAGS))]:
            tell(f"{kind}: {flag.knowledge} {flag.entity_id}: {flag.detail}")
    if output is not None:
        found.frame.to_csv(output, index=False)
        print_output(output)
    if count := len({flag.key for flag in found.flags if flag.kind in kinds}):
        tell(f"{count:,} answers are taken out; kar-aug generate --retry-failed asks for them again")
    for store in answers.verify_vectors():
        tell(f"{store.entity} vectors: {store.vectors:,} sound, {store.bytes:,} bytes")
    found.require_sound()


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(config: str, yes: bool) -> None:
    """Delete answers that a newer prompt has superseded, or that were never anybody's."""
    answers = opened(config).cache
    count = answers.superseded()
    if count and not yes:
        click.confirm(f"Delete {count:,} answers that were paid for and are nobody's knowledge?", abort=True, err=True)
    tell(f"{answers.prune() if count else 0:,} answers deleted")
