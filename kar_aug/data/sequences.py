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

from kar_aug.data.room import MEMORY, Room

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """The events before some samples: where they begin, (samples,), and which are there, (samples, length)."""

    start: Positions
    there: npt.NDArray[np.bool_]

    def unmasked(self, padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A column of the events, as `Events.pad` made it: (samples, length, ...), oldest first, anything after."""
        length, event = self.there.shape[1], padded.strides[0]
        window = np.dtype((np.void, length * event))  # copied whole, in half the time of value by value
        windows = np.ndarray(len(padded) - length + 1, window, padded, strides=(event,))
        return windows[self.start].view(padded.dtype).reshape(-1, length, *padded.shape[1:])


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

    def pad(
        self, column: npt.NDArray[Any], places: npt.NDArray[Any] | None = None, room: Room = MEMORY
    ) -> npt.NDArray[Any]:
        """A column of the table as windows are read from: the values of those kept, and as many zeros as are read.

        Args:
            column: (rows, ...).
            places: of each row of the table the place in `column`, where that has not a value a row.
            room: where the column is put.
        """
        padded = room.empty((len(self.kept) + self.length, *column.shape[1:]), column.dtype)
        for block in room.blocks(len(self.kept)):
            rows = self.kept[block]
            padded[block] = column[rows if places is None else places[rows]]
        padded[len(self.kept) :] = 0
        room.let_go()
        return padded

    def before(self, rows: Positions) -> Window:
        """The events before some rows of the table."""
        stop = self.stop[rows]
        start = np.maximum(self.first[rows], stop - self.length)
        count = (stop - start).astype(np.int32)
        return Window(start, np.arange(self.length, dtype=np.int32) < count[:, np.newaxis])

    def counts(self, rows: Positions) -> Positions:
        """How many events precede each of some rows, (rows,); at most `length` of them are read."""
        return np.asarray(self.stop[rows] - self.first[rows])


def events_before(
    user: npt.NDArray[Any],
    moment: npt.NDArray[Any],
    chosen: npt.NDArray[np.bool_],
    length: int,
    room: Room = MEMORY,
) -> Events:
    """The sequence of the chosen events.

    Args:
        user, moment: per row of the table; rows are sorted by both.
        chosen: per row, whether it is an event of this sequence.
        length: how many of the latest are read.
        room: where the columns are put.
    """
    first, stop = room.empty(len(user), np.int64), room.empty(len(user), np.int64)
    passed = 0
    for block in room.blocks_of_users(user):
        begins, moment_begins = _beginnings(user[block], moment[block])
        before = passed + np.r_[0, np.cumsum(chosen[block])]
        first[block], stop[block], passed = before[begins], before[moment_begins], before[-1]
    room.let_go()
    return Events(room.true(chosen), first, stop, length)


def _beginnings(user: npt.NDArray[Any], moment: npt.NDArray[Any]) -> tuple[Positions, Positions]:
    """Of each row, where its user begins, and where its moment does."""
    rows = np.arange(len(user))
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_moment = new_user | np.r_[True, moment[1:] != moment[:-1]]
    return np.maximum.accumulate(np.where(new_user, rows, 0)), np.maximum.accumulate(np.where(new_moment, rows, 0))
