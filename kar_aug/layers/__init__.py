"""The Keras layers: adaptors, knowledge augmentation, its prestored form, and events."""

from kar_aug.layers.adaptor import Adaptor, AdaptorSettings
from kar_aug.layers.candidate_and_events import CandidateAndEvents
from kar_aug.layers.history_pooling import HistoryPooling
from kar_aug.layers.hybrid_expert_adaptor import HybridExpertAdaptor
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.layer_adaptor import LayerAdaptor
from kar_aug.layers.masked_mean import MaskedMean
from kar_aug.layers.prestored_augmentation import PrestoredAugmentation
from kar_aug.layers.source import store_locations

__all__ = [
    "Adaptor",
    "AdaptorSettings",
    "CandidateAndEvents",
    "HistoryPooling",
    "HybridExpertAdaptor",
    "KnowledgeAugmentation",
    "LayerAdaptor",
    "MaskedMean",
    "PrestoredAugmentation",
    "store_locations",
]
