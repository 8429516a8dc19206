"""MIR (Xi et al. 2022, arXiv:2204.09370): the set of candidates and the list of the user's past, each within itself,
then one against the other, as wholes and field by field.

    V = [x; attention(x)]             candidates, (batch, size, any)
    Q = [e; GRU(e)]                   events, (batch, events, any)
    v, q = SetToList(V, Q)            (batch, size, any) each
    score[i] = MLP([v[i]; q[i]; x[i]; mean of Q; profile])

Without a user there is no Q: what is left is the attention within the list. (KAR's authors give MIR the user's events
in all of their arms, and the other three nothing of the user.)
"""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import Injection, Settings
from kar_aug.backbones.reranking._lists import Listed, attend, listed, scored
from kar_aug.backbones.reranking.protocol import ListFeatures
from kar_aug.data.features import HISTORY
from kar_aug.layers import MaskedMean, SetToList
from kar_aug.layers.lookup import concatenate


def MIR(features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """The model as `compare` trains it."""
    found = listed(features, settings, augmentation, injection)
    items = found.items
    candidates = concatenate([items, attend(items, items, found.mask, settings, name="within_list")])
    vectors = [items, *(_against_events(found, candidates, features, settings) if found.events else [candidates])]
    if found.around:
        vectors.append(keras.layers.RepeatVector(features.size)(concatenate(found.around)))
    return scored(found, concatenate(vectors), settings.hidden_units, settings)


def _against_events(found: Listed, candidates: Any, features: ListFeatures, settings: Settings) -> list[Any]:
    events = concatenate(found.events)
    past = concatenate([events, keras.layers.GRU(settings.embedding_dim, return_sequences=True, name="past")(events)])
    fields, of_event = _stacked(found.fields, settings), _stacked(found.events, settings)
    mixed = SetToList()([candidates, past, fields, of_event, found.mask, found.happened])
    mean = MaskedMean()([found.inputs[HISTORY], past])
    return [*mixed, keras.layers.RepeatVector(features.size)(mean)]


def _stacked(fields: list[Any], settings: Settings) -> Any:
    """(batch, length, fields, width) of fields, (batch, length, width) each."""
    shape = (int(fields[0].shape[1]), len(fields), settings.embedding_dim)
    return keras.layers.Reshape(shape)(concatenate(fields))
