"""Who works on what is made of the tables, so that nobody is forgotten meanwhile: who would come back with the next
epoch, or the next file.

Each process that prepares, trains, encodes, exports, or asks by an engine holds a file of its own locked; from one that
is killed the system takes the lock away. Jobs that ask by themselves say so in the text cache itself (see
`kar_aug.cache.texts.claims`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kar_aug.errors import StoreError

FOLDER = "at-work"
_GATE = ".gate"


@contextmanager
def at_work(work: Path, what: str) -> Iterator[None]:
    """Say that `what` goes on, while the block runs. Whoever forgets somebody at this moment is waited for.

    A workdir that takes no file is one that nobody can be taken out of either.
    """
    path = work / FOLDER / f"{what}-{os.getpid()}-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / _GATE):
                stack.callback(path.unlink, missing_ok=True)
                stack.enter_context(FileLock(path, thread_local=False))
        yield


@contextmanager
def nobody_at_work(work: Path) -> Iterator[None]:
    """Have all others wait while the block runs.

    Raises:
        StoreError: Somebody is at work, or forgets somebody else.
    """
    (work / FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / FOLDER / _GATE, timeout=0):
            for path in sorted((work / FOLDER).glob("[!.]*")):
                _refuse(path, work)
            yield
    except Timeout:
        raise StoreError(f"{work}: another process starts or ends something there. Run again.", path=work) from None


def _refuse(path: Path, work: Path) -> None:
    """Raise StoreError if somebody holds this file; delete it, if a killed process left it."""
    try:
        with FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
    except Timeout:
        what, pid, _ = path.name.rsplit("-", 2)
        raise StoreError(
            f"{work}: {what} is running on it (process {pid}). Wait for it, or end it, and run again.", path=work
        ) from None
