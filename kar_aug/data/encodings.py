"""Values as a model reads them: categories as integers, numbers on a scale; fitted on the training part alone.

An encoding is made from the values that the training part shows, and used on all: what only validation or test rows
hold is unknown to it, as it would be to a model in production. `as_dict` and `encoding_of` keep it beside the runs and
in an exported model. The integers are those of Keras's own look-up layers with a mask and one index for the unknown.

| integer | of a category, or a bucket          |
|---------|-------------------------------------|
| 0       | missing; in a list or sequence: padding |
| 1       | unknown: not seen in training, or too rarely |
| 2 ...   | the known values, sorted            |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.cells import text_of
from kar_aug.data.room import MEMORY, Room, counted
from kar_aug.data.times import seconds
from kar_aug.errors import DataError

MISSING, UNKNOWN, FIRST = 0, 1, 2
SCALES = ("standard", "log", "minmax", "buckets")
MOST = 1e6  # beyond it a number on a scale is cut off: the training part's may hardly differ, and a later one by much
_BUCKETS = 20
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Categories:
    """Known values, sorted; their place + 2 is their integer."""

    values: tuple[Any, ...]

    @classmethod
    def fit(cls, values: pd.Series | Iterable[pd.Series], *, fewest: int = 1) -> Self:
        """The values that stand at least `fewest` times among `values`, which may come in parts; missing ones are
        passed over.
        """
        counts = counted([values] if isinstance(values, pd.Series) else values)
        return cls(tuple(sorted(counts.index[counts >= fewest].tolist())))

    @property
    def size(self) -> int:
        """How many integers there are, 0 and 1 among them."""
        return len(self.values) + FIRST

    def encode(self, values: pd.Series) -> Codes:
        """Integers of `values`, one each."""
        codes = self._index.get_indexer(pd.Index(values)).astype(np.int32) + FIRST
        codes[codes < FIRST] = UNKNOWN
        codes[values.isna().to_numpy()] = MISSING
        return codes

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.values, dtype=None if self.values else object)

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"kind": "categories", "values": list(self.values)}


@dataclass(frozen=True)
class Buckets:
    """Numbers as categories: the quantile bucket that each falls into."""

    edges: tuple[float, ...]

    @classmethod
    def fit(cls, values: pd.Series, shown: Mask | None = None, *, count: int = _BUCKETS, room: Room = MEMORY) -> Self:
        """Up to `count` buckets with about as many of `values` each, and none without any.

        Args:
            shown: which of the values; all by default.
            room: where a column as long is put meanwhile.
        """
        known = _finite(values, shown, room)
        least = known.min() if len(known) else 0.0
        wanted = np.arange(1, count) / count
        quantiles = np.quantile(known, wanted, overwrite_input=True) if len(known) else np.empty(0)
        edges = np.unique(quantiles[quantiles > least])
        held = np.zeros(len(edges) + 1, np.int64)
        for block in room.blocks(len(known)):
            held += np.bincount(np.searchsorted(edges, known[block], side="right"), minlength=len(held))
        # Of few different numbers a quantile may lie between two, 2.65 between 2.5 and 3.5, which is an edge itself.
        return cls(tuple(edges[held[1:] > 0].tolist()))

    @property
    def size(self) -> int:
        """How many integers there are, 0 and 1 among them; 1 is not used."""
        return len(self.edges) + 1 + FIRST

    def encode(self, values: pd.Series) -> Codes:
        """Integers of `values`, one each."""
        numbers = numbers_of(values)
        codes = np.searchsorted(np.asarray(self.edges), numbers, side="right").astype(np.int32) + FIRST
        codes[~np.isfinite(numbers)] = MISSING
        return codes

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"kind": "buckets", "edges": list(self.edges)}


@dataclass(frozen=True)
class Scale:
    """Numbers on one scale: (f(x) - shift) / width, f the identity or a logarithm that keeps the sign.

    A number a million widths away counts as that far. A missing number is `missing`, where it would be the training
    part's mean; whether it was missing is a feature of its own: `may_miss`.
    """

    log: bool
    shift: float
    width: float
    missing: float
    may_miss: bool

    @classmethod
    def fit(
        cls, values: pd.Series, how: str, shown: Mask | None = None, *, may_miss: bool = False, room: Room = MEMORY
    ) -> Self:
        """A scale of the kind "standard", "log" or "minmax".

        Args:
            shown: which of the values it is of; all by default.
            may_miss: whether numbers may be missing of which `values` show nothing.
            room: where columns as long are put meanwhile.
        """
        numbers = _finite(values, shown, room)
        if not len(numbers):
            return cls(how == "log", 0.0, 1.0, 0.0, True)
        count = len(values) if shown is None else int(np.count_nonzero(shown))
        spread = numbers
        if how == "log":
            spread = room.filled(len(numbers), np.float64, lambda block: _logarithm(numbers[block]))
        low, high, mean = float(spread.min()), float(spread.max()), spread.mean()
        # As NumPy has it; but that makes two more columns in memory.
        squares = room.filled(len(spread), np.float64, lambda block: np.square(spread[block] - mean))
        shift, width = (low, high - low) if how == "minmax" else (float(mean), float(np.sqrt(squares.mean())))
        width = width if width > 0 else 1.0
        return cls(how == "log", shift, width, (float(mean) - shift) / width, may_miss or len(numbers) < count)

    def encode(self, values: pd.Series) -> Floats:
        """`values` on the scale, one each."""
        numbers = numbers_of(values)
        spread = _logarithm(numbers) if self.log else numbers
        scaled = np.clip((spread - self.shift) / self.width, -MOST, MOST)
        return np.where(np.isfinite(numbers), scaled, self.missing).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "kind": "scale",
            "log": self.log,
            "shift": self.shift,
            "width": self.width,
            "missing": self.missing,
            "may_miss": self.may_miss,
        }


Encoding = Categories | Buckets | Scale


def encoding_of(data: Mapping[str, Any]) -> Encoding:
    """The encoding that `as_dict` wrote."""
    given = {name: value for name, value in data.items() if name != "kind"}
    if data["kind"] == "categories":
        return Categories(tuple(given["values"]))
    if data["kind"] == "buckets":
        return Buckets(tuple(given["edges"]))
    return Scale(**given)


def numbers_of(values: pd.Series) -> npt.NDArray[np.float64]:
    """A column as numbers, NaN where it holds none.

    Raises:
        DataError: It holds text that is no number.
    """
    if pd.api.types.is_datetime64_any_dtype(values):
        return seconds(values)
    try:
        return pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        wrong = text_of(next(value for value in values if _is_no_number(value)))
        remedy = of_thousands(wrong) or " Mend it, or leave the cell empty; what is no number is no numeric feature."
        raise DataError(
            f"{values.name!r} is to be read as a number, and holds {wrong!r}, which is none.{remedy}",
            column=str(values.name),
        ) from None


def _is_no_number(value: object) -> bool:
    try:
        pd.to_numeric(pd.Series([value]))
    except (ValueError, TypeError):
        return True
    return False


def of_thousands(text: str) -> str:
    """What to do where a text that is no number has 1,234.5 in it; "" where it has not."""
    return ' Of 1,234.5 in text files: [data] thousands = ","' if re.search(r"\b[0-9]{1,3},[0-9]{3}", text) else ""


def missing_of(values: pd.Series) -> Floats:
    """1.0 where a column holds no number, else 0.0."""
    return (~np.isfinite(numbers_of(values))).astype(np.float32)


def _finite(values: pd.Series, shown: Mask | None, room: Room) -> Floats64:
    """Those of the shown values that are numbers, as an array of its own."""
    numbers, done = room.empty(len(values), np.float64), 0
    for block in room.blocks(len(values)):
        part = numbers_of(values.iloc[block] if shown is None else values.iloc[block][shown[block]])
        known = part[np.isfinite(part)]
        numbers[done : done + len(known)] = known
        done += len(known)
    room.let_go()
    return numbers[:done]


def _logarithm(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sign(numbers) * np.log1p(np.abs(numbers))
