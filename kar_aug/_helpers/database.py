"""What our databases have in common: whose they are, in which format, and how an old one becomes one of today."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from kar_aug.errors import StoreError

_BUSY_SECONDS = 60.0
_IN_MEMORY = ":memory:"
_ADDS_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)")


@dataclass(frozen=True)
class Format:
    """The tables of one kind of database, and how they came to be so.

    Args:
        kind: as errors call it: "text cache".
        application: a number that tells its files from other programs' databases.
        tables: as they are today.
        migrations: the statements that lead from format 1 to 2, from 2 to 3, and so on to today's. Tables that are new
            since are there for them to fill, as they are today; what they drop is made anew.
        unmarked: files of formats up to this one do not hold `application` yet.
    """

    kind: str
    application: int
    tables: sa.MetaData
    migrations: Sequence[Sequence[str]] = ()
    unmarked: int = 0

    @property
    def version(self) -> int:
        """Today's format."""
        return len(self.migrations) + 1

    def bring_up_to_date(self, connection: sa.Connection, name: str) -> None:
        """Make the tables in an empty SQLite file, and those of an older one as they are today.

        Several processes may start together: the caller's transaction lets one of them do it, and whoever is killed in
        it leaves what was there.

        Raises:
            StoreError: The file is another program's, or of a newer version.
        """
        version = self._version(connection, name)
        if version < self.version:
            self.migrate(connection, version)
            connection.exec_driver_sql(f"PRAGMA user_version = {self.version}")
            connection.exec_driver_sql(f"PRAGMA application_id = {self.application}")

    def refuse_other(self, connection: sa.Connection, name: str) -> None:
        """Raise StoreError if a SQLite file that can only be read is not of today's format."""
        if self._version(connection, name) < self.version:
            raise StoreError(
                f"{name} was written by an older kar-aug, and cannot be brought up to date where it cannot be written. "
                "Copy it to where it can.",
                path=name,
            )

    def _version(self, connection: sa.Connection, name: str) -> int:
        """The format of a SQLite file that is ours, 0 if it is empty."""
        version, application = (
            int(connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one())
            for pragma in ("user_version", "application_id")
        )
        empty = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
        if not (empty and version == 0):
            marked = application == self.application or (application == 0 and 0 < version <= self.unmarked)
            if not marked:
                raise StoreError(
                    f"{name} is a database of another program, not a {self.kind}. Name another file.", path=name
                )
            self.refuse_newer(name, version)
        return version

    def refuse_newer(self, name: str, version: int) -> None:
        """Raise StoreError if this kar-aug cannot know a version."""
        if version > self.version:
            raise StoreError(
                f"{name} was written by a newer kar-aug (format {version}, this one reads {self.version}). "
                "Upgrade kar-aug: pip install -U kar-aug",
                path=name,
                left=version,
                right=self.version,
            )

    def migrate(self, connection: sa.Connection, version: int) -> None:
        """Tables of a version, 0 for none at all, as they are today; on any database."""
        self.tables.create_all(connection)
        if version:
            for statements in self.migrations[version - 1 :]:
                for statement in statements:
                    if not _done(connection, statement):
                        connection.exec_driver_sql(statement)
            self.tables.create_all(connection)


def _done(connection: sa.Connection, statement: str) -> bool:
    """Whether a statement adds a column that is there, since its table was made just now."""
    adds = _ADDS_COLUMN.match(statement)
    if adds is None:
        return False
    table, column = adds.groups()
    return column in {each["name"] for each in sa.inspect(connection).get_columns(table)}


def sqlite_engine(
    path: Path, *, journal: str | None = None, pooled: bool = True, cached_megabytes: int | None = None
) -> sa.Engine:
    """Connections to a SQLite file whose transactions begin as writers, unless they are marked with the execution
    option `reading`.

    Args:
        journal: "WAL" or another mode, which stays in the file; as it is if not given.
        pooled: whether connections are kept for the next transaction: the latest, which has its pages in memory.
        cached_megabytes: of pages that a connection keeps, at most; SQLite's own 2 if None.
    """
    pool: dict[str, Any] = {"pool_use_lifo": True} if pooled else {"poolclass": sa.NullPool}
    if str(path) == _IN_MEMORY:  # which is there for one connection a thread, and in no pool
        pool = {}
    file = sa.URL.create("sqlite", database=str(path))
    engine = sa.create_engine(file, connect_args={"timeout": _BUSY_SECONDS}, **pool)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say: see `_begin`
        if journal is not None:
            _set_journal(connection, journal)
        connection.execute("PRAGMA synchronous = FULL")
        if cached_megabytes is not None:
            connection.execute(f"PRAGMA cache_size = {-1000 * cached_megabytes}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("reading"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path) -> sa.Engine:
    """Connections to a SQLite file where nothing can be written.

    Raises:
        StoreError: A writer that was killed left answers beside it that cannot be read there.
    """
    file = f"file:{quote(str(path.absolute()))}?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:  # the journal needs a file beside it, which cannot be made
            log = path.with_name(f"{path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise StoreError(
                    f"{path} cannot be read where nothing can be written: the last writer did not end well. Copy it "
                    f"with {log.name} to where it can.",
                    path=path,
                ) from None
            file += "&immutable=1"
    return sa.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(file, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False),
        poolclass=sa.QueuePool,
    )


def _set_journal(connection: sqlite3.Connection, journal: str) -> None:
    """Set the journal's mode, which stays in the file. SQLite itself does not wait here for other processes."""
    until = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0].upper() != journal:
        try:
            connection.execute(f"PRAGMA journal_mode = {journal}")
            return  # where it cannot be had, SQLite stays with another, as safe and slower, and says nothing
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.01, 0.05))


def sweep(path: Path) -> None:
    """Write a SQLite file anew, and empty its journal: nothing that was deleted, or replaced, is left in either.

    Raises:
        StoreError: Others have it open and read old pages, or the disk has no room for a second copy.
    """
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be written anew ({error}): mend that, and run again.", path=path) from None
    if busy:
        raise StoreError(
            f"{path} is open elsewhere, so that its journal still holds old pages. End what reads it, and run again.",
            path=path,
        )


def reason(error: sa.exc.DBAPIError) -> str:
    """The database's own words, in one line, without the statement or its values."""
    return " ".join(str(error.orig).split())
