"""The layers of DeepCTR's models, and those of ours that stand in for some, by name."""

from __future__ import annotations

from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones._deepctr import deepctr_models


def custom_objects() -> dict[str, Any]:
    """DeepCTR's layers by name, which `keras.models.load_model` must be told; ours are registered with it then."""
    deepctr_models()
    from deepctr.layers import custom_objects as layers

    from kar_aug.backbones import _attention, _bilinear, _pooling  # noqa: F401

    # Its `softmax` is Keras's, which files of models without DeepCTR mean, too.
    objects = {name: layer for name, layer in layers.items() if not hasattr(keras.activations, name)}
    return {**objects, "LayerNormalization": _LayerNormalization}


class _LayerNormalization:
    """Keras and DeepCTR each have one, and some files say nothing but the name."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        from deepctr.layers.normalization import LayerNormalization

        return (keras.layers.LayerNormalization if "epsilon" in config else LayerNormalization).from_config(config)
