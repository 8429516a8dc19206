"""Inputs and embeddings of the features, for backbones in plain Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import Settings
from kar_aug.data.features import Feature
from kar_aug.layers import EventMask, MaskedMean


@dataclass(frozen=True)
class Embedded:
    """The first layers of a model, by feature.

    Args:
        inputs: feature -> its symbolic input, (batch, 1), or (batch, length) for a sequence; (batch, length, values)
            where events have several.
        vectors: feature -> (batch, embedding_dim); of a sequence the mean over what is not padding.
        sequences: feature -> (batch, length, embedding_dim), of sequences alone; of several values of an event their
            mean.
        numbers: feature -> (batch, 1), of those that are numbers and have no vector.
    """

    inputs: dict[str, Any]
    vectors: dict[str, Any]
    sequences: dict[str, Any]
    numbers: dict[str, Any]

    @property
    def fields(self) -> list[Any]:
        """All vectors, in the order of the features."""
        return list(self.vectors.values())

    @property
    def dense(self) -> list[Any]:
        """All numbers, in the order of the features."""
        return list(self.numbers.values())


def embed(features: Sequence[Feature], settings: Settings) -> Embedded:
    """An input for each feature, and an embedding for those that are categories; those that share a table in `features`
    share it here.
    """
    tables: dict[str, Any] = {}
    embedded = Embedded({}, {}, {}, {})
    for feature in features:
        name, table = feature.name, feature.embedding or feature.name
        if feature.is_key:
            embedded.inputs[name] = key_input(feature)
            continue
        if feature.is_number:
            embedded.inputs[name] = embedded.numbers[name] = keras.Input((1,), dtype="float32", name=name)
            continue
        if table not in tables:
            tables[table] = keras.layers.Embedding(
                feature.vocabulary_size,
                settings.embedding_dim,
                embeddings_regularizer=keras.regularizers.L2(settings.l2_embedding),
                name=f"embedding_{table}",
            )
        ids = embedded.inputs[name] = keras.Input(feature.shape or (1,), dtype="int32", name=name)
        vectors = tables[table](ids)
        if feature.length is None:
            embedded.vectors[name] = keras.layers.Reshape((settings.embedding_dim,))(vectors)
        else:
            embedded.sequences[name], embedded.vectors[name] = pooled(feature, ids, vectors)
    return embedded


def pooled(feature: Feature, ids: Any, vectors: Any) -> tuple[Any, Any]:
    """Embeddings of a sequence as one vector an event, (batch, length, width), and as one, (batch, width).

    Args:
        ids: (batch, length), or (batch, length, values).
        vectors: of each of them.
    """
    if feature.values > 1:
        vectors = MaskedMean()([ids, vectors])
        ids = EventMask()(ids)
    return vectors, MaskedMean()([ids, vectors])


def key_input(feature: Feature) -> Any:
    """The input of a key: ids, or what is told of them in numbers."""
    dtype = "float32" if feature.is_number else "int32"
    return keras.Input((feature.length or 1,), dtype=dtype, name=feature.name)
