"""What is kept of runs beside the book, as files: trained models, how they come back, and what their inputs mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kar_aug._helpers.files import atomic_path, write_atomic
from kar_aug.compare.arms import Arm
from kar_aug.compare.book import Run
from kar_aug.compare.experiment import Experiment
from kar_aug.config import TrainingConfig
from kar_aug.data.prepared import encodings_as_dict
from kar_aug.data.samples import Samples
from kar_aug.errors import StoreError

# A whole model, as Keras writes it; or its weights alone, where its layers hold functions that Keras cannot write.
_KINDS = (".keras", ".weights.h5")


def is_kept(arm: Arm) -> bool:
    """Whether the models of an arm are kept: those that somebody may want to serve."""
    return arm.has_knowledge or arm.is_base


def file_of(folder: Path, identity: str) -> Path | None:
    """The file of a run's model; None if none was saved."""
    return next((path for kind in _KINDS if (path := folder / f"{identity}{kind}").exists()), None)


def save(model: Any, folder: Path, identity: str) -> Path:
    """Write the model of a run."""
    from kar_aug._helpers.keras import keras

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


def save_inputs(samples: Samples, folder: Path, fingerprint: str) -> Path:
    """Write what the models of some data read: features, and the vocabularies, bucket edges and scales that their
    numbers mean something by, all fitted on the training part. Once for all runs of that data.
    """
    path = folder / f"inputs-{fingerprint}.json"
    if not path.exists():
        features = [asdict(feature) for feature in samples.features]
        write_atomic(path, json.dumps({"features": features, **encodings_as_dict(samples.encodings)}))
    return path


def restored(experiment: Experiment, run: Run) -> Any:
    """The model of a run, built again and given its weights, so that it matters not what Keras can read of it."""
    from kar_aug.compare.models import build

    path = file_of(experiment.folder, run.identity)
    assert path is not None
    samples, tables = experiment.samples_of(run.arm, run.seed), experiment.tables(run.arm, run.seed)
    model, _ = build(run.arm, samples, tables, _settings(run.settings), run.seed, experiment.objective)
    model.load_weights(path)
    return model


def experts_of(experiment: Experiment, run: Run) -> Any:
    """The model of a run on data or knowledge that are not there any more: its file as Keras reads it, without vectors.

    Raises:
        StoreError: Keras cannot read the file, or there are weights alone.
    """
    from kar_aug.layers.source import vectors_left_out
    from kar_aug.models.change import load_model

    path = file_of(experiment.folder, run.identity)
    assert path is not None
    try:
        with vectors_left_out():
            return load_model(path, safe_mode=False)  # its code is what [compare] named
    except Exception as error:  # of many kinds, for layers may be anybody's
        raise StoreError(
            f"{path} was trained on other data or knowledge than there is now, and its experts cannot be read apart "
            f"from it ({type(error).__name__}: {error}). Run: kar-aug compare",
            path=path,
        ) from error


def _settings(kept: Mapping[str, Any]) -> TrainingConfig:
    """Those of a training, of all that the book has."""
    named = {rule.name: kept[rule.name] for rule in fields(TrainingConfig) if rule.name in kept}
    return TrainingConfig(**{**named, "hidden_units": tuple(named["hidden_units"])})
