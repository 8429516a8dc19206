"""A sequence of vectors as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.lookup import not_padding


@keras.utils.register_keras_serializable(package="kar_aug")
class MaskedMean(keras.layers.Layer):
    """The mean of a sequence's vectors, of those alone whose id is not padding.

    Args:
        mask_zero: False where 0 is an id like any other, and nothing is padding.

    Input shape:
        [ids, (batch, ..., length), 0 or "" where padded; vectors, (batch, ..., length, width)].
    Output shape:
        (batch, ..., width), zeros where the sequence is empty.
    """

    def __init__(self, mask_zero: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_zero = checked.flag("mask_zero", mask_zero)
        self.supports_masking = True

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        ids, vectors = inputs
        if len(vectors.shape) == len(ids.shape):  # sequences of any length that came with one id, as one id a row does
            vectors = ops.expand_dims(vectors, -2)
        if not self.mask_zero:
            return ops.mean(vectors, axis=-2)
        there = ops.expand_dims(ops.cast(not_padding(ids), vectors.dtype), -1)  # TFLite has no new axis by slicing
        return ops.sum(vectors * there, axis=-2) / ops.maximum(ops.sum(there, axis=-2), 1)

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        *before, _, width = input_shape[1]
        return (*before, width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask_zero": self.mask_zero}
