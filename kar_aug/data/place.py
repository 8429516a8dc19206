"""Where a value stands, for messages: which file or table, which column, which row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kar_aug.errors import DataError

_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Place:
    """A column.

    Args:
        table: the file, or the name of a table that came as a frame.
        column: as the person who wrote the file calls it.
        name: as we do.
    """

    table: str
    column: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.table}: '{self.column}'"

    def error(self, what: str, row: int | None = None) -> DataError:
        """What is wrong with the column, or with a row of it: "must hold integers."."""
        return DataError(f"{self} {what}", table=self.table, column=self.name or self.column, row=row)


@dataclass(frozen=True)
class Table:
    """A file or a frame, and what it calls the columns that have a name of ours.

    Args:
        called: our name -> its name, where that is another.
    """

    name: str
    called: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, column: str) -> Place:
        return Place(self.name, self.called.get(column, column), column)


def spread(values: pd.Series, column: pd.Series) -> pd.Series:
    """Values of those rows of a column that are not missing, in the place of that column."""
    there = column.notna().to_numpy(bool)
    if there.all():
        return values.set_axis(column.index)
    places = np.where(there, np.cumsum(there) - 1, -1)
    return values.reset_index(drop=True).reindex(places).set_axis(column.index)


def first(column: pd.Series, wrong: pd.Series) -> str:
    """ "Row 2 holds 'yesterday'.", of the first that is wrong. The first row is 0, as in pandas.

    Args:
        wrong: a mask of those rows of the column that are not missing.
    """
    row = int(np.flatnonzero(column.notna())[wrong.to_numpy(bool).argmax()])
    value = column.iloc[row]
    said = repr(value.item() if isinstance(value, np.generic) else value)
    return f"Row {row} holds {said if len(said) <= _SHOWN else said[:_SHOWN] + '...'}."
