"""What the user's events say of the candidate, weighed in frozen vectors: one more field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug.backbones.injections._past import Names, past_of
from kar_aug.backbones.protocol import Injected
from kar_aug.layers import EventValues, KnowledgeAttention


class Attention:
    """Brings one vector as wide as the augmented ones: `KnowledgeAttention` over all events, of what each was worth.

    Args:
        source, events, values: as `Similarity` has them.
        heads: of the attention.
        vectors: how vectors are made ready: options of `KnowledgeVectors`.
    """

    def __init__(
        self,
        source: str = "item",
        events: str = "past_item",
        values: str = "past_value",
        heads: int = 4,
        vectors: Mapping[str, Any] | None = None,
    ) -> None:
        self._names, self._heads, self._vectors = Names(source, events, values), heads, dict(vectors or {})

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        past = past_of(augmentation, inputs, self._names, type(self).__name__)
        options = {"width": augmentation.width, "heads": self._heads, **self._vectors}
        read = [past.candidate, past.events, EventValues()([past.values, past.mask]), past.mask]
        layers = [KnowledgeAttention.of(augmentation, source, **options) for source in past.sources]
        return Injected(fields=[attention(read) for attention in layers])
