"""How long something will still take, by how fast it went lately."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_SECONDS = 120.0  # that are looked back on: answers come in bursts, a minute apart on a busy machine
_FEWEST, _SHARE = 8, 20  # things, or a twentieth of all: the first of several side by side come late, and tell little


class Pace:
    """Hears how much is done, and tells what is left by the rate of the last two minutes, a standstill included.

    What was done already when it first hears is no work of this run.

    Args:
        now: the clock, in seconds.
    """

    def __init__(self, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self.total, self._now = total, now
        self._heard: deque[tuple[float, int]] = deque()

    def hear(self, done: int) -> None:
        """So much is done now."""
        self._forget()
        if not self._heard or done != self._heard[-1][1]:
            self._heard.append((self._now(), done))

    @property
    def seconds_left(self) -> float | None:
        """None where too little has been done to tell."""
        self._forget()
        if len(self._heard) < 2:
            return None
        (then, before), (_, done) = self._heard[0], self._heard[-1]
        if done - before < max(1, min(_FEWEST, self.total // _SHARE)):
            return None
        return (self._now() - then) * (self.total - done) / (done - before)

    def _forget(self) -> None:
        """What lies further back, but for the last of it, from which the rate is counted, and for two of all."""
        since = self._now() - _SECONDS
        while len(self._heard) > 2 and self._heard[1][0] <= since:
            self._heard.popleft()
