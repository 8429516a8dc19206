"""Where does it help? The same comparison on cold and warm ids, and on rows with and without knowledge; of lists, by
what was clicked in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kar_aug.compare.arms import Arm
from kar_aug.compare.comparison import Comparison
from kar_aug.compare.objective import Within
from kar_aug.compare.statistics import Estimate, estimate
from kar_aug.data.samples import ENTITIES, Samples

_GROUPS = 3
_COLD = (20, 100)  # where the coldest group is cut again: there texts must help, and most rows are of what is common
_FEWEST = 10
_HOUR = 3600.0
# Ages below so many seconds, and what they are called.
_AGES = (
    (_HOUR, "under an hour"),
    (24 * _HOUR, "under a day"),
    (7 * 24 * _HOUR, "under a week"),
    (30 * 24 * _HOUR, "under 30 days"),
    (365 * 24 * _HOUR, "under a year"),
)
Numbers = npt.NDArray[np.int64]
# Function of the samples of a seed to the test rows in a slice.
Mask = Callable[[Samples], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Slice:
    """Some of the test rows, or lists. `share`: of all of them; `base`: AUC of the plain backbone there, or what else
    decides; `gain`: what the arm has more, both over the seeds.
    """

    group: str
    label: str
    share: float
    base: Estimate
    gain: Estimate


def by_slice(comparison: Comparison, arm: Arm) -> list[Slice]:
    """An arm against its plain backbone, slice by slice; those with fewer than 10 clicks or 10 others, or 10 lists, are
    left out.
    """
    base, experiment, slices = arm.base, comparison.experiment, _masks(comparison, arm)
    of_seeds = [
        comparison.objective.within(
            experiment.samples(seed),
            [mask(experiment.samples_of(arm, seed)) for _, _, mask in slices],
            [comparison.prediction(each, seed) for each in (base, arm)],
        )
        for seed in range(comparison.seeds)
    ]
    of_slices = zip(slices, zip(*of_seeds, strict=True), strict=True)
    return [_slice(group, label, found) for (group, label, _), found in of_slices if _are_many(found)]


def _are_many(found: Sequence[Within]) -> bool:
    return min(each.fewest for each in found) >= _FEWEST


def _slice(group: str, label: str, found: Sequence[Within]) -> Slice:
    """Of what was found seed by seed for (the plain backbone, the arm)."""
    before, after = zip(*(each.values for each in found), strict=True)
    gains = [ours - theirs for ours, theirs in zip(after, before, strict=True)]
    return Slice(group, label, float(np.mean([each.share for each in found])), estimate(before), estimate(gains))


def _masks(comparison: Comparison, arm: Arm) -> list[tuple[str, str, Mask]]:
    """(group, label, mask). Bounds are the first seed's."""
    found: list[tuple[str, str, Mask]] = []
    samples = comparison.experiment.samples(0)
    for group, count in _COUNTS.items():
        for low, high in bounds(count(samples)):
            label = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            found.append((group, label, _between(count, low, high)))
    for entity in ENTITIES:
        known = samples.known(entity, samples.of("test"))
        if known.any() and not known.all():
            found += [(f"{entity} was trained on", word, _known(entity, word == "yes")) for word in ("yes", "no")]
    tables = comparison.experiment.tables(arm, 0)
    if not tables:
        return found
    covered = {entity: tables[entity].rows >= 0 for entity in arm.entities}
    for wanted in np.ndindex(*[2] * len(covered)):
        having = [entity for entity, has in zip(covered, wanted, strict=True) if has]
        found.append(("has knowledge of", " and ".join(having) or "neither", _having(covered, wanted)))
    return found + [row for entity in arm.entities for row in _by_age(comparison, arm, entity)]


def _by_age(comparison: Comparison, arm: Arm, entity: str) -> list[tuple[str, str, Mask]]:
    """By the time between the last event that the knowledge knew and the row: what is known grows old, until there is
    another version. The group says how many rows have none, though these be too few for a slice.
    """
    given = comparison.experiment.given(arm, entity, 0)
    if given is None or comparison.experiment.config.vary_split:  # whose seeds have test rows of their own
        return []
    ages = given.ages(comparison.experiment.samples(0).of("test"))
    group = f"age of the {entity}'s knowledge ({np.isnan(ages).mean():.1%} of the rows have none)"
    ends = np.array([seconds for seconds, _ in _AGES])
    bucket = np.where(np.isnan(ages), -1, np.searchsorted(ends, ages, side="right"))
    labels = ["none", *(label for _, label in _AGES), "a year or more"]
    return [(group, label, _in_bucket(bucket == number)) for number, label in enumerate(labels, -1)]


def _in_bucket(rows: npt.NDArray[np.bool_]) -> Mask:
    return lambda samples: rows


def _between(count: Callable[[Samples], Numbers], low: int, high: int) -> Mask:
    def mask(samples: Samples) -> npt.NDArray[np.bool_]:
        found = count(samples)
        return np.asarray((found >= low) & (found <= high))

    return mask


def _known(entity: str, wanted: bool) -> Mask:
    return lambda samples: samples.known(entity, samples.of("test")) == wanted


def _having(covered: Mapping[str, npt.NDArray[np.bool_]], wanted: tuple[int, ...]) -> Mask:
    def mask(samples: Samples) -> npt.NDArray[np.bool_]:
        tested = samples.read(samples.of("test"), covered)
        has = [covered[entity][tested[entity]] == bool(w) for entity, w in zip(covered, wanted, strict=True)]
        return np.asarray(np.all(has, axis=0))

    return mask


def _trained_on(entity: str) -> Callable[[Samples], Numbers]:
    def count(samples: Samples) -> Numbers:
        of_part = {part: samples.places[entity][samples.rows[samples.of(part)]] for part in ("train", "test")}
        seen = np.bincount(of_part["train"], minlength=len(samples.vocabulary[entity]))
        return np.asarray(seen[of_part["test"]], np.int64)

    return count


def _events_so_far(samples: Samples) -> Numbers:
    return samples.events_before(samples.of("test"))


_COUNTS: Mapping[str, Callable[[Samples], Numbers]] = {
    "training rows of the item": _trained_on("item"),
    "training rows of the user": _trained_on("user"),
    "earlier events of the user": _events_so_far,
}


def bounds(counts: Numbers) -> list[tuple[int, int]]:
    """Ranges of counts, cold to warm: 0 apart, the rest in groups of about as many rows, the coldest of which is cut
    where fewer than 20, and fewer than 100, end. None if all are alike.
    """
    if counts.min(initial=0) == counts.max(initial=0):
        return []
    positive = counts[counts > 0]
    starts = np.unique(np.quantile(positive, np.arange(_GROUPS) / _GROUPS, method="higher")).tolist()
    coldest = positive[positive < starts[1]] if len(starts) > 1 else positive
    starts[1:1] = [cold for cold in _COLD if starts[0] < cold <= coldest.max()]
    ends = [start - 1 for start in starts[1:]] + [positive.max()]
    ranges = [(0, 0)] if (counts == 0).any() else []
    return ranges + [(int(low), int(high)) for low, high in zip(starts, ends, strict=True)]
