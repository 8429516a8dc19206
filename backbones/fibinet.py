"""FiBiNET (Huang et al. 2019, arXiv:1905.09433) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug.backbones._deepctr import (
    Knowledge,
    as_fields,
    deepctr_columns,
    deepctr_models,
    options,
    rebuild,
    with_keys,
)
from kar_aug.backbones._pooling import with_pooling
from kar_aug.backbones.protocol import Injection, Settings, on_keras
from kar_aug.data.features import Feature
from kar_aug.layers import KnowledgeAugmentation


@on_keras("2")
def build(features: Sequence[Feature], settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """FiBiNET as `compare` trains it."""
    read = deepctr_columns(features, settings)
    further = {"keys": features, **options(settings)}
    return FiBiNET(read, read, augmentation=augmentation, injection=injection, **further)


def FiBiNET(
    linear_feature_columns: Sequence[Any],
    dnn_feature_columns: Sequence[Any],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    injection: Injection | str = "fields",
    history: Sequence[str] = (),
    keys: Sequence[Feature] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's FiBiNET; augmented vectors are fields like any other, through SENET and bilinear interaction.

    Args:
        linear_feature_columns, dnn_feature_columns, *args, **kwargs: as `deepctr.models.FiBiNET` takes them.
        augmentation: None gives DeepCTR's own model, its interactions computed in fewer steps. Its vectors must be as
            wide as the embeddings.
        injection: what enters: a name of `kar_aug.registry.INJECTIONS`, or an `Injection`. "events" brings, as one
            field more, the mean of what is known of the items clicked before (input "hist_" + source).
        history: former name of `injection=Events(history)`.
        keys: features; those with `is_key` are inputs of the model, too, by which knowledge is looked up.
    """
    from_deepctr = rebuild(with_pooling(deepctr_models().FiBiNET), {"BilinearInteraction": _interaction})
    if augmentation is None:
        return from_deepctr(linear_feature_columns, dnn_feature_columns, *args, **kwargs)
    knowledge = Knowledge(augmentation, injection, history)

    def with_fields(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings, dense = original(features, *args, **kwargs)
        injected = knowledge.of(features)
        return embeddings + as_fields(injected.vectors(), embeddings), dense + list(injected.dense)

    steps = {"build_input_features": with_keys(keys), "input_from_feature_columns": with_fields}
    model = rebuild(from_deepctr, steps)
    return model(linear_feature_columns, dnn_feature_columns, *args, **kwargs)


def _interaction(original: Any, *args: Any, **kwargs: Any) -> Any:
    from kar_aug.backbones._bilinear import PairwiseInteraction

    return PairwiseInteraction(*args, **kwargs)
