"""From ids to rows: a sorted, memory-mapped index of integer or string ids.

Integers are int64; strings are kept as their UTF-8 bytes, four times smaller than NumPy's own strings. Looking up
n ids is one binary search each, vectorised, and touches only the pages it needs. Of many millions of ids it is the wait
for memory that takes long: there it goes among every 512th id first, which a processor's cache holds, and then among
neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.errors import StoreError

_CACHED = 1 << 24  # bytes of ids; with fewer of them the processor's cache helps as much
_NEAR = 512  # ids from one signpost to the next; a power of 2
EntityId = int | str
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class IdIndex:
    """Sorted `ids` without repetition, and per id its row. Where ids have versions, ids and `times` are sorted
    together, a row each pair; times are as in `kar_aug.cache.vectors.moments`.
    """

    ids: Array
    rows: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64] | None = None

    @classmethod
    def build(cls, ids: Array, rows: npt.NDArray[np.int64], times: npt.NDArray[np.int64] | None = None) -> IdIndex:
        """An index in which the last of equal ids (and times) wins; row -1 says that the id was deleted."""
        order = np.argsort(ids, kind="stable") if times is None else np.lexsort((times, ids))
        ids = ids[order]
        differ = ids[1:] != ids[:-1]
        if times is not None:
            times = times[order]
            differ = differ | (times[1:] != times[:-1])
        last = np.r_[differ, np.ones(min(len(ids), 1), bool)]
        return cls(ids[last], rows[order][last], None if times is None else times[last])

    def followed_by(self, newer: IdIndex) -> IdIndex:
        """Both, where `newer` wins; deleted ids are gone."""
        times = None
        if newer.times is not None:
            times = newer.times if self.times is None else np.concatenate([self.times, newer.times])
        ids, rows = np.concatenate([self.ids, newer.ids]), np.concatenate([self.rows, newer.rows])
        return IdIndex.build(ids, rows, times).live

    @property
    def live(self) -> IdIndex:
        """Without what was deleted."""
        live = self.rows >= 0
        return IdIndex(self.ids[live], self.rows[live], None if self.times is None else self.times[live])

    @property
    def latest(self) -> IdIndex:
        """The last version of each id alone."""
        if self.times is None:
            return self
        last = np.r_[self.ids[1:] != self.ids[:-1], np.ones(min(len(self.ids), 1), bool)]
        return IdIndex(self.ids[last], self.rows[last])

    def find(self, ids: Sequence[EntityId | None] | Array) -> npt.NDArray[np.int64]:
        """Per id its row, that of its last version, -1 where it has none. Ids of another type, None among them, have
        none.
        """
        found = np.full(len(ids), -1, np.int64)
        first, stop = self.spans(ids)
        hit = stop > first
        found[hit] = self.rows[stop[hit] - 1]
        return found

    def spans(self, ids: Sequence[EntityId | None] | Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Per id the places of its versions here: (first, one after the last), which are equal where it has none."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
        asked, possible = _comparable(ids, self.ids.dtype)
        first = self._first_not_below(asked)
        if self.times is None:
            stop = first + (self.ids[np.minimum(first, len(self.ids) - 1)] == asked)
        else:
            stop = np.searchsorted(self.ids, asked, side="right")
        return first, np.where(possible, stop, first)

    def _first_not_below(self, asked: Array) -> npt.NDArray[np.int64]:
        """np.searchsorted(self.ids, asked)."""
        if self.ids.nbytes < _CACHED:
            return np.searchsorted(self.ids, asked)
        signpost = np.searchsorted(self._signposts, asked)
        below = np.maximum(signpost - 1, 0) * _NEAR  # the last place that is known to hold an id below the one asked
        step, last = _NEAR // 2, len(self.ids) - 1
        while step:
            further = below + step
            is_below = (further <= last) & (self.ids[np.minimum(further, last)] < asked)
            below[is_below] = further[is_below]
            step //= 2
        return np.where(signpost, below + 1, 0)

    @cached_property
    def _signposts(self) -> Array:
        return np.ascontiguousarray(self.ids[::_NEAR])

    def before(
        self, first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64], times: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The row of the last version strictly before each time, among those of a span (see `spans`); -1 where there
        is none.
        """
        place = self._first_not_before(first, stop, times)
        found = np.full(len(place), -1, np.int64)
        hit = place > first
        found[hit] = self.rows[place[hit] - 1]
        return found

    def exactly(self, ids: Sequence[EntityId | None] | Array, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row of the version of just that time of each id; -1 where there is none."""
        first, stop = self.spans(ids)
        place = self._first_not_before(first, stop, times)
        found = np.full(len(place), -1, np.int64)
        inside = np.flatnonzero(place < stop)
        hit = inside[self._times[place[inside]] == times[inside]]
        found[hit] = self.rows[place[hit]]
        return found

    @property
    def _times(self) -> npt.NDArray[np.int64]:
        return np.empty(0, np.int64) if self.times is None else self.times

    def _first_not_before(
        self, first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64], times: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Binary search in all spans at once: as many steps as the longest needs."""
        low, high = first.copy(), stop.copy()
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) // 2
            earlier = self._times[middle] < times[open_]
            low[open_[earlier]] = middle[earlier] + 1
            high[open_[~earlier]] = middle[~earlier]
        return low


def listed(ids: Any) -> Any:
    """Ids that somebody asks about as a list, or an array of one axis: of a data frame's column too.

    Raises:
        StoreError: They have no order, or more axes.
    """
    if isinstance(ids, Mapping):
        raise StoreError(
            "Ids must be in the order of the model's integers, and came as a dictionary. Of one from id to integer "
            "make a list: vocabulary = [None] * (max(mapping.values()) + 1), and vocabulary[integer] = id for each."
        )
    if not isinstance(ids, list | tuple | range) and hasattr(ids, "__array__"):
        array = np.asarray(ids)
        if array.ndim != 1:
            raise StoreError(f"Ids must be of shape (count,). Received: {array.shape}")
        return np.asarray(ids, object) if array.dtype.kind == "f" else array  # pandas.NA would make floats of integers
    if not isinstance(ids, Sequence) or isinstance(ids, str | bytes):
        raise StoreError(f"Ids must be a list or an array, for their order counts. Received: {type(ids).__name__}")
    return ids


def stored_ids(ids: Sequence[EntityId] | Array) -> Array:
    """Ids as they are stored: int64, or UTF-8 bytes.

    Raises:
        StoreError: They are not all integers of 64 bits or all strings, or one ends in a NUL character.
    """
    if isinstance(ids, np.ndarray) and ids.dtype.kind == "i":
        return ids.astype(np.int64)
    given: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if all(_is_integer(id) for id in given):
        return np.asarray(given, np.int64)
    if not all(isinstance(id, str) for id in given):
        raise StoreError("Ids must be all integers or all strings.")
    return stored_text(given, "id")


def stored_text(texts: Sequence[str], what: str) -> Array:
    """Strings as UTF-8 bytes of fixed width.

    Raises:
        StoreError: One ends in a NUL character, which NumPy would drop.
    """
    encoded = [_utf8(text) for text in texts]
    if any(text.endswith(b"\0") for text in encoded):
        raise StoreError(f"An {what} ends in a NUL character, which NumPy's strings cannot hold. Strip it.")
    return np.asarray(encoded, f"S{max(1, *map(len, encoded))}" if encoded else "S1")


def given_ids(ids: Array) -> list[EntityId]:
    """The opposite of `stored_ids`."""
    return ids.tolist() if ids.dtype.kind == "i" else given_text(ids)


def given_text(texts: Array) -> list[Any]:
    """The opposite of `stored_text`."""
    return [text.decode("utf-8", "surrogatepass") for text in texts.tolist()]


def _comparable(ids: Sequence[EntityId | None] | Array, dtype: np.dtype[Any]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """`ids` as `dtype`, which never widens the index, and which of them can be in it at all."""
    if isinstance(ids, np.ndarray) and ids.dtype.kind == dtype.kind == "i":
        return ids.astype(np.int64, copy=False), np.ones(len(ids), bool)
    given = ids.tolist() if isinstance(ids, np.ndarray) else ids
    if dtype.kind == "i":
        possible = np.fromiter((_is_integer(id) for id in given), bool, len(given))
        numbers = (id if ok else 0 for id, ok in zip(given, possible.tolist(), strict=True))
        return np.fromiter(numbers, np.int64, len(given)), possible
    encoded = [_utf8(id) if isinstance(id, str) else b"\0" for id in given]
    possible = np.fromiter((len(e) <= dtype.itemsize and not e.endswith(b"\0") for e in encoded), bool, len(given))
    return np.asarray([e if ok else b"" for e, ok in zip(encoded, possible.tolist(), strict=True)], dtype), possible


def _is_integer(id: Any) -> bool:
    return isinstance(id, (int, np.integer)) and not isinstance(id, bool) and -(2**63) <= int(id) < 2**63


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
