"""The Keras layers.

Knowledge as fields: adaptors (`Adaptor`), `KnowledgeAugmentation`, and its form for serving, `PrestoredAugmentation`;
where vectors come with each row, `VectorAugmentation`, and its form for serving, `GivenVectors`.
Its adapted vectors of events: `CandidateAndEvents`, `HistoryPooling`, `MaskedMean`. What `augment` puts them into a
model with: `KnowledgeAdded`.
The candidate against events, in frozen vectors: `KnowledgeVectors`, `KnowledgeSimilarity`; what is made of those,
`SimilarityFeatures`, `MostSimilar`, `KnowledgeAttention`; against sums over them that can be kept, `KnowledgeState`;
and against a user's text, `BilinearSimilarity`.
Semantic ids in place of vectors: `KnowledgeCodes`.
Lists, in models that order them again: `ListAsRows`, `RowsAsList`, `ListPositions`, `SetToList`, `LastOfList`,
`ListScores`.
"""

from kar_aug.layers.adaptor import Adaptor, AdaptorSettings
from kar_aug.layers.bilinear_similarity import BilinearSimilarity
from kar_aug.layers.candidate_and_events import CandidateAndEvents
from kar_aug.layers.event_values import EventMask, EventValues
from kar_aug.layers.given_vectors import GivenVectors
from kar_aug.layers.history_pooling import HistoryPooling
from kar_aug.layers.hybrid_expert_adaptor import HybridExpertAdaptor
from kar_aug.layers.knowledge_added import KnowledgeAdded
from kar_aug.layers.knowledge_attention import KnowledgeAttention
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.knowledge_codes import KnowledgeCodes
from kar_aug.layers.knowledge_similarity import KnowledgeSimilarity
from kar_aug.layers.knowledge_state import KnowledgeState
from kar_aug.layers.knowledge_vectors import KnowledgeVectors
from kar_aug.layers.layer_adaptor import LayerAdaptor
from kar_aug.layers.list_positions import ListPositions
from kar_aug.layers.list_rows import ListAsRows, RowsAsList
from kar_aug.layers.list_scores import LastOfList, ListScores
from kar_aug.layers.masked_mean import MaskedMean
from kar_aug.layers.most_similar import MostSimilar
from kar_aug.layers.prestored_augmentation import PrestoredAugmentation
from kar_aug.layers.set_to_list import SetToList
from kar_aug.layers.similarity_features import SimilarityFeatures
from kar_aug.layers.source import store_locations, vectors_left_out
from kar_aug.layers.vector_augmentation import VectorAugmentation

__all__ = [
    "Adaptor",
    "AdaptorSettings",
    "BilinearSimilarity",
    "CandidateAndEvents",
    "EventMask",
    "EventValues",
    "GivenVectors",
    "HistoryPooling",
    "HybridExpertAdaptor",
    "KnowledgeAdded",
    "KnowledgeAttention",
    "KnowledgeAugmentation",
    "KnowledgeCodes",
    "KnowledgeSimilarity",
    "KnowledgeState",
    "KnowledgeVectors",
    "LastOfList",
    "LayerAdaptor",
    "ListAsRows",
    "ListPositions",
    "ListScores",
    "MaskedMean",
    "MostSimilar",
    "PrestoredAugmentation",
    "RowsAsList",
    "SetToList",
    "SimilarityFeatures",
    "VectorAugmentation",
    "store_locations",
    "vectors_left_out",
]
