"""Which file is which table, and which columns are ids and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.delimited import TextFormat
from kar_aug.data.guessing.clicks import clicks
from kar_aug.data.guessing.seen import Seen, columns_of
from kar_aug.data.guessing.structs import apart
from kar_aug.data.guessing.words import CLICKED, ENTITY, SHOWN, rank_as_id, rank_as_time, says, words
from kar_aug.data.parts import ending_of, files_in, is_empty
from kar_aug.data.place import Place, Table
from kar_aug.data.reading import PART_ENDINGS, is_table, read_head, thousands_in
from kar_aug.data.shapes import candidates
from kar_aug.data.times import seconds, times
from kar_aug.data.types import plain
from kar_aug.errors import DataError

ROWS = 100_000  # of a file that are looked at
_IMPRESSIONS = 20_000  # of these, where a row shows several items
_FOUND = 0.3  # share of the ids of one table that another must have, to be theirs
_DAY = 86_400
_OLDEST = 10**8  # seconds: 1973
_DATES = (19_000_101, 21_001_231)  # 20240131 written as a number
_NO_KEY = "no column holds ids of users or items, one a row"
_SHOWN = 12  # columns


@dataclass(frozen=True, eq=False)
class Head:
    """The first rows of a file.

    Args:
        named: "user", "item" or "time" -> the column that a person says it is, in whatever file.
        impressions: where a row is an impression, its columns of lists: what was shown, and what of it was clicked.
            Then `columns` are those of the single items.
        thousands: what stands between the digits of its numbers, a column with such, and one of them.
        keys: what the file calls those of `columns` that stand under keys of structs, {"venue_city": "venue.city"}, or
            whose names are none of layers, {"Kueche": "Küche"}.
    """

    path: Path
    columns: Mapping[str, Seen]
    rows: int
    named: Mapping[str, str] = field(default_factory=dict)
    impressions: tuple[str, str] | None = None
    thousands: tuple[str, str, str] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, named: Mapping[str, str]) -> Head:
        """Of at most `ROWS` rows.

        Raises:
            DataError: It cannot be read.
        """
        frame = read_head(path, ROWS)
        thousands = thousands_in(path, frame)
        if thousands is not None:
            frame = read_head(path, ROWS, TextFormat(thousands=thousands[0]))
        if not frame.columns.is_unique:
            raise DataError(f"{path}: column '{frame.columns[frame.columns.duplicated()][0]}' is there twice.")
        frame, keys = apart(frame)
        named = {role: next((n for n, theirs in keys.items() if theirs == name), name) for role, name in named.items()}
        frame = plain(frame, Table(str(path)))
        whole = cls(path, columns_of(frame), len(frame), named, None, thousands, keys)
        lists = whole.lists_of_items
        clicked = next((name for name in lists if says(name, CLICKED)), None)
        shown = next((name for name in lists if _is_shown(name) and not says(name, CLICKED)), None)
        if shown is None or clicked is None or not whole.ids("user"):
            return whole
        pages = frame.head(_IMPRESSIONS).drop(columns=[name for name in whole.ids("item") if name in frame])
        columns = columns_of(candidates(pages, shown, clicked, Table(str(path))))
        impressions = (keys.get(shown, shown), keys.get(clicked, clicked))
        return cls(path, columns, len(frame), named, impressions, thousands, keys)

    def ids(self, entity: str) -> list[str]:
        """Columns whose names and values are those of ids, the surest first."""
        if self.named.get(entity) in self.columns:
            return [self.named[entity]]
        ranks = {n: rank_as_id(n, entity) for n, seen in self.columns.items() if seen.kind in ("integer", "text")}
        return sorted((n for n, rank in ranks.items() if rank is not None), key=lambda n: ranks[n] or 0)

    @cached_property
    def times(self) -> list[str]:
        """Columns that may say when an event happened, the surest first."""
        if self.named.get("time") in self.columns:
            return [self.named["time"]]
        ranks = {name: rank_as_time(name) for name, seen in self.columns.items() if may_be_time(seen)}
        called = sorted((name for name, rank in ranks.items() if rank is not None), key=lambda name: ranks[name] or 0)
        others = [name for name, rank in ranks.items() if rank is None and self.columns[name].kind == "time"]
        if not called:
            return others if len(others) == 1 else []
        # Parts are kept in folders by the day of what happened: the column of that very moment says more.
        return [*(name for name in others if _says_more(self.columns[name], self.columns[called[0]])), *called]

    @property
    def tells_clicks(self) -> bool:
        """Whether a column says what was liked."""
        return bool(clicks(self.columns, {*self.ids("user"), *self.ids("item"), *self.times}).columns)

    @property
    def lists_of_items(self) -> list[str]:
        """Columns that hold several items in a cell: what was shown at once, before others."""
        lists = [name for name, seen in self.columns.items() if seen.kind == "list"]
        return [*filter(_is_shown, lists), *(name for name in lists if rank_as_id(name, "item") is not None)]

    @property
    def is_shown_at_once(self) -> bool:
        """Whether a row is several items that were shown together."""
        return any(map(_is_shown, self.lists_of_items))

    def called(self, name: str) -> str:
        """What the file calls a column: "venue.city" where it is a key of structs."""
        return self.keys.get(name, name)

    @property
    def said(self) -> str:
        """Its name, columns and rows."""
        names = [*(self.impressions or ()), *map(self.called, self.columns)]
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
    """The files that are read, of these, and of the folders among them. A folder of parts is one table where it lies in
    another, or where all of its files are of one ending and have the same columns.

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
    if all(path.is_file() for path in inside) and _are_parts(inside):
        return [folder]
    parts = [path for path in inside if path.is_dir() and (any(path.rglob("*.parquet")) or _are_parts(files_in(path)))]
    return [path for path in inside if path in parts or (path.is_file() and is_table(path.name))]


def _are_parts(files: Sequence[Path]) -> bool:
    """Whether they are several files of one kind that have the same columns."""
    if len(files) < 2 or not all(is_table(path.name) for path in files):
        return False
    with suppress(DataError):
        columns = {frozenset(read_head(path, 1).columns) for path in files if not is_empty(path)}
        kinds = {ending_of(path) for path in files}
        return len(columns) == len(kinds) == 1 and kinds <= PART_ENDINGS
    return False


def roles(heads: Sequence[Head]) -> Roles:
    """Which of the files is the interactions, the items and the users.

    Raises:
        DataError: None, or several, can be the interactions; or several the items, or the users. All that was seen is
            listed.
    """
    events, others = _events(heads)
    unused = [(head, f"{events.path.name} says what was liked, and it does not") for head in others]
    fits: list[tuple[_Fit, Head]] = []
    for head in heads:
        if head is events or head in others:
            continue
        # The better one; of two that do not fit, the one that says more.
        fit = max((_fit(head, entity, events) for entity in ENTITY), key=lambda fit: (fit.score, fit.why != _NO_KEY))
        if fit.score > 0:
            fits.append((fit, head))
        else:
            unused.append((head, fit.why))
    tables = {"interactions": events}
    keys = {entity: {"interactions": events.ids(entity)[0]} for entity in ENTITY}
    why = {}
    for entity in ENTITY:
        table, found = f"{entity}s", sorted((pair for pair in fits if pair[0].entity == entity), key=_worse)
        if not found:
            continue
        fit, head = _only(found, table, events)
        tables[table], why[table, entity] = head, fit.why
        keys[entity] = {"interactions": fit.of_events, table: fit.key}
        unused += [(other, f"{head.path.name} rather seems to be the {table}") for _, other in found[1:]]
    return Roles(tables, keys, why, unused)


def _worse(pair: tuple[_Fit, Head]) -> float:
    return -pair[0].score


def _only(found: Sequence[tuple[_Fit, Head]], table: str, events: Head) -> tuple[_Fit, Head]:
    """The first, if the next is worse."""
    (fit, head), *rest = found
    if rest and rest[0][0].score == fit.score:
        raise DataError(
            f"Two files could be the {table}: {head.said}; {rest[0][1].said}. Name the files that belong together: "
            f"--data {events.path} {head.path}"
        )
    return fit, head


def _events(heads: Sequence[Head]) -> tuple[Head, list[Head]]:
    """The interactions; and what could be such, but says nothing of what was liked."""
    both = [h for h in heads if h.rows and h.ids("user") and h.ids("item") and not h.is_shown_at_once]
    # A post has an author, too: of several, those where users and items come again.
    again = [h for h in both if not any(h.columns[h.ids(entity)[0]].is_unique for entity in ENTITY)]
    timed = [head for head in again if head.times]
    for some in (timed, again, both):
        telling = [head for head in some if head.tells_clicks]
        if len(some) == 1 or len(telling) == 1:
            chosen = (telling or some)[0]
            return chosen, [head for head in some if head is not chosen]
        if some:
            several = f"{len(some)} files could be the interactions: {'; '.join(head.said for head in some)}."
            if len({frozenset(head.columns) for head in some}) == 1:
                raise DataError(
                    f"{several} They have the same columns. If they are parts of one log, put them into a folder of "
                    "their own, which is read as one table; else name the files that "
                    f"belong together: --data {some[0].path} ..."
                )
            raise DataError(f"{several} Name the files that belong together: --data {some[0].path} ...")
    raise DataError(f"No file can be the interactions: {_lacking(heads)} Seen: {'; '.join(h.said for h in heads)}.")


def _is_shown(name: str) -> bool:
    return says(name, SHOWN) and says(name, ENTITY["item"])


def _says_more(moment: Seen, day: Seen) -> bool:
    """Whether a column has the times of day to the dates of another."""
    if "time" not in (moment.kind, day.kind) or len(moment.cells) != len(day.cells):
        return False
    fine, coarse = (_seconds(seen) for seen in (moment, day))
    rows = np.isfinite(fine) & np.isfinite(coarse)
    fine, coarse = fine[rows], coarse[rows]
    return bool(len(fine) and (fine != coarse).any() and (fine // _DAY * _DAY == coarse).all())


def _seconds(seen: Seen) -> npt.NDArray[np.float64]:
    """NaN where it cannot be read as times: whoever takes the column for such says why not."""
    try:
        return seconds(times(seen.cells, Place("", seen.name)))
    except DataError:
        return np.full(len(seen.cells), np.nan)


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
            return f"no column is called as if it held {entity}s. If one does, name it: --{entity} COLUMN."
        for head in heads:
            if not head.ids(entity) and (ids := head.ids(other)) and not head.columns[ids[0]].is_unique:
                if (apart := _apart(head, entity, heads)) is not None:
                    return apart
                return (
                    f"{head.path.name} has {other}s in '{ids[0]}', and no column that is called as if it held "
                    f"{entity}s. If one does, name it: --{entity} COLUMN."
                )
    return (
        "it takes a column of users, such as user_id, and one of items, such as item_id: --user and --item name them."
    )


def _apart(head: Head, entity: str, heads: Sequence[Head]) -> str | None:
    """That another file says whose each row is, as one of orders does for the lines of orders."""
    for other in heads:
        for key, seen in other.columns.items():
            if other.ids(entity) and key not in other.ids(entity) and key in head.columns and seen.is_unique:
                return (
                    f"{head.path.name} has no {entity}s, and {other.path.name} has them in '{other.ids(entity)[0]}', a "
                    f'row for each {key}. Join the two into one file, by left.merge(right, on="{key}") in pandas, and '
                    "let init look at that in their place."
                )
    return None


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
    about = any({word, word.removesuffix("s")} & ENTITY[entity] for word in words(head.path.name.split(".")[0]))
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
