"""Semantic ids as columns of the table of items, a column a piece: categorical features that all models read.

"codes" among the features stands for every piece (`kar_aug.codes.Pieces`), "codes.level_1" for that one. A table with a
column "codes" of its own has that one, and none of these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from kar_aug.cache import VectorStore
from kar_aug.codes import Pieces, SemanticIds, codes_folder
from kar_aug.config import DataConfig
from kar_aug.data.inputs import inputs
from kar_aug.errors import DataError, StoreError
from kar_aug.registry import CODES

_PIECE = re.compile(rf"{CODES}\.(level|prefix).*")  # "codes.level9" too: `add_codes` says which there are
_WHOLE = {"i": "Int64", "u": "UInt64"}  # by the kind of a type: whole numbers of which some may be missing


def is_code(name: str) -> bool:
    """Whether a feature of this name is a semantic id, unless a table has a column of that name."""
    return name == CODES or _PIECE.fullmatch(name) is not None


def codes_wanted(data: DataConfig, of_items: Collection[str] = (), of_events: Collection[str] = ()) -> bool:
    """Whether models are to read semantic ids, of the candidate or of earlier events.

    Args:
        of_items, of_events: the columns that a feature of items may be, and what is told of an event: what is one of
            them is no semantic id.
    """
    read = inputs(data)
    named = [(name, of_items) for name in read.item_features]
    named += [(name, of_events) for name in read.event_features or ()]
    return any(is_code(name) and name not in columns for name, columns in named)


def pieces_for(features: Sequence[str], columns: Collection[str], codes: SemanticIds) -> tuple[str, ...]:
    """The features with all pieces in the place of "codes", unless that is one of the tables' columns."""
    whole = {} if CODES in columns else {CODES: [f"{CODES}.{name}" for name in _pieces(codes).names]}
    return tuple(dict.fromkeys(each for name in features for each in whole.get(name, [name])))


def add_codes(items: pd.DataFrame, catalogue: pd.Index, features: Sequence[str], codes: SemanticIds) -> pd.DataFrame:
    """The table of items with those pieces of their codes that are among the features; missing where there are none.

    Args:
        catalogue: the ids of all items, of which the table may lack some: they get a row, if they have codes.
        features: as `pieces_for` returns them.

    Raises:
        DataError: There is no such piece.
        StoreError: None of the items has codes.
    """
    pieces = _pieces(codes)
    if items.empty:  # of no type then, and ids beside it become decimals
        items = items.astype({"item_id": catalogue.dtype})
    lacking = catalogue.difference(pd.Index(items["item_id"]), sort=False)
    coded = codes.codes_of(lacking.tolist())[:, 0] > 0
    if coded.any():
        numbers = {name: _WHOLE[kind.kind] for name, kind in items.dtypes.items() if kind.kind in _WHOLE}
        numbers.pop("item_id", None)  # of which none will be missing; the others stay whole, however large they are
        items = pd.concat([items.astype(numbers), pd.DataFrame({"item_id": lacking[coded]})], ignore_index=True)
    values = pd.DataFrame(pieces.of(codes.codes_of(items["item_id"].tolist())), columns=pieces.names, dtype="Int32")
    values = values.mask(values == 0).set_axis(items.index)
    if values.empty or values[pieces.names[0]].isna().all():
        raise StoreError(
            f"None of the {len(items):,} items has codes in {codes.path}, which has those of "
            f"{', '.join(map(repr, codes.ids[:3]))} ... Are they the codes of these?",
            path=codes.path,
        )
    for name in [name for name in features if is_code(name) and name not in items]:
        piece = name.removeprefix(f"{CODES}.")
        if piece not in pieces.names:
            known = ", ".join(f"{CODES}.{each}" for each in pieces.names)
            raise DataError(f"items: there is no piece {name!r} of codes of {codes.levels} levels. There are: {known}")
        items = items.assign(**{name: values[piece]})
    return items


def codes_fingerprint(store: Path) -> list[str]:
    """What changes where the codes of a store do, or the vectors that they are to be of; empty where there are none."""
    try:
        return [SemanticIds.open(codes_folder(store)).fingerprint, VectorStore.open(store).fingerprint]
    except StoreError:  # whoever reads them says so
        return []


def _pieces(codes: SemanticIds) -> Pieces:
    return Pieces(codes.levels, codes.size)
