"""Texts that somebody has already, as knowledge: a table of ids and texts, wherever it came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._batched import batched
from kar_aug._files import read_table
from kar_aug.cache.texts.cache import Answer, Link, TextCache, answer_key
from kar_aug.errors import StoreError

VERSION = "imported"  # in place of a prompt version
_ROWS = 1000


@dataclass(frozen=True)
class Imported:
    """What was done: texts that are knowledge now, rows without a text, and ids that the data do not have."""

    source: str
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
) -> Imported:
    """Make the texts of a table the knowledge of their entities. What these had before is superseded, not deleted.

    Args:
        path: Parquet or CSV, with a column item_id or user_id, one of texts, and optionally `as_of` (ISO 8601: the time
            of the latest event that the text knows), without which the audit cannot prove it clean.
        known: source -> its ids in the data; other ids are brought in too, and counted.
        text: the column of texts; rows where it is empty are passed over.
        author: who wrote them, as stores and reports say; the file's name if None.

    Raises:
        DataError: It is no such file.
        StoreError: A column is not there, an id is there twice, or ids are of another type than in the data.
    """
    frame = read_table(path)
    source = next((source for source in ("item", "user") if f"{source}_id" in frame), None)
    if source is None or text not in frame:
        lacking = text if source else "item_id' or 'user_id"
        hint = " Name the column of texts with --text." if source else ""
        raise StoreError(
            f"{path}: there is no column {lacking!r}. It has: {', '.join(map(str, frame.columns))}.{hint}",
            path=path, column=lacking if source else None,
        )  # fmt: skip
    key = f"{source}_id"
    if frame[key].isna().any() or frame[key].duplicated().any():
        raise StoreError(f"{path}: {key} must be there in each row, and be another in each.", path=path, column=key)
    ids = frame[key].tolist()
    wanted = {type(id) for id in known[source]}
    if wanted and not {type(id) for id in ids} <= wanted:
        kinds = ("integers", "strings") if int in wanted else ("strings", "integers")
        raise StoreError(
            f"{path}: {key} must hold {kinds[0]}, as the data do, not {kinds[1]}.",
            path=path, column=key, left=kinds[0], right=kinds[1],
        )  # fmt: skip
    texts = frame[text].astype("string").fillna("").str.strip()
    times = frame["as_of"].tolist() if "as_of" in frame else [None] * len(frame)
    rows = [row for row in zip(ids, texts.tolist(), times, strict=True) if row[1]]
    for batch in batched(rows, _ROWS):
        cache.put_many(_answered(source, *row, author or path.stem) for row in batch)
    return Imported(source, len(rows), len(ids) - len(rows), len(set(ids) - set(known[source])))


def _answered(source: str, entity_id: int | str, text: str, as_of: Any, author: str) -> tuple[Answer, tuple[Link, ...]]:
    key = answer_key(author, [], {"text": text})  # equal texts of one author are one answer
    when = None if as_of is None or pd.isna(as_of) else pd.Timestamp(as_of).isoformat()
    return Answer(key, "ok", text, author, []), (Link(source, entity_id, key, VERSION, when),)
