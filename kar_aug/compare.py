"""Does knowledge pay? Each backbone is trained with and without it, the same way, and tested on users it never saw.

An arm with a seed is a run. Finished runs are kept, one file each, under the hash of all that decides their result, so
that a comparison started again trains only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._keras import keras, tf
from kar_aug._version import __version__
from kar_aug.backbones import BACKBONES
from kar_aug.cache import VectorStore
from kar_aug.config import CompareConfig
from kar_aug.features import Feature, Samples
from kar_aug.files import atomic_path, write_atomic
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.metrics import auc, gauc, logloss


@dataclass(frozen=True)
class Arm:
    """One way to build the model."""

    backbone: str
    knowledge: bool

    @property
    def name(self) -> str:
        """As tables and plots call it."""
        return f"{self.backbone} + knowledge" if self.knowledge else self.backbone


@dataclass(frozen=True)
class Run:
    """The result of an arm with a seed. Metrics are of the test part; `curve` is the validation AUC of each epoch."""

    arm: Arm
    seed: int
    auc: float
    logloss: float
    gauc: float
    seconds: float
    epochs: int
    parameters: int
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs of all arms, and what they have in common."""

    runs: tuple[Run, ...]
    row_coverage: Mapping[str, float]
    id_coverage: Mapping[str, float]
    rows: Mapping[str, int]

    def of(self, arm: Arm) -> list[Run]:
        """The runs of one arm, by seed."""
        return [run for run in self.runs if run.arm == arm]

    @property
    def arms(self) -> list[Arm]:
        """In order: each backbone without, then with knowledge."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def gain(self, backbone: str) -> npt.NDArray[np.float64]:
        """AUC with knowledge less AUC without, seed by seed."""
        pairs = zip(self.of(Arm(backbone, True)), self.of(Arm(backbone, False)), strict=True)
        return np.asarray([with_.auc - without.auc for with_, without in pairs])


def arms(config: CompareConfig) -> list[Arm]:
    """Every backbone without and with knowledge."""
    return [Arm(backbone, knowledge) for backbone in config.backbones for knowledge in (False, True)]


def compare(
    samples: Samples,
    stores: Mapping[str, VectorStore],
    config: CompareConfig,
    folder: Path,
    *,
    data_fingerprint: str,
    on_epoch: Callable[[Arm, int, int, float], None] = lambda arm, seed, epoch, auc: None,
    on_run: Callable[[Run, bool], None] = lambda run, reused: None,
) -> Comparison:
    """Train and test every arm with every seed; runs that `folder` holds already are read, not repeated.

    Args:
        stores: id input -> its knowledge.
        folder: where runs (.json) and their models (.keras) are kept.
        data_fingerprint: of `samples`.
        on_epoch: called with (arm, seed, epoch, validation AUC).
        on_run: called with (run, whether it was there already).
    """
    runs = []
    for seed in range(config.seeds):  # seeds outermost: an interrupted comparison has whole seeds
        for arm in arms(config):
            path = folder / f"{_identity(arm, seed, config, stores, data_fingerprint)}.json"
            run = _stored(path)
            reused = run is not None
            if run is None:
                run, model = _train(arm, seed, samples, stores, config, on_epoch)
                with atomic_path(path.with_suffix(".keras")) as temporary:
                    # Rewrapped: without the optimizer, whose state nobody needs after the best epoch is restored.
                    keras.Model(model.inputs, model.outputs).save(temporary)
                write_atomic(path, json.dumps(asdict(run), indent=1))
                keras.backend.clear_session()
            runs.append(run)
            on_run(run, reused)
    return Comparison(tuple(runs), *coverage(samples, stores), {p: int((samples.part == p).sum()) for p in _PARTS})


_PARTS = ("train", "validation", "test")


def coverage(samples: Samples, stores: Mapping[str, VectorStore]) -> tuple[dict[str, float], dict[str, float]]:
    """Per id input, the share of test rows, and of known ids, that have knowledge."""
    tested, _ = samples.of("test")
    rows, ids = {}, {}
    for name, store in stores.items():
        known = store.rows(samples.vocabulary[name.removesuffix("_id")]) >= 0
        rows[name], ids[name] = float(known[tested[name]].mean()), float(known[1:].mean())
    return rows, ids


def model_path(
    arm: Arm,
    seed: int,
    config: CompareConfig,
    stores: Mapping[str, VectorStore],
    folder: Path,
    data_fingerprint: str,
) -> Path:
    """Where `compare` keeps the trained model of a run."""
    return folder / f"{_identity(arm, seed, config, stores, data_fingerprint)}.keras"


def build(arm: Arm, samples: Samples, stores: Mapping[str, VectorStore], config: CompareConfig) -> Any:
    """The uncompiled model of an arm."""
    columns = [_column(feature, config.embedding_dim) for feature in samples.features]
    options: dict[str, Any] = {
        "dnn_hidden_units": config.hidden_units,
        "dnn_dropout": config.dropout,
        "l2_reg_embedding": config.l2_embedding,
    }
    if arm.knowledge:
        options["augmentation"] = KnowledgeAugmentation(
            {name: store.align(samples.vocabulary[name.removesuffix("_id")]) for name, store in stores.items()},
            shared_experts=config.shared_experts,
            dedicated_experts=config.dedicated_experts,
            expert_units=(config.expert_hidden, config.embedding_dim),
        )
    backbone: Any = BACKBONES[arm.backbone]
    return backbone(columns, ["item_id"], **options) if arm.backbone == "DIN" else backbone(columns, columns, **options)


def _column(feature: Feature, embedding_dim: int) -> Any:
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    column = SparseFeat(
        feature.name, feature.vocabulary_size, embedding_dim, embedding_name=feature.embedding or feature.name
    )
    return column if feature.length is None else VarLenSparseFeat(column, maxlen=feature.length, combiner="mean")


def _train(
    arm: Arm,
    seed: int,
    samples: Samples,
    stores: Mapping[str, VectorStore],
    config: CompareConfig,
    on_epoch: Callable[[Arm, int, int, float], None],
) -> tuple[Run, Any]:
    """Train until the validation AUC falls, go back to its best epoch, and look at the test part once."""
    keras.utils.set_random_seed(seed)
    started = time.monotonic()
    model = build(arm, samples, stores, config)
    model.compile(keras.optimizers.Adam(config.learning_rate), "binary_crossentropy")
    batches = _batches(*samples.of("train"), config.batch_size, seed)
    validation, validation_label = samples.of("validation")
    curve: list[float] = []
    best_weights = model.get_weights()
    for epoch in range(config.epochs):
        model.fit(batches, verbose=0)
        curve.append(auc(validation_label, _predict(model, validation)))
        on_epoch(arm, seed, epoch, curve[-1])
        if curve[-1] >= max(curve):
            best_weights = model.get_weights()
        elif epoch - int(np.argmax(curve)) >= config.patience:
            break
    model.set_weights(best_weights)
    seconds = time.monotonic() - started
    test, label = samples.of("test")
    prediction = _predict(model, test)
    run = Run(
        arm=arm,
        seed=seed,
        auc=auc(label, prediction),
        logloss=logloss(label, prediction),
        gauc=gauc(label, prediction, test["user_id"]),
        seconds=round(seconds, 2),
        epochs=len(curve),
        parameters=int(sum(np.prod(w.shape) for w in model.trainable_weights)),
        curve=tuple(curve),
    )
    return run, model


def _batches(inputs: Mapping[str, Any], label: Any, batch_size: int, seed: int) -> Any:
    """Shuffled anew each epoch. Only row numbers are shuffled, and whole batches gathered: rows are never copied one
    by one."""
    inputs, label = {name: tf.constant(values) for name, values in inputs.items()}, tf.constant(label)
    rows = tf.data.Dataset.range(len(label)).shuffle(len(label), seed=seed).batch(batch_size)
    return rows.map(
        lambda batch: (
            {name: tf.gather(values, batch) for name, values in inputs.items()},
            tf.gather(label, batch),
        ),
        num_parallel_calls=1,
    ).prefetch(2)


def _predict(model: Any, inputs: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    return model.predict(dict(inputs), batch_size=8192, verbose=0)[:, 0]


def _identity(
    arm: Arm, seed: int, config: CompareConfig, stores: Mapping[str, VectorStore], data_fingerprint: str
) -> str:
    """The hash of all that decides a run's result, code version included."""
    training = {name: value for name, value in asdict(config).items() if name not in ("backbones", "seeds")}
    knowledge = {name: store.fingerprint for name, store in stores.items()} if arm.knowledge else None
    content = [asdict(arm), seed, training, knowledge, data_fingerprint, __version__]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _stored(path: Path) -> Run | None:
    """A finished run, None where there is none (or a file that is not one: it is made again)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Run(**{**data, "arm": Arm(**data["arm"]), "curve": tuple(data["curve"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def summary(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A row an arm: mean and standard deviation over the seeds."""
    for arm in comparison.arms:
        runs = comparison.of(arm)
        row: dict[str, Any] = {"backbone": arm.backbone, "knowledge": arm.knowledge, "seeds": len(runs)}
        for metric in ("auc", "logloss", "gauc", "seconds"):
            values = [getattr(run, metric) for run in runs]
            row[metric], row[f"{metric}_std"] = (
                float(np.mean(values)),
                float(np.std(values, ddof=len(values) > 1)),
            )
        row["coverage"] = dict(comparison.row_coverage) if arm.knowledge else None
        row["parameters"] = runs[0].parameters
        yield row
