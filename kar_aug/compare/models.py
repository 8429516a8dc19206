"""The model of an arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kar_aug._keras import keras
from kar_aug.backbones import BACKBONES
from kar_aug.cache import KnowledgeTable
from kar_aug.compare.arms import Arm
from kar_aug.compare.controls import widened
from kar_aug.config import CompareConfig
from kar_aug.data.features import Feature, Samples
from kar_aug.layers import KnowledgeAugmentation


def build(
    arm: Arm, samples: Samples, tables: Mapping[str, KnowledgeTable], settings: CompareConfig, seed: int
) -> tuple[Any, KnowledgeAugmentation | None]:
    """The uncompiled model of an arm, and its layer with knowledge if it has one.

    Args:
        tables: id input -> vectors; empty for an arm without.
        seed: of all initial weights and of dropout. DeepCTR would take the same ones every time.
    """
    columns = [_column(feature, settings.embedding_dim, seed + i) for i, feature in enumerate(samples.features)]
    options: dict[str, Any] = {
        "dnn_hidden_units": settings.hidden_units,
        "dnn_dropout": settings.dropout,
        "l2_reg_embedding": settings.l2_embedding,
        "seed": seed,
    }
    augmentation = None
    if tables:
        augmentation = options["augmentation"] = KnowledgeAugmentation(
            tables,
            shared_experts=settings.shared_experts,
            dedicated_experts=settings.dedicated_experts,
            expert_units=(settings.expert_hidden, settings.embedding_dim),
            adaptor=arm.adaptor,
        )
    if arm.injection == "history":
        options["history"] = ("item_id",)
        if arm.backbone == "DeepFM":
            options["inject"] = ("linear", "fm")
    backbone: Any = BACKBONES[arm.backbone]
    model = (
        backbone(columns, ["item_id"], **options) if arm.backbone == "DIN" else backbone(columns, columns, **options)
    )
    return model, augmentation


def build_bigger(samples: Samples, settings: CompareConfig, seed: int, like: Arm, tables: Mapping[str, Any]) -> Any:
    """The plain backbone of `like`, its deep part widened until it has as many parameters as `like`."""
    base = Arm(like.backbone)
    plain, _ = build(base, samples, {}, settings, seed)
    augmented, _ = build(like, samples, tables, settings, seed)
    inputs = int(_first_kernel(plain).shape[0])
    widths = widened(settings.hidden_units, inputs, parameters(augmented) - parameters(plain))
    keras.backend.clear_session()
    return build(base, samples, {}, replace(settings, hidden_units=widths), seed)[0]


def parameters(model: Any) -> int:
    """How many numbers are trained."""
    return int(sum(np.prod(weight.shape) for weight in model.trainable_weights))


def _first_kernel(model: Any) -> Any:
    """Of the deep part: the one layer of the model's own that DeepCTR calls DNN."""
    deep = next(layer for layer in model.layers if type(layer).__name__ == "DNN")
    return deep.trainable_weights[0]


def _column(feature: Feature, embedding_dim: int, seed: int) -> Any:
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    column = SparseFeat(
        feature.name,
        feature.vocabulary_size,
        embedding_dim,
        embedding_name=feature.embedding or feature.name,
        embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.0001, seed=seed),  # DeepCTR's, but for the seed
    )
    return column if feature.length is None else VarLenSparseFeat(column, maxlen=feature.length, combiner="mean")
