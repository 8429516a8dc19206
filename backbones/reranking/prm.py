"""PRM (Pei et al. 2019, arXiv:1904.06813): a transformer reads items, the user with each of them, and their places.

    h = Dense([x[i]; user]) + p[i]              p: learned, one a place of the list before
    h = block(h)                                self-attention over the list, padding hidden
    score[i] = MLP(h[i])

x: (batch, size, width), h: (batch, size, hidden_units[-1]), scores: (batch, size). The paper's vector of the user with
an item comes from a click model that was trained before; here it is learned with the rest.
"""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import Injection, Settings
from kar_aug.backbones.reranking._lists import block, listed, scored, with_user
from kar_aug.backbones.reranking.protocol import ListFeatures
from kar_aug.layers import ListPositions


def PRM(features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """The model as `compare` trains it."""
    found = listed(features, settings, augmentation, injection)
    vectors = keras.layers.Dense(settings.hidden_units[-1])(with_user(found, features, settings))
    hidden = block(ListPositions()(vectors), found.mask, settings, "list")
    return scored(found, hidden, settings.hidden_units, settings)
