"""Semantic ids: what is known of an item as a few small integers, coarse to fine, in place of a vector.

residual_kmeans   vectors to codes and back: K centres a level, each level for what the levels before leave over
bundle            the codes of a vector store on the disk: `SemanticIds`; frozen codebooks, so that no code ever moves
digits            the last digit, which tells items of the same codes apart
pieces            codes as sparse features: each level, and hashed prefixes
report            what the codes keep of the vectors, and how many items share them

Two items that are alike share the first of their codes, and the more the more they are alike. Code 0 stands for an
item of which nothing is known, at each level.

Sources:
    Rajput et al. 2023, "Recommender Systems with Generative Retrieval" (TIGER), arXiv:2305.05065: semantic ids, made
    by residual quantization, and a last digit against collisions.
    Singh et al. 2023, "Better Generalization with Semantic IDs", arXiv:2306.08121: hashed pieces of them as features
    of a model that ranks, in place of ids.
    Zheng et al. 2025, arXiv:2504.02137: the pieces that are prefixes.
"""

from kar_aug.codes.bundle import SemanticIds, codes_folder
from kar_aug.codes.pieces import Pieces
from kar_aug.codes.report import CodesReport, LevelReport, report
from kar_aug.codes.residual_kmeans import ResidualKMeans

__all__ = ["CodesReport", "LevelReport", "Pieces", "ResidualKMeans", "SemanticIds", "codes_folder", "report"]
