"""MIR's attention between the set of candidates and the list of what the user did before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops


@keras.utils.register_keras_serializable(package="kar_aug")
class SetToList(keras.layers.Layer):
    """Compares each candidate with each event, as wholes and field by field, and mixes both by what is alike.

        C = tanh(Q W V' + sum over fields f, g of u[f, g] Qf Wf Vg')          (events, candidates)
        A = softmax over candidates of tanh(V Wv + C' (Q Wq))                 (candidates, candidates)
        B = softmax over events of tanh(Q Wq + C (V Wv))                      (events, candidates)
        v = A V        q = B' Q

    Wv and Wq have a column a place of the list, as in the authors' code.

    Input shape:
        [V, (batch, list, width); Q, (batch, events, any); fields of V, (batch, list, fields, e); fields of Q, (batch,
        events, fields, e); masks of V and Q, (batch, list) and (batch, events), 1 where there is something].
    Output shape:
        [v, (batch, list, width); q, (batch, list, any)]. Without any event q is zeros.

    Source:
        MIR (Xi et al. 2022, arXiv:2204.09370), section 4.3, SLAttention.
    """

    def build(self, input_shape: Sequence[Any]) -> None:
        (_, size, wide), (_, _, wide_event), (_, _, fields, each), (_, _, of_event, _) = map(tuple, input_shape[:4])
        self._whole = self._kernel("whole", (wide_event, wide))
        self._field = self._kernel("field", (each, each))
        self._pairs = self._kernel("pairs", (of_event, fields))
        self._of_set = self._kernel("of_set", (wide, size))
        self._of_events = self._kernel("of_events", (wide_event, size))
        super().build(input_shape)

    def _kernel(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(name=name, shape=shape, initializer="glorot_uniform")

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        candidates, events, fields, of_event, there, happened = inputs
        of_pairs = ops.einsum("bigd,fg->bifd", fields, self._pairs)  # (batch, list, fields of events, e)
        alike = ops.einsum("bjfe,ed,bifd->bji", of_event, self._field, of_pairs)
        alike += ops.matmul(ops.matmul(events, self._whole), ops.transpose(candidates, [0, 2, 1]))
        alike = _tanh(alike) * there[:, None] * happened[:, :, None]  # (batch, events, list)
        by_set, by_events = ops.matmul(candidates, self._of_set), ops.matmul(events, self._of_events)
        own = _tanh(by_set + ops.matmul(ops.transpose(alike, [0, 2, 1]), by_events))
        past = _tanh(by_events + ops.matmul(alike, by_set))
        mixed = ops.matmul(_softmax(own, there[:, None]), candidates)
        weights = _softmax(ops.transpose(past, [0, 2, 1]), happened[:, None])
        return [mixed, ops.matmul(weights, events)]

    def compute_output_shape(self, input_shape: Sequence[Any]) -> list[tuple[Any, ...]]:
        (batch, size, wide), (_, _, wide_event) = map(tuple, input_shape[:2])
        return [(batch, size, wide), (batch, size, wide_event)]


def _tanh(values: Any) -> Any:
    return 1 - 2 / (ops.exp(2 * ops.clip(values, -15.0, 15.0)) + 1)


def _softmax(values: Any, mask: Any) -> Any:
    """Over the last axis, of what is there; zeros where nothing is."""
    return ops.softmax(ops.where(mask > 0, values, ops.lowest(values) / 2)) * mask
