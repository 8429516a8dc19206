"""What a batch function opens: once a process, however many copies of the function an engine unpickles there."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from kar_aug.pipeline.project import Project
    from kar_aug.pipeline.workspace import Workspace
    from kar_aug.pipeline.workspace.forgotten import ForgottenIds

T = TypeVar("T")
_Stamps = tuple[tuple[int, ...] | None, ...]
_open: dict[tuple[int, str], tuple[_Stamps, Any]] = {}
_lock = threading.RLock()


class OpensOnce(ABC, Generic[T]):
    """A function with settings, which are pickled, and with what it opens by them, which is not.

    Spark unpickles a function for every task, in processes that live long: what is open there is found by the settings,
    as long as its files are those that were opened: after a new encode, say, nobody is given the store before.
    """

    @property
    @abstractmethod
    def opens(self) -> tuple[object, ...]:
        """What decides what is opened: of functions of one class, those that are equal in this share it."""

    @abstractmethod
    def open(self) -> T:
        """Open a cache, a store, an encoder ..., in this process."""

    @property
    def stamps(self) -> _Stamps:
        """What tells whether the files are still those that were opened: of each a `stamp`; None while it is not there,
        as what opening makes.
        """
        return ()

    def close(self, opened: T) -> None:
        """Close what another has replaced."""

    @property
    def opened(self) -> T:
        """What `open` gave in this process, to the first function that opens the same."""
        # A fork has no right to its parent's connections.
        place = os.getpid(), f"{type(self).__qualname__} {self.opens}"
        with _lock:
            # Before it is opened, so that what comes meanwhile is opened the next time.
            stamps = self.stamps
            if place not in _open or _open[place][0] != stamps:
                found, before = self.open(), _open.get(place)
                made = tuple(there or now for there, now in zip(stamps, self.stamps, strict=True))
                _open[place] = made, found
                if before is not None:
                    self.close(before[1])
            opened: T = _open[place][1]
            return opened


def stamp(path: Path | None) -> tuple[int, ...] | None:
    """What is another after a file was replaced or written: its time, size and place on the disk."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)


def forgotten_of(workspace: Workspace) -> ForgottenIds:
    """Who is left out of everything, whatever tables a batch was joined from."""
    from kar_aug.pipeline.workspace.forgotten import ForgottenIds

    return ForgottenIds.read(workspace.config.work)


def workspace_of(project: Project | Workspace) -> Workspace:
    """What functions take their settings from, which may be given as either."""
    inside: Workspace = vars(project).get("workspace", project)
    return inside
