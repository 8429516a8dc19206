"""One training. It reads train and validation; the test part is not here (`tasks.Training` looks at it, once)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import KnowledgeTable
from kar_aug.compare.adam import FusedAdam
from kar_aug.compare.arms import Arm
from kar_aug.compare.batches import Batches, TrainingBatches
from kar_aug.compare.checkpoint import Checkpoint, random_numbers_that_can_be_kept
from kar_aug.compare.models import build, build_imitation, input_names
from kar_aug.compare.objectives import CLICKS, Objective
from kar_aug.compare.patience import is_over
from kar_aug.config import TrainingConfig
from kar_aug.data.samples import Samples
from kar_aug.layers import KnowledgeAugmentation

_PIECE = 500  # batches between two looks whether it is time to write down where the training stands


@dataclass(frozen=True)
class Trained:
    """A model at its best epoch, and how it got there. `curve`: validation AUC of each epoch.

    `train_seconds`: of all epochs, building and tracing of the graph included. `microseconds`: to predict a row, in
    batches of 8,192, experts included (a served model has them prestored).
    """

    model: Any
    augmentation: KnowledgeAugmentation | None
    curve: tuple[float, ...]
    train_seconds: float
    microseconds: float


def train(
    arm: Arm,
    seed: int,
    samples: Samples,
    tables: Mapping[str, KnowledgeTable],
    settings: TrainingConfig,
    imitated: Arm | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, auc: None,
    say: Callable[[str], None] = lambda sentence: None,
    checkpoint: Path | None = None,
    objective: Objective = CLICKS,
) -> Trained:
    """Train until the validation AUC falls, having risen above chance, and go back to its best epoch.

    The same seed gives the same result, bit for bit, on the same kind of CPU with the same number of threads, however
    often it was stopped: operations are made deterministic for the whole process
    (`tf.config.experimental.enable_op_determinism`).

    Args:
        tables: source -> vectors; of `imitated` where the arm is made after that.
        on_epoch: called with (epoch, validation AUC).
        say: called with what the user should know of the model, in one line.
        checkpoint: a file that a long training is taken up from, within an epoch too; None to keep nothing.
        objective: what it is trained for: by the metric of which "AUC" here stands.
    """
    started = time.monotonic()
    random_numbers_that_can_be_kept()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    augmentation = None
    if imitated is not None:
        model = build_imitation(arm, imitated, samples, tables, settings, seed, say, objective)
    else:
        model, augmentation = build(arm, samples, tables, settings, seed, objective)
    model.compile(FusedAdam(settings.learning_rate), objective.loss())
    model.optimizer.build(model.trainable_variables)  # else the first step makes it, and is traced twice
    names = input_names(model)
    read = objective.read(samples)
    size = settings.batch(len(read.of("train")))
    batches = TrainingBatches(read, names, size, seed, settings.unknown_share)
    pieces = [batches.dataset(first, first + _PIECE) for first in range(0, batches.steps, _PIECE)]
    to_validate = Batches(read, read.of("validation"), names).dataset()
    judge = objective.judge(samples, "validation")
    kept = Checkpoint(checkpoint, model)
    now = kept.standing()
    clock = _Clock(started, now.seconds)
    while now.epoch < settings.epochs and not is_over(now.curve, judge.guessing, settings.patience):
        batches.start(now.epoch)
        while now.piece < len(pieces):
            model.fit(pieces[now.piece], verbose=0, shuffle=False)  # the batches are shuffled; Keras 3 would warn
            now.piece, now.seconds = now.piece + 1, clock.seconds
            kept.keep(now)
        before = time.monotonic()
        now.curve.append(judge(model.predict(to_validate, verbose=0)))
        now.fastest = min(now.fastest, time.monotonic() - before)
        now.epoch, now.piece = now.epoch + 1, 0
        on_epoch(now.epoch - 1, now.curve[-1])
        if now.curve[-1] >= max(now.curve):
            now.best = model.get_weights()
    model.set_weights(now.best)
    return Trained(
        model, augmentation, tuple(now.curve), clock.seconds, now.fastest / max(1, len(read.of("validation"))) * 1e6
    )


class _Clock:
    """Seconds since `started`, and those before."""

    def __init__(self, started: float, before: float) -> None:
        self._from = started - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._from


def predict(model: Any, samples: Samples, of: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Click probabilities of some samples, (rows,)."""
    output = model.predict(Batches(samples, of, input_names(model)).dataset(), verbose=0)
    return np.asarray(output[:, 0], np.float32)


def tested(model: Any, samples: Samples, objective: Objective) -> npt.NDArray[np.float32]:
    """What a model says of each test row, (rows,)."""
    read = objective.read(samples)
    batches = Batches(read, read.of("test"), input_names(model)).dataset()
    return objective.by_sample(samples, "test", model.predict(batches, verbose=0))
