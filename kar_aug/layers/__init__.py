"""The Keras layers: hybrid-expert adaptor, knowledge augmentation, and its prestored form for serving."""

from kar_aug.layers.adaptor import HybridExpertAdaptor
from kar_aug.layers.augmentation import KnowledgeAugmentation
from kar_aug.layers.prestored import PrestoredAugmentation

__all__ = ["HybridExpertAdaptor", "KnowledgeAugmentation", "PrestoredAugmentation"]
