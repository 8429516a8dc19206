"""Ids, however they were written, as 64-bit integers or as strings: stores and caches keep these two apart, no other.

In a text file 7 and "7" look the same. Its ids are integers if all of them are, unless `id_type` says what they are; so
'001' is 1, which is said, and an error where '1' is another id.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from kar_aug.config import ID_TYPES
from kar_aug.data.place import Place, first, spread
from kar_aug.data.room import MEMORY, Room

_log = logging.getLogger("kar_aug")
_EXACT = 2**53  # beyond it a decimal number is that of several integers
_INTEGER = r"\s*[+-]?[0-9]+(\.0+)?\s*"
_PADDED = r"-?0[0-9]+|-0"
AS_STRINGS = '[data] id_type = "string"'


def ids(column: pd.Series, place: Place, id_type: str | None = None, room: Room = MEMORY) -> pd.Series:
    """A column of plain type (see `kar_aug.data.types.plain`) as ids; what is missing stays so.

    Whole decimals, which integers become where one is missing, are integers again. What is of no such kind is left as
    it is: `kind_of` refuses it.

    Args:
        id_type: "integer" or "string", where they are to be these; as they are if None.
        room: where they are put.

    Raises:
        DataError: A value is not what `id_type` says, or has lost digits.
    """
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("floating", "decimal", "mixed-integer-float"):
        column = _whole(column, place)
    if id_type == "string" and kind != "string":
        return _strings(column, place, room)
    if id_type == "integer" and kind == "string":
        return _integers(column, place, room)
    return column


def ids_of_text(column: pd.Series, place: Place, id_type: str | None = None, room: Room = MEMORY) -> pd.Series:
    """The same for a column of a text file, that was read as text.

    Raises:
        DataError: A value is not what `id_type` says; or it says nothing, and two texts are the same integer.
    """
    if id_type == "string":
        return column
    there = column.dropna()
    if there.empty or (id_type is None and not there.str.fullmatch(_INTEGER).all()):
        return column
    integers = _integers(column, place, room)
    if not pd.api.types.is_integer_dtype(integers):
        return column  # longer than 64 bits
    if id_type is None:
        _check_zeros(column, integers, place, room)
    return integers


def kind_of(column: pd.Series, place: Place) -> str:
    """ "integer" or "string".

    Raises:
        DataError: It is neither, or not of one kind, or integers have more than 64 bits.
    """
    kind = pd.api.types.infer_dtype(column, skipna=False)
    if kind not in ID_TYPES:
        hint = f" Read all as text: {AS_STRINGS}" if kind == "mixed-integer" else ""
        there = column.dropna()
        wrong = there.map(_is_no_id)
        said = f" {first(column, wrong)}" if wrong.any() else ""
        raise place.error(f"must hold integers or strings, all of one kind; it holds: {kind}.{said}{hint}")
    if kind == "integer" and len(column) and int(column.max()) >= 2**63:
        raise place.error(f"holds {column.max()}, more than 64-bit integers can. Make the ids strings.")
    return kind


def _whole(column: pd.Series, place: Place) -> pd.Series:
    """Decimals as the integers that they are; as they are, where one is not whole."""
    numbers = column if pd.api.types.is_float_dtype(column) else column.map(_number).astype("float64")
    there = numbers.dropna()
    if (there % 1 != 0).any():
        return column
    large = there.abs() >= _EXACT
    if large.any():
        raise place.error(
            f"holds decimals, which do not keep so many digits. {first(column, large)} Write the ids "
            "as integers or text."
        )
    whole = numbers.astype("Int64")
    return whole if whole.isna().any() else whole.astype("int64")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float, Decimal)) else None


def _strings(column: pd.Series, place: Place, room: Room) -> pd.Series:
    there = column.dropna()
    wrong = room.made(there, lambda part: part.map(_is_no_id))
    if wrong.any():
        raise place.error(f"must hold integers or strings. {first(column, wrong)}")
    if room.holds(there.nbytes):
        return spread(there.map(str), column)
    parts = (there.iloc[block].map(str) for block in room.blocks(len(there)))
    return spread(room.text(parts, there.iloc[:0].map(str)), column)


def _is_no_id(value: object) -> bool:
    return isinstance(value, bool) or not isinstance(value, (int, np.integer, str))


def _integers(column: pd.Series, place: Place, room: Room) -> pd.Series:
    """Texts as integers; of no integer type, where one has more than 64 bits."""
    there = column.dropna()
    wrong = ~there.str.fullmatch(_INTEGER)
    if wrong.any():
        raise place.error(f"must hold integers. {first(column, wrong)}")
    integers = room.made(there, lambda part: _digits(part).map(int))
    if len(there) < len(column) and pd.api.types.is_integer_dtype(integers):
        integers = integers.astype("Int64")
    return spread(integers, column)


def _digits(texts: pd.Series) -> pd.Series:
    return texts.str.strip().str.removeprefix("+").str.replace(r"\.0+$", "", regex=True)


def _check_zeros(column: pd.Series, integers: pd.Series, place: Place, room: Room) -> None:
    """Leading zeros are lost in integers: that is said, and an error where it makes two ids one."""
    there, integers = column.dropna(), integers.dropna()
    padded = room.made(there, lambda part: _digits(part).str.fullmatch(_PADDED))
    if not padded.any():
        return
    pairs = pd.DataFrame()
    for block in room.blocks(len(there)):
        more = pd.DataFrame({"text": _digits(there.iloc[block]), "integer": integers.iloc[block]}).drop_duplicates()
        pairs = pd.concat([pairs, more]).drop_duplicates()
    same = pairs[pairs["integer"].duplicated(keep=False)].sort_values("integer", kind="stable")["text"].tolist()
    if same:
        raise place.error(
            f"holds {same[0]!r} and {same[1]!r}, which as integers are one id. Keep them apart with "
            f'{AS_STRINGS}; or say that they are one with id_type = "integer".'
        )
    _log.warning("%s is read as integers. %s To keep the zeros: %s", place, first(column, padded), AS_STRINGS)


def with_ids(frame: pd.DataFrame, names: Collection[str], path: Path, id_type: str | None) -> pd.DataFrame:
    """A frame that was read of a file or folder, whose ids among the texts are what `ids_of_text` makes of them."""
    return frame.assign(**{name: ids_of_text(frame[name], Place(str(path), name), id_type) for name in names})
