"""Which file is which table, and which columns are ids and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from kar_aug.data.guessing.seen import Seen, columns_of
from kar_aug.data.guessing.words import ENTITY, rank_as_id, rank_as_time, says
from kar_aug.data.place import Table
from kar_aug.data.reading import is_table, read_head
from kar_aug.data.types import plain
from kar_aug.errors import DataError

ROWS = 100_000  # of a file that are looked at
_FOUND = 0.3  # share of the ids of one table that another must have, to be theirs
_OLDEST = 10**8  # seconds: 1973
_DATES = (19_000_101, 21_001_231)  # 20240131 written as a number
_NO_KEY = "no column holds ids of users or items, one a row"
_SHOWN = 12  # columns


@dataclass(frozen=True)
class Head:
    """The first rows of a file."""

    path: Path
    columns: Mapping[str, Seen]
    rows: int

    @classmethod
    def read(cls, path: Path) -> Head:
        """Of at most `ROWS` rows.

        Raises:
            DataError: It cannot be read.
        """
        frame = read_head(path, ROWS)
        if not frame.columns.is_unique:
            raise DataError(f"{path}: column '{frame.columns[frame.columns.duplicated()][0]}' is there twice.")
        return cls(path, columns_of(plain(frame, Table(str(path)))), len(frame))

    def ids(self, entity: str) -> list[str]:
        """Columns whose names and values are those of ids, the surest first."""
        ranks = {n: rank_as_id(n, entity) for n, seen in self.columns.items() if seen.kind in ("integer", "text")}
        return sorted((n for n, rank in ranks.items() if rank is not None), key=lambda n: ranks[n] or 0)

    @cached_property
    def times(self) -> list[str]:
        """Columns that may say when an event happened, the surest first."""
        ranks = {name: rank_as_time(name) for name, seen in self.columns.items() if may_be_time(seen)}
        return sorted((name for name, rank in ranks.items() if rank is not None), key=lambda name: ranks[name] or 0)

    @property
    def lists_of_items(self) -> list[str]:
        """Columns that hold several items in a cell."""
        return [n for n, seen in self.columns.items() if seen.kind == "list" and rank_as_id(n, "item") is not None]

    @property
    def said(self) -> str:
        """Its name, columns and rows."""
        names = [*self.columns]
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        rows = f"the first {self.rows:,} rows" if self.rows == ROWS else f"{self.rows:,} rows"
        return f"{self.path.name} ({rows}: {', '.join(names[:_SHOWN])}{more})"


@dataclass(frozen=True)
class Roles:
    """Files as tables.

    Args:
        tables: "interactions", and "items" and "users" where they were found.
        keys: "user", "item" -> table -> its column of their ids.
        why: (table, entity) -> what was seen of the key.
        unused: files that are none of the tables.
    """

    tables: Mapping[str, Head]
    keys: Mapping[str, Mapping[str, str]]
    why: Mapping[tuple[str, str], str]
    unused: Sequence[tuple[Head, str]] = field(default_factory=list)


def found_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are read, of these, and of the folders among them; a folder of Parquet files is one table.

    Raises:
        DataError: There is none.
    """
    found = [file for path in paths for file in (_in_folder(path) if path.is_dir() else [path])]
    if not found:
        named = ", ".join(str(path) for path in paths)
        raise DataError(f"{named}: there is no table in it. Parquet, CSV, JSON lines and Arrow files are read.")
    return list(dict.fromkeys(found))


def _in_folder(folder: Path) -> list[Path]:
    inside = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
    parts = [path for path in inside if path.is_dir() and any(path.rglob("*.parquet"))]
    return [path for path in inside if path in parts or (path.is_file() and is_table(path.name))]


def roles(heads: Sequence[Head]) -> Roles:
    """Which of the files is the interactions, the items and the users.

    Raises:
        DataError: None, or several, can be the interactions; or several the items, or the users. All that was seen is
            listed.
    """
    events = _events(heads)
    tables, unused = {"interactions": events}, []
    keys: dict[str, dict[str, str]] = {"user": {}, "item": {"interactions": events.ids("item")[0]}}
    why: dict[tuple[str, str], str] = {}
    keys["user"]["interactions"] = events.ids("user")[0]
    for head in heads:
        if head is events:
            continue
        # The better one; of two that do not fit, the one that says more.
        fit = max((_fit(head, entity, events) for entity in ENTITY), key=lambda fit: (fit.score, fit.why != _NO_KEY))
        table = f"{fit.entity}s"
        if fit.score <= 0:
            unused.append((head, fit.why))
            continue
        if table in tables:
            raise DataError(
                f"Two files could be the {table}: {tables[table].said}; {head.said}. Name the files that belong "
                f"together: --data {events.path} {head.path}"
            )
        tables[table] = head
        keys[fit.entity] = {"interactions": fit.of_events, table: fit.key}
        why[table, fit.entity] = fit.why
    return Roles(tables, keys, why, unused)


def _events(heads: Sequence[Head]) -> Head:
    both = [head for head in heads if head.ids("user") and head.ids("item")]
    # A post has an author, too: of several, those where users and items come again.
    again = [h for h in both if not any(h.columns[h.ids(entity)[0]].is_unique for entity in ENTITY)]
    timed = [head for head in again if head.times]
    for some in (timed, again, both):
        if len(some) == 1:
            return some[0]
        if some:
            raise DataError(
                f"{len(some)} files could be the interactions: {'; '.join(head.said for head in some)}. Name the files "
                f"that belong together: --data {some[0].path} ..."
            )
    raise DataError(f"No file can be the interactions: {_lacking(heads)} Seen: {'; '.join(h.said for h in heads)}.")


def _lacking(heads: Sequence[Head]) -> str:
    """Why there are no interactions."""
    for head in heads:
        if head.ids("user") and (lists := head.lists_of_items):
            return (
                f"{head.path.name} holds several items in a cell of '{lists[0]}'; an item a row is needed "
                f"(frame.explode in pandas)."
            )
    for entity, other in (("user", "item"), ("item", "user")):
        if any(head.ids(other) for head in heads) and not any(head.ids(entity) for head in heads):
            return f"no column is called as if it held {entity}s. If one does, call it {entity}_id."
    return "it takes a column of users, such as user_id, and one of items, such as item_id."


@dataclass(frozen=True)
class _Fit:
    """How well a file fits as the table of an entity: 0 not at all."""

    entity: str
    score: float
    key: str
    of_events: str
    why: str


def _fit(head: Head, entity: str, events: Head) -> _Fit:
    named = head.ids(entity)
    about = says(head.path.name.split(".")[0], ENTITY[entity])
    unique = [name for name, seen in head.columns.items() if seen.kind in ("integer", "text") and seen.is_unique]
    best = _Fit(entity, 0, "", "", _NO_KEY)
    if named and not set(named) & set(unique):
        return _Fit(entity, 0, "", "", f"'{named[0]}' repeats in it: a table of {entity}s has a row for each")
    for key in unique:
        for column in events.ids(entity):
            share = _share(events.columns[column], head.columns[key])
            if share < _FOUND and key not in named:
                continue
            score = share + (key in named) + about / 2 + (key == column) / 4
            if score > best.score:
                said = f"{share:.0%} of the interactions' {column} are in {head.path.name}, where each has one row"
                best = _Fit(entity, score, key, column, said)
    # Small numbers are in every table: where nothing else speaks for it, the ids are somebody else's.
    return best if best.key in named or about or best.score >= 1 else _Fit(entity, 0, "", "", best.why)


def _share(ids: Seen, known: Seen) -> float:
    """Share of different ids that are known, whether they were read as numbers or as text."""
    told: Callable[[Seen], pd.Index] = lambda seen: pd.Index(seen.counts.index.map(_as_text))  # noqa: E731
    return float(told(ids).isin(told(known)).mean()) if ids.distinct else 0.0


def _as_text(id: object) -> str:
    return str(int(id)) if isinstance(id, float) else str(id)


def may_be_time(seen: Seen) -> bool:
    """Whether a column's values can be times."""
    if seen.kind == "time":
        return True
    if seen.kind not in ("integer", "number") or not len(seen.numbers):
        return False
    low, high = seen.numbers.min(), seen.numbers.max()
    return bool(low >= _OLDEST or (_DATES[0] <= low and high <= _DATES[1]) or seen.name.lower() in ("timestamp", "ts"))
