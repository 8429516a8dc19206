"""The Keras layers: hybrid-expert adaptor, knowledge augmentation, its prestored form, and histories."""

from kar_aug.layers.adaptor import HybridExpertAdaptor
from kar_aug.layers.augmentation import KnowledgeAugmentation
from kar_aug.layers.history import HistoryPooling
from kar_aug.layers.prestored import PrestoredAugmentation

__all__ = ["HistoryPooling", "HybridExpertAdaptor", "KnowledgeAugmentation", "PrestoredAugmentation"]
