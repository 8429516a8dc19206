"""Which events of a long history a prompt shows: the latest, the most telling, or those that cover a taste.

A selection is a function of one user's history, in order of time, to the positions that are shown, again in order of
time; the same for the same data. Summaries in place of a selection: see `kar_aug.prompts.histories.summaries`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kar_aug.errors import PromptError
from kar_aug.registry import SELECTIONS

# (item ids, ratings, how many are shown) -> positions, rising.
Selection = Callable[[Sequence[int | str], Sequence[float], int], list[int]]
Vectors = Mapping[int | str, npt.NDArray[Any]]


class Selecting(Protocol):
    """Makes a selection, once for all users.

    Args:
        item_ids, ratings: of all events of all histories: how rare an item is, and what a rating is worth.
        vectors: per item a vector, where the attribute `needs_vectors` is true and they are made already.
    """

    def __call__(
        self, item_ids: Sequence[int | str], ratings: Sequence[float], vectors: Vectors | None
    ) -> Selection: ...


def selection(
    name: str, item_ids: Sequence[int | str], ratings: Sequence[float], vectors: Vectors | None = None
) -> Selection:
    """The selection by its name in the registry; see `Selecting`.

    Raises:
        PromptError: "diverse" was asked for without vectors.
    """
    selecting: Selecting = SELECTIONS.load(name)
    return selecting(item_ids, ratings, vectors)


def needs_vectors(name: str) -> bool:
    """Whether a selection reads the items' vectors."""
    return getattr(SELECTIONS.load(name), "needs_vectors", False)


def by_time(item_ids: Sequence[int | str], ratings: Sequence[float], vectors: Vectors | None) -> Selection:
    """The selection "recent"; and of "summarised", for what is shown one by one."""
    return recent


def by_information(item_ids: Sequence[int | str], ratings: Sequence[float], vectors: Vectors | None) -> Selection:
    """The selection "informative"."""
    return Informative(item_ids, ratings)


def by_distance(item_ids: Sequence[int | str], ratings: Sequence[float], vectors: Vectors | None) -> Selection:
    """The selection "diverse"."""
    if vectors is None:
        raise PromptError(
            "selection = 'diverse' chooses events by the vectors of their items. Make these first: "
            "kar-aug generate --only item, kar-aug encode"
        )
    return Diverse(vectors)


by_distance.needs_vectors = True  # type: ignore[attr-defined]


def recent(item_ids: Sequence[int | str], ratings: Sequence[float], count: int) -> list[int]:
    """The latest events."""
    return list(range(max(0, len(item_ids) - count), len(item_ids)))


class Informative:
    """Events that say most of a user: rated unlike most, of items that few others know.

    An event's worth is how surprising it is, in bits: that of its rating, -log2(share of this rating), and that of its
    item, -log2(share of this item). Of equal events the later is shown.
    """

    def __init__(self, item_ids: Sequence[int | str], ratings: Sequence[float]) -> None:
        total = max(1, len(item_ids))
        self._item = {item: -math.log2(count / total) for item, count in Counter(item_ids).items()}
        self._rating = {rating: -math.log2(count / total) for rating, count in Counter(ratings).items()}

    def __call__(self, item_ids: Sequence[int | str], ratings: Sequence[float], count: int) -> list[int]:
        worth = [
            self._item.get(item, 0.0) + self._rating.get(rating, 0.0)
            for item, rating in zip(item_ids, ratings, strict=True)
        ]
        best = sorted(range(len(worth)), key=lambda position: (-round(worth[position], 9), -position))
        return sorted(best[:count])


class Diverse:
    """Events that cover a user's taste: each next one is of the item least like those chosen (farthest-first
    traversal, Gonzalez 1985, at most twice as far from any event as the best cover), beginning with the latest.

    Events of items without a vector come after all others, the latest first.
    """

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def __call__(self, item_ids: Sequence[int | str], ratings: Sequence[float], count: int) -> list[int]:
        if len(item_ids) <= count:
            return list(range(len(item_ids)))
        known = [position for position, item in enumerate(item_ids) if item in self._vectors]
        without = [position for position, item in enumerate(item_ids) if item not in self._vectors]
        chosen = [known[row] for row in self._cover([item_ids[p] for p in known], count)] if known else []
        left = count - len(chosen)
        return sorted([*chosen, *(without[-left:] if left else [])])

    def _cover(self, item_ids: Sequence[int | str], count: int) -> list[int]:
        unit = np.stack([np.asarray(self._vectors[item], dtype=np.float32) for item in item_ids])
        unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        rows = [len(item_ids) - 1]
        nearest = np.full(len(item_ids), -np.inf, dtype=np.float32)  # the highest cosine to what is chosen
        while len(rows) < min(count, len(item_ids)):
            nearest = np.maximum(nearest, np.round(unit @ unit[rows[-1]], 4))
            nearest[rows[-1]] = np.inf
            # Of equally far ones the latest.
            rows.append(len(nearest) - 1 - int(np.argmin(nearest[::-1])))
        return rows
