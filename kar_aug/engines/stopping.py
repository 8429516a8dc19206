"""How a run is stopped: by a file in its folder, which its driver or any of its workers writes, and all look at.

Engines end a job by killing workers, which loses what is in flight, and what that costs. Here a worker that sees the
file finishes what is in flight, stores it, and passes all further rows by. On machines that do not share the folder a
worker is stopped by its own errors alone, and Ctrl-C is the engine's.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from kar_aug import errors
from kar_aug.errors import GenerationError, KarError

_here: set[Path] = set()  # flags that were raised in this process


class Flag:
    """Says whether, and why, a run is stopped. Pickled, it is the same flag."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()

    def __call__(self) -> bool:
        """Whether the run is stopped."""
        return self._path in _here or self._path.exists()

    def up(self, error: KarError | KeyboardInterrupt) -> None:
        """Stop the run, for a reason; the first one counts."""
        _here.add(self._path)
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(f"{type(error).__name__}\n{error}")
        except OSError:  # it is up already; or this machine has no such folder
            return

    @property
    def why(self) -> KarError | KeyboardInterrupt | None:
        """The reason; None while the run goes on."""
        try:
            name, _, message = self._path.read_text(encoding="utf-8").partition("\n")
        except OSError:
            return None
        kind = getattr(errors, name, GenerationError)
        return KeyboardInterrupt() if name == "KeyboardInterrupt" else kind(message)


@contextmanager
def by_signals(flag: Flag, on_stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, or SIGTERM, in the block stops the run in good order; a second acts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        flag.up(KeyboardInterrupt())
        on_stop()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
