"""Tables and a split turned into what a CTR model reads: integer features, click histories, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.cells import values_of
from kar_aug.data.tables import Tables
from kar_aug.errors import DataError

IntArray = npt.NDArray[np.int32]
HISTORY = "hist_item_id"


@dataclass(frozen=True)
class Feature:
    """One input of a model: integers in [0, vocabulary_size), where 0 means missing or padding.

    `length` is None for one value a row, else the number of values a row is padded to.
    `embedding` names the feature whose embedding table it shares, itself by default.
    """

    name: str
    vocabulary_size: int
    length: int | None = None
    embedding: str = ""


@dataclass(frozen=True)
class Samples:
    """Rows to train or test on, all arrays of the same length, in event order within a user."""

    features: tuple[Feature, ...]
    inputs: dict[str, IntArray]
    label: npt.NDArray[np.float32]
    part: npt.NDArray[Any]
    # vocabulary[entity][i] is the id that stands as integer i in `{entity}_id`; position 0 is None
    vocabulary: dict[str, list[int | str | None]]

    def of(self, part: str) -> tuple[dict[str, IntArray], npt.NDArray[np.float32]]:
        """Inputs and labels of one part."""
        rows = self.part == part
        return {name: values[rows] for name, values in self.inputs.items()}, self.label[rows]


def build_samples(
    tables: Tables,
    split: pd.DataFrame,
    *,
    user_features: Sequence[str] = (),
    item_features: Sequence[str] = (),
    history_length: int = 20,
) -> Samples:
    """Features of every interaction that is not history.

    Args:
        split: what `split_interactions` returned.
        user_features, item_features: columns of the tables; all are treated as categories, and cells
            that hold several values, separated by `|` or as a list, become a list feature.
        history_length: how many of the user's latest clicks go into `hist_item_id`, oldest first, zeros after.
            Only clicks *before* the sample count, not those tied with it; those of the prompt's history among them.
    """
    vocabulary: dict[str, list[int | str | None]] = {s: [None, *tables.ids(s)] for s in ("user", "item")}
    code = {entity: {id: i for i, id in enumerate(tables.ids(entity), start=1)} for entity in ("user", "item")}
    item_code = np.asarray(split["item_id"].map(code["item"]), np.int32)
    user_code = np.asarray(split["user_id"].map(code["user"]), np.int32)
    is_sample = (split["part"] != "history").to_numpy()

    features = [Feature("user_id", len(vocabulary["user"])), Feature("item_id", len(vocabulary["item"]))]
    inputs: dict[str, IntArray] = {"user_id": user_code[is_sample], "item_id": item_code[is_sample]}
    for entity, columns in (("user", user_features), ("item", item_features)):
        table = tables.users if entity == "user" else tables.items
        for column in columns:
            if column not in table:
                raise DataError(
                    f"{entity}s: there is no column '{column}' to make a feature of.", table=f"{entity}s", column=column
                )
            if column in inputs or column == HISTORY:
                raise DataError(
                    f"{entity}s: the feature {column!r} is there already. Leave it out, or rename the column.",
                    table=f"{entity}s",
                    column=column,
                )
            feature, values = _encode_column(column, table, f"{entity}_id", code[entity])
            features.append(feature)
            inputs[column] = values[inputs[f"{entity}_id"]]
    features.append(Feature(HISTORY, len(vocabulary["item"]), history_length, embedding="item_id"))
    inputs[HISTORY] = _click_history(split, item_code, history_length)[is_sample]
    return Samples(
        features=tuple(features),
        inputs=inputs,
        label=split["label"].to_numpy(np.float32)[is_sample],
        part=split["part"].to_numpy()[is_sample],
        vocabulary=vocabulary,
    )


def _encode_column(column: str, table: pd.DataFrame, key: str, code: dict[int | str, int]) -> tuple[Feature, IntArray]:
    """A table's column as integers by entity: row `code[id]` holds the values of `id`, row 0 zeros."""
    cells = [values_of(cell) for cell in table[column]]
    length = max((len(values) for values in cells), default=1)
    categories = {value: i for i, value in enumerate(sorted({v for values in cells for v in values}), start=1)}
    encoded = np.zeros((len(code) + 1, max(length, 1)), np.int32)
    for entity, values in zip(table[key].tolist(), cells, strict=True):
        encoded[code[entity], : len(values)] = [categories[value] for value in values]
    if length <= 1:
        return Feature(column, len(categories) + 1), encoded[:, 0]
    return Feature(column, len(categories) + 1, length), encoded


def _click_history(split: pd.DataFrame, item_code: IntArray, length: int) -> IntArray:
    """Per row of `split` (in event order), the user's last `length` clicks strictly before its moment."""
    history = np.zeros((len(split), length), np.int32)
    moment, clicked = split["moment"].to_numpy(), split["label"].to_numpy() > 0
    starts = np.flatnonzero(np.r_[True, split["user_id"].to_numpy()[1:] != split["user_id"].to_numpy()[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(split)], strict=True):
        rows = np.arange(start, end)[clicked[start:end]]
        items = item_code[rows]
        before = np.searchsorted(moment[rows], moment[start:end], side="left")
        for row, count in zip(range(start, end), before, strict=True):
            recent = items[max(0, count - length) : count]
            history[row, : len(recent)] = recent
    return history
