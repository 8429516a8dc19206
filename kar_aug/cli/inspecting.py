"""The `kar-aug inspect` command: what is known about a user or an item, and what there is."""

from __future__ import annotations

from typing import Any

import click

from kar_aug.cli.options import opened, recipe_options
from kar_aug.cli.progress import output, say, table, tell
from kar_aug.errors import ConfigError
from kar_aug.inspect import Inspection, Known, Nearest, Vectors


@click.command()
@click.option("--user", help="Id of a user to show.")
@click.option("--item", help="Id of an item to show; with --vectors also its title.")
@click.option("--vectors", is_flag=True, help="Show the vectors: counts, coverage, norms; the neighbours of an --item.")
@recipe_options
@click.pass_obj
def inspect(config: str, /, user: str | None, item: str | None, vectors: bool, **recipes: Any) -> None:
    """Show what is known about a user or an item; without either, what there is.

    \b
    Example:
      kar-aug inspect --item 50
      kar-aug inspect --vectors --item "Fargo (1996)"
    """
    inspection = opened(config, prompts=recipes).inspect
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
