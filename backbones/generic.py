"""Every model of DeepCTR with knowledge, one way for all."""

from __future__ import annotations

import inspect
import io
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import redirect_stdout
from math import log2
from typing import Any

from kar_aug._helpers.keras import keras, tf
from kar_aug.backbones._deepctr import (
    Knowledge,
    as_fields,
    deepctr_columns,
    deepctr_models,
    options,
    places,
    rebuild,
    with_events,
    with_keys,
)
from kar_aug.backbones._pooling import with_pooling
from kar_aug.backbones.protocol import Injection, Settings, on_keras
from kar_aug.data.features import Feature
from kar_aug.errors import ConfigError
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.layers.lookup import concatenate

# Model -> where knowledge enters unless told otherwise: "dense" where the model has a deep part for dense values.
MODELS = {
    **dict.fromkeys(
        (
            "AutoInt", "BST", "DCN", "DCNMix", "DIEN", "DIN", "DSIN", "DeepFEFM", "DeepFM", "ESMM", "FLEN", "FNN",
            "FiBiNET", "MMOE", "NFM", "ONN", "PLE", "PNN", "SharedBottom", "WDL", "xDeepFM",
        ),
        ("dense",),
    ),
    **dict.fromkeys(("AFM", "CCPM", "EDCN", "FGCNN", "FwFM"), ("fields",)),
    **dict.fromkeys(("DIFM", "IFM", "MLR"), ("linear",)),
}  # fmt: skip


# Models whose only inputs are those of the deep part, which takes no numbers.
_NO_NUMBERS = {"EDCN", "FGCNN"}


@on_keras("2")
def build(name: str, features: Sequence[Feature], settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """A model of DeepCTR as `compare` trains it: `backbones = ["deepctr:AutoInt"]`.

    Raises:
        ConfigError: It is none that predicts clicks alone, out of such features.
    """
    parameters = inspect.signature(_function(name)).parameters
    read, fields = (deepctr_columns(features, settings, numbers=numbers) for numbers in (True, False))
    given = {
        **options(settings),
        **dict.fromkeys(("linear_feature_columns", "region_feature_columns"), fields if name in _NO_NUMBERS else read),
        "dnn_feature_columns": read if MODELS[name] == ("dense",) else fields,
        "history_feature_list": with_events(features),
        "l2_reg_embedding_feat": settings.l2_embedding,
        **(_convolutions(len(fields)) if "new_maps" in parameters else {}),
    }
    arguments = {parameter: given[parameter] for parameter in parameters if parameter in given}
    with redirect_stdout(io.StringIO()):  # a few print what they do
        model = deepctr(name, augmentation=augmentation, injection=injection, keys=features, **arguments)
    if len(model.outputs) > 1:
        raise ConfigError(
            f"DeepCTR's {name} predicts {len(model.outputs)} things; compare takes models of clicks alone."
        )
    return model


def _convolutions(fields: int) -> dict[str, Any]:
    """FGCNN's stages, as many as there are fields for: each halves them."""
    stages = min(4, int(log2(max(1, fields))))
    numbers = {"conv_kernel_width": (7,) * 4, "conv_filters": (14, 16, 18, 20), "new_maps": (3,) * 4}
    return {name: values[:stages] for name, values in {**numbers, "pooling_width": (2,) * 4}.items()}


def deepctr(
    name: str,
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    injection: Injection | str = "fields",
    inject: Sequence[str] | None = None,
    keys: Sequence[Feature] = (),
    **kwargs: Any,
) -> Any:
    """A model of DeepCTR by its name; augmented vectors enter where its features do.

    Example:
        >>> model = deepctr("AutoInt", linear_feature_columns, dnn_feature_columns, augmentation=augmentation)
        >>> model.input_names
        ['user_id', 'item_id']

    Args:
        name: in `deepctr.models`, one of `MODELS`.
        *args, **kwargs: as the model takes them.
        augmentation: None gives DeepCTR's own model.
        injection: what enters: a name of `kar_aug.registry.INJECTIONS`, or an `Injection`.
        inject: where its vectors do, some of "dense" (as dense values of the deep part), "fields" (as fields beside the
            embeddings, through whatever the model does with fields; needs vectors as wide as they are) and "linear" (a
            linear term). By default what suits the model, `MODELS[name]`. Values that an injection brings for the deep
            part are a linear term of a model that has none for them.
        keys: features; those with `is_key` are inputs of the model, too, by which knowledge is looked up.

    Raises:
        ValueError: There is no such model, or it has no such place.
    """
    function = with_pooling(_function(name))

    def inputs_with_length(original: Any, *args: Any, **kwargs: Any) -> Any:
        return _Inputs(with_keys(keys)(original, *args, **kwargs))

    if augmentation is None:
        return rebuild(function, {"build_input_features": inputs_with_length})(*args, **kwargs)
    inject = MODELS[name] if inject is None else places(inject)
    has_deep_part = "dense" in MODELS[name]
    knowledge = Knowledge(augmentation, injection)
    reached: set[str] = set()

    def features_with_knowledge(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings, dense = original(features, *args, **kwargs)
        vectors = vectors_for("fields", features)
        if vectors and isinstance(embeddings, dict):  # fields by group: knowledge is one more of the first
            group = next(iter(embeddings))
            embeddings[group] = embeddings[group] + as_fields(vectors, embeddings[group])
        elif vectors:
            embeddings = embeddings + as_fields(vectors, embeddings)
        return embeddings, dense + values_for_the_deep_part(features)

    def dense_with_knowledge(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        return original(features, *args, **kwargs) + values_for_the_deep_part(features)

    def logit_with_knowledge(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        logit = original(features, *args, **kwargs)
        values = vectors_for("linear", features)
        if values or not has_deep_part:
            values = [*values, *knowledge.of(features).dense]
        if not values:
            return logit
        return keras.layers.Add()([logit, keras.layers.Dense(1, use_bias=False)(concatenate(values))])

    def values_for_the_deep_part(features: Any) -> list[Any]:
        return [*vectors_for("dense", features), *knowledge.of(features).dense]

    def vectors_for(place: str, features: Any) -> list[Any]:
        if place not in inject:
            return []
        reached.add(place)
        return knowledge.of(features).vectors()

    steps = {
        "build_input_features": inputs_with_length,
        "input_from_feature_columns": features_with_knowledge,
        "get_dense_input": dense_with_knowledge,
        "get_linear_logit": logit_with_knowledge,
    }
    scope = function.__globals__
    model = rebuild(function, {step: with_ for step, with_ in steps.items() if step in scope})(*args, **kwargs)
    if reached != set(inject) or not knowledge.is_read_by(model):  # a part that the model does not use is cut off
        raise ValueError(f"{name} has no place for knowledge as {tuple(inject)}. Choose another: inject=...")
    return model


def _function(name: str) -> Any:
    if name not in MODELS:
        raise ValueError(f"DeepCTR has no model {name!r}. It has: {', '.join(sorted(MODELS))}")
    return getattr(deepctr_models(), name)


class _Inputs(OrderedDict[str, Any]):
    """A model's inputs; "seq_length", which BST asks for, is counted where nobody gives it."""

    def __missing__(self, name: str) -> Any:
        events = next((tensor for key, tensor in self.items() if key.startswith("hist_")), None)
        if name != "seq_length" or events is None:
            raise KeyError(name)
        return tf.math.count_nonzero(events, axis=1, keepdims=True, dtype="int32")
