"""What a model of lists is to `compare`. Nothing here imports TensorFlow.

One of your own is a function like those beside this file, named in kar.toml:
`backbones = ["PRM", "my_models:my_reranker"]`, under `task = "rerank"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kar_aug.backbones.protocol import Injection, Settings
    from kar_aug.data.features import Feature


@dataclass(frozen=True)
class ListFeatures:
    """What there is to read of a list.

    Args:
        items: of each item: inputs of (batch, size), or (batch, size, length). "item_id" is among them: 0 is padding.
        around: the same for the whole list: the user, the context, events; inputs of (batch, 1) or (batch, length).
        size: items of a list, padded ones included.

    Those with `is_key` are there if there is an augmentation; they have no embedding.
    """

    items: Sequence[Feature]
    around: Sequence[Feature]
    size: int


class Reranker(Protocol):
    """A function that `[compare] backbones` names under `task = "rerank"`."""

    def __call__(self, features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Any:
        """An uncompiled functional Keras model with one output: scores, (batch, size), `ListScores` say. The inputs are
        named after the features. All else is as `kar_aug.backbones.protocol.Backbone` has it.
        """
        ...
