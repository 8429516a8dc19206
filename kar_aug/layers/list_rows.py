"""A list's items as rows, and back: whatever reads one candidate a row then reads all those of a list."""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops


@keras.utils.register_keras_serializable(package="kar_aug")
class ListAsRows(keras.layers.Layer):
    """Makes a row of each item of a list; what is said once for the list is repeated for each of them.

    Args:
        size: items of a list, padded ones included.
        of_items: whether each item has its own; else each row has the list's.

    Input shape:
        (batch, size) or (batch, size, ...) of the items; (batch, ...) of the list.
    Output shape:
        (batch * size, 1) or (batch * size, ...); (batch * size, ...) of the list.
    """

    def __init__(self, size: int, of_items: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = checked.whole("size", size)
        self.of_items = checked.flag("of_items", of_items)

    def call(self, inputs: Any) -> Any:
        inputs = ops.convert_to_tensor(inputs)
        if self.of_items:
            further = list(inputs.shape[2:]) or [1]
            return ops.reshape(inputs, [-1, *further])
        further = list(inputs.shape[1:])
        repeated = ops.broadcast_to(inputs[:, None], [ops.sizes_of(inputs)[0], self.size, *further])
        return ops.reshape(repeated, [-1, *further])

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        further = tuple(input_shape)[2:] or (1,) if self.of_items else tuple(input_shape)[1:]
        return (None, *further)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "of_items": self.of_items}


@keras.utils.register_keras_serializable(package="kar_aug")
class RowsAsList(keras.layers.Layer):
    """Puts what was made of a list's items, a row each, together again.

    Args:
        size: items of a list, padded ones included.

    Input shape:
        (batch * size, width)
    Output shape:
        (batch, size, width)
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = checked.whole("size", size)

    def call(self, inputs: Any) -> Any:
        return ops.reshape(inputs, [-1, self.size, inputs.shape[-1]])

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (None, self.size, tuple(input_shape)[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}
