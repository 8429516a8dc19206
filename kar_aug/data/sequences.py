"""What a user did before: per sample the latest events strictly before its moment, as a window of one long table.

Events stand in one table, each user's together and in order of time. The events before a sample are then neighbours in
it, so that two integers a sample say which they are, and reading them is one copy, whatever the length of a sequence:
nothing is padded before a batch is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """The events before some samples: where they begin, (samples,), and which are there, (samples, length)."""

    start: Positions
    there: npt.NDArray[np.bool_]

    def read(self, padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A column of the events, as `Events.pad` made it: (samples, length), oldest first, zeros after."""
        length = self.there.shape[1]
        windows = np.lib.stride_tricks.sliding_window_view(padded, length)
        return np.asarray(windows[self.start] * self.there.astype(padded.dtype, copy=False))


@dataclass(frozen=True)
class Events:
    """Which events of a table precede each of its rows.

    Args:
        kept: rows of the events that are in the sequence, rising; e.g. the clicks alone.
        first, stop: per row of the table, the span in `kept` of the row's user before the row's moment.
        length: how many of the latest are read.
    """

    kept: Positions
    first: Positions
    stop: Positions
    length: int

    def pad(self, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A column of the table as windows are read from: the values of those kept, and as many zeros as are read."""
        return np.concatenate([column[self.kept], np.zeros(self.length, column.dtype)])

    def before(self, rows: Positions) -> Window:
        """The events before some rows of the table."""
        stop = self.stop[rows]
        start = np.maximum(self.first[rows], stop - self.length)
        return Window(start, np.arange(self.length) < (stop - start)[:, np.newaxis])

    def counts(self, rows: Positions) -> Positions:
        """How many events precede each of some rows, (rows,); at most `length` of them are read."""
        return np.asarray(self.stop[rows] - self.first[rows])


def events_before(
    user: npt.NDArray[Any], moment: npt.NDArray[Any], chosen: npt.NDArray[np.bool_], length: int
) -> Events:
    """The sequence of the chosen events.

    Args:
        user, moment: per row of the table; rows are sorted by both.
        chosen: per row, whether it is an event of this sequence.
        length: how many of the latest are read.
    """
    rows = np.arange(len(user))
    new_user = np.r_[True, user[1:] != user[:-1]][: len(user)]
    new_moment = new_user | np.r_[True, moment[1:] != moment[:-1]][: len(user)]
    user_begins = np.maximum.accumulate(np.where(new_user, rows, 0))
    moment_begins = np.maximum.accumulate(np.where(new_moment, rows, 0))
    before = np.r_[0, np.cumsum(chosen)]
    return Events(np.flatnonzero(chosen), before[user_begins], before[moment_begins], length)
