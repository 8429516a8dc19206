"""Batches that run at the server, and what is in them: on disk before anything is waited for.

A batch is `prepared` (its requests are chosen), `uploaded` (the server has the file), `running` (the server has made
it), and gone when its results are in the cache. Its requests stay until they are answered, failed, or put into another
batch; what they can cost is reserved, in the batch's name, from the beginning. One that the server does not know any
more is `lost`: its requests may be paid for, so that they are asked again only when the user says so.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.cache import Link, TextCache
from kar_aug.cache.texts.ledger import Order

_ASKED = {"model", "messages", "parameters"}
_ROWS = 256  # keys in one statement: SQLite takes 32,766 at most


@dataclass(frozen=True)
class Batch:
    """One batch. `marker` is our name for it, `batch_id` the server's."""

    marker: str
    state: str
    requests: int
    created: str
    base_url: str | None = None
    input_file: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True)
class Request:
    """A request in a batch. `question` is its model, messages and parameters; `rounds`, how many batches it was in."""

    key: str
    question: Mapping[str, Any]
    links: tuple[Link, ...]
    rounds: int = 1


class BatchBook:
    """The batches of one text cache."""

    def __init__(self, cache: TextCache) -> None:
        self._database, self._ledger = cache.database, cache.ledger

    def batches(self) -> list[Batch]:
        """Those whose results are not in the cache yet, oldest first."""
        columns = [tables.batches.c[name] for name in Batch.__dataclass_fields__]
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(*columns).order_by(tables.batches.c.created))
            return [Batch(**row._mapping) for row in rows]

    def prepare(
        self,
        requests: Sequence[Request],
        base_url: str | None,
        orders: Sequence[Order] = (),
        max_cost: float | None = None,
    ) -> Batch:
        """Note a new batch of these requests, and reserve what they can cost, before the server hears of it. They may
        come out of an older batch.

        Args:
            orders: one a request, or none at all.
            max_cost: as in `Ledger.reserve`. What it leaves no room for is in no batch afterwards.

        Returns:
            The batch. One without requests is not noted.
        """
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        batch = Batch(uuid.uuid4().hex, "prepared", len(requests), created, base_url)
        rows = [
            {
                "key": request.key,
                "marker": batch.marker,
                "rounds": request.rounds,
                "question": json.dumps(dict(request.question)),
                "links": json.dumps(request.links),
            }
            for request in sorted(requests, key=lambda request: request.key)
        ]
        statement = self._database.insert(tables.batch_requests)
        columns = {name: statement.excluded[name] for name in ("marker", "rounds", "question", "links")}
        with self._database.writing() as connection:
            connection.execute(sa.insert(tables.batches), {**batch.__dict__})
            connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=columns), rows)
            for some in batched((row["key"] for row in rows), _ROWS):
                connection.execute(sa.delete(tables.claims).where(tables.claims.c.key.in_(some)))
            reserved = self._ledger.reserve(connection, batch.marker, orders, max_cost).keys
            if len(reserved) < len(orders):
                batch = self._cut(connection, batch, {order.key for order in orders} - reserved)
        return batch

    def _cut(self, connection: sa.Connection, batch: Batch, keys: Collection[str]) -> Batch:
        """Take requests out of a batch that is being noted."""
        _drop(connection, keys)
        batch = replace(batch, requests=batch.requests - len(keys))
        this = tables.batches.c.marker == batch.marker
        if batch.requests:
            connection.execute(sa.update(tables.batches).where(this).values(requests=batch.requests))
        else:
            connection.execute(sa.delete(tables.batches).where(this))
        return batch

    def reserve(self, order: Callable[[Request], Order]) -> None:
        """Reserve what batches can cost for which nobody did: a kar-aug without a ledger made them."""
        ledger = tables.ledger.c
        for batch in self.batches():
            with self._database.reading() as connection:
                wanted = sa.select(ledger.id).where(sa.text(tables.IS_OPEN), ledger.owner == batch.marker).limit(1)
                there = connection.execute(wanted).first() is not None
            if not there:
                orders = [order(request) for request in self.requests(batch.marker)]
                with self._database.writing() as connection:
                    self._ledger.reserve(connection, batch.marker, orders)

    def note(self, marker: str, **changes: str) -> None:
        """Write down what happened to a batch: state, input_file, batch_id."""
        with self._database.writing() as connection:
            connection.execute(sa.update(tables.batches).where(tables.batches.c.marker == marker).values(**changes))

    def requests(self, marker: str, keys: Collection[str] | None = None) -> Iterator[Request]:
        """The requests of a batch that are still without an answer, in the order of their keys; a stream. One whose row
        is damaged is left out; where only its links are, its answer is nobody's until a run asks for it.
        """
        requests = tables.batch_requests.c
        statement = sa.select(requests.key, requests.question, requests.links, requests.rounds)
        statement = statement.where(requests.marker == marker).order_by(requests.key)
        if keys is not None:
            statement = statement.where(requests.key.in_(list(keys)))
        with self._database.reading() as connection:
            for key, question, links, rounds in connection.execution_options(yield_per=256).execute(statement):
                asked = _document(question)
                if isinstance(asked, dict) and asked.keys() >= _ASKED:
                    yield Request(key, asked, _links(links), rounds)

    def lost(self, keys: Collection[str]) -> set[str]:
        """Those of the questions that are in a batch which is lost."""
        requests, batches = tables.batch_requests.c, tables.batches.c
        statement = sa.select(requests.key).join_from(
            tables.batch_requests, tables.batches, requests.marker == batches.marker
        )
        statement = statement.where(requests.key.in_(list(keys)), batches.state == tables.LOST)
        with self._database.reading() as connection:
            return set(connection.scalars(statement))

    def join(self, links: Iterable[Link]) -> None:
        """Note whose knowledge answers will be too, as far as they are on their way."""
        wanted: dict[str, list[Link]] = {}
        for link in links:
            wanted.setdefault(link.key, []).append(link)
        if not wanted:
            return
        requests = tables.batch_requests
        found = sa.select(requests.c.key, requests.c.links).where(requests.c.key.in_(sorted(wanted)))
        with self._database.writing() as connection:
            there = connection.execute(found.order_by(requests.c.key).with_for_update()).all()
            for key, stored in there:
                before = list(_links(stored))
                after = list(dict.fromkeys([*before, *wanted[key]]))
                if after != before:
                    connection.execute(sa.update(requests).where(requests.c.key == key).values(links=json.dumps(after)))

    def drop(self, keys: Iterable[str]) -> None:
        """These requests are in no batch any more."""
        with self._database.writing() as connection:
            _drop(connection, keys)

    def close(self, marker: str, *, free: Collection[str] = ()) -> None:
        """A batch is over, and so are its requests that are left.

        Args:
            free: those that the server surely did not charge; of the others nobody knows.
        """
        with self._database.writing() as connection:
            for table in (tables.batches, tables.batch_requests):
                connection.execute(sa.delete(table).where(table.c.marker == marker))
            self._ledger.release(connection, marker, free)
            self._ledger.lose(connection, marker)


def _links(stored: str) -> tuple[Link, ...]:
    try:
        return tuple(Link(*link) for link in _document(stored) or ())
    except TypeError:
        return ()


def _document(stored: str) -> Any:
    """What was stored as JSON; None if it is none any more."""
    try:
        return json.loads(stored)
    except (ValueError, TypeError, RecursionError):
        return None


def _drop(connection: sa.Connection, keys: Iterable[str]) -> None:
    requests = tables.batch_requests
    for some in batched(sorted(keys), 256):
        connection.execute(sa.delete(requests).where(requests.c.key.in_(some)))
