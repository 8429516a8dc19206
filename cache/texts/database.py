"""One database of answers, on SQLite or PostgreSQL: connecting, formats, and errors that say what to do.

SQLite is in WAL mode with full synchronisation: a commit that returned survives a killed process and a power cut. WAL
needs memory shared between processes, which network file systems do not have; there the older journal is used, and
said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kar_aug._database import Format, reason, sqlite_engine
from kar_aug.cache.texts import tables
from kar_aug.errors import ConfigError, MissingDependencyError, StoreError

_APPLICATION = 0x6B617231  # "kar1": tells our files from other programs' databases
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse")
_SECRETS = ("password", "sslpassword", "passfile")  # that a URL may name after its question mark
_log = logging.getLogger("kar_aug")


class Database:
    """Connections to one text cache.

    Args:
        where: the path of a SQLite file (made if it is not there) or a `postgresql://` URL.

    Raises:
        StoreError: It is not a text cache, is damaged, cannot be reached, or was written by a newer kar-aug.
    """

    def __init__(self, where: Path | str) -> None:
        self.postgresql = isinstance(where, str) and "://" in where
        if self.postgresql:
            self._engine, self.name = _postgresql(str(where))
        else:
            self._engine, self.name = _sqlite(Path(where))
        # Readers run each statement by itself: on SQLite they hold no lock while a caller looks at the rows.
        self._reader = self._engine.execution_options(reading=True)
        with self.writing() as connection:
            (_check_postgresql if self.postgresql else _format().bring_up_to_date)(connection, self.name)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """All of the block or nothing, committed when it ends."""
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @property
    def clock(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by the database's own clock, which is one for all who use it; of a SQLite file, its
        machine's.
        """
        if self.postgresql:
            return sa.literal_column("CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)", sa.Float)
        return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Float)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for queries."""
        with self._errors(), self._reader.connect() as connection:
            yield connection

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

    def close(self) -> None:
        """Release the file, or the connections."""
        self._engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            raise StoreError(
                f"{self.name} cannot be read or written ({reason(error)}). Nothing stored before is lost.",
                path=self.name,
            ) from None
        except sa.exc.DatabaseError as error:
            raise StoreError(
                f"{self.name} is not a usable text cache ({reason(error)}). Move it away to start a new one, "
                "or restore it from a copy; do not delete it while answers in it are paid for.",
                path=self.name,
            ) from None


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
    return sqlite_engine(path, journal=journal), str(path)


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


def _format() -> Format:
    return Format(
        "text cache", _APPLICATION, tables.metadata, migrations=(tables.FROM_VERSION_1, tables.FROM_VERSION_2)
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
