"""Which `Objective` a kar.toml asks for: `[compare] task` says it."""

from __future__ import annotations

from kar_aug.compare.clicks import CLICKS
from kar_aug.compare.objective import Judge, Objective
from kar_aug.compare.reranking import Reranking
from kar_aug.config import Config

__all__ = ["CLICKS", "Judge", "Objective", "Reranking", "objective"]


def objective(config: Config) -> Objective:
    """That of a kar.toml."""
    compare, data = config.compare, config.data
    if compare.task == "ctr":
        return CLICKS
    return Reranking(compare.loss, compare.metric, data.list_length, synthetic=data.lists == "kar")
