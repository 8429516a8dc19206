"""The `kar-aug cost` command: what was spent, on what, and when."""

from __future__ import annotations

import click

from kar_aug.cache import Spending
from kar_aug.cli.options import opened
from kar_aug.cli.progress import table, tell

MONEY = ("settled", "reserved", "unknown")
COUNTED = ("requests", "prompt tokens", "completion tokens", *(f"{kind} $" for kind in MONEY))


@click.command()
@click.option("--cache", help="The file of answers, or a postgresql:// URL.")
@click.pass_obj
def cost(config: str, cache: str | None) -> None:
    """Show what was spent by day, model and recipe.

    Settled is what answers cost; reserved, what requests and batches on their way can cost at most; unknown, what was
    sent and may have been charged. --max-cost counts all three, and forgets nothing, whatever happens to answers.

    \b
    Example:
      kar-aug cost
    """
    found = opened(config, generate={"cache": cache}).cost()
    rows = [(row.day, row.model, row.knowledge or "", *counted(row)) for row in found.rows]
    table("US dollars by day (UTC)", ("day", "model", "knowledge", *COUNTED), rows)
    tell(found)


def counted(row: Spending) -> tuple[str, ...]:
    """Requests, tokens and dollars; these are empty where the model's price is not known."""
    dollars = (getattr(row, kind) for kind in MONEY)
    numbers = (row.requests, row.prompt_tokens, row.completion_tokens)
    return (*(f"{number:,}" for number in numbers), *("" if each is None else f"{each:,.4f}" for each in dollars))
