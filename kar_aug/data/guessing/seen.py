"""A column as a person would look at it: what kind of values, how many different ones, how many are missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.building import exploded
from kar_aug.data.cells import SEPARATOR, Unreadable, is_list, text_of
from kar_aug.data.encodings import numbers_of
from kar_aug.data.times import is_written

_TRIED = 200  # texts that are tried as times
_SHARE_OF_LISTS = 0.05
_SHOWN = 40  # characters of a value


@dataclass(frozen=True, eq=False)
class Seen:
    """A column of plain type (see `kar_aug.data.types`).

    Args:
        name: as the file calls it.
        cells: those of the rows that were read.
    """

    name: str
    cells: pd.Series

    @cached_property
    def kind(self) -> str:
        """One of "empty", "unreadable", "list", "boolean", "time", "integer", "number", "text"."""
        there = self.there
        if there.empty:
            return "empty"
        if pd.api.types.is_bool_dtype(there):
            return "boolean"
        if pd.api.types.is_datetime64_any_dtype(there):
            return "time"
        if pd.api.types.is_numeric_dtype(there):
            return "integer" if pd.api.types.is_integer_dtype(there) or bool((there % 1 == 0).all()) else "number"
        return self._kind_of_objects(there)

    @staticmethod
    def _kind_of_objects(there: pd.Series) -> str:
        if any(isinstance(cell, (Unreadable, dict)) for cell in there.head(_TRIED)):
            return "unreadable"
        if any(is_list(cell) for cell in there):
            return "list"
        told = pd.api.types.infer_dtype(there)
        if told == "boolean":
            return "boolean"
        if told in ("date", "datetime", "datetime64"):
            return "time"
        if told in ("decimal", "floating", "integer", "mixed-integer-float"):
            return "number"
        texts = there.astype(str)
        if is_written(texts.head(_TRIED)):
            return "time"
        return "list" if texts.str.contains(SEPARATOR, regex=False).mean() > _SHARE_OF_LISTS else "text"

    @cached_property
    def there(self) -> pd.Series:
        """The cells that are not missing."""
        return self.cells.dropna()

    @property
    def missing(self) -> float:
        """Share of the cells that are."""
        return 1 - len(self.there) / max(len(self.cells), 1)

    @cached_property
    def counts(self) -> pd.Series:
        """How often each value stands there, the commonest first; of lists, each value in them."""
        if self.kind == "unreadable":
            return pd.Series(dtype="int64")
        return exploded(self.cells).value_counts() if self.kind == "list" else self.there.value_counts()

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(self.counts)

    @cached_property
    def longest(self) -> int:
        """The most values that a cell has, where they are lists."""
        return int(self.there.map(lambda cell: cell.count(SEPARATOR) + 1 if isinstance(cell, str) else len(cell)).max())

    @property
    def is_unique(self) -> bool:
        """Whether no row has the value of another, and none is missing."""
        return self.kind in ("integer", "text", "list") and not self.missing and self.cells.map(_hashable).is_unique

    @cached_property
    def numbers(self) -> npt.NDArray[np.float64]:
        """The values that are numbers."""
        found = numbers_of(self.there)
        return found[np.isfinite(found)]

    @cached_property
    def words(self) -> float:
        """Words a value has on average."""
        values = [str(value) for value in self.counts.index[:_TRIED]]
        return float(np.mean([len(value.split()) for value in values])) if values else 0.0

    @cached_property
    def length(self) -> float:
        """Characters a value has on average."""
        values = [str(value) for value in self.counts.index[:_TRIED]]
        return float(np.mean([len(value) for value in values])) if values else 0.0

    @property
    def is_address(self) -> bool:
        """Whether its values are addresses on the web."""
        values = [str(value) for value in self.counts.index[:_TRIED]]
        return bool(values) and all("://" in value for value in values)

    def examples(self, count: int = 3) -> str:
        """Some of the commonest values."""
        return ", ".join(shown(value) for value in self.counts.index[:count])

    def shares(self) -> str:
        """Each value with its share of the rows, the commonest first."""
        return ", ".join(f"{shown(value)} {count / len(self.cells):.1%}" for value, count in self.counts.items())


def shown(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = " ".join(text_of(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def columns_of(frame: pd.DataFrame) -> dict[str, Seen]:
    """The columns of a frame by name."""
    return {str(name): Seen(str(name), column) for name, column in frame.items()}


def _hashable(cell: Any) -> Any:
    return text_of(cell) if is_list(cell) else cell
