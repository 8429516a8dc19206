"""All runs of a comparison together: what is missing is done, what is there is read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.processes import cores
from kar_aug.backbones.protocol import key_of
from kar_aug.compare.arms import Arm, arms, imitated
from kar_aug.compare.book import BOOK, Book, Run
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.objectives import Objective
from kar_aug.compare.sanity import Rival
from kar_aug.compare.statistics import Bootstrapped, Estimate, estimate
from kar_aug.compare.tasks import Event, OnEvent, Task, Training, Tuning
from kar_aug.compare.workers import do
from kar_aug.config import CompareConfig
from kar_aug.data.samples import Samples
from kar_aug.data.split import SAMPLE_PARTS, SMALL_CLASS
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace

Predictions = npt.NDArray[np.float32]
_log = logging.getLogger("kar_aug")


@dataclass(frozen=True)
class Comparison:
    """The runs of all arms, seed by seed, and what they were made of.

    Args:
        rivals: what any model must beat, on the first seed's split.
    """

    experiment: Experiment
    book: Book
    runs: Mapping[Arm, Sequence[Run]]
    rivals: Sequence[Rival]

    @property
    def arms(self) -> list[Arm]:
        """In the order of `arms`."""
        return list(self.runs)

    @property
    def backbones(self) -> list[str]:
        """In order."""
        return list(dict.fromkeys(arm.backbone for arm in self.runs))

    @property
    def seeds(self) -> int:
        """How many runs an arm has."""
        return len(next(iter(self.runs.values())))

    @property
    def objective(self) -> Objective:
        """What the models are judged by."""
        return self.experiment.objective

    def estimate(self, arm: Arm, metric: str | None = None) -> Estimate:
        """A metric over the seeds of an arm: AUC, or by its key."""
        return estimate([run.value(metric or self.objective.key) for run in self.runs[arm]])

    def gains(self, arm: Arm, against: Arm, metric: str | None = None) -> list[float]:
        """What an arm has more than another, seed by seed: the same split, both with that seed."""
        name, both = metric or self.objective.key, zip(self.runs[arm], self.runs[against], strict=True)
        return [ours.value(name) - theirs.value(name) for ours, theirs in both]

    def bootstrapped(self, arm: Arm, against: Arm) -> Bootstrapped | None:
        """Whether other lists would show what an arm has more than another; None where rows are no lists, or each seed
        has test rows of its own.
        """
        if self.experiment.config.vary_split:
            return None
        ours, theirs = ([self.prediction(each, run.seed) for run in self.runs[each]] for each in (arm, against))
        return self.objective.bootstrapped(self.experiment.samples(0), ours, theirs)

    def clicked(self, seed: int) -> npt.NDArray[np.float32]:
        """Labels of the rows that a seed was tested on."""
        samples = self.experiment.samples(seed)
        return samples.label[samples.of("test")]

    def prediction(self, arm: Arm, seed: int) -> Predictions:
        """What an arm predicted for them."""
        return self.book.prediction(self.runs[arm][seed].identity)

    def pooled(self, arm: Arm) -> Predictions | None:
        """The mean prediction of all seeds for each test row; None where each seed has test rows of its own."""
        if self.experiment.config.vary_split:
            return None
        return np.mean([self.prediction(arm, run.seed) for run in self.runs[arm]], axis=0, dtype=np.float64)

    def coverage(self, arm: Arm) -> dict[str, float]:
        """Per source, the share of test rows whose id has a vector."""
        samples = self.experiment.samples_of(arm, 0)
        tables = self.experiment.tables(arm, 0)
        tested = samples.read(samples.of("test"), {key_of(name) for name in tables})
        return {name: float((table.rows[tested[key_of(name)]] >= 0).mean()) for name, table in tables.items()}

    @property
    def rows(self) -> dict[str, int]:
        """Samples a part, of the first seed."""
        samples = self.experiment.samples(0)
        return {name: len(samples.of(name)) for name in SAMPLE_PARTS}

    @property
    def click_rates(self) -> dict[str, float]:
        """Share of clicks a part, of the first seed."""
        samples = self.experiment.samples(0)
        return {name: float((samples.label[samples.of(name)] > 0).mean()) for name in SAMPLE_PARTS}

    @property
    def grouped_by(self) -> str:
        """What GAUC is computed within: an "impression", where the log says which rows are one, else a "user"."""
        samples = self.experiment.samples(0)
        test = samples.of("test")
        users = samples.places["user"][samples.rows[test]]
        return "user" if len(np.unique(samples.group[test])) == len(np.unique(users)) else "impression"

    @property
    def drawn(self) -> float:
        """Share of the test rows that are drawn negatives."""
        samples = self.experiment.samples(0)
        return float(samples.drawn[samples.of("test")].mean())

    def table(self) -> pd.DataFrame:
        """A row a run, as results.csv has it."""
        return pd.DataFrame(
            {
                "arm": arm.name,
                "backbone": arm.backbone,
                "knowledge": arm.knowledge,
                "adaptor": arm.adaptor,
                "injection": arm.injection,
                "beside": arm.beside,
                "seed": run.seed,
                **self.objective.marks,
                **self.objective.of_run(run),
                **{name: getattr(run, name) for name in ("epochs", "parameters")},
                f"validation_{self.objective.key}": max(run.curve),
                "train_seconds": run.train_seconds,
                "microseconds_a_row": run.microseconds,
                **{name: run.settings[name] for name in ("learning_rate", "l2_embedding", "dropout")},
                "data": run.data,
                "code": run.code,
                "identity": run.identity,
            }
            for arm, runs in self.runs.items()
            for run in runs
        )

    def weakness(self, arm: Arm) -> str:
        """What an arm does not beat of guessing and the rivals, in words; "" if it is worth beating itself."""
        return self._unbeaten(self.estimate(arm).mean)

    def is_strong(self, arm: Arm) -> bool:
        """Whether each seed of an arm, and not their mean alone, beats guessing and all rivals."""
        return not any(self._unbeaten(run.value(self.objective.key)) for run in self.runs[arm])

    @cached_property
    def _chance(self) -> float:
        """What guesses stay below on the test part: each verdict asks, and it is read off all of its labels."""
        return self.objective.chance(self.experiment.samples(0), "test")

    def beats_guessing(self, value: float) -> bool:
        """Whether the metric that decides is more than that of guesses."""
        return value >= self._chance

    def _unbeaten(self, value: float) -> str:
        if not self.beats_guessing(value):
            return "guessing"
        rivals = {rival.name: rival.value(self.objective.key) for rival in self.rivals}
        return " and ".join(f"{name} ({theirs:.4f})" for name, theirs in rivals.items() if value < theirs)

    def improvement(self, arm: Arm) -> float:
        """Relative improvement of the mean AUC over the plain backbone; NaN where that is no better than guessing."""
        if self.weakness(arm.base) == "guessing":
            return float("nan")
        return self.objective.improvement(self.estimate(arm).mean, self.estimate(arm.base).mean)


def compare(
    workspace: Workspace,
    *,
    on_start: Callable[[int, int], None] = lambda total, done: None,
    on_event: OnEvent = lambda event: None,
) -> Comparison:
    """Train and test every arm with every seed; what the book of runs has is not done again.

    Args:
        on_start: called with (units in all, units that are there already); a unit is a run, or a trial of a search.
        on_event: called after each epoch, and when a unit is finished.

    Raises:
        StoreError: Vectors are missing, or damaged; the message says which command makes them.
        DataError: A part has no rows to train or test on, or rows of one class alone.
    """
    experiment = Experiment(workspace)
    config = experiment.config
    chosen = arms(config)
    for arm in chosen:  # what is missing is said before hours of training, not after
        experiment.tables(arm, 0)
    experiment.check_vectors()
    _name_small_parts(experiment.samples(0), experiment.objective.metric)
    to_beat = experiment.objective.rivals(experiment.samples(0), experiment.folder, experiment.data_fingerprint(0))
    book = Book(experiment.folder / BOOK)
    on_event = _saying_notes(on_event)
    searches = [Tuning(arm, config.tune, experiment.training, imitated(arm, chosen)) for arm in chosen if config.tune]
    missing = [search.missing(experiment, book) for search in searches]
    jobs = config.jobs or cores()
    total = config.tune * len(chosen) + config.seeds * len(chosen)
    finished = config.tune * len(searches) - sum(missing)
    if not sum(missing):
        finished += sum(1 - t.missing(experiment, book) for t in _trainings(chosen, config, searches, experiment, book))
    on_start(total, finished)
    to_search: list[Task] = [search for search, left in zip(searches, missing, strict=True) if left]
    do(to_search, experiment, book, jobs, on_event)
    trainings = _trainings(chosen, config, searches, experiment, book)
    to_train: list[Task] = []
    for training in trainings:
        if training.missing(experiment, book):
            to_train.append(training)
        elif sum(missing):  # not counted at the start: its settings were not known
            on_event(Event(training.arm, f"seed {training.seed}", done=True))
    do(to_train, experiment, book, jobs, on_event)
    found: dict[Arm, list[Run]] = {arm: [] for arm in chosen}
    for training in trainings:
        run = book.run(training.identity(experiment))
        if run is None:
            raise StoreError(
                f"{book.path}: the run of {training.arm.name}, seed {training.seed}, is gone. Run it again."
            )
        found[training.arm].append(run)
    return Comparison(experiment, book, found, to_beat)


def _name_small_parts(samples: Samples, metric: str) -> None:
    """Say where chance decides which epoch is the best, or which arm."""
    for part in SAMPLE_PARTS[1:]:
        label = samples.label[samples.of(part)]
        fewer = int(min((label > 0).sum(), (label == 0).sum()))
        if fewer < SMALL_CLASS:
            _log.warning(
                "The %s part has %d rows, %d of the rarer class: by so few, %s differs by chance alone. Give it more: "
                "[data] %s = ...",
                part,
                len(label),
                fewer,
                metric,
                part,
            )


def _saying_notes(on_event: OnEvent) -> OnEvent:
    """Each note once, however many seeds have it."""
    said: set[str] = set()

    def say(event: Event) -> None:
        if not event.note:
            on_event(event)
        elif event.note not in said:
            said.add(event.note)
            _log.warning("%s", event.note)

    return say


def _trainings(
    chosen: Sequence[Arm], config: CompareConfig, searches: Sequence[Tuning], experiment: Experiment, book: Book
) -> list[Training]:
    """A training an arm and seed; seeds outermost, so that an interrupted comparison has whole seeds."""
    tuned = {search.arm: search.best(experiment, book) for search in searches}
    return [
        Training(arm, seed, tuned.get(arm, experiment.training), imitated(arm, chosen))
        for seed in range(config.seeds)
        for arm in chosen
    ]
