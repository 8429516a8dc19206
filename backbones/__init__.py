"""CTR models with places for knowledge: DeepCTR's, which run Keras 2's API (TF_USE_LEGACY_KERAS=1), and one's own.

deepfm, din, fibinet   DeepCTR's, with knowledge where it suits them    generic     any other of DeepCTR's
protocol               what a backbone and an injection are             embedding   the first layers, for plain Keras
injections             where and how knowledge enters, one a file

Names resolve lazily: importing this package imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kar_aug.backbones.protocol import Backbone, Injected, Injection, KnownEvents, Settings, on_keras

if TYPE_CHECKING:
    from kar_aug.backbones._deepctr import deepctr_columns as deepctr_columns
    from kar_aug.backbones._objects import custom_objects as custom_objects
    from kar_aug.backbones.deepfm import DeepFM as DeepFM
    from kar_aug.backbones.din import DIN as DIN
    from kar_aug.backbones.embedding import Embedded as Embedded
    from kar_aug.backbones.embedding import embed as embed
    from kar_aug.backbones.fibinet import FiBiNET as FiBiNET
    from kar_aug.backbones.generic import MODELS as MODELS
    from kar_aug.backbones.generic import deepctr as deepctr

_FOR_ANY_KERAS = {"Embedded": "embedding", "embed": "embedding"}
_OF_DEEPCTR = {
    "DIN": "din",
    "DeepFM": "deepfm",
    "FiBiNET": "fibinet",
    "MODELS": "generic",
    "custom_objects": "_objects",
    "deepctr": "generic",
    "deepctr_columns": "_deepctr",
}

__all__ = [
    "DIN",
    "MODELS",
    "Backbone",
    "DeepFM",
    "Embedded",
    "FiBiNET",
    "Injected",
    "Injection",
    "KnownEvents",
    "Settings",
    "custom_objects",
    "deepctr",
    "deepctr_columns",
    "embed",
    "on_keras",
]


def __getattr__(name: str) -> Any:
    if name in _OF_DEEPCTR:
        # Here already: a user's own `import deepctr`, after this one, would start a thread that calls the network.
        importlib.import_module("kar_aug.backbones._deepctr").deepctr_models()
    module = _OF_DEEPCTR.get(name) or _FOR_ANY_KERAS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"kar_aug.backbones.{module}"), name)
