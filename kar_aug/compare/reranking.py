"""The task "rerank": in which order? A list is judged as a whole, and lists are what is drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kar_aug.backbones.reranking.protocol import ListFeatures
from kar_aug.compare.list_metrics import NAMES, SCOPES, of_lists
from kar_aug.compare.objective import Objective, Predictions, Rows, Within
from kar_aug.compare.sanity import POPULARITY, Rival, popularity
from kar_aug.compare.statistics import Bootstrapped, bootstrap
from kar_aug.data.features import Feature
from kar_aug.data.lists import Lists
from kar_aug.data.samples import Samples

if TYPE_CHECKING:
    from kar_aug.compare.book import Run

INITIAL = "the initial order"
_GUESSES = 10
_ERRORS = 3.0  # standard errors of a guess's metric
Numbers = npt.NDArray[np.float64]


class Reranking(Objective):
    """Scores of a list's items.

    Args:
        loss: a name of `kar_aug.backbones.reranking.losses.LOSSES`.
        metric: a name of `list_metrics.NAMES` and a scope: "MAP@7".
        most: items of a list that are read.
        synthetic: whether the lists were made (`kar_aug.data.kar_lists`).
    """

    of_slice = (
        "A slice has the lists in which something of its kind was clicked: one list may be in several, and one without "
        "a click is in none."
    )
    over_rows = "bootstrap"

    def __init__(self, loss: str, metric: str, most: int, *, synthetic: bool) -> None:
        self._loss, self._most = loss, most
        self._last: Lists | None = None
        self.metric, self.key = metric, metric.lower()
        _, _, scope = metric.partition("@")
        names = dict.fromkeys([metric, *(f"{name}@{scope}" for name in NAMES)])
        self.values, self.shown = {name: name.lower() for name in names}, tuple(names)
        self._all = dict.fromkeys([*names, *(f"{name}@{each}" for each in SCOPES for name in NAMES)])
        self.identity = ("rerank", loss, metric, most)
        self.marks = {"lists": "synthetic" if synthetic else "impressions"}
        made = " (synthetic lists)" if synthetic else ""
        self.title = f"Re-ranking with and without knowledge{made}"
        if synthetic:
            self.remark = (
                "The lists are synthetic, as KAR's authors made them: 4 of a user's next items among 6 random ones. "
                "They say how what was met is told from what was drawn, and not how a page that was shown is ordered."
            )

    def read(self, samples: Samples) -> Lists:
        if self._last is None or self._last.samples is not samples:
            self._last = Lists(samples, self._most)
        return self._last

    def given(self, samples: Samples, features: Sequence[Feature]) -> ListFeatures:
        lists = self.read(samples)
        of_items = [feature for feature in features if lists.is_of_items(feature)]
        return ListFeatures(of_items, [f for f in features if f not in of_items], lists.size)

    def loss(self) -> Any:
        from kar_aug.backbones.reranking.losses import LOSSES

        return LOSSES[self._loss]

    def judge(self, samples: Samples, part: str) -> _MetricOfPart:
        return _MetricOfPart(self, samples, part)

    def by_sample(self, samples: Samples, part: str, output: npt.NDArray[Any]) -> Predictions:
        return self.read(samples).by_sample(part, output)

    def evaluate(self, samples: Samples, prediction: Predictions) -> dict[str, Any]:
        lists = self.read(samples)
        metrics = {name.lower(): self.per_list(lists, "test", prediction, name).mean() for name in self._all}
        nothing = dict.fromkeys(("auc", "logloss", "gauc", "ece"), float("nan"))
        return {**nothing, "metrics": {name: float(value) for name, value in metrics.items()}}

    def within(self, samples: Samples, slices: Sequence[Rows], predictions: Sequence[Predictions]) -> list[Within]:
        lists = self.read(samples)
        of_each = [self.per_list(lists, "test", prediction, self.metric) for prediction in predictions]
        chosen = (self._with_clicked(lists, rows) for rows in slices)
        return [
            Within(float(some.mean()), int(some.sum()), [float(each[some].mean()) for each in of_each if some.any()])
            for some in chosen
        ]

    def _with_clicked(self, lists: Lists, rows: Rows) -> Rows:
        """The test lists in which one of some rows of the test part was clicked, (lists,)."""
        test = lists.samples.of("test")
        wanted = np.zeros(len(lists.samples), bool)
        wanted[test] = rows & (lists.samples.label[test] > 0)
        return np.concatenate([(wanted[members] & (members >= 0)).any(axis=1) for members, _ in lists.blocks("test")])

    def of_run(self, run: Run) -> dict[str, float]:
        return dict(run.metrics)

    def chance(self, samples: Samples, part: str) -> float:
        return self._chance(self.read(samples), part)

    def rivals(self, samples: Samples, folder: Path, fingerprint: str) -> list[Rival]:
        known = {INITIAL: np.zeros(len(samples.of("test")), np.float32), POPULARITY: popularity(samples)}
        return [Rival(name, metrics=self.evaluate(samples, guess)["metrics"]) for name, guess in known.items()]

    def improvement(self, value: float, base: float) -> float:
        return value / base - 1 if base > 0 else float("nan")

    def bootstrapped(
        self, samples: Samples, ours: Sequence[Predictions], theirs: Sequence[Predictions]
    ) -> Bootstrapped:
        lists = self.read(samples)
        gains = [
            self.per_list(lists, "test", a, self.metric) - self.per_list(lists, "test", b, self.metric)
            for a, b in zip(ours, theirs, strict=True)
        ]
        return bootstrap(np.mean(gains, axis=0))

    def told(self, samples: Samples) -> list[str]:
        return self.read(samples).told()

    def per_list(self, lists: Lists, part: str, prediction: Predictions, metric: str) -> Numbers:
        """A metric of each list of a part, (lists,), of one number for each sample of it."""
        name, _, scope = metric.partition("@")
        score = np.full(len(lists.samples), -np.inf, np.float32)
        score[lists.samples.of(part)] = prediction
        found = [of_lists(label, score[members], name, int(scope)) for members, label in lists.blocks(part)]
        return np.concatenate(found) if found else np.empty(0)

    def _chance(self, lists: Lists, part: str) -> float:
        random = np.random.default_rng(23)
        rows = len(lists.samples.of(part))
        drawn = [self.per_list(lists, part, random.random(rows, np.float32), self.metric) for _ in range(_GUESSES)]
        each = np.concatenate(drawn)
        return float(each.mean() + _ERRORS * each.std() / np.sqrt(max(1, len(drawn[0]))))


class _MetricOfPart:
    def __init__(self, objective: Reranking, samples: Samples, part: str) -> None:
        self._objective, self._part, self._lists = objective, part, objective.read(samples)
        self.guessing = objective.chance(samples, part)

    def __call__(self, output: npt.NDArray[Any]) -> float:
        scores = self._lists.by_sample(self._part, output)
        return float(self._objective.per_list(self._lists, self._part, scores, self._objective.metric).mean())
