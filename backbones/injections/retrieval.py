"""Of a long past the events that are most like the candidate, read in full: their adapted vectors, in an attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.injections._past import Names, past_of
from kar_aug.backbones.protocol import Injected
from kar_aug.layers import (
    CandidateAndEvents,
    EventValues,
    KnowledgeAttention,
    KnowledgeSimilarity,
    MostSimilar,
)


class Retrieval:
    """Brings the candidate's augmented vector, and one of the events that are most like it, each what it was worth and
    its augmented vector, mixed by `KnowledgeAttention`.

    Frozen vectors choose and weigh; the experts, which are dear, see the candidate and the chosen events alone.

    Args:
        source, events, values: as `Similarity` has them.
        count: of events that are chosen.
        heads: of the attention.
        vectors: how vectors are made ready: options of `KnowledgeVectors`.
    """

    def __init__(
        self,
        source: str = "item",
        events: str = "past_item",
        values: str = "past_value",
        count: int = 20,
        heads: int = 4,
        vectors: Mapping[str, Any] | None = None,
    ) -> None:
        self._names, self._count, self._heads = Names(source, events, values), count, heads
        self._vectors = dict(vectors or {})

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        source, past = self._names.source, past_of(augmentation, inputs, self._names, type(self).__name__)
        similarity = KnowledgeSimilarity.of(augmentation, source, **self._vectors)([past.candidate, past.events])
        worth = EventValues()([past.values, past.mask])  # against the mean of all
        mask, ids, worth = MostSimilar(self._count)([similarity, past.mask, past.events, worth])
        both = keras.layers.Concatenate(axis=1)([past.candidate, ids])  # so that experts see an item of both once
        candidate, adapted, _ = CandidateAndEvents()([both, augmentation({source: both})[source]])
        options = {"width": augmentation.width, "heads": self._heads, **self._vectors}
        read = keras.layers.Concatenate()([worth, adapted])
        chosen = KnowledgeAttention.of(augmentation, source, **options)([past.candidate, ids, read, mask])
        return Injected(fields=[candidate, chosen])
