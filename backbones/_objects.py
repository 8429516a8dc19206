"""The layers of DeepCTR's models, and those of ours that stand in for some, by name."""

from __future__ import annotations

from typing import Any

from kar_aug.backbones._deepctr import deepctr_models


def custom_objects() -> dict[str, Any]:
    """DeepCTR's layers by name, which `keras.models.load_model` must be told; ours are registered with it then."""
    deepctr_models()
    from deepctr.layers import custom_objects as layers

    from kar_aug.backbones import _attention, _bilinear, _pooling  # noqa: F401

    return dict(layers)
