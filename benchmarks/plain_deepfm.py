"""DeepFM in plain Keras 3, on whatever Keras runs on: the same parts as DeepCTR's, which needs TensorFlow.

It is a backbone as `compare` takes one (kar_aug.backbones.protocol). Embeddings start and are penalised as DeepCTR's
are, and knowledge enters where `kar_aug.backbones.DeepFM` puts it: into the linear term and the deep part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kar_aug.backbones import Injection, Settings, on_keras
from kar_aug.backbones.embedding import key_input
from kar_aug.backbones.protocol import nothing
from kar_aug.data.features import Feature
from kar_aug.layers import MaskedMean

_LINEAR_PENALTY = 1e-5


@on_keras("3")
def deepfm(
    features: Sequence[Feature], settings: Settings, augmentation: Any = None, injection: Injection = nothing
) -> Any:
    """An uncompiled model of click probabilities."""
    inputs: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    fields, first_order, numbers = [], [], []
    seeds = keras.random.SeedGenerator(settings.seed)
    for feature in features:
        inputs[feature.name] = ids = key_input(feature)
        if feature.is_key:
            continue
        if feature.is_number:
            numbers.append(ids)
            continue
        table = feature.embedding or feature.name
        if table not in tables:
            tables[table] = _tables(table, feature.vocabulary_size, settings, seeds)
        of_field, of_linear = (_pooled(feature, ids, embedding(ids)) for embedding in tables[table])
        fields.append(of_field)
        first_order.append(of_linear)
    knowledge = injection(augmentation, inputs)
    dense = [*numbers, *knowledge.vectors(), *knowledge.dense]
    if dense:
        first_order.append(keras.layers.Dense(1, use_bias=False, name="dense_linear")(_joined(dense)))
    stacked = keras.ops.stack(fields, axis=1)  # (batch, fields, width)
    pairs = keras.ops.square(keras.ops.sum(stacked, axis=1)) - keras.ops.sum(keras.ops.square(stacked), axis=1)
    second_order = 0.5 * keras.ops.sum(pairs, axis=1, keepdims=True)
    hidden = _joined([*fields, *dense])
    for number, units in enumerate(settings.hidden_units):
        hidden = keras.layers.Dense(units, "relu", kernel_initializer="glorot_normal", name=f"deep_{number}")(hidden)
        if settings.dropout:
            hidden = keras.layers.Dropout(settings.dropout, seed=settings.seed + number)(hidden)
    deep = keras.layers.Dense(1, kernel_initializer="glorot_normal", name="deep")(hidden)
    logit = keras.layers.Add()([*first_order, second_order, deep])
    return keras.Model(inputs, keras.layers.Activation("sigmoid", dtype="float32", name="ctr")(logit))


def _tables(name: str, size: int, settings: Settings, seeds: Any) -> tuple[Any, Any]:
    """The embeddings of a feature for the fields, and for the linear term."""
    penalty = keras.regularizers.L2(settings.l2_embedding) if settings.l2_embedding else None
    small = keras.initializers.RandomNormal(0.0, 1e-4, seed=seeds)
    return (
        keras.layers.Embedding(size, settings.embedding_dim, small, penalty, name=f"embedding_{name}"),
        keras.layers.Embedding(size, 1, "zeros", keras.regularizers.L2(_LINEAR_PENALTY), name=f"linear_{name}"),
    )


def _pooled(feature: Feature, ids: Any, vectors: Any) -> Any:
    """(batch, width), the mean over a sequence."""
    return vectors[:, 0] if feature.length is None else MaskedMean()([ids, vectors])


def _joined(tensors: Sequence[Any]) -> Any:
    return keras.layers.Concatenate()(tensors) if len(tensors) > 1 else tensors[0]
