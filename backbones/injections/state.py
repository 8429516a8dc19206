"""The candidate against sums over what the user met, and what it was worth: dense numbers, at any length of history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug.backbones.injections._past import Names, past_of
from kar_aug.backbones.protocol import Injected
from kar_aug.layers import KnowledgeState


class State:
    """Brings `KnowledgeState`, (batch, 5), for the deep part. The sums can be kept for each user, and given to the
    trained model in the place of events: `kar_aug.models.states_as_inputs`.

    Args:
        source, events, values: as `Similarity` has them.
        vectors: how vectors are made ready: options of `KnowledgeVectors`.
    """

    def __init__(
        self,
        source: str = "item",
        events: str = "past_item",
        values: str = "past_value",
        vectors: Mapping[str, Any] | None = None,
    ) -> None:
        self._names, self._vectors = Names(source, events, values), dict(vectors or {})

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        past = past_of(augmentation, inputs, self._names, type(self).__name__)
        states = [KnowledgeState.of(augmentation, source, **self._vectors) for source in past.sources]
        return Injected(dense=[layer([past.candidate, past.events, past.values, past.mask]) for layer in states])
