"""Re-rankers that see the items of a list and nothing of who asks: the base models of KAR's second task.

With such a base, knowledge of the user is the only thing said of the user at all: whatever it brings may be what a
profile and a history would bring. The same model without "kar:" has these, and is the fair base.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kar_aug.backbones.protocol import Injection, Settings
from kar_aug.backbones.reranking.protocol import ListFeatures
from kar_aug.registry import RERANKERS


def build(name: str, features: ListFeatures, settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """A re-ranker of that name without any input of user, context or events but the keys of knowledge."""
    keys = [feature for feature in features.around if feature.is_key]
    return RERANKERS.load(name)(replace(features, around=keys), settings, augmentation, injection)
