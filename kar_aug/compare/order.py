"""The order in which a training reads its samples: another each epoch, held a pool at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Rows that are shuffled at a time: all of what fits, and of more, blocks that lie together, so that what is read from
# a disk is read in long pieces.
_POOL = 2**22
_BLOCK = 2**12
Positions = npt.NDArray[np.int64]


class Order:
    """Some samples in another order: any, where all are one pool; else pools of drawn blocks, shuffled each.

    `order[first:stop]` is an array. Who goes through it makes each pool once; who goes back makes them anew.

    Args:
        of: the samples.
        seed: what decides the order, together with how many there are.
        pool: rows that are shuffled among each other.
        block: rows that lie together, of more than one pool.
    """

    def __init__(self, of: Positions, seed: Any, pool: int = _POOL, block: int = _BLOCK) -> None:
        self._of, self._seed, self._pool, self._block = of, seed, pool, block
        self._begin()

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, rows: slice) -> Positions:
        start, stop, _ = rows.indices(len(self))
        found = [self._of[:0]]
        while start < stop:
            self._go_to(start)
            part = self._drawn[start - self._first : stop - self._first]
            found.append(self._of[part])
            start += len(part)
        return np.concatenate(found)

    def _begin(self) -> None:
        """Before the first pool."""
        self._random, rows = np.random.default_rng(self._seed), len(self)
        self._starts = self._random.permutation(np.arange(0, rows, self._block)) if rows > self._pool else None
        self._first, self._drawn, self._passed = 0, np.empty(0, np.int64), 0

    def _go_to(self, place: int) -> None:
        """Hold the pool that has a place in the order."""
        if place < self._first:
            self._begin()
        while place >= self._first + len(self._drawn):
            self._first += len(self._drawn)
            self._drawn = self._next()

    def _next(self) -> Positions:
        if self._starts is None:
            return self._random.permutation(len(self))
        some = self._starts[self._passed : self._passed + self._pool // self._block]
        self._passed += len(some)
        together = (some[:, np.newaxis] + np.arange(self._block)).ravel()
        return self._random.permutation(together[together < len(self)])
