"""The Keras layers: hybrid-expert adaptor, knowledge augmentation, its prestored form, and events."""

from kar_aug.layers.candidate_and_events import CandidateAndEvents
from kar_aug.layers.history_pooling import HistoryPooling
from kar_aug.layers.hybrid_expert_adaptor import HybridExpertAdaptor
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.masked_mean import MaskedMean
from kar_aug.layers.prestored_augmentation import PrestoredAugmentation

__all__ = [
    "CandidateAndEvents",
    "HistoryPooling",
    "HybridExpertAdaptor",
    "KnowledgeAugmentation",
    "MaskedMean",
    "PrestoredAugmentation",
]
