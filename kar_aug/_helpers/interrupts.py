"""Ctrl-C from a command's first moment to its last: exit code 130, and no traceback of whatever module is imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def leave_at_once() -> None:
    """From now on Ctrl-C ends the process, where there is nothing to be saved. A signal that a shell has ignored stays
    so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def raised() -> Iterator[None]:
    """In the block Ctrl-C is a KeyboardInterrupt again, on which a command ends well."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)  # an exception would be one of the import that it interrupts, or be swallowed there
