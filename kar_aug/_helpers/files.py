"""Files written so that a reader, or the next run, never meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block succeeds, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    # As `open` does, so that the umask decides who may read it: `tempfile` lets nobody else.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with temporary.open("r+b") as written:  # Windows syncs only what may be written
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder, new and changed ones, survive a power cut; where folders can be synced."""
    with contextlib.suppress(OSError):  # Windows opens none
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_atomic(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, its line ends as they are, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="")
