"""What earlier events were worth to a user: ratings, labels, against his own mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.lookup import not_padding


def there_alone(values: Any, mask: Any) -> Any:
    """Values of what `mask` says is there; 0 elsewhere, whatever stands there: NaN, say."""
    return ops.where(mask > 0, values, ops.zeros_like(values))


def centred(values: Any, mask: Any, axis: int = 1) -> Any:
    """Values less their mean over what `mask` says is there, along the axis of events; 0 elsewhere."""
    values = there_alone(values, mask)
    total = ops.sum(values, axis=axis, keepdims=True)
    mean = total / ops.maximum(ops.sum(mask, axis=axis, keepdims=True), 1)
    return (values - mean) * mask


@keras.utils.register_keras_serializable(package="kar_aug")
class EventMask(keras.layers.Layer):
    """Says where a sequence of ids is no padding.

    Input shape:
        ids, (batch, length), 0 or "" where there is no event; or (batch, length, values) of events that have several,
        all of them 0 or "" where there is none.
    Output shape:
        (batch, length), 1 where there is one, else 0.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        there = ops.cast(not_padding(ops.convert_to_tensor(inputs)), self.compute_dtype)
        return ops.max(there, axis=-1) if len(inputs.shape) > 2 else there

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return tuple(input_shape)[:2]


@keras.utils.register_keras_serializable(package="kar_aug")
class EventValues(keras.layers.Layer):
    """Spreads what each event was worth over a few numbers, of which an attention makes what it needs.

        1, value, value - mean, |value - mean|        mean: of the user's events

    A linear layer behind an attention over these is any function of the value that has two slopes.

    Input shape:
        [values, (batch, length), of the order of 1; mask, (batch, length), 1 where there is an event].
    Output shape:
        (batch, length, 4), zeros where there is none.
    """

    width = 4

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        checked.inputs(self, inputs, "[values, mask], (batch, length) each", _fit)
        values, there = (ops.cast(each, self.compute_dtype) for each in inputs)
        against_mean = centred(values, there)
        columns = [there, there_alone(values, there), against_mean, ops.abs(against_mean)]
        return ops.transpose(ops.stack(columns, axis=1), [0, 2, 1])  # side by side at once, number by number, is slow

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return (*input_shape[0], self.width)


def _fit(shapes: Sequence[Any]) -> bool:
    return len(shapes) == 2 and checked.sequences_alike(shapes)
