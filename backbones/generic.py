"""Every model of DeepCTR with knowledge, one way for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._keras import keras
from kar_aug.backbones._deepctr import as_fields, augmented_vectors, check_choices, rebuild
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


def deepctr(
    name: str,
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    inject: Sequence[str] | None = None,
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
        inject: some of "dense" (as dense values of the deep part), "fields" (as fields beside the embeddings, through
            whatever the model does with fields; needs vectors as wide as they are) and "linear" (a linear term).
            By default what suits the model, `MODELS[name]`.

    Raises:
        ValueError: There is no such model, or it has no such place.
    """
    import deepctr.models

    if name not in MODELS:
        raise ValueError(f"DeepCTR has no model {name!r}. It has: {', '.join(sorted(MODELS))}")
    function = getattr(deepctr.models, name)
    if augmentation is None:
        return function(*args, **kwargs)
    inject = MODELS[name] if inject is None else inject
    check_choices("inject", inject, ("dense", "fields", "linear"))
    reached: set[str] = set()

    def features_with_knowledge(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings, dense = original(features, *args, **kwargs)
        vectors = augmented_vectors(augmentation, features)
        if "fields" in inject:
            reached.add("fields")
            if isinstance(embeddings, dict):  # fields by group: knowledge is one more of the first
                group = next(iter(embeddings))
                embeddings[group] = embeddings[group] + as_fields(vectors, embeddings[group])
            else:
                embeddings = embeddings + as_fields(vectors, embeddings)
        return embeddings, dense + _if("dense", vectors)

    def dense_with_knowledge(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        return original(features, *args, **kwargs) + _if("dense", augmented_vectors(augmentation, features))

    def logit_with_knowledge(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        logit = original(features, *args, **kwargs)
        if "linear" not in inject:
            return logit
        reached.add("linear")
        joined = concatenate(augmented_vectors(augmentation, features))
        return keras.layers.Add()([logit, keras.layers.Dense(1, use_bias=False)(joined)])

    def _if(place: str, vectors: list[Any]) -> list[Any]:
        if place not in inject:
            return []
        reached.add(place)
        return vectors

    steps = {
        "input_from_feature_columns": features_with_knowledge,
        "get_dense_input": dense_with_knowledge,
        "get_linear_logit": logit_with_knowledge,
    }
    scope = function.__globals__
    model = rebuild(function, {step: with_ for step, with_ in steps.items() if step in scope})(*args, **kwargs)
    if reached != set(inject) or augmentation not in model.layers:  # a part that the model does not use is cut off
        raise ValueError(f"{name} has no place for knowledge as {tuple(inject)}. Choose another: inject=...")
    return model
