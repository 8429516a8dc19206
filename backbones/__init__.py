"""CTR models with an injection point for augmented vectors. They need Keras 2's API: TF_USE_LEGACY_KERAS=1."""

from kar_aug.backbones._deepctr import custom_objects
from kar_aug.backbones.deepfm import DeepFM
from kar_aug.backbones.din import DIN
from kar_aug.backbones.fibinet import FiBiNET
from kar_aug.backbones.generic import MODELS, deepctr

BACKBONES = {"DeepFM": DeepFM, "DIN": DIN, "FiBiNET": FiBiNET}

__all__ = ["BACKBONES", "DIN", "MODELS", "DeepFM", "FiBiNET", "custom_objects", "deepctr"]
