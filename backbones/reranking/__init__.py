"""Models that order a list again, reading all of it: one a file, in plain Keras, on both of its interfaces.

dlcm       a GRU over the list                  prm       self-attention with places
setrank    self-attention without places        mir       candidates against the user's past, set to list
protocol   what such a model is                 losses    what they are trained for
without_user   the same, blind to who asks: KAR's base models

Names resolve lazily: importing this package imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kar_aug.backbones.reranking.protocol import ListFeatures, Reranker

if TYPE_CHECKING:
    from kar_aug.backbones.reranking.dlcm import DLCM as DLCM
    from kar_aug.backbones.reranking.losses import LOSSES as LOSSES
    from kar_aug.backbones.reranking.mir import MIR as MIR
    from kar_aug.backbones.reranking.prm import PRM as PRM
    from kar_aug.backbones.reranking.setrank import SetRank as SetRank

_PLACES = {"DLCM": "dlcm", "LOSSES": "losses", "MIR": "mir", "PRM": "prm", "SetRank": "setrank"}
__all__ = ["DLCM", "LOSSES", "MIR", "PRM", "ListFeatures", "Reranker", "SetRank"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"kar_aug.backbones.reranking.{_PLACES[name]}"), name)
