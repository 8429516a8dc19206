"""Augmented vectors of a history, as one: what a user clicked, in the words of the knowledge about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops
from kar_aug.layers.lookup import not_padding


@keras.utils.register_keras_serializable(package="kar_aug")
class HistoryPooling(keras.layers.Layer):
    """Takes the vectors of a candidate and of the items clicked before apart, and averages the latter.

    Both are looked up together, as one sequence, so that an item that is candidate in one row and history in another
    passes through the experts once.

    Input shape:
        [ids, (batch, 1 + length): the candidate, then the history, 0 or "" where it is padded;
        their augmented vectors, (batch, 1 + length, width)].
    Output shape:
        [(batch, width) of the candidate; (batch, width), the mean over the history, zeros where it is empty].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Sequence[Any], mask: Any = None) -> list[Any]:
        ids, vectors = inputs
        clicked = ops.cast(not_padding(ids)[:, 1:, None], vectors.dtype)
        clicks = ops.maximum(ops.sum(clicked, axis=1), 1)
        return [vectors[:, 0], ops.sum(vectors[:, 1:] * clicked, axis=1) / clicks]

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> list[None]:
        return [None, None]

    def compute_output_shape(self, input_shape: Sequence[Any]) -> list[tuple[Any, ...]]:
        batch, _, width = input_shape[1]
        return [(batch, width), (batch, width)]
