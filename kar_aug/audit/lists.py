"""Lists that are to be ranked again: their order may be what a page showed, and must not know what was clicked."""

from __future__ import annotations

import numpy as np

from kar_aug.audit.findings import Check, Finding, found
from kar_aug.data.lists import PLACE, Lists
from kar_aug.data.samples import Samples

_SURE = 0.95
_FEWEST = 50  # pairs: of fewer, an order may tell clicks by chance
_MOST = 100  # items of a list that are looked at


def places(samples: Samples) -> Check:
    """Whether the order of lists gives clicks away: nearly all clicked items before, or behind, all others of theirs. A
    log that lists its clicks first does that, and no ranker that was at work.
    """
    name = "the order of lists does not know the clicks"
    if PLACE not in samples.columns:
        return Check(name, 0, "lists")
    lists = Lists(samples, _MOST)
    before = pairs = 0
    for _, label in lists.blocks("train"):
        clicked, others = label > 0, label == 0
        behind = others.sum(axis=1, keepdims=True) - np.cumsum(others, axis=1)
        before += int((behind * clicked).sum())
        pairs += int((clicked.sum(axis=1) * others.sum(axis=1)).sum())
    share = before / pairs if pairs >= _FEWEST else 0.5
    where = "before" if share > 0.5 else "behind"
    text = f"In the lists {max(share, 1 - share):.0%} of clicked items stand {where} those that were not clicked."
    leak = Finding("order", int(not 1 - _SURE < share < _SURE), text)
    return Check(name, len(lists), "lists", found(leak))
