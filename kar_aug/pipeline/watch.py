"""How a stage tells of its work. It prints nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

Show = Callable[[int, str], None]


class Step(NamedTuple):
    """Where a stretch of work stands: `done` of about `total`, and a short note ("3.1/s, 1,200 tokens")."""

    title: str
    done: int
    total: int
    note: str = ""

    def __str__(self) -> str:
        return f"{self.title}: {self.done:,} of {self.total:,}" + (f", {self.note}" if self.note else "")


class Watch:
    """Hears of a stage's work, and says nothing of it unless it is told what to call.

    Args:
        on_progress: called with a `Step` after each piece of work; perhaps from another thread.
        on_note: called with a sentence that a person should know: "users: 60 vectors of 384 by all-MiniLM-L6-v2".

    Example:
        >>> watch = Watch(on_note=print)
        >>> watch.note("2 batches run")
        2 batches run
    """

    def __init__(
        self,
        on_progress: Callable[[Step], None] = lambda step: None,
        on_note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._on_progress, self._on_note = on_progress, on_note

    def bar(self, title: str, total: int) -> AbstractContextManager[Show]:
        """While a stretch of work lasts: a function of (done so far, a short note)."""
        return nullcontext(lambda done, note: self._on_progress(Step(title, done, total, note)))

    def note(self, sentence: str) -> None:
        """Something happened."""
        self._on_note(sentence)

    def result(self, text: str) -> None:
        """A part of a stage is done: what came of it, a line each."""
        self._on_note(text)


SILENT = Watch()
