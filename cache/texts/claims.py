"""Who is about to ask what, so that two processes on one cache do not ask the same question twice.

A claim holds as long as its process lives. A process says so every few seconds, in a thread of its own, whatever it
waits for; one on this machine that is gone, or one elsewhere that was silent for a minute, has lost its claims.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from kar_aug._batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.cache import TextCache
from kar_aug.errors import StoreError

_BEAT_SECONDS = 15.0
_SILENT_SECONDS = 60.0


class Claims:
    """The claims of this process on questions of one cache; a context manager that gives them all back."""

    def __init__(self, cache: TextCache) -> None:
        self._database = cache.database
        self.owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, daemon=True)

    def __enter__(self) -> Self:
        self._beat()
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
        """Say that this process lives; say it anew if it slept for so long that others held it for dead."""
        row = {"owner": self.owner, "host": _here(), "pid": os.getpid(), "seen": time.time()}
        with self._database.writing() as connection:
            connection.execute(self._database.upsert(tables.workers), row)

    def _beat_on(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with contextlib.suppress(StoreError):  # if it lasts, the process itself meets it too
                self._beat()

    def claim(self, keys: Collection[str], *, again: Collection[str] = ()) -> set[str]:
        """Those of the questions that are now this process's to ask; answered ones only if they are asked `again`."""
        wanted = sorted(keys)  # in one order everywhere, or two processes on PostgreSQL could wait for each other
        if not wanted:
            return set()
        claims, answers = tables.claims, tables.answers
        with self._database.writing() as connection:
            _forget(connection, _dead(connection))
            insert = self._database.insert(claims).values([{"key": key, "owner": self.owner} for key in wanted])
            connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]))
            mine = set(
                connection.scalars(
                    sa.select(claims.c.key).where(claims.c.owner == self.owner, claims.c.key.in_(wanted))
                )
            )
            # Another process may have answered, or put it into a batch, between our look and our claim.
            late = set(connection.scalars(sa.select(answers.c.key).where(answers.c.key.in_(mine)))) - set(again)
            late |= _in_batches(connection, mine)
            if late:
                connection.execute(sa.delete(claims).where(claims.c.key.in_(late)))
            return mine - late

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


def _dead(connection: sa.Connection) -> list[str]:
    silent_since = time.time() - _SILENT_SECONDS
    here = _here()
    return [
        row.owner
        for row in connection.execute(sa.select(tables.workers))
        if row.seen < silent_since or (row.host == here and not _alive(row.pid))
    ]


def _forget(connection: sa.Connection, owners: list[str]) -> None:
    workers, claims = tables.workers, tables.claims
    if owners:
        connection.execute(sa.delete(workers).where(workers.c.owner.in_(owners)))
    connection.execute(sa.delete(claims).where(claims.c.owner.not_in(sa.select(workers.c.owner))))


def _in_batches(connection: sa.Connection, keys: Collection[str]) -> set[str]:
    requests = tables.batch_requests.c
    return set(connection.scalars(sa.select(requests.key).where(requests.key.in_(list(keys)))))


def _here() -> str:
    """Where a process id means the same process: the machine, and in it the container."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives, and is somebody else's
        return True
    return True
