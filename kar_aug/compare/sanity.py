"""What any model must beat before its gains mean anything: guessing, how popular an item is, and boosted trees.

Both take seconds. The trees are grown on 300,000 drawn rows of the training part at most, and tested on all of the test
part. They read the same columns as the models, made into a row of numbers each: a category as its click rate in the
training part; the events before a sample as how many there are, how they were rated on average, and how many are like
the candidate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.files import write_atomic
from kar_aug.compare.metrics import auc, gauc, logloss
from kar_aug.data.encodings import FIRST, Buckets
from kar_aug.data.features import Feature
from kar_aug.data.inputs import SINCE
from kar_aug.data.samples import Samples

POPULARITY, TREES = "popularity of the item", "gradient boosting"
_MOST_ROWS = 300_000  # that trees are grown on
_READ_ROWS = 65_536
_PRIOR = 20.0  # rows of the average click rate that each category starts with
_ERRORS = 3.0  # standard errors of a guess's AUC
Numbers = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rival:
    """What a model that knows little comes to on the test part. `metrics`: those of lists."""

    name: str
    auc: float = float("nan")
    logloss: float = float("nan")
    gauc: float = float("nan")
    metrics: Mapping[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """A metric by its key."""
        return float(self.metrics[name] if name in self.metrics else getattr(self, name))


def chance(label: npt.NDArray[np.float32]) -> float:
    """The AUC that guesses stay below: 0.5 and three standard errors, at least 0.505.

    Source:
        Hanley and McNeil 1982, Radiology 143(1): the error of an AUC of 0.5 is sqrt((m + n + 1) / 12mn).
    """
    clicks = float((label > 0).sum())
    others = len(label) - clicks
    if not clicks or not others:
        return 0.5
    return 0.5 + max(0.005, _ERRORS * float(np.sqrt((clicks + others + 1) / (12 * clicks * others))))


def rivals(samples: Samples, folder: Path, fingerprint: str, seed: int = 0) -> list[Rival]:
    """Both of them, trained on the training part and tested on the test part.

    Args:
        folder: where the result is kept, under the fingerprint of the data.
    """
    path = folder / f"sanity-{fingerprint}.json"
    if path.exists():
        return [Rival(**found) for found in json.loads(path.read_text(encoding="utf-8"))]
    test = samples.of("test")
    label, weight, group = samples.label[test], samples.weight[test], samples.group[test]
    found = [
        Rival(name, auc(label, guess, weight), logloss(label, guess, weight), gauc(label, guess, group, weight))
        for name, guess in ((POPULARITY, popularity(samples)), (TREES, _trees(samples, seed)))
    ]
    write_atomic(path, json.dumps([asdict(rival) for rival in found], indent=1))
    return found


def popularity(samples: Samples) -> Numbers:
    """Of each test row the click rate of its item in the training part."""
    items = samples.places["item"][samples.rows]
    train, test = samples.of("train"), samples.of("test")
    return _rate(items[train], samples.label[train], len(samples.vocabulary["item"]))[items[test]]


def _trees(samples: Samples, seed: int) -> Numbers:
    from sklearn.ensemble import HistGradientBoostingClassifier

    train, test = samples.of("train"), samples.of("test")
    random = np.random.default_rng([seed, 13])
    grown_on = np.sort(random.choice(train, min(len(train), _MOST_ROWS), replace=False))
    half = random.random(len(grown_on)) < 0.5
    folds = [grown_on[half], grown_on[~half]]
    # A row's own label must not be in its click rates: each half has those of the other.
    read = [_Rows(samples, other).of(own) for own, other in (folds, folds[::-1])]
    trees = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
    label, weight = (np.concatenate([values[fold] for fold in folds]) for values in (samples.label, samples.weight))
    trees.fit(np.concatenate(read), label > 0, sample_weight=weight)
    rows = _Rows(samples, grown_on)
    guessed = [trees.predict_proba(rows.of(part))[:, 1] for part in _parts(test)]
    return np.concatenate(guessed).astype(np.float32)


class _Rows:
    """Samples as rows of numbers.

    Args:
        counted: the samples that click rates are counted on.
    """

    def __init__(self, samples: Samples, counted: Positions) -> None:
        self._samples = samples
        self._single = [f for f in samples.features if not f.sequence and not f.is_number]
        label = samples.label[counted]
        self._rates = {}
        for feature in self._single:
            values = samples.read(counted, {feature.name})[feature.name]
            repeated = label if values.ndim == 1 else np.repeat(label, values.shape[1])
            self._rates[feature.name] = _rate(values.ravel(), repeated, feature.vocabulary_size)

    def of(self, positions: Positions) -> Numbers:
        """(samples, numbers); NaN where there is none."""
        return np.concatenate([np.column_stack(list(self._columns(part))) for part in _parts(positions)])

    def _columns(self, positions: Positions) -> Iterator[Numbers]:
        read = self._samples.read(positions)
        for feature in self._samples.features:
            values = read[feature.name]
            if feature.is_number:
                yield values
            elif feature.sequence:
                yield self._told(feature, values, read.get(feature.name.removeprefix(f"{feature.sequence}_")))
            elif values.ndim == 1:
                yield self._rates[feature.name][values]
            else:
                yield _mean(self._rates[feature.name][values], values > 0)

    def _told(self, feature: Feature, values: npt.NDArray[np.int32], candidate: Numbers | None) -> Numbers:
        """What is told of earlier events, as one number: how many are like the candidate, or their mean."""
        if feature.values > 1:
            return self._told_several(feature, values, candidate)
        there = values > 0
        if feature.name.endswith("_item_id"):
            return there.sum(axis=1).astype(np.float32)
        if feature.name.endswith(f"_{SINCE}"):
            return _mean(values.astype(np.float32), there)
        if candidate is not None:
            first = candidate if candidate.ndim == 1 else candidate[:, 0]
            return _mean((values == first[:, np.newaxis]).astype(np.float32), there)
        return _mean(self._meaning(feature)[values], there)

    def _told_several(self, feature: Feature, values: npt.NDArray[np.int32], candidate: Numbers | None) -> Numbers:
        """The same where each event has several values: how many share one with the candidate."""
        there = values > 0
        if candidate is None:
            return _mean(self._meaning(feature)[values].reshape(len(values), -1), there.reshape(len(values), -1))
        shared = np.zeros(values.shape[:2], bool)
        for each in np.atleast_2d(candidate.T):
            shared |= ((values == each[:, np.newaxis, np.newaxis]) & there).any(axis=2)
        return _mean(shared.astype(np.float32), np.any(there, axis=2))

    def _meaning(self, feature: Feature) -> Numbers:
        """Per integer of a category the number that it stands for, as ratings do; else the integer itself."""
        encoding = self._samples.encodings[feature.name]
        codes = np.arange(feature.vocabulary_size, dtype=np.float32)
        known = () if isinstance(encoding, Buckets) else getattr(encoding, "values", ())
        if known and all(isinstance(value, (int, float)) for value in known):
            codes[FIRST:] = known
        return codes


def _parts(positions: Positions) -> list[Positions]:
    """So many at a time that what is read of them needs little memory."""
    return [positions[start : start + _READ_ROWS] for start in range(0, len(positions), _READ_ROWS)]


def _rate(values: npt.NDArray[np.int32], label: Numbers, size: int) -> Numbers:
    """Click rate of each category, drawn to the average where there are few rows of it."""
    average = label.mean() if len(label) else 0.5
    rows = np.bincount(values, minlength=size)
    clicks = np.bincount(values, weights=label, minlength=size)
    return np.asarray((clicks + _PRIOR * average) / (rows + _PRIOR), np.float32)


def _mean(values: Numbers, there: npt.NDArray[np.bool_]) -> Numbers:
    """Mean over what is there, NaN where nothing is."""
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
