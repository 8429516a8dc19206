"""Negatives for logs that hold none: items drawn for each click, that the user had not clicked before.

A log of purchases or plays says what was chosen and not what was passed over. For each click some items are drawn by
how often the training part clicked them, so that popularity alone tells nothing. What is drawn is marked: it is a
sample, and never an event of anybody's history.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.split import in_training, is_sample
from kar_aug.errors import DataError

_ROUNDS = 50
Places = npt.NDArray[np.int64]


def with_negatives(split: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """`split` with `count` drawn rows for each click that is a sample, and the column `drawn`.

    A drawn row has the click's user, time, part and context, another item, label 0, and no rating. An item that the
    user clicked before or at that moment is not drawn. Where a user has clicked nearly all there are fewer.

    Raises:
        DataError: The training part has no click.
    """
    clicked = (split["label"] > 0).to_numpy()
    popularity = split.loc[clicked & in_training(split), "item_id"].value_counts()
    if popularity.empty:
        raise DataError("negatives: the training part has no click by which items could be drawn.")
    items = pd.Index(popularity.index).sort_values()
    weight = popularity.reindex(items).to_numpy(np.float64)
    first = _FirstClicks(split[clicked], items)
    positives = np.flatnonzero(clicked & is_sample(split))
    rows = np.repeat(positives, count)
    drawn = _draw(rows, split, first, np.cumsum(weight / weight.sum()), np.random.default_rng([seed, 7]))
    kept = drawn >= 0
    negatives = split.iloc[rows[kept]].assign(item_id=items.to_numpy()[drawn[kept]], label=np.float32(0), drawn=True)
    if "rating" in negatives:
        negatives["rating"] = np.nan
    both = pd.concat([split.assign(drawn=False), negatives], ignore_index=True)
    return both.sort_values(["user_id", "moment", "drawn"], kind="stable", ignore_index=True)


class _FirstClicks:
    """When each user first clicked each item."""

    def __init__(self, clicks: pd.DataFrame, items: pd.Index) -> None:
        self.users = pd.Index(clicks["user_id"].unique()).sort_values()
        self._items = len(items)
        place = items.get_indexer(pd.Index(clicks["item_id"]))
        known = place >= 0
        keys = self.users.get_indexer(pd.Index(clicks["user_id"]))[known].astype(np.int64) * self._items + place[known]
        pairs = pd.Series(clicks["moment"].to_numpy()[known]).groupby(keys).min()
        self._keys, self._moments = pairs.index.to_numpy(np.int64), pairs.to_numpy(np.int64)

    def not_after(self, user: Places, item: Places, moment: Places) -> npt.NDArray[np.bool_]:
        """Whether the user had clicked the item at that moment or before."""
        if not len(self._keys):
            return np.zeros(len(user), bool)
        wanted = user * self._items + item
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.asarray((self._keys[place] == wanted) & (self._moments[place] <= moment))


def _draw(
    rows: Places,
    split: pd.DataFrame,
    first: _FirstClicks,
    cumulated: npt.NDArray[np.float64],
    random: np.random.Generator,
) -> Places:
    """Per row an item's place, -1 where none was found."""
    user = first.users.get_indexer(pd.Index(split["user_id"].to_numpy()[rows])).astype(np.int64)
    moment = split["moment"].to_numpy(np.int64)[rows]
    drawn = np.full(len(rows), -1)
    open_rows = np.arange(len(rows))
    for _ in range(_ROUNDS):
        if not len(open_rows):
            break
        tried = np.minimum(np.searchsorted(cumulated, random.random(len(open_rows)), side="right"), len(cumulated) - 1)
        known = first.not_after(user[open_rows], tried, moment[open_rows])
        drawn[open_rows[~known]] = tried[~known]
        open_rows = open_rows[known]
    return drawn
