"""FiBiNET (Huang et al. 2019, arXiv:1905.09433) with knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug.backbones._deepctr import as_fields, augmented_vectors, rebuild
from kar_aug.layers import KnowledgeAugmentation


def FiBiNET(
    linear_feature_columns: Sequence[Any],
    dnn_feature_columns: Sequence[Any],
    *args: Any,
    augmentation: KnowledgeAugmentation | None = None,
    history: Sequence[str] = (),
    **kwargs: Any,
) -> Any:
    """DeepCTR's FiBiNET; augmented vectors are fields like any other, through SENET and bilinear interaction.

    Args:
        linear_feature_columns, dnn_feature_columns, *args, **kwargs: as `deepctr.models.FiBiNET` takes them.
        augmentation: None gives DeepCTR's own model. Its vectors must be as wide as the embeddings.
        history: sources whose vectors of the clicked items (input "hist_" + source), averaged, are one field more.
    """
    import deepctr.models

    if augmentation is None:
        return deepctr.models.FiBiNET(linear_feature_columns, dnn_feature_columns, *args, **kwargs)

    def with_fields(original: Any, features: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings, dense = original(features, *args, **kwargs)
        return embeddings + as_fields(augmented_vectors(augmentation, features, history), embeddings), dense

    model = rebuild(deepctr.models.FiBiNET, {"input_from_feature_columns": with_fields})
    return model(linear_feature_columns, dnn_feature_columns, *args, **kwargs)
