"""The `kar-aug inspect` command: what is known about a user or an item, what models read, and what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kar_aug.cli.options import command, opened, recipe_options
from kar_aug.cli.progress import output, say, table, tell
from kar_aug.cli.progress import output as print_output
from kar_aug.errors import ConfigError

if TYPE_CHECKING:
    from kar_aug.inspect import DataView, Inspection, Known, Nearest, Vectors


@command()
@click.option("--user", help="Id of a user to show.")
@click.option("--item", help="Id of an item to show; with --vectors also its title.")
@click.option("--vectors", is_flag=True, help="Show the vectors: counts, coverage, norms; the neighbours of an --item.")
@click.option("--data", is_flag=True, help="Show what a model reads: every feature, the parts, histories, warnings.")
@recipe_options
@click.pass_obj
def inspect(config: str, /, user: str | None, item: str | None, vectors: bool, data: bool, **recipes: Any) -> None:
    """Show what is known about a user or an item; what a model reads; without any, what there is.

    \b
    Example:
      kar-aug inspect --data
      kar-aug inspect --item 50
      kar-aug inspect --vectors --item "Fargo (1996)"
    """
    inspection = opened(config, prompts=recipes).inspect
    if data and (vectors or user is not None or item is not None):
        raise ConfigError("inspect --data shows what models read of all: give it alone.")
    if data:
        _print_data(inspection.data())
        return
    if vectors and user is not None:
        raise ConfigError("inspect --vectors shows the neighbours of items only: give --item.")
    if vectors and item is not None:
        _print_nearest(inspection.nearest(item))
    elif vectors:
        _print_vectors(inspection.vectors())
    elif user is None and item is None:
        _print_counts(inspection)
    else:
        for entity, id in (("user", user), ("item", item)):
            if id is not None:
                _print_known(inspection.entity(entity, id))


@command()
@click.option("--output", default="answers.html", show_default=True, help="The file to write.")
@click.option("--no-prompts", is_flag=True, help="Without prompts, which show rows of your data.")
@click.pass_obj
def view(config: str, /, output: str, no_prompts: bool) -> None:
    """Write all answers as one page, to read and search in a browser: prompts, statuses, flags, neighbours, costs.

    The page is one file that asks for nothing else, also of 100,000 answers.

    \b
    Example:
      kar-aug view --output answers.html
    """
    print_output(opened(config).view(output, prompts=not no_prompts))


def _print_data(found: DataView) -> None:
    features: list[tuple[str, ...]] = [
        (
            row["feature"],
            _share(row["unknown"]),
            _share(row["missing"]),
            row["source"].rpartition(": ")[2],  # the name begins with the sequence already
            row["kind"],
            _size(row),
            row["examples"],
        )
        for row in found.features.to_dict("records")
    ]
    columns = ("feature", "unknown", "missing", "from", "kind", "size, or mean, sd, range", "examples")
    table("What a model reads; unknown: share of the test part", columns, features, folded=columns[3:])
    parts: list[tuple[str, ...]] = [
        (
            row["part"],
            f"{row['rows']:,}",
            f"{row['drawn']:,}" if row["drawn"] else "",
            f"{row['clicks']:.1%}",
            f"{row['users']:,}",
            f"{row['items']:,}",
            f"{row['first']} to {row['last']}",
        )
        for row in found.parts.to_dict("records")
    ]
    table("Parts", ("", "rows", "drawn", "clicks", "users", "items", "dates"), parts)
    if len(found.histories):
        lengths = [tuple(map(str, row)) for row in found.histories.itertuples(index=False)]
        table("Earlier events of a sample, as quantiles", tuple(map(str, found.histories.columns)), lengths)
    for warning in found.warnings:
        output(f"! {warning}")


def _size(row: dict[Any, Any]) -> str:
    if row["size"]:
        return f"{row['size']:,}"
    if row["mean"] != row["mean"]:
        return ""
    return f"{row['mean']:.4g} (sd {row['sd']:.3g}), {row['min']:.4g} to {row['max']:.4g}"


def _share(share: float) -> str:
    return f"{share:.1%}" if share else ""


def _print_known(known: Known) -> None:
    for failure in known.failures:
        say(f"failed: {failure.reason} ({failure.attempts} tries)")
    for who, text in known.messages:
        output(f"[{who}]\n{text}\n")
    say(known.summary)


def _print_counts(inspection: Inspection) -> None:
    counts = inspection.answers()
    table("Answers", ("", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    if counts["failed"]:
        tell("what failed and why: kar-aug generate --status")
    rows: list[tuple[str, ...]] = [
        (
            each.entity,
            f"{len(each.store):,}",
            f"{each.store.spec.dimension}",
            f"{each.coverage_of_events:.0%}",
            each.store.spec.encoder,
        )
        for each in inspection.usable().stores
    ]
    table("Vectors", ("source", "count", "dimension", "coverage of events", "encoder"), rows)


def _print_vectors(found: Vectors) -> None:
    rows: list[tuple[str, ...]] = [
        (
            each.entity,
            f"{len(each.store):,}",
            f"{each.store.spec.dimension} {each.store.spec.dtype}",
            f"{each.coverage_of_events:.1%}",
            f"{each.coverage_of_ids:.1%}",
            " / ".join(f"{norm:.3f}" for norm in each.norms),
        )
        for each in found.stores
    ]
    columns = ("source", "vectors", "dimension", "coverage of events", "of ids", "norms: least / median / most")
    table("Vectors", columns, rows)
    output(found)


def _print_nearest(found: Nearest) -> None:
    rows: list[tuple[str, ...]] = [(title, f"{cosine:.3f}") for _, title, cosine in found.rows]
    table(f"Nearest to {found.title} by {found.encoder}", ("title", "cosine, centred"), rows)
