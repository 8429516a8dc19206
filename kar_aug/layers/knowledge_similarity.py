"""How alike candidates and events are in knowledge space, without a vector an event in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.knowledge_vectors import KnowledgeVectors


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeSimilarity(KnowledgeVectors):
    """Compares a candidate with each event by what is known of them.

        similarity[e] = <ready vector of the candidate, ready vector of event e>

    A cosine, in [-1, 1], as `KnowledgeVectors` prepares them; exactly 0 for padding, and where nothing is known of the
    candidate or of the event. It is a `KnowledgeVectors`, and takes what that takes.

    Input shape:
        [candidate ids, (batch,) or (batch, 1); event ids, (batch, length), 0 or "" where there is none].
    Output shape:
        (batch, length)
    """

    suffix = "similarity"
    _takes = "[candidate ids, (batch,) or (batch, 1); event ids, (batch, length)]"

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        checked.inputs(self, inputs, self._takes, _fit)
        candidate, events = map(self._ids, inputs)
        return ops.fixed_shape(self._products(self._of_candidates(candidate)[:, None], events)[:, 0], events.shape)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(input_shape[1])


def _fit(shapes: Sequence[Any]) -> bool:
    return len(shapes) == 2 and checked.one_a_row(shapes[0]) and len(shapes[1]) == 2
