"""An item's important neighbours: which items the people who like it like, by personalised PageRank.

LLM-Rec (arXiv:2307.15780) shows them to the language model, so that its answer says what users look for in an item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from kar_aug.errors import MissingDependencyError

_RESTART = 0.15  # the walk goes back to its item that often
_STEPS = 20  # what is left after them is 0.85^20: 4 %, spread like the rest
_BLOCK = 64  # items whose walks go on at the same time: memory is that many numbers an item and user


def important_neighbours(
    split: pd.DataFrame, item_ids: Sequence[int | str], count: int = 5
) -> Iterator[list[int | str]]:
    """For each item the `count` others where a walk from it over the graph of likes is most often.

    Args:
        split: what `split_interactions` returned. Only clicks of the histories are read: what the prompts see must not
            tell what was clicked later.

    Yields:
        Items, the most important first; [] for an item that nobody likes. Ties go to the smaller id.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    try:
        from scipy import sparse
    except ImportError:
        raise MissingDependencyError("scipy", "offline") from None
    likes = split[(split["part"] == "history") & (split["label"] > 0)].drop_duplicates(["user_id", "item_id"])
    users, _ = pd.factorize(likes["user_id"], sort=True)
    items, known = pd.factorize(likes["item_id"], sort=True)
    names: list[int | str] = known.tolist()
    row_of = {name: row for row, name in enumerate(names)}
    ones = np.ones(len(likes), dtype=np.float32)
    shape = (len(names), int(users.max(initial=-1)) + 1)
    graph = sparse.csr_matrix((ones, (items, users)), shape=shape)
    to_users = graph.multiply(1 / np.maximum(graph.sum(axis=1), 1)).T.tocsr()  # a column an item, summing to 1
    to_items = graph.multiply(1 / np.maximum(graph.sum(axis=0), 1)).tocsr()
    for start in range(0, len(item_ids), _BLOCK):
        block = item_ids[start : start + _BLOCK]
        seeds = [row_of[item] for item in block if item in row_of]
        walks = _walk(to_users, to_items, seeds) if seeds else np.empty((0, 0))
        found = iter(walks)
        for item in block:
            if item not in row_of:
                yield []
                continue
            share = next(found)
            share[row_of[item]] = 0
            best = np.argsort(-share, kind="stable")[:count]
            yield [names[row] for row in best.tolist() if share[row] > 0]


def _walk(to_users: object, to_items: object, seeds: Sequence[int]) -> np.ndarray:
    """Shares of a walk's visits, shape (seeds, items): power iteration, two steps (item, user, item) at a time."""
    start = np.zeros((to_items.shape[0], len(seeds)), dtype=np.float32)  # type: ignore[attr-defined]
    start[list(seeds), range(len(seeds))] = 1
    share = start
    for _ in range(_STEPS):
        share = _RESTART * start + (1 - _RESTART) * (to_items @ (to_users @ share))  # type: ignore[operator]
    return np.round(share.T, 6)  # ties are ties on every machine
