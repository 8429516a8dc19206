"""What the rest of `compare` asks of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from kar_aug.data.features import Feature
from kar_aug.data.lists import Lists
from kar_aug.data.samples import Samples

if TYPE_CHECKING:
    from kar_aug.compare.book import Run
    from kar_aug.compare.sanity import Rival
    from kar_aug.compare.statistics import Bootstrapped

Predictions = npt.NDArray[np.float32]
Rows = npt.NDArray[np.bool_]  # of the test rows
Readable = Samples | Lists


class Judge(Protocol):
    """Judges what a model says of one part."""

    # What guesses stay below: a model that is no better has not begun to learn.
    guessing: float

    def __call__(self, output: npt.NDArray[Any]) -> float:
        """The metric of a model's output, as `predict` of Keras returns it."""
        ...


@dataclass(frozen=True)
class Within:
    """What a metric is within a slice.

    Args:
        share: of all that is tested.
        fewest: how much of the rarer kind is there: of few, the metric differs by chance alone.
        values: of each prediction.
    """

    share: float
    fewest: int
    values: Sequence[float]


class Objective(ABC):
    """What models are trained for and judged by.

    Attributes:
        key: of what decides, among a run's values: "auc".
        metric: how tables call that: "AUC".
        values: all metrics: how tables call them -> key. The first decides.
        shown: those of them that a terminal has room for.
        of_slice: what a slice is of, and how its metric is to be read, as reports say it.
        over_rows: how tables call the test whether other test rows would show a gain too.
        marks: what each row of results.csv says of what was trained on: column -> value.
        identity: of what decides a run's result beside arm, seed, settings, data and knowledge.
        title: of reports.
        remark: a sentence that stands before all results; "" if there is none.
    """

    key: str
    metric: str
    values: Mapping[str, str]
    shown: Sequence[str]
    of_slice: str
    over_rows: str
    marks: Mapping[str, str] = MappingProxyType({})
    identity: tuple[Any, ...] = ()
    title: str
    remark: str = ""

    @abstractmethod
    def read(self, samples: Samples) -> Readable:
        """What batches are made of."""

    @abstractmethod
    def given(self, samples: Samples, features: Sequence[Feature]) -> Any:
        """What a backbone is given of some features."""

    @abstractmethod
    def loss(self) -> Any:
        """As Keras takes it."""

    @abstractmethod
    def judge(self, samples: Samples, part: str) -> Judge:
        """Who judges a part."""

    @abstractmethod
    def by_sample(self, samples: Samples, part: str, output: npt.NDArray[Any]) -> Predictions:
        """A model's output for a part, as one number for each sample of it, (samples,)."""

    @abstractmethod
    def evaluate(self, samples: Samples, prediction: Predictions) -> dict[str, Any]:
        """The fields of a run with the metrics of the test part, of one number for each sample of it."""

    @abstractmethod
    def within(self, samples: Samples, slices: Sequence[Rows], predictions: Sequence[Predictions]) -> list[Within]:
        """The metric that decides, of predictions within each of some slices of the test rows."""

    @abstractmethod
    def of_run(self, run: Run) -> dict[str, float]:
        """A run's metrics, as results.csv has them."""

    @abstractmethod
    def chance(self, samples: Samples, part: str) -> float:
        """What guesses stay below."""

    @abstractmethod
    def rivals(self, samples: Samples, folder: Path, fingerprint: str) -> list[Rival]:
        """What any model must beat before its gains mean anything, on the test part."""

    @abstractmethod
    def improvement(self, value: float, base: float) -> float:
        """Relative improvement over a base; NaN where there is none to speak of."""

    def bootstrapped(
        self, samples: Samples, ours: Sequence[Predictions], theirs: Sequence[Predictions]
    ) -> Bootstrapped | None:
        """Whether other test rows would show a gain too, where this is told by drawing them anew.

        Args:
            ours, theirs: predictions of two arms, seed by seed.
        """
        return None

    def told(self, samples: Samples) -> list[str]:
        """Facts of the data, in words."""
        return []
