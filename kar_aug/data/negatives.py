"""Negatives for logs that hold none: items drawn for each click, that the user had not clicked before.

A log of purchases or plays says what was chosen and not what was passed over. For each click some items are drawn by
how often the training part clicked them, so that popularity alone tells nothing. What is drawn is marked: it is a
sample, and never an event of anybody's history.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.encodings import numbers_of
from kar_aug.data.room import MEMORY, Room, is_arrow_text, series
from kar_aug.data.split import distinct, in_training, is_sample
from kar_aug.errors import DataError

_ROUNDS = 50
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def with_negatives(split: pd.DataFrame, count: int, seed: int, room: Room = MEMORY) -> pd.DataFrame:
    """`split` with `count` drawn rows for each click that is a sample, and the column `drawn`.

    A drawn row has the click's user, time, part and context, another item, label 0, and no rating. An item that the
    user clicked before or at that moment is not drawn. Where a user has clicked nearly all there are fewer.

    Args:
        room: where long columns are put.

    Raises:
        DataError: The training part has no click.
    """
    label = split["label"].to_numpy()
    clicked = room.filled(len(split), bool, lambda block: label[block] > 0)
    items, weight = _popularity(split["item_id"], clicked, in_training(split, room), room)
    clicks = _Clicks(split, clicked, items, room)
    sample = is_sample(split, room)
    positives = room.true(room.filled(len(split), bool, lambda block: clicked[block] & sample[block]))
    rows = room.filled(
        len(positives) * count, np.int64, lambda block: positives[np.arange(block.start, block.stop) // count]
    )
    drawn = _draw(rows, clicks, np.cumsum(weight / weight.sum()), np.random.default_rng([seed, 7]), room)
    return _merged(split, *_in_event_order(rows, drawn, clicks, room), items, room)


def _popularity(ids: pd.Series, clicked: Mask, trained: Mask, room: Room) -> tuple[pd.Index, npt.NDArray[np.float64]]:
    """The items that the training part clicked, sorted, and how often it did."""
    counts = pd.Series(dtype=np.int64)
    for block in room.blocks(len(ids)):
        more = ids.iloc[block][clicked[block] & trained[block]].value_counts()
        counts = pd.concat([counts, more]).groupby(level=0, sort=False).sum() if len(counts) else more
    if counts.empty:
        raise DataError("negatives: the training part has no click by which items could be drawn.")
    items = pd.Index(counts.index).sort_values()
    return items, counts.reindex(items).to_numpy(np.float64)


class _Clicks:
    """What each user clicked, and when. The events of a split stand by user and moment."""

    def __init__(self, split: pd.DataFrame, clicked: Mask, items: pd.Index, room: Room) -> None:
        self.user, self.moment = distinct(split["user_id"], room)[1], split["moment"].to_numpy(np.int64)
        self._ids, self._clicked, self._items, self._room = split["item_id"], clicked, items, room

    def spans(self, rows: Places) -> Iterator[tuple[slice, slice]]:
        """Of users together some events, and those of `rows`, which rise, that are among them."""
        for block in self._room.blocks_of_users(self.user):
            first, stop = np.searchsorted(rows, [block.start, block.stop])
            yield block, slice(int(first), int(stop))

    def not_after(self, block: slice, events: Places, item: Places) -> Mask:
        """Whether the users of some events of a block had clicked these items by then."""
        clicks = block.start + np.flatnonzero(self._clicked[block])
        clicks = clicks[np.isin(self.user[clicks], self.user[events])]
        place = self._items.get_indexer(pd.Index(self._ids.iloc[clicks]))
        clicks, place = clicks[place >= 0], place[place >= 0]
        if not len(clicks):
            return np.zeros(len(events), bool)
        keys, first = np.unique(self._keys(clicks, place), return_index=True)
        wanted = self._keys(events, item)
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.asarray((keys[found] == wanted) & (self.moment[clicks][first][found] <= self.moment[events]))

    def _keys(self, events: Places, item: Places) -> Places:
        return np.asarray(self.user[events].astype(np.int64) * len(self._items) + item)


def _draw(
    rows: Places, clicks: _Clicks, cumulated: npt.NDArray[np.float64], random: np.random.Generator, room: Room
) -> Places:
    """Per row an item's place, -1 where none was found."""
    drawn = room.filled(len(rows), np.int64, lambda block: -1)
    waiting = room.filled(len(rows), np.int64, lambda block: np.arange(block.start, block.stop))
    for _ in range(_ROUNDS):
        if not len(waiting):
            break
        events, again, left = room.taken(rows, waiting), room.empty(len(waiting), np.int64), 0
        for block, some in clicks.spans(events):
            if some.start == some.stop:
                continue
            draws = random.random(some.stop - some.start)
            tried = np.minimum(np.searchsorted(cumulated, draws, side="right"), len(cumulated) - 1)
            known = clicks.not_after(block, events[some], tried)
            drawn[waiting[some][~known]] = tried[~known]
            still = waiting[some][known]
            again[left : left + len(still)] = still
            left += len(still)
        room.let_go()
        waiting = again[:left]
    return drawn


def _in_event_order(rows: Places, drawn: Places, clicks: _Clicks, room: Room) -> tuple[Places, Places]:
    """Events and drawn rows, these after the events of their moment: of each the event that it is, or is drawn beside;
    and the place of the item that is drawn, -1 of an event.
    """
    size = len(clicks.user) + int(np.count_nonzero(drawn >= 0))
    source, item, done = room.empty(size, np.int64), room.empty(size, np.int64), 0
    for block, some in clicks.spans(rows):
        found = drawn[some] >= 0
        events = np.r_[np.arange(block.start, block.stop), rows[some][found]]
        items = np.r_[np.full(block.stop - block.start, -1), drawn[some][found]]
        order = np.lexsort((items >= 0, clicks.moment[events], clicks.user[events]))
        source[done : done + len(order)], item[done : done + len(order)] = events[order], items[order]
        done += len(order)
    room.let_go()
    return source, item


def _merged(split: pd.DataFrame, source: Places, item: Places, items: pd.Index, room: Room) -> pd.DataFrame:
    columns = {str(name): room.ordered(split[name], source) for name in split.columns}
    ids, label = columns["item_id"], columns["label"].to_numpy()

    def chosen(block: slice) -> pd.Series:
        return ids.iloc[block].where(item[block] < 0, pd.Series(items[np.maximum(item[block], 0)], ids.index[block]))

    if pd.api.types.is_integer_dtype(ids):
        columns["item_id"] = series(room.filled(len(item), ids.to_numpy().dtype, chosen))
    elif is_arrow_text(ids) and not room.holds(ids.nbytes):
        columns["item_id"] = room.text(map(chosen, room.blocks(len(item))), ids)
    else:
        columns["item_id"] = pd.concat(map(chosen, room.blocks(len(item))))
    columns["label"] = series(
        room.filled(len(item), np.float32, lambda block: np.where(item[block] < 0, label[block], 0))
    )
    if (rating := columns.get("rating")) is not None:

        def known(block: slice) -> npt.NDArray[np.float64]:
            return np.where(item[block] < 0, numbers_of(rating.iloc[block]), np.nan)

        columns["rating"] = series(room.filled(len(item), np.float64, known))
    columns["drawn"] = series(room.filled(len(item), bool, lambda block: item[block] >= 0))
    return pd.DataFrame(columns, copy=False)
