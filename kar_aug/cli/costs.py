"""The `kar-aug cost` command: what was spent, on what, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kar_aug.cli.options import command, opened
from kar_aug.cli.progress import table, tell

if TYPE_CHECKING:
    from kar_aug.cache import Spending


@command()
@click.option("--cache", help="The file of answers, or a postgresql:// URL.")
@click.pass_obj
def cost(config: str, cache: str | None) -> None:
    """Show what was spent by day, model and recipe.

    Settled is what answers cost; reserved, what requests and batches on their way can cost at most; unknown, what was
    sent and may have been charged. --max-cost counts all three, and forgets nothing, whatever happens to answers. With
    --cache no kar.toml is needed.

    \b
    Example:
      kar-aug cost
      kar-aug cost --cache answers.sqlite
    """
    from kar_aug.pipeline.costs import costs_of

    alone = cache is not None and not Path(config).exists()
    found = costs_of(cache or "") if alone else opened(config, generate={"cache": cache}).cost()
    names = [(row.day, row.model, row.knowledge or "") for row in found.rows]
    spending_table("Spending by day (UTC)", ("day", "model", "knowledge"), names, found.rows)
    tell(found)


def spending_table(
    title: str, columns: tuple[str, ...], names: Sequence[tuple[str, ...]], rows: Sequence[Spending]
) -> None:
    """Print what was spent: requests, tokens, and those dollars that there are; empty where a price is not known.

    Args:
        columns: of the names, which say whose row each is.
    """
    kinds = [kind for kind in ("settled", "reserved", "unknown") if kind == "settled" or any(_dollars(rows, kind))]
    cells = [
        (
            *name,
            *(f"{number:,}" for number in (row.requests, row.prompt_tokens, row.completion_tokens)),
            *("" if each is None else f"{each:,.4f}" for each in _dollars([row], *kinds)),
        )
        for name, row in zip(names, rows, strict=True)
    ]
    counted = ("requests", "asked", "answered", *(f"$ {kind}" for kind in kinds))
    table(f"{title}; tokens asked and answered", (*columns, *counted), cells, folded=columns[-2:])


def _dollars(rows: Iterable[Spending], *kinds: str) -> list[float | None]:
    return [getattr(row, kind) for row in rows for kind in kinds]
