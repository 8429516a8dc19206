"""The first and the last layers of models of lists: items and user as vectors, knowledge among them; scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.embedding import key_input, pooled
from kar_aug.backbones.protocol import Injection, Settings
from kar_aug.backbones.reranking.protocol import ListFeatures
from kar_aug.data.features import HIST, HISTORY, Feature
from kar_aug.layers import EventMask, ListAsRows, ListScores, MaskedMean, RowsAsList
from kar_aug.layers.lookup import concatenate

HEADS = 2
ITEM = "item_id"


@dataclass
class Listed:
    """A list as tensors of the model that is being built.

    Args:
        inputs: feature -> its symbolic input.
        mask: (batch, size), 1 where there is an item.
        fields: as wide as embeddings, (batch, size, width) each: what is known of each item, knowledge last.
        dense: numbers of the items, (batch, size, any) each.
        around: what is the same for the whole list, (batch, any) each.
        events: of the user's past, in order: as wide as embeddings, (batch, events, width) each.
        happened: (batch, events), 1 where there is one; None without any.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    mask: Any = None
    fields: list[Any] = field(default_factory=list)
    dense: list[Any] = field(default_factory=list)
    around: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    happened: Any = None

    @property
    def items(self) -> Any:
        """All that is known of each item alone, (batch, size, any)."""
        return concatenate([*self.fields, *self.dense])


def listed(features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Listed:
    """An input for each feature, and an embedding for each category; features that share a table share it here."""
    tables: dict[str, Any] = {}
    found = Listed()
    for feature in features.items:
        _add_of_items(found, feature, features.size, tables, settings)
    for feature in features.around:
        _add_around(found, feature, tables, settings)
    found.mask = EventMask()(found.inputs[ITEM])
    if HISTORY in found.inputs:
        found.happened = EventMask()(found.inputs[HISTORY])
    _inject(found, features, settings, augmentation, injection)
    return found


def _add_of_items(found: Listed, feature: Feature, size: int, tables: dict[str, Any], settings: Settings) -> None:
    shape = (size,) if feature.length is None else (size, feature.length)
    dtype = "float32" if feature.is_number else "int32"
    given = found.inputs[feature.name] = keras.Input(shape, dtype=dtype, name=feature.name)
    if feature.is_key:
        return
    if feature.is_number:
        found.dense.append(keras.layers.Reshape((size, 1))(given))
        return
    vectors = _table(feature, tables, settings)(given)
    found.fields.append(vectors if feature.length is None else MaskedMean()([given, vectors]))


def _add_around(found: Listed, feature: Feature, tables: dict[str, Any], settings: Settings) -> None:
    if feature.is_key or feature.is_number:
        given = found.inputs[feature.name] = key_input(feature)
        found.around += [] if feature.is_key else [given]
        return
    given = found.inputs[feature.name] = keras.Input(feature.shape or (1,), dtype="int32", name=feature.name)
    vectors = _table(feature, tables, settings)(given)
    if feature.length is None:
        found.around.append(keras.layers.Reshape((settings.embedding_dim,))(vectors))
    else:
        vectors, mean = pooled(feature, given, vectors)
        found.around.append(mean)
        if feature.sequence == HIST:
            found.events.append(vectors)


def _table(feature: Feature, tables: dict[str, Any], settings: Settings) -> Any:
    name = feature.embedding or feature.name
    if name not in tables:
        regularizer = keras.regularizers.L2(settings.l2_embedding)
        tables[name] = keras.layers.Embedding(
            feature.vocabulary_size,
            settings.embedding_dim,
            embeddings_regularizer=regularizer,
            name=f"embedding_{name}",
        )
    return tables[name]


def _inject(found: Listed, features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> None:
    """Any injection of a click model: each item of the list is a row to it, with the list's user and events."""
    if augmentation is None:
        return
    size = features.size
    rows = {f.name: ListAsRows(size)(found.inputs[f.name]) for f in features.items if f.is_key}
    rows |= {f.name: ListAsRows(size, of_items=False)(found.inputs[f.name]) for f in features.around if f.is_key}
    injected = injection(augmentation, rows)
    for values in (*injected.vectors(), *injected.dense):
        brought = RowsAsList(size)(values)
        (found.fields if brought.shape[-1] == settings.embedding_dim else found.dense).append(brought)


def with_user(found: Listed, features: ListFeatures, settings: Settings) -> Any:
    """Each item beside what it is seen with, (batch, size, any): profile, context and pools of events, repeated; and
    the rated events, mixed by an attention that the item asks. The items alone where there is nothing of a user.
    """
    vectors = [found.items]
    if found.around:
        vectors.append(keras.layers.RepeatVector(features.size)(concatenate(found.around)))
    if found.events:
        asked = keras.layers.Dense(settings.embedding_dim, name="asked")(found.items)
        vectors.append(attend(asked, concatenate(found.events), found.happened, settings, name="of_events"))
    return concatenate(vectors)


def attend(queries: Any, values: Any, mask: Any, settings: Settings, name: str) -> Any:
    """Multi-head attention of (batch, n, width) to (batch, m, any), where `mask` is 1: (batch, n, width)."""
    there = keras.layers.Reshape((1, int(values.shape[1])))(mask)
    attention = keras.layers.MultiHeadAttention(
        HEADS, max(1, queries.shape[-1] // HEADS), dropout=settings.dropout, name=name
    )
    return attention(queries, values, attention_mask=there)


def block(vectors: Any, mask: Any, settings: Settings, name: str) -> Any:
    """An encoder block of a transformer: h = norm(x + attention(x)), norm(h + W2 relu(W1 h)); (batch, size, width)."""
    width = vectors.shape[-1]
    attended = attend(vectors, vectors, mask, settings, name=f"{name}_attention")
    hidden = keras.layers.LayerNormalization(epsilon=1e-6)(keras.layers.Add()([vectors, attended]))
    further = keras.layers.Dense(width)(keras.layers.Dense(2 * width, "relu")(hidden))
    if settings.dropout:
        further = keras.layers.Dropout(settings.dropout)(further)
    return keras.layers.LayerNormalization(epsilon=1e-6)(keras.layers.Add()([hidden, further]))


def scored(found: Listed, vectors: Any, hidden_units: Sequence[int], settings: Settings) -> Any:
    """The model whose scores an MLP makes of each item's vector."""
    for units in hidden_units:
        vectors = keras.layers.Dense(units, "relu")(vectors)
        if settings.dropout:
            vectors = keras.layers.Dropout(settings.dropout)(vectors)
    return model_of(found, keras.layers.Dense(1)(vectors))


def model_of(found: Listed, scores: Any) -> Any:
    """The model with these scores, (batch, size, 1)."""
    return keras.Model(list(found.inputs.values()), ListScores(name="scores")([scores, found.mask]))
