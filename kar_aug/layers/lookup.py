"""What both augmentation layers do with ids: work on each distinct one once, and give every shape its meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kar_aug._keras import keras, tf


def look_up_distinct(ids: Any, function: Callable[[Any], Any]) -> Any:
    """`function` of the flattened ids, (number of ids, width), computed once for each distinct id.

    CTR batches repeat their ids: popular items, active users, the padding of histories.
    """
    distinct, position = tf.unique(tf.reshape(tf.cast(ids, "int32"), [-1]))
    return tf.gather(function(distinct), position)


def concatenate(vectors: list[Any], name: str | None = None) -> Any:
    """Vectors of all sources side by side, in a model's graph. One source needs no layer: legacy Keras would hand
    a list of one to it as a bare tensor when the model is cloned."""
    return keras.layers.Concatenate(name=name)(vectors) if len(vectors) > 1 else vectors[0]


def shape_like(ids: Any, vectors: Any) -> Any:
    """Flat `vectors`, (number of ids, width), as (batch, width) for one id a row, else (batch, length, width)."""
    if len(ids.shape) == 1 or ids.shape[1] == 1:
        return vectors
    return tf.reshape(vectors, [-1, ids.shape[1] or tf.shape(ids)[1], vectors.shape[-1]])
