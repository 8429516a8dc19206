"""What a project's language models cost so far: the ledger of its text cache, added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.cache import Spending, TextCache
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Costs(Printed):
    """What was spent by day, model and kind of knowledge ("item:tags": about items, by the recipe tags; "embeddings":
    texts into vectors, by an endpoint).

    Dollars are None where a model's price is not known. `settled` is what answers cost; `reserved` what requests and
    batches that are on their way can cost at most; `unknown` likewise what was sent, and nobody knows what became of
    it: requests that were lost, those of killed processes, answers whose tokens the server did not say.
    """

    rows: Sequence[Spending]

    @property
    def by_model(self) -> list[Spending]:
        """The same added up, a row a model; day and knowledge are empty in it."""
        ordered = sorted(self.rows, key=lambda row: row.model)
        return [_sum(model, list(rows)) for model, rows in groupby(ordered, key=lambda row: row.model)]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a day, model and kind of knowledge; the columns are those of `Spending`."""
        return pd.DataFrame(self.rows, columns=pd.Index(Spending._fields))

    def __str__(self) -> str:
        lines = [
            f"{row.model}: {row.requests:,} requests, "
            + ", ".join(f"${getattr(row, kind) or 0.0:,.4f} {kind}" for kind in ("settled", "reserved", "unknown"))
            for row in self.by_model
        ]
        return "\n".join(lines) or "nothing was asked"


def costs(workspace: Workspace) -> Costs:
    """Add the ledger up."""
    with workspace.paths.open_cache(reading=True) as cache:
        return Costs(cache.ledger.history())


def costs_of(where: str) -> Costs:
    """The same of a text cache by itself, whatever project it belongs to.

    Args:
        where: its file, or a postgresql:// URL.

    Raises:
        StoreError: There is no such file, or it is no text cache.
    """
    if "://" not in where and not Path(where).is_file():
        raise StoreError(f"{where}: there is no such file.", path=where)
    with TextCache(where, reading=True) as cache:
        return Costs(cache.ledger.history())


def _sum(model: str, rows: Sequence[Spending]) -> Spending:
    tokens = (sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows))
    money = (_dollars(getattr(row, kind) for row in rows) for kind in ("settled", "reserved", "unknown"))
    return Spending("", model, None, sum(row.requests for row in rows), *tokens, *money)


def _dollars(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
