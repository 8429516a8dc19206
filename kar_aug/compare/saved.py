"""Trained models of runs, as files, and how they come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kar_aug._files import atomic_path
from kar_aug.compare.book import Run
from kar_aug.compare.experiment import Experiment
from kar_aug.config import TrainingConfig

# A whole model, as Keras writes it; or its weights alone, where its layers hold functions that Keras cannot write.
_KINDS = (".keras", ".weights.h5")


def file_of(folder: Path, identity: str) -> Path | None:
    """The file of a run's model; None if none was saved."""
    return next((path for kind in _KINDS if (path := folder / f"{identity}{kind}").exists()), None)


def save(model: Any, folder: Path, identity: str) -> Path:
    """Write the model of a run."""
    from kar_aug._keras import keras

    # Rewrapped: without the optimizer, whose state nobody needs after the best epoch is restored.
    model = keras.Model(model.inputs, model.outputs)
    whole, weights = (folder / f"{identity}{kind}" for kind in _KINDS)
    try:
        with atomic_path(whole) as temporary:
            model.save(temporary)
    except Exception:  # of many kinds, for it is the layers that cannot be written
        temporary = folder / f".{weights.name}"
        model.save_weights(temporary)
        return temporary.replace(weights)
    return whole


def restored(experiment: Experiment, run: Run) -> Any:
    """The model of a run, built again and given its weights, so that it matters not what Keras can read of it."""
    from kar_aug.compare.models import build

    path = file_of(experiment.folder, run.identity)
    assert path is not None
    samples, tables = experiment.samples(run.seed), experiment.tables(run.arm, run.seed)
    model, _ = build(run.arm, samples, tables, _settings(run.settings), run.seed)
    model.load_weights(path)
    return model


def _settings(kept: Mapping[str, Any]) -> TrainingConfig:
    """Those of a training, of all that the book has."""
    named = {rule.name: kept[rule.name] for rule in fields(TrainingConfig) if rule.name in kept}
    return TrainingConfig(**{**named, "hidden_units": tuple(named["hidden_units"])})
