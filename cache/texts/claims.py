"""Who is about to ask what, so that two processes on one cache do not ask the same question twice.

A claim holds as long as its process lives (see `kar_aug.cache.texts.workers`). That a process lives it says every few
seconds, in a thread of its own, whatever it waits for. Since others may have held it for dead while it slept, a claim
is looked at again in the transaction that reserves what its request can cost, and once more before the request is sent
if the process may have slept in between.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.cache import TextCache
from kar_aug.cache.texts.ledger import Order, Reservation
from kar_aug.cache.texts.workers import SILENT_SECONDS, dead, speak
from kar_aug.errors import StoreError

_BEAT_SECONDS = 15.0
_DOUBT_SECONDS = SILENT_SECONDS / 2  # since it was heard last: it, or the machine, may have slept

_CLAIMED = sa.select(tables.claims.c.key).where(
    tables.claims.c.owner == sa.bindparam("owner"), tables.claims.c.key.in_(sa.bindparam("keys", expanding=True))
)


class Claims:
    """The claims of this process on questions of one cache; a context manager that gives them all back."""

    def __init__(self, cache: TextCache) -> None:
        self._database, self._ledger = cache.database, cache.ledger
        self.owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, daemon=True)
        self._heard = awake()
        self._revived: float | None = None

    def __enter__(self) -> Self:
        self._database.patiently(self._beat)
        self._revived = None  # it is new
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        # On a full disk, say, the claims end with the process anyway.
        with contextlib.suppress(StoreError), self._database.writing() as connection:
            _forget(connection, [self.owner])

    def _beat(self) -> None:
        with self._database.writing() as connection:
            self._speak(connection)

    def _speak(self, connection: sa.Connection) -> None:
        """Say that this process lives; say it anew if it slept for so long that others held it for dead."""
        now = awake()
        if speak(self._database, connection, self.owner):
            self._revived = awake()
        self._heard = now

    def _beat_on(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with contextlib.suppress(StoreError):  # if it lasts, the process itself meets it too
                self._beat()

    def doubtful(self, since: float) -> bool:
        """Whether what was found to be this process's at a moment, of `awake`, may be others' by now."""
        return (self._revived is not None and self._revived > since) or self._unheard

    @property
    def _unheard(self) -> bool:
        return awake() - self._heard > _DOUBT_SECONDS

    def claim(self, keys: Collection[str], *, again: Collection[str] = (), again_before: str | None = None) -> set[str]:
        """Those of the questions that are now this process's to ask.

        Args:
            again: of answered ones, those that are asked again.
            again_before: of those, only where the answer is older than this moment (ISO 8601, UTC, seconds).
        """
        wanted = sorted(keys)  # in one order everywhere, or two processes on PostgreSQL could wait for each other
        if not wanted:
            return set()
        claims, answers = tables.claims, tables.answers
        with self._database.writing() as connection:
            if self._unheard:
                self._speak(connection)
            _forget(connection, dead(self._database, connection))
            insert = self._database.insert(claims).values([{"key": key, "owner": self.owner} for key in wanted])
            connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]))
            mine = set(
                connection.scalars(
                    sa.select(claims.c.key).where(claims.c.owner == self.owner, claims.c.key.in_(wanted))
                )
            )
            # Another process may have answered, or put it into a batch, between our look and our claim.
            answered = connection.execute(sa.select(answers.c.key, answers.c.created).where(answers.c.key.in_(mine)))
            late = {key for key, at in answered if key not in again or (again_before and at >= again_before)}
            late |= _in_batches(connection, mine)
            if late:
                connection.execute(sa.delete(claims).where(claims.c.key.in_(late)))
            return mine - late

    def reserve(self, connection: sa.Connection, orders: Sequence[Order], max_cost: float | None = None) -> Reservation:
        """Reserve what requests can cost, as `Ledger.reserve` does, if their questions are (still) this process's to
        ask; a question that is not is `taken`.
        """
        if not orders:
            return Reservation()
        taken = self._taken(connection, [order.key for order in orders])
        self._ledger.end(connection, self.owner, [order for order in orders if order.key in taken])
        ours = [order for order in orders if order.key not in taken]
        return replace(self._ledger.reserve(connection, self.owner, ours, max_cost), taken=taken)

    def _taken(self, connection: sa.Connection, keys: Sequence[str]) -> frozenset[str]:
        """Those that were this process's and are not any more."""
        if self._unheard:
            self._speak(connection)  # from now on, nobody holds it for dead
        if self._revived is None and not self._database.postgresql:  # whose clock may leap: the machines' own do not
            return frozenset()
        mine: set[str] = set()
        for some in batched(keys, 256):
            mine.update(connection.scalars(_CLAIMED, {"owner": self.owner, "keys": some}))
        return frozenset(keys) - mine

    def in_batches(self, keys: Collection[str]) -> set[str]:
        """Those of the questions that a batch at the server is about to answer."""
        with self._database.reading() as connection:
            return _in_batches(connection, keys)

    def release(self, keys: Collection[str]) -> None:
        """Give claims back unanswered."""
        claims = tables.claims.c
        with self._database.writing() as connection:
            for some in batched(sorted(keys), 256):
                connection.execute(sa.delete(tables.claims).where(claims.owner == self.owner, claims.key.in_(some)))


def _forget(connection: sa.Connection, owners: list[str]) -> None:
    workers, claims = tables.workers, tables.claims
    if owners:
        connection.execute(sa.delete(workers).where(workers.c.owner.in_(owners)))
    connection.execute(sa.delete(claims).where(claims.c.owner.not_in(sa.select(workers.c.owner))))


def _in_batches(connection: sa.Connection, keys: Collection[str]) -> set[str]:
    requests = tables.batch_requests.c
    return set(connection.scalars(sa.select(requests.key).where(requests.key.in_(list(keys)))))


def awake() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps, where there is such a one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
