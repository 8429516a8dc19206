"""How a user's knowledge goes together with an item's, learned: texts on unlike things are not alike by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops


@keras.utils.register_keras_serializable(package="kar_aug")
class BilinearSimilarity(keras.layers.Layer):
    """Compares two vectors by several learned products.

        similarity[h] = left M_h . right

    Exactly 0 where one of the vectors is zeros: where nothing is known of it.

    Args:
        heads: how many ways to compare.

    Input shape:
        [left, (batch, d); right, (batch, any)].
    Output shape:
        (batch, heads)

    Source:
        After UR4Rec, which matches what a language model says of a user with the candidate by a trained retriever.
    """

    def __init__(self, heads: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = checked.whole("heads", heads)
        self.supports_masking = True

    _takes = "[left, (batch, d); right, (batch, any)]"

    def build(self, input_shape: Sequence[Any]) -> None:
        checked.inputs(self, input_shape, self._takes, _fit)
        left, right = (int(tuple(shape)[-1]) for shape in input_shape)
        small = keras.initializers.RandomNormal(stddev=left**-0.5)  # a product of unit vectors is then about 1
        self._kernel = self.add_weight(name="kernel", shape=(self.heads, left, right), initializer=small)
        super().build(input_shape)

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        checked.inputs(self, inputs, self._takes, _fit)
        left, right = inputs
        return ops.einsum("bd,hde,be->bh", left, ops.cast(self._kernel, left.dtype), right)

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return (input_shape[0][0], self.heads)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}


def _fit(shapes: Sequence[Any]) -> bool:
    return len(shapes) == 2 and all(len(shape) == 2 for shape in shapes)
