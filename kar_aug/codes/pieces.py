"""Codes as sparse features of a model: integers, one a piece of an item's semantic id, each for an embedding table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BUCKETS = 1 << 14
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Pieces:
    """The pieces of codes: each level for itself, and each prefix of two levels and more, hashed.

    A level says what a centre means wherever it occurs; a prefix, which is a place in the tree of items, what is true
    there alone: the longer, the more like an id. So pieces generalize and memorize. An item that comes later has
    pieces that a model knows: its levels all, its prefixes as far as others share them.

    Args:
        levels, size: of the codes.
        buckets: that the prefixes of one length are hashed into.

    Sources:
        Singh et al. 2023, arXiv:2306.08121, section 4.2: hashed sub-pieces of semantic ids in place of video ids;
        Zheng et al. 2025, arXiv:2504.02137: of n-grams, those that are prefixes.
    """

    levels: int
    size: int
    buckets: int = BUCKETS

    def __post_init__(self) -> None:
        if self.buckets < 1:
            raise ValueError(f"`buckets` must be positive. Received: {self.buckets}")

    @property
    def names(self) -> list[str]:
        """Of the pieces: "level_1" ... and "prefix_2" ..."""
        each = range(1, self.levels + 1)
        return [*(f"level_{level}" for level in each), *(f"prefix_{level}" for level in each if level > 1)]

    @property
    def vocabulary_sizes(self) -> list[int]:
        """How many integers each piece may be, 0, which stands for an unknown item, included."""
        return [self.size + 1] * self.levels + [self.buckets + 1] * (self.levels - 1)

    def of(self, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """The pieces of codes, (count, levels): (count, pieces)."""
        hashed, known = np.zeros(len(codes), np.uint64), codes[:, 0] > 0
        pieces = [*codes.T]
        for level in range(self.levels):
            hashed = (hashed ^ codes[:, level].astype(np.uint64)) * _MIX
            hashed ^= hashed >> np.uint64(32)
            if level:
                pieces.append(np.where(known, hashed % np.uint64(self.buckets) + np.uint64(1), 0))
        return np.stack(pieces, axis=1).astype(np.int32)
