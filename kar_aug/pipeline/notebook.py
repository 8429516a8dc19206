"""How far a stage is, in a notebook: a line below the cell, which is renewed in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kar_aug._helpers.foreign import harmless
from kar_aug.pipeline.watch import Show, Step, Watch

_SECONDS = 0.5  # between two looks of a line
_WIDTH = 24


class NotebookWatch(Watch):
    """Shows bars and notes below the running cell, as plain text: what others wrote drives nothing there."""

    def __init__(self) -> None:
        super().__init__(on_note=_display)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Show]:
        """A line, which stays with what was last done."""
        step, seen = Step(title, 0, total), time.monotonic()
        line = _display(_told(step))

        def show(done: int, note: str) -> None:
            nonlocal step, seen
            step, now = Step(title, done, total, note), time.monotonic()
            if now - seen >= _SECONDS:
                seen = now
                line.update(_plain(_told(step)), raw=True)

        try:
            yield show
        finally:
            line.update(_plain(_told(step)), raw=True)


def in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter, that shows what is displayed."""
    if "ipykernel" not in sys.modules or "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _told(step: Step) -> str:
    filled = min(_WIDTH, round(_WIDTH * step.done / max(1, step.total)))
    return f"[{'=' * filled}{' ' * (_WIDTH - filled)}] {step}"


def _plain(text: str) -> dict[str, Any]:
    return {"text/plain": harmless(text)}


def _display(text: str) -> Any:
    """Show a text; the handle by which it is renewed."""
    from IPython.display import display

    return display(_plain(text), raw=True, display_id=True)
