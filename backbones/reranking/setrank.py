"""SetRank (Pang et al. 2020, arXiv:1912.05891): self-attention over the items as a set: a list in another order gets
the same scores, in that order.

    h = Dense([x[i]; user]);  h = block(block(h))        no places
    score[i] = MLP(h[i])

x: (batch, size, width), h: (batch, size, hidden_units[-1]), scores: (batch, size). These are the paper's blocks of
multi-head self-attention (MSAB); its induced ones are for longer lists.
"""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import Injection, Settings
from kar_aug.backbones.reranking._lists import block, listed, scored, with_user
from kar_aug.backbones.reranking.protocol import ListFeatures

_BLOCKS = 2


def SetRank(features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """The model as `compare` trains it."""
    found = listed(features, settings, augmentation, injection)
    hidden = keras.layers.Dense(settings.hidden_units[-1])(with_user(found, features, settings))
    for number in range(_BLOCKS):
        hidden = block(hidden, found.mask, settings, f"set_{number}")
    return scored(found, hidden, settings.hidden_units, settings)
