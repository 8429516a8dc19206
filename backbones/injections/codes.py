"""Semantic ids as sparse features: what is known of an item as a few integers, each with an embedding of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.injections._inputs import ids_of
from kar_aug.backbones.protocol import Injected, KnownEvents, events_of, key_of
from kar_aug.codes.pieces import BUCKETS
from kar_aug.layers import EventMask, KnowledgeCodes, MaskedMean


class Codes:
    """Brings a field for each piece of a source's codes (`kar_aug.codes.Pieces`): each level, each prefix, hashed.

    The user's events, where the model has an input of them, "hist_" + source, are told by the same pieces, through the
    same embeddings: the mean of each piece as a field, or all pieces of each event for a model with an attention. No
    vector is read, no expert is there, and nothing but a table of integers goes with the model.

    Args:
        sources: those whose codes count; by default all of the augmentation.
        buckets: that the prefixes of one length are hashed into.
        l2: weight of the squared embeddings in the loss.
    """

    def __init__(self, sources: Sequence[str] = (), buckets: int = BUCKETS, l2: float = 1e-5) -> None:
        self._sources, self._buckets, self._l2 = tuple(sources), buckets, l2

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        ids = ids_of(augmentation, inputs)
        fields: list[Any] = []
        events: dict[str, KnownEvents] = {}
        for name in self._sources or augmentation.sources:
            codes = KnowledgeCodes.of(augmentation, name, buckets=self._buckets)
            tables = self._tables(codes, augmentation.width)
            candidate = [_flat(table(piece)) for table, piece in zip(tables, codes(ids[name]), strict=True)]
            fields += candidate
            if (past := events_of(key_of(name))) in inputs:
                each = [table(piece) for table, piece in zip(tables, codes(inputs[past]), strict=True)]
                events[f"codes of {name}"] = KnownEvents(
                    candidate=_together(candidate),
                    vectors=_together(each),
                    mask=EventMask()(inputs[past]),
                    pooled=[MaskedMean()([inputs[past], vectors]) for vectors in each],
                )
        return Injected(fields=fields, events=events)

    def _tables(self, codes: KnowledgeCodes, width: int) -> list[Any]:
        """An embedding a piece. It begins next to nothing, so that a prefix that nobody trained on says nothing."""
        return [
            keras.layers.Embedding(
                size,
                width,
                embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.0001),
                embeddings_regularizer=keras.regularizers.L2(self._l2),
                name=f"{codes.name}_{piece}",
            )
            for piece, size in zip(codes.piece_names, codes.vocabulary_sizes, strict=True)
        ]


def _flat(vectors: Any) -> Any:
    """(batch, 1, width) of one id a row as (batch, width)."""
    return keras.layers.Reshape((vectors.shape[-1],))(vectors)


def _together(vectors: list[Any]) -> Any:
    return keras.layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]
