"""Where does it help? The same comparison on cold and warm ids, and on rows with and without knowledge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.compare.arms import Arm
from kar_aug.compare.comparison import Comparison
from kar_aug.compare.metrics import auc
from kar_aug.compare.statistics import Estimate, estimate
from kar_aug.data.features import HISTORY, Samples

_GROUPS = 3
_FEWEST = 10
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slice:
    """Some of the test rows. `share`: of all of them; `base`: AUC of the plain backbone there; `gain`: AUC that the arm
    has more, both over the seeds.
    """

    group: str
    label: str
    share: float
    base: Estimate
    gain: Estimate


def by_slice(comparison: Comparison, arm: Arm) -> list[Slice]:
    """An arm against its plain backbone, slice by slice; those with fewer than 10 clicks or 10 others are left out."""
    slices = []
    base = arm.base
    seeds = range(comparison.seeds)
    for group, label, mask in _masks(comparison, arm):
        shares, before, gains, fewest = [], [], [], _FEWEST
        for seed in seeds:
            inputs, clicked = comparison.tested(seed)
            rows = mask(comparison.experiment.samples(seed), inputs)
            shares.append(float(rows.mean()))
            ours, theirs = (comparison.prediction(a, seed)[rows] for a in (arm, base))
            before.append(auc(clicked[rows], theirs))
            gains.append(auc(clicked[rows], ours) - before[-1])
            fewest = min(fewest, int(clicked[rows].sum()), int(rows.sum() - clicked[rows].sum()))
        if fewest >= _FEWEST:
            slices.append(Slice(group, label, float(np.mean(shares)), estimate(before), estimate(gains)))
    return slices


Mask = Callable[[Samples, Mapping[str, Any]], npt.NDArray[np.bool_]]


def _masks(comparison: Comparison, arm: Arm) -> list[tuple[str, str, Mask]]:
    """(group, label, function of samples and their test inputs to the rows in it). Bounds are the first seed's."""
    found: list[tuple[str, str, Mask]] = []
    for group, count in _COUNTS.items():
        samples = comparison.experiment.samples(0)
        for low, high in bounds(count(samples, samples.of("test")[0])):
            label = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            found.append((group, label, _between(count, low, high)))
    tables = comparison.experiment.tables(arm, 0)
    if not tables:
        return found
    covered = {name: table.rows >= 0 for name, table in tables.items()}
    for wanted in np.ndindex(*[2] * len(covered)):
        having = [name.removesuffix("_id") for name, has in zip(covered, wanted, strict=True) if has]
        found.append(("has knowledge of", " and ".join(having) or "neither", _having(covered, wanted)))
    return found


def _between(count: Callable[..., Numbers], low: int, high: int) -> Mask:
    def mask(samples: Samples, inputs: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        found = count(samples, inputs)
        return np.asarray((found >= low) & (found <= high))

    return mask


def _having(covered: Mapping[str, npt.NDArray[np.bool_]], wanted: tuple[int, ...]) -> Mask:
    def mask(samples: Samples, inputs: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        has = [covered[name][inputs[name]] == bool(w) for name, w in zip(covered, wanted, strict=True)]
        return np.all(has, axis=0)

    return mask


def _trained_on(name: str) -> Callable[[Samples, Mapping[str, Any]], Numbers]:
    def count(samples: Samples, inputs: Mapping[str, Any]) -> Numbers:
        seen = np.bincount(samples.of("train")[0][name], minlength=int(inputs[name].max(initial=0)) + 1)
        return np.asarray(seen[inputs[name]], np.int64)

    return count


def _clicks_so_far(samples: Samples, inputs: Mapping[str, Any]) -> Numbers:
    return np.asarray((inputs[HISTORY] > 0).sum(axis=1), np.int64)


_COUNTS: Mapping[str, Callable[[Samples, Mapping[str, Any]], Numbers]] = {
    "training rows of the item": _trained_on("item_id"),
    "training rows of the user": _trained_on("user_id"),
    "user's clicks in the model's history": _clicks_so_far,
}


def bounds(counts: Numbers) -> list[tuple[int, int]]:
    """Ranges of counts, cold to warm: 0 apart, the rest in groups of about as many rows. None if all are alike."""
    if counts.min(initial=0) == counts.max(initial=0):
        return []
    positive = counts[counts > 0]
    starts = np.unique(np.quantile(positive, np.arange(_GROUPS) / _GROUPS, method="higher")).tolist()
    ends = [start - 1 for start in starts[1:]] + [positive.max()]
    ranges = [(0, 0)] if (counts == 0).any() else []
    return ranges + [(int(low), int(high)) for low, high in zip(starts, ends, strict=True)]
