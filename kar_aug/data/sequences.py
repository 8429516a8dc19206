"""What a user did before: per sample the latest events strictly before its moment, as a slice of one long table.

Events stand in one table, each user's together and in order of time. The events before a sample are then neighbours in
it, so that two integers a sample say which they are, whatever the length of a sequence: nothing is padded or copied
before a batch is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequence:
    """Which events of a table precede each of its rows.

    Args:
        name: "hist" for the one that every model reads; what its features are called by.
        kept: rows of the events that are in it, rising; e.g. the clicks alone.
        first, stop: per row of the table, the span in `kept` of the row's user before the row's moment.
        length: how many of the latest are read.
    """

    name: str
    kept: Positions
    first: Positions
    stop: Positions
    length: int

    def rows(self, of: Positions) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """The rows that precede the rows `of`, (len(of), length), oldest first, padding after; and which are none."""
        stop = self.stop[of]
        start = np.maximum(self.first[of], stop - self.length)
        places = start[:, np.newaxis] + np.arange(self.length)
        there = places < stop[:, np.newaxis]
        if not len(self.kept):
            return np.zeros_like(places), there
        return self.kept[np.where(there, places, 0)], there

    def counts(self, of: Positions) -> npt.NDArray[np.int64]:
        """How many events precede each of the rows `of`, (len(of),); at most `length` of them are read."""
        return self.stop[of] - self.first[of]


def sequence(
    name: str, user: npt.NDArray[np.int64], moment: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_], length: int
) -> Sequence:
    """The sequence of the chosen events.

    Args:
        user, moment: per row of the table; rows are sorted by both.
        chosen: per row, whether it is an event of this sequence.
        length: how many of the latest are read.
    """
    rows = np.arange(len(user))
    new_user = np.r_[True, user[1:] != user[:-1]] if len(user) else np.empty(0, bool)
    new_moment = new_user | np.r_[True, moment[1:] != moment[:-1]] if len(user) else new_user
    begins = np.maximum.accumulate(np.where(new_user, rows, 0))
    moment_begins = np.maximum.accumulate(np.where(new_moment, rows, 0))
    before = np.r_[0, np.cumsum(chosen)]
    return Sequence(name, np.flatnonzero(chosen), before[begins], before[moment_begins], length)
