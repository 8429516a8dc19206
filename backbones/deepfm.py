"""DeepFM (Guo et al. 2017, arXiv:1703.04247) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones._deepctr import (
    Knowledge,
    as_fields,
    deepctr_columns,
    deepctr_models,
    options,
    places,
    rebuild,
    with_keys,
)
from kar_aug.backbones._pooling import with_pooling
from kar_aug.backbones.protocol import Injection, Settings, on_keras
from kar_aug.data.features import Feature
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.layers.lookup import concatenate


@on_keras("2")
def build(features: Sequence[Feature], settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """DeepFM as `compare` trains it."""
    read = deepctr_columns(features, settings)
    further = {"inject": None, "keys": features, **options(settings)}
    return DeepFM(read, read, augmentation=augmentation, injection=injection, **further)


def DeepFM(
    linear_feature_columns: Sequence[Any],
    dnn_feature_columns: Sequence[Any],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    injection: Injection | str = "fields",
    inject: Sequence[str] | None = ("linear", "dense"),
    history: Sequence[str] = (),
    keys: Sequence[Feature] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's DeepFM; augmented vectors enter its first order and its deep part, and on request its second order.

    Args:
        linear_feature_columns, dnn_feature_columns, *args, **kwargs: as `deepctr.models.DeepFM` takes them.
        augmentation: None gives DeepCTR's own model.
        injection: what enters: a name of `kar_aug.registry.INJECTIONS`, or an `Injection`. "events" brings, as one
            vector more, the mean of what is known of the items clicked before (input "hist_" + source).
        inject: where the vectors enter, some of "linear" (a linear term of them), "dense" (into the deep part) and
            "fields" (as fields of the second order *and* of the deep part; needs vectors as wide as the embeddings).
            The default is what KAR's authors did; "fields" goes beyond them. None: "linear", and "fields" where the
            injection brings events, so that candidate and events meet in the second order, else "dense".
        history: former name of `injection=Events(history)`.
        keys: features; those with `is_key` are inputs of the model, too, by which knowledge is looked up.
    """
    from_deepctr = with_pooling(deepctr_models().DeepFM)
    if augmentation is None:
        return from_deepctr(linear_feature_columns, dnn_feature_columns, *args, **kwargs)
    from deepctr.feature_column import DEFAULT_GROUP_NAME

    group = kwargs.get("fm_group", args[0] if args else (DEFAULT_GROUP_NAME,))[0]
    knowledge = Knowledge(augmentation, injection, history)
    chosen = None if inject is None else places(inject)

    def where(brings_events: bool) -> Sequence[str]:
        return chosen or ("linear", "fields" if brings_events else "dense")

    def with_first_order(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        injected = knowledge.of(features)
        logit = original(features, *args, **kwargs)
        values = [*injected.vectors(), *injected.dense]
        if "linear" not in where(bool(injected.events)) or not values:
            return logit
        term = keras.layers.Dense(1, use_bias=False, name="knowledge_linear")(concatenate(values))
        return keras.layers.Add()([logit, term])

    def with_fields(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        groups, dense = original(features, *args, **kwargs)
        injected = knowledge.of(features)
        vectors, there = injected.vectors(), where(bool(injected.events))
        if "fields" in there:
            groups[group] = groups[group] + as_fields(vectors, groups[group])
        elif "dense" in there:
            dense = dense + vectors
        return groups, dense + list(injected.dense)

    model = rebuild(
        from_deepctr,
        {
            "build_input_features": with_keys(keys),
            "get_linear_logit": with_first_order,
            "input_from_feature_columns": with_fields,
        },
    )
    return model(linear_feature_columns, dnn_feature_columns, *args, **kwargs)
