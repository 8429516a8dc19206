"""What a batch function opens: once a process, however many copies of the function an engine unpickles there."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from kar_aug.pipeline.project import Project
    from kar_aug.pipeline.workspace import Workspace
    from kar_aug.pipeline.workspace.forgotten import ForgottenIds

T = TypeVar("T")
_open: dict[tuple[int, str], Any] = {}
_lock = threading.RLock()


class OpensOnce(ABC, Generic[T]):
    """A function with settings, which are pickled, and with what it opens by them, which is not.

    Spark unpickles a function for every task, in processes that live long: what is open there is found by the settings.
    """

    @property
    @abstractmethod
    def opens(self) -> tuple[object, ...]:
        """What decides what is opened: of functions of one class, those that are equal in this share it."""

    @abstractmethod
    def open(self) -> T:
        """Open a cache, a store, an encoder ..., in this process."""

    @property
    def opened(self) -> T:
        """What `open` gave in this process, to the first function that opens the same."""
        # A fork has no right to its parent's connections.
        place = os.getpid(), f"{type(self).__qualname__} {self.opens}"
        with _lock:
            if place not in _open:
                _open[place] = self.open()
            found: T = _open[place]
            return found


def forgotten_of(workspace: Workspace) -> ForgottenIds:
    """Who is left out of everything, whatever tables a batch was joined from."""
    from kar_aug.pipeline.workspace.forgotten import ForgottenIds

    return ForgottenIds.read(workspace.config.work)


def workspace_of(project: Project | Workspace) -> Workspace:
    """What functions take their settings from, which may be given as either."""
    inside: Workspace = vars(project).get("workspace", project)
    return inside
