"""A candidate against all earlier events of a user at once: sums over them, which can be kept and added to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.event_values import there_alone
from kar_aug.layers.knowledge_vectors import KnowledgeVectors

_MANY = float(np.log1p(50))  # what the logarithm of a count is divided by, so that it is of the order of 1
_SHORTEST = 1e-12  # below any sum's square: where a length is 0, its slope is a number


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeState(KnowledgeVectors):
    """Tells in dense numbers how a candidate goes with sums over a user's events, whatever their number.

        state = sum_e [v[e], 1] x [k[e], 1] = [S, W; K, n]
        S = sum v k    W = sum v    K = sum k    n = events        liked = S - W / n K

    k[e] is the ready vector of event e, as `KnowledgeVectors` prepares it (zeros where nothing is known of it), and
    v[e] what it was worth. As a row a state has `state_width` = 2 (width + 1) numbers in the order S, W, K, n, and an
    event adds its own to them, once: they can be kept for a user, and a history of thousands of events costs as much
    as one of ten (`kar_aug.models.UserStates`, `states_as_inputs`). liked is the same whatever number is added to all
    values. Of a candidate with the ready vector c, `names` says in which order:

        preference     sqrt(width) <c, liked> / (1 + n)    how values go with similarities: their covariance
        towards liked  <c, liked> / (1 + |liked|)          a cosine, of unit vectors
        similarity     sqrt(width) <c, K> / (1 + n)        the mean similarity
        towards mean   <c, K> / (1 + |K|)                  a cosine likewise
        amount         log(1 + n) / log(51)

    The ones beside n and lengths stand for an event that says nothing, so that a short history tells little. Products
    of unit vectors in d directions are of the order of 1 / sqrt(d): hence the factors. An empty history and a candidate
    of which nothing is known give zeros, exactly. There is nothing to learn. It is a `KnowledgeVectors`, and takes what
    that takes; for several sources make one each.

    Input shape:
        [candidate ids, (batch,) or (batch, 1); event ids, (batch, length), 0 or "" where there is none;
        values, (batch, length), what each event was worth: a rating, a label, raw, of the order of 1;
        mask, (batch, length), 1 where there is an event];
        or [candidate ids; states, (batch, state_width)].
    Output shape:
        (batch, len(names))

    Source:
        Linear attention as a recurrent state (Katharopoulos et al. 2020, arXiv:2006.16236, section 3.3) with the
        identity for a feature map, here with values less their mean; random features of a sharper kernel were nearer
        to noise (benchmarks/results/ml-1m.md, "A state a user").
    """

    suffix = "state"
    names = ("preference", "towards liked", "similarity", "towards mean", "amount")

    def __init__(self, source: Any, **kwargs: Any) -> None:
        super().__init__(source, **{**kwargs, "autocast": False})  # sums of many events are beyond float16

    @property
    def state_width(self) -> int:
        """Numbers a state."""
        return 2 * (self.vector_width + 1)

    @property
    def _takes(self) -> str:
        return (
            "[candidate ids, (batch,) or (batch, 1); event ids, values and mask, (batch, length) each], or [candidate "
            f"ids; states, (batch, {self.state_width})]"
        )

    def _fit(self, shapes: Sequence[Any]) -> bool:
        if not shapes or not checked.one_a_row(shapes[0]):
            return False
        if len(shapes) == 2:
            return len(shapes[1]) == 2 and checked.go_together(shapes[1][1], self.state_width)
        return len(shapes) == 4 and checked.sequences_alike(shapes[1:])

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        checked.inputs(self, inputs, self._takes, self._fit)
        candidate = ops.cast(self._of_candidates(self._ids(inputs[0])), "float32")
        state = self.state_of(*inputs[1:]) if len(inputs) > 2 else ops.cast(inputs[1], "float32")
        return ops.cast(self._told(candidate, state), self.compute_dtype)

    def state_of(self, events: Any, values: Any, mask: Any) -> Any:
        """The states of histories, (batch, state_width), in float32; arguments as in the input shape."""
        places = self._places(self._ids(events), True)
        there = ops.cast(mask, "float32")
        worth = there_alone(ops.cast(values, "float32"), there)
        weights = ops.stack([worth, there], axis=1)  # (batch, 2, length)
        sums = ops.sums_of_rows(weights, ops.convert_to_tensor(self._table), places)  # (batch, 2, width)
        both = ops.concatenate([sums, ops.sum(weights, axis=2, keepdims=True)], axis=2)
        return ops.reshape(both, [-1, self.state_width])

    def _told(self, candidate: Any, state: Any) -> Any:
        width = self.vector_width
        rated, worth, met, count = (
            state[:, :width], state[:, width : width + 1], state[:, width + 1 : -1], state[:, -1:]
        )  # fmt: skip
        liked = rated - worth / ops.maximum(count, 1) * met
        columns = []
        for direction in (liked, met):
            product = ops.sum(candidate * direction, axis=1, keepdims=True)
            length = (ops.sum(direction * direction, axis=1, keepdims=True) + _SHORTEST) ** 0.5
            columns += [width**0.5 * product / (1 + count), product / (1 + length)]
        known = ops.cast(ops.max(ops.abs(candidate), axis=1, keepdims=True) > 0, "float32")
        return ops.concatenate([*columns, known * ops.log1p(count) / _MANY], axis=1)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return (input_shape[0][0], len(self.names))
