"""Knowledge, added to what a layer of a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeAdded(keras.layers.Layer):
    """Adds vectors to a tensor of a model, and is to those who read it what the tensor was: shape, type and mask.

    Input shape:
        [the tensor, (batch, ..., width); any number of vectors, (batch, width), added at every position, or
        (batch, list, width), added position by position].
    Output shape:
        (batch, ..., width), as the tensor.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence[Any]) -> Any:
        total, *vectors = inputs
        for each in vectors:
            while len(each.shape) < len(total.shape):
                each = ops.expand_dims(each, -2)
            total = total + each
        return total

    def compute_mask(self, inputs: Sequence[Any], mask: Sequence[Any] | None = None) -> Any:
        return None if mask is None else mask[0]

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(input_shape[0])
