"""One database of answers, on SQLite or PostgreSQL: connecting, formats, and errors that say what to do.

SQLite is in WAL mode with full synchronisation: a commit that returned survives a killed process and a power cut. WAL
needs memory shared between processes, which network file systems do not have; there the older journal is used, and
said.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kar_aug._helpers.database import Format, reading_engine, reason, sqlite_engine
from kar_aug._helpers.servers.waits import SAY_SECONDS
from kar_aug.cache.texts import tables
from kar_aug.errors import ConfigError, MissingDependencyError, StoreError

_APPLICATION = 0x6B617231  # "kar1": tells our files from other programs' databases
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse")
_SECRETS = ("password", "sslpassword", "passfile")  # that a URL may name after its question mark
# What SQLite says, in the first words of its codes, where the next try may do better.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL")
# Of pages: the index of a million keys. They are hashes, so that each look-up is on another page of it.
_CACHED_MEGABYTES = 64
_PAUSES = (0.1, 5.0)  # first and longest, in seconds, between two tries
_CLOCK = "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"  # of PostgreSQL
_BEGIN_ONCE = sa.text(
    "WITH gone AS (DELETE FROM commits WHERE token = ANY(:done)) "
    f"INSERT INTO commits (token, began) VALUES (:token, {_CLOCK}) ON CONFLICT DO NOTHING"
)
_FORGET_COMMITS = f"DELETE FROM commits WHERE began < {_CLOCK} - 86400"  # of processes that are gone
_log = logging.getLogger("kar_aug")
T = TypeVar("T")
P = ParamSpec("P")


class Database:
    """Connections to one text cache.

    Args:
        where: the path of a SQLite file (made if it is not there) or a `postgresql://` URL. A file that cannot be
            written is opened all the same, for reading.
        reading: nothing will be written: a file that is not there is not made, and counts as an empty one.

    Attributes:
        file: of SQLite; None of a server's database, of one in memory, and where nothing can be written.
        read_only: whether nothing can be written.
        patience: seconds for which `patiently` tries again what the database does not take just now.

    Raises:
        StoreError: It is not a text cache, is damaged, cannot be reached, or was written by a newer kar-aug.
    """

    def __init__(self, where: Path | str, *, reading: bool = False) -> None:
        self.postgresql = isinstance(where, str) and "://" in where
        self.patience = 0.0
        self._acknowledged: list[str] = []  # transactions of PostgreSQL that nobody will begin anew
        self.file: Path | None = None
        self.read_only = False
        if self.postgresql:
            self._engine, self.name = _postgresql(str(where))
        elif reading and not Path(where).exists():
            self._engine, self.name = _empty(), str(where)
        elif Path(where).exists() and not _writable(Path(where)):
            self._engine, self.name, self.read_only = reading_engine(Path(where)), str(where), True
        else:
            self._engine, self.name = _sqlite(Path(where))
        # Readers run each statement by itself: on SQLite they hold no lock while a caller looks at the rows.
        self._reader = self._engine.execution_options(reading=True)
        if self.read_only:
            with self.reading() as connection:
                _format().refuse_other(connection, self.name)
            return
        with self.writing() as connection:
            (_check_postgresql if self.postgresql else _format().bring_up_to_date)(connection, self.name)
        if not self.postgresql and (identity := _identity(Path(where))) is not None:
            self.file, self._identity = Path(where), identity
            # There, one file may have several numbers, one after the other.
            self._is_numbered = file_system(self.file) not in _NETWORK

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """All of the block or nothing, committed when it ends.

        Raises:
            StoreError: It cannot be written, or another file is in its place: nothing is committed into that.
        """
        if self.read_only:
            raise StoreError(f"{self.name} can only be read: its file or folder cannot be written.", path=self.name)
        with self._errors(), self._engine.begin() as connection:
            yield connection
            self._check_file()

    @property
    def clock(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by the database's own clock, which is one for all who use it; of a SQLite file, its
        machine's.
        """
        if self.postgresql:
            return sa.literal_column(_CLOCK, sa.Float)
        return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Float)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for queries."""
        with self._errors(), self._reader.connect() as connection:
            yield connection

    def patiently(self, work: Callable[[], T]) -> T:
        """What `work` returns; where the database takes or gives nothing just now it begins anew, for `patience`. Of
        PostgreSQL it begins anew once in any case: connections break, and are made again.
        """
        since = said = time.monotonic()
        tries = 0
        while True:
            try:
                return work()
            except StoreError as error:
                now, tries = time.monotonic(), tries + 1
                is_over = now - since >= self.patience and not (self.postgresql and tries == 1)
                if is_over or not error.passing:
                    raise
                if tries == 1 or now - said >= SAY_SECONDS:
                    said = now
                    _log.warning("%s Trying again for %.0f s.", error, max(0.0, self.patience - (now - since)))
                time.sleep(min(_PAUSES[1], _PAUSES[0] * 2.0**tries))

    def committed(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, all of it in one commit; begun anew as `patiently` says, and done once: where a
        connection to PostgreSQL breaks between a commit and its acknowledgement, the next try finds that it was done.
        """
        token = uuid.uuid4().hex
        results: list[T] = []

        def commit() -> T:
            with self.writing() as connection:
                if self.postgresql:
                    done, self._acknowledged = self._acknowledged, []
                    # Waits for the transaction of the try before, if the server still has it.
                    if not connection.execute(_BEGIN_ONCE, {"token": token, "done": done}).rowcount:
                        return results[-1]
                results.append(work(connection))
            return results[-1]

        result = self.patiently(commit)
        if self.postgresql:
            self._acknowledged.append(token)
        return result

    def _check_file(self) -> None:
        if self.file is None:
            return
        found = _identity(self.file)
        if found is None or (self._is_numbered and found != self._identity):
            raise StoreError(
                f"{self.name} was deleted or replaced while it was in use (by git clean, or a program that keeps "
                "folders in step?). What came since is not in it.",
                path=self.name,
            )

    def among(self, column: sa.ColumnElement[str], name: str) -> sa.ColumnElement[bool]:
        """Whether a column is one of the `values` that a parameter of this name holds: however many, the statement is
        one, made once.
        """
        values: sa.BindParameter[Any] = sa.bindparam(name)
        if self.postgresql:
            return column == sa.any_(sa.cast(values, postgresql.ARRAY(sa.Text)))
        return column.in_(sa.select(sa.func.json_each(values).table_valued("value").c.value))

    def values(self, texts: Iterable[str]) -> Any:
        """What such a parameter is given."""
        return list(texts) if self.postgresql else json.dumps(list(texts))

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT."""
        return postgresql.insert(table) if self.postgresql else sqlite.insert(table)

    def upsert(self, table: sa.Table, *, unless_same: Sequence[str] = ()) -> Any:
        """An INSERT that replaces the row of the same primary key; not where all of `unless_same` are as they were."""
        statement = self.insert(table)
        keys = list(table.primary_key)
        values = {column.key: statement.excluded[column.key] for column in table.c if not column.primary_key}
        changed = [table.c[name].is_distinct_from(statement.excluded[name]) for name in unless_same]
        return statement.on_conflict_do_update(
            index_elements=keys, set_=values, where=sa.or_(*changed) if changed else None
        )

    def check(self) -> list[str]:
        """What the database itself finds wrong with its pages and indexes; PostgreSQL checks its own."""
        if self.postgresql:
            return []
        with self.reading() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        return [] if found == ["ok"] else [str(line) for line in found]

    def vacuum(self) -> None:
        """Have PostgreSQL give back the room of deleted rows. Its write-ahead log, replicas and backups are its own."""
        with self._errors(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")

    def close(self) -> None:
        """Release the file, or the connections."""
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            self._check_file()
            held = " by another process, which may be stopped (Ctrl-Z) in a commit: continue it, or end it"
            held = held if "locked" in reason(error) else ""
            raise StoreError(
                f"{self.name} cannot be read or written ({reason(error)}{held}). Nothing stored before is lost.",
                path=self.name,
                passing=self._passing(error),
            ) from None
        except sa.exc.DatabaseError as error:
            self._check_file()
            raise StoreError(
                f"{self.name} is not a usable text cache ({reason(error)}). Move it away to start a new one, "
                "or restore it from a copy; do not delete it while answers in it are paid for.",
                path=self.name,
            ) from None

    def _passing(self, error: sa.exc.DBAPIError) -> bool:
        return self.postgresql or str(getattr(error.orig, "sqlite_errorname", "")).startswith(_PASSING)


class _OnDatabase(Protocol):
    @property
    def database(self) -> Database: ...


Self_ = TypeVar("Self_", bound=_OnDatabase)


def patient(method: Callable[Concatenate[Self_, P], T]) -> Callable[Concatenate[Self_, P], T]:
    """A method that is done again, from its beginning, where its database takes or gives nothing just now."""

    @functools.wraps(method)
    def patiently(self: Self_, /, *arguments: P.args, **named: P.kwargs) -> T:
        return self.database.patiently(lambda: method(self, *arguments, **named))

    return patiently


def _identity(path: Path) -> tuple[int, int] | None:
    """The numbers that tell a file from another of its name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _writable(path: Path) -> bool:
    """Whether SQLite can write a file: it needs others beside it."""
    effective = os.access in os.supports_effective_ids
    return all(os.access(each, os.W_OK, effective_ids=effective) for each in (path, path.parent))


def _empty() -> sa.Engine:
    """An empty database in memory, the same for all threads."""
    return sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})


def _sqlite(path: Path) -> tuple[sa.Engine, str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{path.parent} is a file, so that no text cache can be in it.", path=path.parent) from None
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be made: {error.strerror}.", path=path.parent) from None
    journal = "WAL"
    if (kind := file_system(path)) in _NETWORK:
        journal = "TRUNCATE"
        _log.warning(
            "%s is on a network file system (%s), where SQLite is slow and only one process should write. "
            "Use a local disk, or a postgresql:// URL.",
            path,
            kind,
        )
    return sqlite_engine(path, journal=journal, cached_megabytes=_CACHED_MEGABYTES), str(path)


def _postgresql(url: str) -> tuple[sa.Engine, str]:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise MissingDependencyError("psycopg", "postgresql") from None
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # whose own message would show the password
        parsed = None
    if parsed is None or parsed.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise ConfigError("The cache's address is no postgresql:// URL. Write: postgresql://user@host/name")
    shown = parsed.set(drivername="postgresql").difference_update_query(_SECRETS)
    return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True), shown.render_as_string()


def _check_postgresql(connection: sa.Connection, name: str) -> None:
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_APPLICATION,))  # one process makes the tables
    connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS kar_aug (version INTEGER NOT NULL)")
    version = connection.exec_driver_sql("SELECT version FROM kar_aug").scalar()
    wanted = _format()
    if version is None:
        wanted.migrate(connection, 0)
        connection.exec_driver_sql("INSERT INTO kar_aug VALUES (%s)", (wanted.version,))
    else:
        wanted.refuse_newer(name, version)
        if version < wanted.version:
            wanted.migrate(connection, version)
            connection.exec_driver_sql("UPDATE kar_aug SET version = %s", (wanted.version,))
    connection.exec_driver_sql(_FORGET_COMMITS)


def _format() -> Format:
    return Format(
        "text cache",
        _APPLICATION,
        tables.metadata,
        migrations=(tables.FROM_VERSION_1, tables.FROM_VERSION_2, tables.FROM_VERSION_3),
    )


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that `path` is on, as Linux names it; "" where that cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    resolved = path.resolve()
    rows = [line.split()[1:3] for line in lines if len(line.split()) > 2]
    holding = [(point, kind) for point, kind in rows if resolved.is_relative_to(point.replace("\\040", " "))]
    # Of two on one point, the later covers the other.
    return max(reversed(holding), key=lambda row: len(row[0]), default=("", ""))[1]
