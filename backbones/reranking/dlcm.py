"""DLCM (Ai et al. 2018, arXiv:1804.05936): a recurrent network reads the list in its order, and each item is compared
with what it has read.

    o[1..n] = GRU(x[1..n])                          s = o[n], what the whole list is
    score[i] = v . (o[i] tanh(W s + b))             W s + b: (units, k)

x: (batch, size, width), o: (batch, size, units), s: (batch, units), scores: (batch, size). The paper reads the list
from its end; KAR's authors, and this, from its beginning.
"""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import Injection, Settings
from kar_aug.backbones.reranking._lists import listed, model_of, with_user
from kar_aug.backbones.reranking.protocol import ListFeatures
from kar_aug.layers import LastOfList

_COMPARED = 4  # k


def DLCM(features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """The model as `compare` trains it; the last of `hidden_units` is that of the GRU, and those before are layers that
    each item passes through alone.
    """
    found = listed(features, settings, augmentation, injection)
    vectors, units = with_user(found, features, settings), settings.hidden_units[-1]
    for width in settings.hidden_units[:-1]:
        vectors = keras.layers.Dense(width, "relu")(vectors)
    read = keras.layers.GRU(units, return_sequences=True, name="list")(vectors)
    if settings.dropout:
        read = keras.layers.Dropout(settings.dropout)(read)
    whole = LastOfList()([read, found.mask])
    asked = keras.layers.Reshape((units, _COMPARED))(keras.layers.Dense(units * _COMPARED, "tanh")(whole))
    compared = keras.layers.Dot(axes=(2, 1))([read, asked])  # (batch, size, k)
    return model_of(found, keras.layers.Dense(1)(compared))
