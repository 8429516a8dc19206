"""What codes keep of vectors, and how many items share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.printed import Printed
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.codes.bundle import SemanticIds
from kar_aug.codes.digits import prefix_numbers

if TYPE_CHECKING:  # the layer, which reads codes, needs no pandas
    import pandas as pd

_ROWS = 16_384
_SHORTEST = 1e-12

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LevelReport:
    """A level for itself, and the prefix that ends with it.

    Args:
        level: from 1 on.
        used: how many of the codes are some item's.
        entropy: of the codes of this level, in bits; log2(size) where all are as frequent.
        evenness: entropy / log2(size).
        prefixes: how many prefixes of this length there are.
        shared: of all items, the share with which an item has its prefix in common, on average: what one that draws
            neighbours blindly would find.
        neighbours: share of an item's nearest neighbours that have the prefix in common with it: their recall by
            prefix alone.
        left: squared distance between vectors and what their prefixes decode to, as a share of the distance to the
            mean.
    """

    level: int
    used: int
    entropy: float
    evenness: float
    prefixes: int
    shared: float
    neighbours: float
    left: float


@dataclass(frozen=True)
class CodesReport(Printed):
    """What there is to know of a bundle before models read it.

    Args:
        items: that have codes, and a vector in the store.
        size: codes a level.
        unique: share of the items that share all their codes with nobody.
        collided: how many share them with some other, and need their digit.
        largest: how many items share one code at most.
        nearest: how many neighbours were looked for, of `sampled` items.
        levels: one a level.
    """

    items: int
    size: int
    unique: float
    collided: int
    largest: int
    nearest: int
    sampled: int
    levels: Sequence[LevelReport]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a level."""
        import pandas as pd

        return pd.DataFrame([vars(level) for level in self.levels])

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The same as texts, under `COLUMNS`."""
        return [
            (
                f"{level.level}",
                f"{level.used:,} of {self.size:,}",
                f"{level.entropy:.2f} ({level.evenness:.0%})",
                f"{level.prefixes:,}",
                f"{level.neighbours:.1%}",
                f"{level.shared:.2%}",
                f"{level.left:.1%}",
            )
            for level in self.levels
        ]

    @property
    def sentences(self) -> list[str]:
        """What the rows do not say."""
        return [
            f"{self.items:,} items: {self.unique:.1%} have their codes alone; {self.collided:,} share them, "
            f"{self.largest:,} at most one code, and are told apart by their digit.",
            f"Neighbours: the {self.nearest} nearest by cosine of {self.sampled:,} items.",
        ]

    def __str__(self) -> str:
        return "\n".join([*self.sentences, " | ".join(COLUMNS), *(" | ".join(row) for row in self.rows)])


COLUMNS = (
    "level", "codes used", "entropy, bits", "prefixes", "neighbours with the prefix", "of all items", "distance left",
)  # fmt: skip


def report(codes: SemanticIds, store: Snapshot, *, nearest: int = 10, sample: int = 500, seed: int = 0) -> CodesReport:
    """Look at the codes of a store's items.

    Reads the vectors once, some at a time, and compares each with those of a sample.

    Args:
        nearest: neighbours an item.
        sample: items whose neighbours are looked for.
        seed: draws them.
    """
    rows = np.sort(store.live_rows)
    of = codes.codes_of(store.ids_at(rows))
    rows, of = rows[of[:, 0] > 0], of[of[:, 0] > 0]
    asked = np.sort(np.random.default_rng([seed, 2]).choice(len(rows), min(sample, len(rows)), replace=False))
    near = _nearest(store, rows, asked, max(0, min(nearest, len(rows) - 1)))
    numbers, distances = prefix_numbers(of), _left(codes, store.vectors_at(rows[asked]), of[asked])
    counts = np.bincount(numbers[-1])
    return CodesReport(
        items=len(rows),
        size=codes.size,
        unique=float((counts == 1).sum() / max(1, len(rows))),
        collided=int(counts[counts > 1].sum()),
        largest=int(counts.max(initial=0)),
        nearest=near.shape[1],
        sampled=len(asked),
        levels=[
            _level(level, of[:, level - 1], codes.size, number, asked, near, left)
            for level, (number, left) in enumerate(zip(numbers, distances, strict=True), 1)
        ],
    )


def _level(
    level: int, codes: npt.NDArray[Any], size: int, numbers: Numbers, asked: Numbers, near: Numbers, left: float
) -> LevelReport:
    frequency = np.bincount(codes, minlength=size + 1)[1:] / max(1, len(codes))
    used = frequency[frequency > 0]
    entropy = float(-(used * np.log2(used)).sum()) + 0.0
    counts = np.bincount(numbers)
    common = numbers[near] == numbers[asked][:, np.newaxis]
    return LevelReport(
        level=level,
        used=len(used),
        entropy=entropy,
        evenness=entropy / log2(size) if size > 1 else 1.0,
        prefixes=len(counts),
        shared=float(((counts - 1) * counts).sum() / max(1, len(numbers) * (len(numbers) - 1))),
        neighbours=float(common.mean()) if common.size else float("nan"),
        left=left,
    )


def _left(codes: SemanticIds, vectors: npt.NDArray[Any], of: npt.NDArray[np.int32]) -> Iterator[float]:
    """Per prefix length the distance that it leaves, as a share of that to the mean."""
    exact = vectors.astype(np.float32)
    whole = float(np.square(exact - exact.mean(axis=0)).sum())
    for level in range(1, codes.levels + 1):
        prefix = np.where(np.arange(codes.levels) < level, of, 0)
        yield float(np.square(exact - codes.kmeans.decode(prefix)).sum()) / max(whole, _SHORTEST)


def _nearest(store: Snapshot, rows: Numbers, asked: Numbers, count: int) -> Numbers:
    """Per asked item the places of its `count` nearest others by cosine, the mean of all taken off."""
    blocks = [slice(start, start + _ROWS) for start in range(0, len(rows), _ROWS)]
    total = np.zeros(store.spec.dimension)
    for block in blocks:
        total += store.vectors_at(rows[block]).sum(axis=0, dtype=np.float64)
    mean = (total / max(1, len(rows))).astype(np.float32)
    queries = _unit(store.vectors_at(rows[asked]), mean)
    best = np.full((len(asked), count), -np.inf, np.float32)
    places = np.zeros((len(asked), count), np.int64)
    for block in blocks:
        found = queries @ _unit(store.vectors_at(rows[block]), mean).T
        own = np.flatnonzero((asked >= block.start) & (asked < block.stop))
        found[own, asked[own] - block.start] = -np.inf  # nobody is his own neighbour
        here = np.broadcast_to(np.arange(block.start, block.start + found.shape[1]), found.shape)
        both, where = np.concatenate([best, found], axis=1), np.concatenate([places, here], axis=1)
        chosen = np.argpartition(-both, count - 1, axis=1)[:, :count] if count else np.empty((len(asked), 0), int)
        best, places = (np.take_along_axis(each, chosen, axis=1) for each in (both, where))
    return places


def _unit(vectors: npt.NDArray[Any], mean: Floats) -> Floats:
    moved = vectors.astype(np.float32) - mean
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), _SHORTEST), np.float32)
