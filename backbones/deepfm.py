"""DeepFM (Guo et al. 2017, arXiv:1703.04247) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._keras import keras
from kar_aug.backbones._deepctr import as_fields, augmented_vectors, check_choices, rebuild
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.layers.lookup import concatenate


def DeepFM(
    linear_feature_columns: Sequence[Any],
    dnn_feature_columns: Sequence[Any],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    inject: Sequence[str] = ("linear", "dnn"),
    history: Sequence[str] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's DeepFM; augmented vectors enter its first order and its DNN, and on request its second order.

    Args:
        linear_feature_columns, dnn_feature_columns, *args, **kwargs: as `deepctr.models.DeepFM` takes them.
        augmentation: None gives DeepCTR's own model.
        inject: some of "linear" (a linear term of the vectors), "dnn" (into the deep part) and "fm" (as fields of the
            second order *and* of the deep part; needs vectors as wide as the embeddings). The default is
            what KAR's authors did; "fm" goes beyond them.
        history: sources whose vectors of the clicked items (input "hist_" + source), averaged, enter as one more.
            With "fm", candidate and history meet in the second order.
    """
    import deepctr.models
    from deepctr.feature_column import DEFAULT_GROUP_NAME

    if augmentation is None:
        return deepctr.models.DeepFM(linear_feature_columns, dnn_feature_columns, *args, **kwargs)
    check_choices("inject", inject, ("linear", "dnn", "fm"))
    group = kwargs.get("fm_group", args[0] if args else (DEFAULT_GROUP_NAME,))[0]
    vectors: list[Any] = []

    def with_first_order(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        vectors.extend(augmented_vectors(augmentation, features, history))  # the first step: the inputs are made
        logit = original(features, *args, **kwargs)
        if "linear" not in inject:
            return logit
        joined = concatenate(vectors)
        return keras.layers.Add()([logit, keras.layers.Dense(1, use_bias=False, name="knowledge_linear")(joined)])

    def with_fields(original: Any, *args: Any, **kwargs: Any) -> Any:
        groups, dense = original(*args, **kwargs)
        if "fm" in inject:
            groups[group] = groups[group] + as_fields(vectors, groups[group])
        return groups, dense + (vectors if "dnn" in inject and "fm" not in inject else [])

    model = rebuild(
        deepctr.models.DeepFM,
        {"get_linear_logit": with_first_order, "input_from_feature_columns": with_fields},
    )
    return model(linear_feature_columns, dnn_feature_columns, *args, **kwargs)
