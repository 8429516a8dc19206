"""The `kar-aug cache` commands: what is stored, whether it can be trusted, and moving it about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd

from kar_aug.cache import BatchBook, TextCache, VectorStore, merge
from kar_aug.cache.texts.imported import import_texts
from kar_aug.cache.texts.parquet import export_parquet, import_parquet
from kar_aug.cache.texts.verify import KINDS, exclude, vocabularies
from kar_aug.cache.texts.verify import verify as find_flags
from kar_aug.cli.progress import notes, results, table
from kar_aug.config import Config
from kar_aug.data.reading import is_table
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import SOURCES, Workspace

_LISTED = 20
_LANGUAGES = {"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt"}
_LANGUAGES |= {"dutch": "nl", "chinese": "zh", "japanese": "ja", "korean": "ko", "arabic": "ar", "russian": "ru"}


@click.group()
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
    workspace = Workspace(Config.load(config))
    with workspace.open_cache() as cache:
        counts, usage, running = cache.counts(), cache.usage(), BatchBook(cache).batches()
        sources = map(workspace.knowledge_source, SOURCES)
        linked = [(source, f"{cache.count_linked(source):,}") for source in sources]
        name = cache.name
    table(name, ("", "count"), [(status, f"{count:,}") for status, count in counts.items()])
    table("Entities with an answer", ("source", "count"), linked)
    rows: list[tuple[str, ...]] = [
        (model, tier or "standard", f"{n:,}", f"{asked:,}", f"{answered:,}", "" if cost is None else f"{cost:,.4f}")
        for model, tier, n, asked, answered, cost in usage
    ]
    table("Usage", ("model", "tier", "answers", "prompt tokens", "completion tokens", "US dollars"), rows)
    if running:
        notes.print(f"  {len(running)} batches run: kar-aug generate --status", markup=False)


@cache.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--no-messages", is_flag=True, help="Leave the prompts out: they show rows of your data.")
@click.pass_obj
def export(config: str, path: Path, no_messages: bool) -> None:
    """Write all answers into a Parquet file."""
    with Workspace(Config.load(config)).open_cache() as cache:
        count = export_parquet(cache, path, messages=not no_messages)
    notes.print(f"  {count:,} rows", markup=False)
    results.print(str(path), markup=False, soft_wrap=True)


@cache.command(name="import")
@click.argument("where")
@click.option("--text", help="The column of texts, where WHERE is a table of texts.  [default: text]")
@click.option("--author", help="Who wrote the texts, as reports say.  [default: the file's name]")
@click.pass_obj
def import_(config: str, where: str, text: str | None, author: str | None) -> None:
    """Bring in texts that you have, or the answers of another cache.

    WHERE is a table (Parquet, CSV, JSON lines ...) with item_id or user_id and a column of texts, which become the
    knowledge of these items or users; or a Parquet file of answers that `cache export` wrote; or another cache: a file,
    or a postgresql:// URL.

    \b
    Example:
      kar-aug cache import plots.parquet --text plot --author IMDb
      kar-aug cache import other.sqlite
    """
    workspace = Workspace(Config.load(config))
    if text or author or _is_table_of_texts(where):
        _import_texts(workspace, Path(where), text or "text", author)
        return
    with workspace.open_cache() as cache:
        if where.endswith(".parquet"):
            new = import_parquet(Path(where), cache)
        else:
            if not where.startswith("postgresql") and not Path(where).is_file():
                raise StoreError(f"{where}: there is no such file.")
            with TextCache(where) as other:
                new = merge(other, cache)
    notes.print(f"  {new:,} answers are new", markup=False)


def _is_table_of_texts(where: str) -> bool:
    """Whether it is a table that `cache export` did not write."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not where.lower().endswith(".parquet"):
        return is_table(where)
    try:
        return "key" not in pq.read_schema(where).names
    except (pa.ArrowException, OSError):
        return False  # which is said where it is read


def _import_texts(workspace: Workspace, path: Path, text: str, author: str | None) -> None:
    known = {source: workspace.tables.ids(source) for source in SOURCES}
    with workspace.open_cache() as cache:
        done = import_texts(path, cache, known, text=text, author=author)
    notes.print(
        f"  {done.texts:,} texts are knowledge of {done.source}s now"
        + (f"; {done.empty:,} rows have none" if done.empty else "")
        + (f"; {done.unknown:,} ids are not in the data" if done.unknown else "")
        + ". Next: kar-aug encode",
        markup=False,
        soft_wrap=True,
    )


@cache.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write every flag into this CSV file.")
@click.option(
    "--exclude", "kinds", type=click.Choice(KINDS), multiple=True, help="Take answers flagged so out of the knowledge."
)
@click.pass_obj
def verify(config: str, output: Path | None, kinds: tuple[str, ...]) -> None:
    """Check the stored answers and vectors.

    Answers are flagged that are damaged, empty, refused, cut off, duplicated, in another language, or plainly wrong;
    vectors are compared with their checksums. What is excluded counts as refused: it is not encoded, and `kar-aug
    generate --retry-failed` asks for it again.
    """
    workspace = Workspace(Config.load(config))
    language = _LANGUAGES.get(workspace.scenario.language.lower())
    with workspace.open_cache() as cache:
        flags = list(find_flags(cache, metadata=_Metadata(workspace), language=language))
        answers = sum(count for status, count in cache.counts().items() if status not in _NO_ANSWERS)
        exclude(cache, {flag.key for flag in flags if flag.kind in kinds})
    counts = Counter(flag.kind for flag in flags)
    table(f"Flags on {answers:,} answers", ("kind", "count"), [(kind, f"{counts[kind]:,}") for kind in KINDS])
    for kind in KINDS:
        for flag in [flag for flag in flags if flag.kind == kind][: max(1, _LISTED // len(KINDS))]:
            notes.print(f"  {kind}: {flag.source} {flag.entity_id}: {flag.detail}", markup=False, soft_wrap=True)
    if output is not None:
        pd.DataFrame([vars(flag) for flag in flags], columns=["kind", "source", "entity_id", "detail", "key"]).to_csv(
            output, index=False
        )
        results.print(str(output), markup=False, soft_wrap=True)
    _verify_vectors(workspace)
    if counts["damaged"]:
        raise StoreError(
            f"{counts['damaged']:,} answers are damaged. Take them out: kar-aug cache verify --exclude damaged"
        )


def _verify_vectors(workspace: Workspace) -> None:
    for source in SOURCES:
        if workspace.store_path(source).exists():
            store = VectorStore.open(workspace.store_path(source))
            notes.print(f"  {source} vectors: {len(store):,} sound, {store.verify():,} bytes", markup=False)


_NO_ANSWERS = ("failed", "prompt_tokens", "completion_tokens")


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(config: str, yes: bool) -> None:
    """Delete answers that a newer prompt has superseded, or that were never anybody's."""
    with Workspace(Config.load(config)).open_cache() as cache:
        count = cache.count_superseded()
        if count and not yes:
            click.confirm(
                f"Delete {count:,} answers that were paid for and are nobody's knowledge?", abort=True, err=True
            )
        notes.print(f"  {cache.prune() if count else 0:,} answers deleted", markup=False)


class _Metadata:
    """The row of an entity, with the values that the scenario lets a prompt show."""

    def __init__(self, workspace: Workspace) -> None:
        self._rows: dict[str, Mapping[Any, Mapping[str, Any]]] = {}
        tables = workspace.tables
        shown = [name for name in ("title", "year", *workspace.scenario.item["fields"]) if name in tables.items]
        frame = tables.items.set_index("item_id")[list(dict.fromkeys(shown))]
        self._rows["item"] = frame.to_dict("index")  # type: ignore[assignment]
        self._vocabularies = vocabularies({str(name): frame[name].tolist() for name in frame})

    def __call__(self, source: str, entity_id: int | str) -> Mapping[str, Any]:
        row = self._rows.get(source.partition(":")[0], {}).get(entity_id)
        return {} if row is None else {**row, **self._vocabularies}
