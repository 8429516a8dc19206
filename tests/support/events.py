"""Inputs with earlier events: what is told of the candidate too, in one value or several, and of events alone."""

from __future__ import annotations

from kar_aug.backbones import Settings
from kar_aug.data.features import Feature

FEATURES = [
    Feature("gender", 4),
    Feature("item_id", 30),
    Feature("genres", 9, length=3),
    Feature("hist_item_id", 30, length=5, embedding="item_id", sequence="hist"),
    Feature("hist_rating", 8, length=5, sequence="hist"),
    Feature("hist_genres", 9, length=5, embedding="genres", sequence="hist"),
]
SETTINGS = Settings(8, (16, 8), l2_embedding=1e-5)
