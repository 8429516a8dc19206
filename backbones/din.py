"""DIN (Zhou et al. 2018, arXiv:1706.06978) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._keras import keras
from kar_aug.backbones._deepctr import augmented_vectors, check_history, clicked, rebuild
from kar_aug.layers import KnowledgeAugmentation


def DIN(
    dnn_feature_columns: Sequence[Any],
    history_feature_list: Sequence[str],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    history: Sequence[str] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's DIN; augmented vectors enter the final MLP, and on request the attention over the history.

    Args:
        dnn_feature_columns, history_feature_list, *args, **kwargs: as `deepctr.models.DIN` takes them.
        augmentation: None gives DeepCTR's own model.
        history: sources, also in `history_feature_list`, whose vectors of the candidate and of the history's items
            are compared by the attention too.
    """
    import deepctr.models

    if augmentation is None:
        return deepctr.models.DIN(dnn_feature_columns, history_feature_list, *args, **kwargs)
    check_history(augmentation, history, history_feature_list)
    history_names = [clicked(name) for name in history_feature_list]

    def with_knowledge(original: Any, tables: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings = original(tables, features, *args, **kwargs)
        wanted = args[1] if len(args) > 1 else ()
        if wanted == history_feature_list:
            candidates = [augmentation({name: features[name]})[name] for name in history]
            return embeddings + [keras.layers.Reshape((1, augmentation.width))(vector) for vector in candidates]
        if wanted == history_names:
            return embeddings + [augmentation({name: features[clicked(name)]})[name] for name in history]
        return embeddings

    def with_vectors(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        return original(features, *args, **kwargs) + augmented_vectors(augmentation, features)

    model = rebuild(deepctr.models.DIN, {"embedding_lookup": with_knowledge, "get_dense_input": with_vectors})
    return model(dnn_feature_columns, history_feature_list, *args, **kwargs)
