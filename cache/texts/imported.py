"""Texts that somebody has already, as knowledge: a table of ids and texts, wherever it came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._helpers.batched import batched
from kar_aug._helpers.times import dates
from kar_aug.cache.texts.cache import IMPORTED, Answer, Link, TextCache, answer_key
from kar_aug.cache.texts.status import Status
from kar_aug.data.cells import is_list, mended, text_of, values_of
from kar_aug.data.ids import ids, ids_of_text
from kar_aug.data.place import Place, Table, first
from kar_aug.data.reading import read_table
from kar_aug.data.times import times
from kar_aug.data.types import plain_column
from kar_aug.errors import StoreError

_ROWS = 1000


@dataclass(frozen=True)
class Imported:
    """What was done: texts that are knowledge of users or items (`entity`) now, rows without a text, and ids that the
    data do not have.
    """

    entity: str
    texts: int
    empty: int
    unknown: int


def import_texts(
    path: Path,
    cache: TextCache,
    known: Mapping[str, Collection[int | str]],
    *,
    text: str = "text",
    author: str | None = None,
    called: Mapping[str, str] | None = None,
) -> Imported:
    """Make the texts of a table the knowledge of their entities. What these had before is superseded, not deleted.

    Args:
        path: a table in a file (see `kar_aug.data.reading`) with a column item_id or user_id, one of texts, and
            optionally `as_of` (the time of the latest event that the text knows: see `kar_aug.data.times`), without
            which the audit cannot prove it clean.
        known: "user", "item" -> its ids in the data; other ids are brought in too, and counted.
        text: the column of texts; rows where it is empty are passed over.
        author: who wrote them, as stores and reports say; the file's name if None.
        called: "user", "item" -> what the column of its ids is called, where it is not user_id or item_id.

    Raises:
        DataError: It is no such file.
        StoreError: A column is not there, an id is there twice, or ids are of another type than in the data.
    """
    keys = {key: entity for entity in ("item", "user") for key in (f"{entity}_id", (called or {}).get(entity)) if key}
    as_text = {key for key, entity in keys.items() if {str} == {type(id) for id in known[entity]}}
    frame = read_table(path, ids=as_text, id_type="string")
    key = next((key for key in keys if key in frame), None)
    if key is None or text not in frame:
        lacking = " or ".join(map(repr, keys)) if key is None else repr(text)
        hint = " Name the column of texts with --text." if key else ""
        raise StoreError(f"{path}: there is no column {lacking}. It has: {', '.join(map(str, frame.columns))}.{hint}")
    file, entity = Table(str(path)), keys[key]
    entities = _ids(frame[key], file[key], known[entity])
    texts = [_text(cell) for cell in plain_column(frame[text], file[text])]
    moments = _moments(frame["as_of"], file["as_of"]) if "as_of" in frame else [None] * len(frame)
    rows = [row for row in zip(entities, texts, moments, strict=True) if row[1]]
    for batch in batched(rows, _ROWS):
        cache.put_many(_answered(entity, *row, author or path.stem) for row in batch)
    return Imported(entity, len(rows), len(texts) - len(rows), len(set(entities) - set(known[entity])))


def _ids(column: pd.Series, place: Place, known: Collection[int | str]) -> list[int | str]:
    """The ids of a file, of the type that those of the data have."""
    column = ids(plain_column(column, place), place)
    wanted = {type(id) for id in known}
    if wanted != {str} and pd.api.types.infer_dtype(column) == "string":
        column = ids_of_text(column, place)
    missing, again = column.isna(), column.duplicated()
    if missing.any() or again.any():
        where = (
            f"Row {int(missing.to_numpy().argmax())} has none."
            if missing.any()
            else f"{first(column, again)[:-1]}, as one before."
        )
        raise StoreError(f"{place.table}: {place.name} must be there in each row, and be another in each. {where}")
    found = column.tolist()
    if wanted and not {type(id) for id in found} <= wanted:
        kinds = ("integers", "strings") if int in wanted else ("strings", "integers")
        raise StoreError(f"{place.table}: {place.name} must hold {kinds[0]}, as the data do, not {kinds[1]}.")
    return found


def _text(cell: Any) -> str:
    """A cell's text, without white space at its ends; of a list, a line each."""
    return mended("\n".join(values_of(cell)) if is_list(cell) else text_of(cell)).strip()


def _moments(column: pd.Series, place: Place) -> list[str | None]:
    """Times in ISO 8601, in UTC."""
    found = dates(times(plain_column(column, place), place))
    return [None if pd.isna(date) else date.isoformat() for date in found]


def _answered(
    entity: str, entity_id: int | str, text: str, as_of: str | None, author: str
) -> tuple[Answer, tuple[Link, ...]]:
    key = answer_key(author, [], {"text": text})  # equal texts of one author are one answer
    return Answer(key, Status.OK, text, author, []), (Link(entity, entity_id, key, IMPORTED, as_of),)
