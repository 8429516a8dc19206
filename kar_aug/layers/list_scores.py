"""What models of lists end with, and where their padding is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops

BEHIND = -1e9  # the score of what is not there: whoever sorts by scores has it last


@keras.utils.register_keras_serializable(package="kar_aug")
class ListScores(keras.layers.Layer):
    """The scores of a list's items; of padding one that is below all.

    Input shape:
        [scores, (batch, list, 1); mask, (batch, list), 1 where there is an item].
    Output shape:
        (batch, list)
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        scores, mask = inputs
        return ops.where(mask > 0, scores[:, :, 0], ops.cast(BEHIND, scores.dtype))

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(input_shape[1])


@keras.utils.register_keras_serializable(package="kar_aug")
class LastOfList(keras.layers.Layer):
    """The vector of the last item that is there, zeros of an empty list.

    Input shape:
        [vectors, (batch, list, width); mask, (batch, list), 1 where there is an item; padding comes after].
    Output shape:
        (batch, width)
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        vectors, mask = inputs
        following = ops.concatenate([mask[:, 1:], ops.zeros_like(mask[:, :1])], axis=1)
        return ops.sum(vectors * ops.cast(mask - following, vectors.dtype)[:, :, None], axis=1)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        shape = tuple(input_shape[0])
        return (shape[0], shape[2])
