"""Where an item stood in the list before, as a vector that is learned."""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops


@keras.utils.register_keras_serializable(package="kar_aug")
class ListPositions(keras.layers.Layer):
    """Adds to each item of a list the vector of its place: x[i] + p[i].

    Input shape:
        (batch, list, width), of one length of lists, padding included.
    Output shape:
        The same.

    Source:
        PRM (arXiv:1904.06813), section 4.1: positions are learned and not computed.
    """

    def build(self, input_shape: Any) -> None:
        _, size, width = tuple(input_shape)
        small = keras.initializers.RandomNormal(stddev=0.02)
        self._vectors = self.add_weight(name="positions", shape=(size, width), initializer=small)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return inputs + ops.cast(self._vectors, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return tuple(input_shape)
