"""The processes that work on one cache: who of them lives.

On one machine the process itself decides: as long as its id, with the moment of its start, is there, it lives, be it
stopped (Ctrl-Z) or busy for hours; once it is gone it is dead at once. Of a process elsewhere (another machine, another
container) only its word is known: every few seconds it says that it lives, and one that was silent for a minute counts
as dead. Both moments are of the database's clock, so that no two clocks are ever compared. For SQLite that is the clock
of its machine: on a network file system, where only one process should write, machines with other clocks would differ.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kar_aug.cache.texts import tables
from kar_aug.cache.texts.database import Database

SILENT_SECONDS = 60.0


def speak(database: Database, connection: sa.Connection, owner: str) -> bool:
    """Say that this process lives. Returns whether others hold it for dead meanwhile: then it is entered anew."""
    workers = tables.workers
    heard = connection.execute(sa.update(workers).where(workers.c.owner == owner).values(seen=database.clock))
    if heard.rowcount:
        return False
    pid = os.getpid()
    row = {"owner": owner, "host": here(), "pid": pid, "started": started(pid), "seen": database.clock}
    connection.execute(sa.insert(workers).values(row))
    return True


def dead(database: Database, connection: sa.Connection) -> list[str]:
    """Owners that are entered, and gone."""
    silent = (database.clock - tables.workers.c.seen > SILENT_SECONDS).label("silent")
    rows = connection.execute(sa.select(tables.workers, silent)).all()
    machine = here()
    return [row.owner for row in rows if (_gone(row) if row.host == machine else row.silent)]


def here() -> str:
    """Where a process id means the same process: the machine, and in it the container."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def machine() -> str:
    """The machine, whichever container of it this is: its start, which no other shares; its name where that cannot be
    told.
    """
    try:
        return _boot()
    except OSError:
        return socket.gethostname()


def started(pid: int) -> str | None:
    """When a process started, as Linux tells it, in words that no other process with this id shares; "" if it has ended
    and nobody has asked how. None where that cannot be told.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()  # after the name, which may hold anything: state, parent, ...
        return "" if fields[0] in "ZX" else f"{_boot()} {fields[19]}"
    except (OSError, IndexError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _gone(worker: sa.Row[Any]) -> bool:
    """Whether a process of this machine has ended; where only its id is known, which another may have by now, one that
    is silent has.
    """
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it lives, and is somebody else's
        pass
    now = started(worker.pid)
    return bool(worker.silent) if worker.started is None or now is None else now != worker.started
