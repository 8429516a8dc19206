"""Which items share a code, and the digit behind it that tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.int64]


def prefix_numbers(codes: Codes) -> list[Numbers]:
    """Per prefix length, 1 to all levels, the number of each item's prefix, (items,), from 0 on without a gap: equal
    prefixes, equal numbers.
    """
    found: list[Numbers] = []
    before, size = np.zeros(len(codes), np.int64), int(codes.max(initial=0)) + 1
    for level in range(codes.shape[1]):
        _, before = np.unique(before * size + codes[:, level], return_inverse=True)
        found.append(before)
    return found


def new_digits(codes: Codes, taken: Codes, digits: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint32]:
    """A digit for each of some new items, (items,): 0 for the first of a code, then 1, 2 ... in their order.

    Args:
        codes: (items, levels), of the new ones.
        taken, digits: of the items that have theirs already, which they keep.

    Source:
        Rajput et al. 2023, arXiv:2305.05065, section 3.1, "handling collisions".
    """
    of = prefix_numbers(np.concatenate([taken, codes]))[-1]
    old, new = of[: len(taken)], of[len(taken) :]
    following = np.zeros(int(of.max(initial=-1)) + 1, np.int64)
    np.maximum.at(following, old, digits.astype(np.int64) + 1)
    return (following[new] + _place_among_equals(new)).astype(np.uint32)


def _place_among_equals(numbers: Numbers) -> Numbers:
    """Of each its place among those equal to it: [7, 5, 7] gives [0, 0, 1]."""
    order = np.argsort(numbers, kind="stable")
    first = np.r_[True, numbers[order][1:] != numbers[order][:-1]] if len(numbers) else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    place = np.empty(len(numbers), np.int64)
    place[order] = np.arange(len(numbers)) - np.repeat(starts, np.diff(np.r_[starts, len(numbers)]))
    return place
