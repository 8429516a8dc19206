"""What is known of the user against what is known of the candidate, by learned products: dense numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug.backbones.injections._inputs import ids_of
from kar_aug.backbones.protocol import Injected
from kar_aug.layers import BilinearSimilarity, KnowledgeVectors


class UserSimilarity:
    """Brings `BilinearSimilarity` of the vectors of two sources, (batch, heads), for the deep part.

    Args:
        user, item: sources, which are the model's inputs too.
        heads: how many ways to compare.
        vectors: how vectors are made ready: options of `KnowledgeVectors`.
    """

    def __init__(
        self, user: str = "user", item: str = "item", heads: int = 4, vectors: Mapping[str, Any] | None = None
    ) -> None:
        self._names, self._heads, self._vectors = (user, item), heads, dict(vectors or {})

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        missing = [name for name in self._names if name not in augmentation.sources]
        if missing:
            raise ValueError(
                f"To compare a user with the candidate takes knowledge of both. There is none of {missing[0]!r}, but "
                f"of: {', '.join(augmentation.sources)}. Under other names: UserSimilarity(user=..., item=...)"
            )
        ids = ids_of(augmentation, inputs)
        vectors = [KnowledgeVectors.of(augmentation, name, **self._vectors)(ids[name]) for name in self._names]
        return Injected(dense=[BilinearSimilarity(self._heads)(vectors)])
