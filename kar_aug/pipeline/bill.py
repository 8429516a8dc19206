"""The bill of an embeddings endpoint: what its requests cost, in the same ledger as what language models are asked.

As there, the most that a request can cost is on disk before it is sent, is settled by the tokens that the server says,
and stays where nobody knows what became of it: a lost request, a killed process.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from kar_aug.cache import Claims, Order, TextCache
from kar_aug.cache.texts.ledger import Charge
from kar_aug.config import encoder_name
from kar_aug.encode.encoders import Bill
from kar_aug.errors import ConfigError, StoreError
from kar_aug.generate import Price
from kar_aug.generate.cost import most_tokens
from kar_aug.generate.limits import cost_reached
from kar_aug.generate.usage import read_prompt_tokens
from kar_aug.pipeline.generation import Job
from kar_aug.pipeline.workspace import Workspace

EMBEDDINGS = "embeddings"  # in the history of spending, where kinds of knowledge stand


@contextmanager
def open_bill(workspace: Workspace) -> Iterator[Bill | None]:
    """The bill of the project's encoder, in the project's text cache; None where it is no endpoint.

    Raises:
        ConfigError: There is a max_cost, and the model's price is not known.
        StoreError: The cache cannot be written.
    """
    config = workspace.config.encode
    kind, _, model = encoder_name(config.encoder).partition(":")
    if kind != "openai":
        yield None
        return
    price = Job(workspace).prices().of(model)
    if price is None and config.max_cost is not None:
        raise ConfigError(
            f"[encode] max_cost needs the price of {model!r}, which is not known. "
            "Write it into a file and name that in kar.toml: [generate] prices = ...",
            setting="[encode] max_cost",
        )
    with workspace.paths.open_cache() as cache, Claims(cache) as process:
        cache.database.patience = config.give_up_after
        yield LedgerBill(cache, process.owner, model, price, config.max_cost)


class LedgerBill:
    """A `Bill` in a text cache's ledger.

    Args:
        owner: this process, as the cache knows it: once it is gone, what it has left open counts as unknown.
        price: None if it is not known; tokens are written down all the same.
        max_cost: US dollars that all embeddings by this model may cost, in all runs.
    """

    def __init__(
        self, cache: TextCache, owner: str, model: str, price: Price | None, max_cost: float | None = None
    ) -> None:
        self._cache, self._owner, self._model, self._price, self._max_cost = cache, owner, model, price, max_cost

    @contextmanager
    def entry(self, texts: Sequence[str]) -> Iterator[_Entry]:
        """See `Bill.entry`."""
        key = uuid.uuid4().hex
        self._reserve(
            Order(key, self._model, self._dollars(most_tokens([{"content": text} for text in texts])), EMBEDDINGS)
        )
        entry = _Entry(self, key)
        try:
            yield entry
        finally:
            if not entry.is_over:
                with suppress(StoreError):  # it is unknown, then, as soon as this process is gone
                    self._cache.database.committed(
                        lambda connection: self._cache.ledger.lose(connection, self._owner, [key])
                    )

    def settle(self, key: str, tokens: int | None) -> None:
        """What the request came to; None for what the server did not say."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        cost = self._dollars(tokens or 0)
        charge = Charge(
            key, self._model, cost, tokens or 0, known=tokens is not None, knowledge=EMBEDDINGS, created=created
        )
        self._cache.database.committed(lambda connection: self._cache.ledger.settle(connection, self._owner, [charge]))

    def release(self, key: str) -> None:
        """It costs nothing."""
        self._cache.database.committed(lambda connection: self._cache.ledger.release(connection, self._owner, [key]))

    def _reserve(self, order: Order) -> None:
        def reserve(connection: sa.Connection) -> Any:
            return self._cache.ledger.reserve(connection, self._owner, [order], self._max_cost)

        short = self._cache.database.committed(reserve).shortage
        if short is not None and self._max_cost is not None:
            raise cost_reached(self._max_cost, short, "[encode] max_cost")

    def _dollars(self, tokens: int) -> float | None:
        return None if self._price is None else self._price.of(tokens, 0)


class _Entry:
    """See `kar_aug.encode.encoders.Entry`."""

    def __init__(self, bill: LedgerBill, key: str) -> None:
        self._bill, self._key = bill, key
        self.is_over = False

    def settle(self, document: Any) -> None:
        self._bill.settle(self._key, read_prompt_tokens(document))
        self.is_over = True

    def release(self) -> None:
        self._bill.release(self._key)
        self.is_over = True
