"""The `kar-aug vectors` commands: vectors for feature stores, key-value stores and indexes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from kar_aug._helpers.formats import VECTORS
from kar_aug.cli.options import Group, named, opened
from kar_aug.cli.progress import tell
from kar_aug.config import ENTITIES
from kar_aug.registry import PLACES


@click.group(cls=Group)
def vectors() -> None:
    """Bring vectors to where they are served from, and look whether they are still those of the store.

    \b
    Example:
      kar-aug vectors export feature_store/items
      kar-aug vectors check feature_store/items
    """


def _whose(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which vectors, and where."""
    for option in (
        click.argument("where"),
        click.option("--entity", type=click.Choice(ENTITIES), default="item", show_default=True, help="Whose vectors."),
        click.option(
            "--what",
            type=click.Choice(VECTORS),
            default="raw",
            show_default=True,
            help="As they were encoded, or as a trained model's experts made them.",
        ),
        click.option("--backbone", help="Whose experts.  [default: the first of [compare] backbones]"),
        click.option("--arm", help="Likewise, by its name in the tables of results."),
        click.option("--seed", default=0, show_default=True, help="Likewise: which of its trainings."),
        named(
            "--format", "kind", registry=PLACES,
            help="Of the place.  [default: what WHERE says, or else parquet]",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@vectors.command()
@_whose
@click.option("--all", "whole", is_flag=True, help="Write all, also what is there already.")
@click.pass_obj
def export(config: str, /, whole: bool, **chosen: Any) -> None:
    """Bring WHERE up to date: new vectors and those of changed texts are written, those of entities that are gone are
    taken away.

    WHERE is a folder of Parquet files, which keeps what was (Feast reads it), a .parquet, .faiss or .lance, or a
    redis:// URL. Each row has the entity's id, event_timestamp (the time of the latest event that the texts know),
    version, the key of its text, and the vector.

    \b
    Example:
      kar-aug vectors export feature_store/items
      kar-aug vectors export redis://localhost:6379/0 --what augmented --backbone DIN
    """
    tell(opened(config).export_vectors(whole=whole, **chosen))


@vectors.command()
@_whose
@click.pass_context
def check(context: click.Context, /, **chosen: Any) -> None:
    """Compare WHERE with the store, number by number. Exit code 1 if they differ.

    \b
    Example:
      kar-aug vectors check feature_store/items
    """
    found = opened(context.obj).check_vectors(**chosen)
    tell(found)
    context.exit(0 if found.sound else 1)
