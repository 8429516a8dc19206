"""The task "ctr": is this item clicked? Each sample is judged beside all others, by AUC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kar_aug.compare.metrics import auc, ece, gauc, logloss
from kar_aug.compare.objective import Objective, Predictions, Rows, Within
from kar_aug.compare.sanity import Rival, chance, rivals
from kar_aug.compare.statistics import relative_improvement
from kar_aug.data.features import Feature
from kar_aug.data.samples import Samples

if TYPE_CHECKING:
    from kar_aug.compare.book import Run


class _AucOfPart:
    def __init__(self, samples: Samples, part: str) -> None:
        of = samples.of(part)
        self._label, self._weight = samples.label[of], samples.weight[of]
        self.guessing = chance(self._label)

    def __call__(self, output: npt.NDArray[Any]) -> float:
        return auc(self._label, _probabilities(output), self._weight)


class Clicks(Objective):
    """Click probabilities of samples."""

    key, metric = "auc", "AUC"
    values = {"AUC": "auc", "LogLoss": "logloss", "GAUC": "gauc", "ECE": "ece"}  # noqa: RUF012
    shown = ("AUC", "LogLoss", "GAUC")
    of_slice = "An AUC inside a slice compares rows of that slice only."
    over_rows = "DeLong"
    title = "CTR models with and without knowledge"

    def read(self, samples: Samples) -> Samples:
        return samples

    def given(self, samples: Samples, features: Sequence[Feature]) -> Sequence[Feature]:
        return features

    def loss(self) -> str:
        return "binary_crossentropy"

    def judge(self, samples: Samples, part: str) -> _AucOfPart:
        return _AucOfPart(samples, part)

    def by_sample(self, samples: Samples, part: str, output: npt.NDArray[Any]) -> Predictions:
        return _probabilities(output)

    def evaluate(self, samples: Samples, prediction: Predictions) -> dict[str, Any]:
        test = samples.of("test")
        label, weight = samples.label[test], samples.weight[test]
        return {
            "auc": auc(label, prediction, weight),
            "logloss": logloss(label, prediction, weight),
            "gauc": gauc(label, prediction, samples.group[test], weight),
            "ece": ece(label, prediction),
        }

    def within(self, samples: Samples, slices: Sequence[Rows], predictions: Sequence[Predictions]) -> list[Within]:
        label = samples.label[samples.of("test")]
        return [_within(rows, label[rows], [prediction[rows] for prediction in predictions]) for rows in slices]

    def of_run(self, run: Run) -> dict[str, float]:
        return {name: run.value(name) for name in self.values.values()}

    def chance(self, samples: Samples, part: str) -> float:
        return chance(samples.label[samples.of(part)])

    def rivals(self, samples: Samples, folder: Path, fingerprint: str) -> list[Rival]:
        return rivals(samples, folder, fingerprint)

    def improvement(self, value: float, base: float) -> float:
        return relative_improvement(value, base)


def _within(rows: Rows, label: Predictions, predictions: Sequence[Predictions]) -> Within:
    clicks = int(label.sum())
    fewest = min(clicks, len(label) - clicks)
    return Within(float(rows.mean()), fewest, [auc(label, prediction) for prediction in predictions])


def _probabilities(output: npt.NDArray[Any]) -> Predictions:
    return np.asarray(output[:, 0], np.float32)


CLICKS = Clicks()
