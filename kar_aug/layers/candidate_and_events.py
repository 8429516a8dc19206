"""The vectors of a candidate and of a user's events, looked up together and taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops
from kar_aug.layers.lookup import not_padding


@keras.utils.register_keras_serializable(package="kar_aug")
class CandidateAndEvents(keras.layers.Layer):
    """Takes the vectors of a candidate and of the events before it apart.

    Both are looked up together, as one sequence, so that an item that is candidate in one row and event in another
    passes through the experts once.

    Input shape:
        [ids, (batch, 1 + length): the candidate, then the events, 0 or "" where there is none;
        their augmented vectors, (batch, 1 + length, width)].
    Output shape:
        [(batch, width) of the candidate; (batch, length, width) of the events; (batch, length), 1 where there is one].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence[Any], mask: Any = None) -> list[Any]:
        ids, vectors = inputs
        return [vectors[:, 0], vectors[:, 1:], ops.cast(not_padding(ids)[:, 1:], vectors.dtype)]

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> list[None]:
        return [None, None, None]

    def compute_output_shape(self, input_shape: Sequence[Any]) -> list[tuple[Any, ...]]:
        batch, both, width = input_shape[1]
        length = None if both is None else both - 1
        return [(batch, width), (batch, length, width), (batch, length)]
