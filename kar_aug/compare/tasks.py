"""The resumable units of a comparison: the search of an arm, and a training of an arm with a seed."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from kar_aug.backbones.protocol import key_of
from kar_aug.compare.arms import Arm
from kar_aug.compare.book import Book, Run, Trial
from kar_aug.compare.experiment import Experiment, code_version
from kar_aug.compare.saved import is_kept, save, save_inputs
from kar_aug.config import TrainingConfig
from kar_aug.data.samples import Samples


@dataclass(frozen=True)
class Event:
    """What a task reports: after each epoch (with its validation AUC), and, `done`, when a unit is in the book; or a
    `note`, a sentence that the user should read.
    """

    arm: Arm
    unit: str
    epoch: int = 0
    auc: float = float("nan")
    done: bool = False
    note: str = ""


OnEvent = Callable[[Event], None]


class Task(Protocol):
    """Something to be done in a process with TensorFlow, on one core."""

    def wanted_keras(self) -> str:
        """Which Keras that process must run: "2", for its former API, or "3"."""
        ...

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Do it."""
        ...


@dataclass(frozen=True)
class Training:
    """One arm with one seed. `imitated` is the arm that its control is made after, if it is made after any."""

    arm: Arm
    seed: int
    settings: TrainingConfig
    imitated: Arm | None = None

    def identity(self, experiment: Experiment) -> str:
        """Under which the book has it."""
        return experiment.identity(self.arm, self.seed, self.settings, self.imitated)

    def missing(self, experiment: Experiment, book: Book) -> int:
        """1 if the book does not have it yet, else 0."""
        return int(book.run(self.identity(experiment)) is None)

    def wanted_keras(self) -> str:
        """That of its backbone."""
        return _keras_for(self.arm, self.settings)

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Train on train, choose the epoch on validation, then look at the test part: here, and nowhere else."""
        from kar_aug._helpers.keras import keras
        from kar_aug.compare.models import parameters
        from kar_aug.compare.training import tested

        unit = f"seed {self.seed}"
        samples = experiment.samples_of(self.arm, self.seed)
        identity = self.identity(experiment)
        checkpoint = _checkpoint(experiment, identity)
        trained = _train(self, experiment, unit, on_event, checkpoint)
        gate = _gate_usage(trained, samples)
        prediction = tested(trained.model, samples, experiment.objective)
        run = Run(
            identity=identity,
            arm=self.arm,
            seed=self.seed,
            settings=asdict(self.settings),
            data=experiment.data_fingerprint(self.seed),
            knowledge=experiment.knowledge_fingerprint(self.arm, self.imitated),
            code=code_version(),
            environment=_environment(),
            **experiment.objective.evaluate(samples, prediction),
            curve=trained.curve,
            parameters=parameters(trained.model),
            train_seconds=round(trained.train_seconds, 2),
            microseconds=round(trained.microseconds, 3),
            gate={name: usage.astype(float).tolist() for name, usage in gate.items()},
            created=_now(),
            keras=self.wanted_keras(),
        )
        save_inputs(samples, experiment.folder, run.data)
        if is_kept(self.arm):
            save(trained.model, experiment.folder, identity)
        book.add_run(run, prediction)
        checkpoint.unlink(missing_ok=True)
        keras.backend.clear_session()
        on_event(Event(self.arm, unit, len(run.curve), max(run.curve), done=True))


@dataclass(frozen=True)
class Tuning:
    """The search of one arm: `trials` trainings on train and validation of the first seed's split."""

    arm: Arm
    trials: int
    settings: TrainingConfig
    imitated: Arm | None = None

    def identity(self, experiment: Experiment, number: int) -> str:
        """Under which the book has a trial."""
        return experiment.identity(self.arm, 0, self.settings, self.imitated, "trial", number)

    def done(self, experiment: Experiment, book: Book) -> list[Trial]:
        """The finished trials, from the first on."""
        found: list[Trial] = []
        while len(found) < self.trials and (trial := book.trial(self.identity(experiment, len(found)))):
            found.append(trial)
        return found

    def missing(self, experiment: Experiment, book: Book) -> int:
        """How many trials are still to do."""
        return self.trials - len(self.done(experiment, book))

    def best(self, experiment: Experiment, book: Book) -> TrainingConfig:
        """The settings of the best trial on validation; the first of equals."""
        trials = self.done(experiment, book)
        return replace(self.settings, **max(trials, key=lambda trial: trial.auc).settings)

    def wanted_keras(self) -> str:
        """That of its backbone."""
        return _keras_for(self.arm, self.settings)

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Do the trials that are missing."""
        from kar_aug._helpers.keras import keras
        from kar_aug.compare.tuning import proposal

        finished = self.done(experiment, book)
        while len(finished) < self.trials:
            number, unit = len(finished), f"trial {len(finished) + 1}"
            chosen = proposal(self.settings, finished)
            identity = self.identity(experiment, number)
            checkpoint = _checkpoint(experiment, identity)
            trained = _train(replace_settings(self, chosen), experiment, unit, on_event, checkpoint)
            trial = Trial(
                identity=identity,
                arm=self.arm,
                number=number,
                settings=chosen,
                auc=max(trained.curve),
                curve=trained.curve,
                train_seconds=round(trained.train_seconds, 2),
                created=_now(),
            )
            book.add_trial(trial)
            checkpoint.unlink(missing_ok=True)
            keras.backend.clear_session()
            finished.append(trial)
            on_event(Event(self.arm, unit, len(trial.curve), trial.auc, done=True))


def replace_settings(tuning: Tuning, chosen: Mapping[str, Any]) -> Training:
    """A training of a tuned arm with some settings changed. Its seed is 0, and its test part is never asked for."""
    return Training(tuning.arm, 0, replace(tuning.settings, **chosen), tuning.imitated)


def _keras_for(arm: Arm, settings: TrainingConfig) -> str:
    from kar_aug.compare.models import keras_for

    return keras_for(arm, settings)


def _checkpoint(experiment: Experiment, identity: str) -> Path:
    """The file that a training is taken up from which was stopped."""
    return experiment.folder / f"{identity}.checkpoint.npz"


def _train(task: Training, experiment: Experiment, unit: str, on_event: OnEvent, checkpoint: Path) -> Any:
    from kar_aug.compare.training import train

    return train(
        task.arm,
        task.seed,
        experiment.samples_of(task.imitated or task.arm, task.seed),
        experiment.tables(task.imitated or task.arm, task.seed),
        task.settings,
        task.imitated,
        lambda epoch, auc: on_event(Event(task.arm, unit, epoch + 1, auc)),
        lambda sentence: on_event(Event(task.arm, unit, note=sentence)),
        checkpoint,
        experiment.objective,
    )


def _gate_usage(trained: Any, samples: Samples) -> dict[str, Any]:
    """Mean gate weights over the validation part, by source; none where the model has no gate."""
    augmentation = trained.augmentation
    if augmentation is None or not augmentation.adaptor.has_gate:
        return {}
    keys = {source: key_of(source) for source in augmentation.sources}
    read = samples.read(samples.of("validation"), set(keys.values()))
    return dict(augmentation.gate_usage({source: read[key] for source, key in keys.items()}))


def _environment() -> dict[str, str]:
    packages = {name: _version(name) for name in ("tensorflow", "keras", "tf-keras", "deepctr")}
    return {
        "python": platform.python_version(),
        **{name: found for name, found in packages.items() if found},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
