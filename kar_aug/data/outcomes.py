"""What came of a view: samples of one kind of event, labelled by what its user did with its item soon after.

A row of a shop's log is a view, a cart or a purchase. Where each is a sample, and purchases are the clicks, a model
sees the cart of the same item a minute before: it learns to tell kinds of rows apart, at an AUC near 1, and nothing of
who buys what. What is to be foreseen is whether a view becomes a purchase: views are the samples, a click is one that
a purchase follows within the window, and carts and purchases are events of the past.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.labels import where
from kar_aug.data.room import MEMORY, Room, series
from kar_aug.data.split import PARTS, UNLABELLED, distinct, part_codes
from kar_aug.data.times import seconds
from kar_aug.errors import DataError

FORETOLD = 0.5  # by so much more clicks than others come soon after an event of their user and item: steps of one visit
_DAY = 86_400.0
Mask = npt.NDArray[np.bool_]
Seconds = npt.NDArray[np.float64]


def with_outcomes(
    split: pd.DataFrame, samples: str | None, window: float | None = None, room: Room = MEMORY
) -> pd.DataFrame:
    """The split, whose samples are some of the rows, and clicks what a click follows.

    All other rows are events of the past. What an event says by itself is its rating, where the log has none: 1 of a
    click, so that a past shows no event as what became of it only later.

    Args:
        samples: an expression that is true of samples; None for all rows.
        window: a sample is a click if it is one itself, or another event of its user and item is, at most so many
            seconds later. Of the last samples of the log nobody knows yet: they are none. None: as the row says itself.
        room: where long columns are put.

    Raises:
        DataError: The expression cannot be evaluated, or no sample is left.
    """
    own, part = split["label"].to_numpy(np.float32), split["part"]
    chosen = (
        where(split, samples, "[data] samples").to_numpy(bool) if samples is not None else np.ones(len(split), bool)
    )
    time = split["timestamp"]
    label, codes = room.empty(len(split), np.float32), room.empty(len(split), np.int8)
    user, item = (distinct(split[f"{entity}_id"], room)[1] for entity in ("user", "item"))
    left = 0
    end = max((float(seconds(time.iloc[block]).max()) for block in room.blocks(len(split))), default=0.0)
    for block in room.blocks_of_users(user):
        before, says, at = part_codes(part.iloc[block]), own[block], seconds(time.iloc[block])
        is_sample = before > PARTS.index("history")
        kept = is_sample & chosen[block]
        if window is not None:
            says = _followed(user[block], item[block], at, says > 0, window).astype(np.float32)
            kept &= at + window <= end
        left += int(kept.sum())
        label[block] = np.where(kept, says, np.where(is_sample, np.nan, own[block]))
        codes[block] = np.where((before < 0) | (is_sample & ~kept), len(PARTS), before)
    room.let_go()
    if not left:
        raise _none_left(samples, chosen, window)
    parts = pd.Categorical.from_codes(codes, pd.Index([*PARTS, UNLABELLED]), ordered=True)
    rating = {} if "rating" in split else {"rating": series(own)}
    return split.assign(label=series(label), part=parts, **rating)


def _none_left(samples: str | None, chosen: Mask, window: float | None) -> DataError:
    if not chosen.any():
        return DataError(f"[data] samples: {samples!r} is true of no row. See its columns: kar-aug inspect --data")
    days = f" of {window / _DAY:g} days" if window is not None else ""
    return DataError(
        "[data] samples, conversion_window: no sample is left. All that is chosen is in the histories, or the window"
        f"{days} after it ends later than the log, so that nobody knows yet what becomes of it. Choose a shorter one."
    )


def foretold(user: npt.NDArray[Any], item: npt.NDArray[Any], at: Seconds, clicked: Mask) -> tuple[int, int]:
    """How many clicks, and how many other events, come within a day of an earlier one of the same user and item.

    Args:
        user, item: a whole number each, (rows,).
        at: seconds.
    """
    order, first = _together(user, item, at, clicked)
    since = np.r_[np.inf, np.diff(at[order])]
    soon = np.where(first, np.inf, since) <= _DAY
    return int((soon & clicked[order]).sum()), int((soon & ~clicked[order]).sum())


def _followed(user: npt.NDArray[Any], item: npt.NDArray[Any], at: Seconds, clicked: Mask, window: float) -> Mask:
    """Whether an event is a click, or one of the same user and item is, no later than the window after it."""
    order, first = _together(user, item, at, clicked)
    when = pd.Series(np.where(clicked[order], at[order], np.nan))
    following = when.groupby(np.cumsum(first)).bfill().to_numpy()
    found = np.empty(len(order), bool)
    found[order] = following - at[order] <= window
    return found


def _together(
    user: npt.NDArray[Any], item: npt.NDArray[Any], at: Seconds, clicked: Mask
) -> tuple[npt.NDArray[np.int64], Mask]:
    """The events by user and item, in order of time, of one moment the clicks last; and which are a pair's first."""
    order = np.lexsort((clicked, at, item, user))
    pairs = np.stack([user[order], item[order]])
    return order, np.r_[True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)][: len(order)]
