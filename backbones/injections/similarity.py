"""The candidate against what the user liked and disliked, in frozen vectors: dense numbers, no expert network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug.backbones.injections._past import Names, past_of
from kar_aug.backbones.protocol import Injected
from kar_aug.layers import KnowledgeSimilarity, SimilarityFeatures


class Similarity:
    """Brings `SimilarityFeatures`, (batch, columns), for the deep part.

    Args:
        source, events, values: what the model's inputs are called: of the candidate, which is a source too, of earlier
            events, and of what each was worth.
        temperatures, top, bins: of `SimilarityFeatures`.
        vectors: how vectors are made ready: options of `KnowledgeVectors`.
    """

    def __init__(
        self,
        source: str = "item",
        events: str = "past_item",
        values: str = "past_value",
        temperatures: Sequence[float] = (0.05, 0.15),
        top: int = 5,
        bins: int = 0,
        vectors: Mapping[str, Any] | None = None,
    ) -> None:
        self._names = Names(source, events, values)
        self._features: dict[str, Any] = {"temperatures": temperatures, "top": top, "bins": bins}
        self._vectors = dict(vectors or {})

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        past = past_of(augmentation, inputs, self._names, type(self).__name__)
        similar = [KnowledgeSimilarity.of(augmentation, source, **self._vectors) for source in past.sources]
        compared = [layer([past.candidate, past.events]) for layer in similar]
        return Injected(dense=[SimilarityFeatures(**self._features)([c, past.values, past.mask]) for c in compared])
