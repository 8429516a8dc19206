"""Lists for logs that hold none, as KAR's authors made them: some of a user's next items among random ones.

They are synthetic, and whatever shows a result on them says so. To tell what a user met from what a machine drew is
another task than to order what a page showed: popularity alone does much of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.lists import IMPRESSION, POSITION, SCORE
from kar_aug.data.split import is_sample
from kar_aug.errors import DataError

NEXT, LENGTH = 4, 10
_ROUNDS = 100
Positions = npt.NDArray[np.int64]


def kar_lists(split: pd.DataFrame, seed: int = 0, chosen: int = NEXT, length: int = LENGTH) -> pd.DataFrame:
    """`split`, whose samples stand in lists: of each user the next `chosen` items that he met, among as many that were
    drawn as make `length`.

    A user's samples of a part are taken in their order; the last list may have fewer of them, and more drawn ones then.
    What was met keeps its label: a low rating is no click. What is drawn has the time of the list's first event, label
    0, no rating, and is an item that is not in the list and that the user had not met by then (the authors
    draw from all, now and then what is in the list itself). Positions are drawn. A row of the history has no list.

    Args:
        split: what `split_interactions` returned.
        seed: of what is drawn.

    Returns:
        The rows by user and moment, with the columns `impression_id`, `position` and `drawn`.

    Raises:
        DataError: There are lists already, or too few items to draw from.

    Source:
        KAR (arXiv:2306.10933), section 4.1, and `generate_rerank_data` of the authors' code.
    """
    if IMPRESSION in split:
        raise DataError(
            f'[data] lists: the log has lists of its own ({IMPRESSION}): none are made. Say lists = "impressions".',
            column=IMPRESSION,
        )
    items, item = np.unique(split["item_id"].to_numpy(object), return_inverse=True)
    if len(items) < 2 * length:
        raise DataError(f"[data] lists: lists of {length} need more than {len(items)} different items to draw from.")
    random = np.random.default_rng([seed, 19])
    user, rows = pd.factorize(split["user_id"])[0], np.flatnonzero(is_sample(split))
    number, first = _numbered(split, user, rows, chosen)
    drawn_of, drawn = _drawn(split, user, item, rows, number, first, length, len(items), random)
    source = np.r_[np.arange(len(split)), first[drawn_of]]
    is_drawn = np.arange(len(source)) >= len(split)
    found: pd.DataFrame = split.take(source).reset_index(drop=True)
    found["item_id"] = pd.Series(items[np.r_[item, drawn]], found.index).astype(split["item_id"].dtype)
    found["label"] = np.where(is_drawn, np.float32(0), found["label"].to_numpy(np.float32))
    if "rating" in found:
        found["rating"] = found["rating"].astype("float64").mask(is_drawn)
    found["drawn"] = is_drawn
    impression = np.full(len(source), -1)
    impression[rows], impression[len(split) :] = number, drawn_of
    found[IMPRESSION] = pd.Series(impression, dtype="Int64").mask(impression < 0)
    shuffled = np.lexsort((random.random(len(source)), impression))
    starts = pd.Series(impression[shuffled]).groupby(impression[shuffled]).cumcount().to_numpy()
    position = np.empty(len(source), np.int64)
    position[shuffled] = starts + 1
    found[POSITION] = pd.Series(position, dtype="Int64").mask(impression < 0)
    found = found.drop(columns=[SCORE], errors="ignore")
    order = np.lexsort((is_drawn, found["moment"].to_numpy(), user[source]))
    return found.iloc[order].reset_index(drop=True)


def _numbered(split: pd.DataFrame, user: Positions, rows: Positions, chosen: int) -> tuple[Positions, Positions]:
    """(the list of each of some rows, of each list its first row)."""
    part = split["part"].cat.codes.to_numpy()[rows].astype(np.int64)
    within = pd.Series(rows).groupby([user[rows], part], sort=False).cumcount().to_numpy()
    keys = np.stack([user[rows], part, within // chosen], axis=1)
    _, at, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return number.ravel(), rows[at]


def _drawn(
    split: pd.DataFrame, user: Positions, item: Positions, rows: Positions, number: Positions, first: Positions,
    length: int, items: int, random: np.random.Generator,
) -> tuple[Positions, Positions]:  # fmt: skip
    """(the list of each drawn row, its item)."""
    wanted = np.repeat(np.arange(len(first)), length - np.bincount(number, minlength=len(first)))
    place = np.full(len(wanted), -1)
    met = _FirstMet(user, item, split["moment"].to_numpy(), items)
    taken = number * items + item[rows]  # what is in the list already
    for _ in range(_ROUNDS):
        open_ = np.flatnonzero(place < 0)
        if not len(open_):
            return wanted, place
        tried = random.integers(0, items, len(open_))
        keys = wanted[open_] * items + tried
        event = first[wanted[open_]]
        good = ~np.isin(keys, taken) & (met.moment(user[event], tried) > split["moment"].to_numpy()[event])
        once = np.zeros(len(keys), bool)
        once[np.unique(keys, return_index=True)[1]] = True  # an item is drawn once a list
        place[open_[good & once]] = tried[good & once]
        taken = np.r_[taken, keys[good & once]]
    left = place >= 0  # of users who met nearly all, lists are shorter
    return wanted[left], place[left]


class _FirstMet:
    """When each user first met each item."""

    def __init__(self, user: Positions, item: Positions, moment: Positions, items: int) -> None:
        pairs = pd.Series(moment).groupby(user.astype(np.int64) * items + item).min()
        self._keys, self._moment, self._items = pairs.index.to_numpy(np.int64), pairs.to_numpy(np.int64), items

    def moment(self, user: Positions, item: Positions) -> Positions:
        """That moment; beyond all where there is none."""
        wanted = user.astype(np.int64) * self._items + item
        found = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[found] == wanted, self._moment[found], np.iinfo(np.int64).max)
