"""The model of an arm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras, tensors_behind
from kar_aug.backbones.protocol import Injection, Settings, keras_of, nothing
from kar_aug.cache import KnowledgeTable
from kar_aug.compare.additions import Control
from kar_aug.compare.arms import Arm
from kar_aug.compare.objective import Readable
from kar_aug.compare.objectives import CLICKS, Objective
from kar_aug.config import TrainingConfig
from kar_aug.data.features import Feature, without_a_layer
from kar_aug.data.samples import Samples
from kar_aug.errors import ConfigError, KarError
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.registry import INJECTIONS, backbones_with


def keras_for(arm: Arm, settings: TrainingConfig) -> str:
    """Which of Keras's interfaces the model of an arm is written for: "2" or "3"."""
    with _named(arm, "loaded"):
        return keras_of(backbones_with(arm.backbone).load(arm.backbone), settings.keras)


def build(
    arm: Arm,
    samples: Samples,
    tables: Mapping[str, KnowledgeTable],
    settings: TrainingConfig,
    seed: int,
    objective: Objective = CLICKS,
) -> tuple[Any, KnowledgeAugmentation | None]:
    """The uncompiled model of an arm, and its layer with knowledge if it has one: an injection that compares frozen
    vectors leaves the layer, and its experts, out of the model.

    Args:
        samples: what it is to read.
        tables: source -> vectors; empty for an arm without.
        seed: of all initial weights and of dropout.
        objective: what it is to be trained for.

    Raises:
        ConfigError: The backbone, or the injection, does not go with what it is given.
    """
    augmentation: KnowledgeAugmentation | None = None
    injection: Injection = nothing
    if tables:
        augmentation = KnowledgeAugmentation(
            tables,
            shared_experts=settings.shared_experts,
            dedicated_experts=settings.dedicated_experts,
            expert_units=(settings.expert_hidden, settings.embedding_dim),
            adaptor=arm.adaptor,
        )
        injection = INJECTIONS.load(arm.injection)()
    chosen = Settings(
        embedding_dim=settings.embedding_dim,
        hidden_units=settings.hidden_units,
        dropout=settings.dropout,
        l2_embedding=settings.l2_embedding,
        seed=seed,
    )
    features = (*samples.features, *samples.keys) if tables else samples.features
    with _named(arm, "built", without_a_layer(features)):
        given = objective.given(samples, features)
        model = backbones_with(arm.backbone).load(arm.backbone)(given, chosen, augmentation, injection)
    _check_inputs(model, arm, features, objective.read(samples))
    model = _without_idle(model, {key.name for key in samples.keys})
    return model, augmentation if augmentation in model.layers else None


def _check_inputs(model: Any, arm: Arm, features: Sequence[Feature], read: Readable) -> None:
    """Raise ConfigError unless each input is a feature, and of the shape in which it is read."""
    known = {feature.name: feature for feature in features}
    for name, tensor in zip(input_names(model), model.inputs, strict=True):
        if name not in known:
            raise ConfigError(f"{arm.name} has an input {name!r}, which is no feature. There are: {', '.join(known)}")
        feature, given = known[name], tuple(tensor.shape[1:]) or (1,)
        wanted = tuple(read.shape(feature)[1:]) or (1,)
        if _fits(given, wanted):
            continue
        message = f"{arm.name} has an input {name!r} of shape {given} a row, and what it is to read is {wanted}"
        if feature.values > 1:
            message += (
                f": each of {feature.length} events has up to {feature.values} values. Make inputs by `feature.shape` "
                "and not by `feature.length`, and average an event's vectors, as kar_aug.backbones.embed does both; or "
                "let models read the first value of each event alone: [data] event_values = 1"
            )
        else:
            message += ". Make inputs by `feature.shape or (1,)`"
        raise ConfigError(f"{message}.")


def _fits(given: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether an input of one shape takes what is of another; None is any size."""
    return len(given) == len(wanted) and all(
        None in pair or pair[0] == pair[1] for pair in zip(given, wanted, strict=True)
    )


def _without_idle(model: Any, keys: Collection[str]) -> Any:
    """The model without those of its keys that its injection does not read: long histories are dear to gather."""
    read = tensors_behind(model.outputs)
    kept = [t for t, name in zip(model.inputs, input_names(model), strict=True) if name not in keys or id(t) in read]
    return model if len(kept) == len(model.inputs) else keras.Model(kept, model.outputs, name=model.name)


@contextmanager
def _named(arm: Arm, done: str, likely: str = "") -> Iterator[None]:
    """Says whose fault it is, where code that anybody may have written fails.

    Args:
        likely: what it most likely fails of; "" where that is not known.
    """
    try:
        yield
    except KarError:
        raise
    except Exception as error:
        raise ConfigError(f"{arm.name} cannot be {done}: {likely or f'{type(error).__name__}: {error}'}") from error


def input_names(model: Any) -> list[str]:
    """What a functional model reads, in its order."""
    return [tensor.name.split(":")[0] for tensor in model.inputs]


def build_imitation(
    arm: Arm,
    imitated: Arm,
    samples: Samples,
    tables: Mapping[str, KnowledgeTable],
    settings: TrainingConfig,
    seed: int,
    say: Callable[[str], None] = lambda sentence: None,
    objective: Objective = CLICKS,
) -> Any:
    """The plain backbone of an arm as its control changes it after `imitated`, whose vectors `tables` are."""
    control = arm.addition
    assert isinstance(control, Control)

    def count(model: Arm, tables: Mapping[str, KnowledgeTable], settings: TrainingConfig) -> int:
        found = parameters(build(model, samples, tables, settings, seed, objective)[0])
        keras.backend.clear_session()
        return found

    settings = control.resized(
        settings,
        lambda changed: count(arm.base, {}, changed),
        count(imitated, tables, settings),
        lambda sentence: say(f"{arm.backbone}: {sentence}"),
    )
    keras.utils.set_random_seed(seed)  # as if nothing had been built before
    return build(arm.base, samples, {}, settings, seed, objective)[0]


def parameters(model: Any) -> int:
    """How many numbers are trained."""
    return int(sum(np.prod(weight.shape) for weight in model.trainable_weights))
