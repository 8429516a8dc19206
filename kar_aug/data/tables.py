"""A user's own data: three tables, checked.

| table        | required columns            | meaning                                                        |
|--------------|-----------------------------|----------------------------------------------------------------|
| interactions | user_id, item_id, timestamp | one event a row; times as in `kar_aug.data.times`              |
|              | rating *or* label           | a rating, made a click where above a threshold; or 0/1 itself, |
|              |                             | empty for events that are no samples and only somebody's past  |
|              | order (optional)            | sorts a user's events where timestamps are rough; equal: ties  |
| items        | item_id                     | optional table; any further column may be a feature or prompt field |
| users        | user_id                     | optional table; likewise                                       |

Ids are integers or strings. Several values in one cell are separated by `|`, or are a list. Columns may be of any type
that pandas or Arrow has: `kar_aug.data.types` says as what they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from kar_aug.data.delimited import TextFormat
from kar_aug.data.ids import AS_STRINGS, ids, kind_of
from kar_aug.data.labels import labelled
from kar_aug.data.place import Place, Table, first
from kar_aug.data.reading import read_table
from kar_aug.data.room import MEMORY, Room, different
from kar_aug.data.shapes import candidates, items_of
from kar_aug.data.times import say_what_else, times
from kar_aug.data.types import numbers, plain, plain_column, take
from kar_aug.errors import DataError

KEYS = {"interactions": ("user_id", "item_id"), "items": ("item_id",), "users": ("user_id",)}
Columns = Mapping[str, str | Mapping[str, str]]


@dataclass(frozen=True)
class Tables:
    """The three tables, checked on construction. `items` and `users` may be empty frames with an id column.

    Raises:
        DataError: A column is missing, an id repeats or is missing, or a value is not what it must be.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"item_id": []}))
    users: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"user_id": []}))

    def __post_init__(self) -> None:
        _require(self.interactions, "interactions", ["user_id", "item_id", "timestamp"])
        if self.interactions.empty:
            raise DataError("interactions: the table has no rows.", table="interactions")
        if not {"rating", "label"} & set(self.interactions.columns):
            has = ", ".join(map(str, self.interactions.columns))
            raise DataError(
                "interactions: there is neither a column 'rating' nor a column 'label'. If another says what was "
                f"liked, name it in kar.toml: [data] label = \"event == 'buy'\". There are: {has}. If each row is a "
                'click: label = "item_id == item_id", and negatives = 4',
                table="interactions",
            )
        for name in KEYS:
            object.__setattr__(self, name, typed(name, getattr(self, name), Table(name)))
        for column in ("user_id", "item_id", *_never_empty(self.interactions)):
            _no_gaps(self.interactions, Table("interactions"), column)
        say_what_else(self.interactions["timestamp"], Table("interactions")["timestamp"])
        if "label" in self.interactions:
            _zero_or_one(self.interactions["label"])
        for frame, name, key in ((self.items, "items", "item_id"), (self.users, "users", "user_id")):
            _require(frame, name, [key])
            _no_gaps(frame, Table(name), key)
            repeated = frame[key][frame[key].duplicated()]
            if len(repeated):
                raise DataError(
                    f"{name}: {key} {repeated.tolist()[0]!r} stands in more than one row. Keep one row an id.",
                    table=name,
                    column=key,
                    row=int(frame[key].duplicated().argmax()),
                )
            expected = kind_of(self.interactions[key], Table("interactions")[key])
            if len(frame) and (kind := kind_of(frame[key], Table(name)[key])) != expected:
                raise DataError(
                    f"{name}: {key} holds {kind}s but interactions hold {expected}s, so that no id would be found. "
                    f"Give both the same type; in kar.toml: {AS_STRINGS}",
                    table=name,
                    column=key,
                    left=expected,
                    right=kind,
                )

    def ids(self, entity: str, room: Room = MEMORY) -> list[int | str]:
        """Every known id of an entity ("user" or "item"), sorted: those of its table and of the interactions.

        Args:
            room: how many rows are gone through at a time.
        """
        table = self.users if entity == "user" else self.items
        column = f"{entity}_id"
        ids = self.interactions[column]
        return different([*(ids.iloc[block] for block in room.blocks(len(ids))), table[column].astype(ids.dtype)])


def load_tables(
    interactions: Path | str,
    items: Path | str | None = None,
    users: Path | str | None = None,
    *,
    columns: Columns | None = None,
    id_type: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    thousands: str | None = None,
    label: str | None = None,
    shown: str | None = None,
    clicked: str | None = None,
    item_columns: Sequence[str] = (),
    room: Room = MEMORY,
) -> Tables:
    """Read the three tables from files: see `kar_aug.data.reading`.

    Args:
        columns: the files' own names, by ours: `{"user_id": "uid", "timestamp": "ts"}`. A name holds for every table
            that has such a column; one under the name of a table, `{"items": {"item_id": "article"}}`, for that table.
            A column of ours that such a name replaces is left out. "genres.name" is the key `name` of the structs in
            the column genres. All other columns keep their names.
        id_type: "integer" or "string", where ids are to be these; as they are if None.
        separator, encoding: of text files; told from their content if None.
        thousands: what stands between the digits of their numbers: "," of "1,234.5". Nothing if None.
        label: what a click is: a column, or an expression (see `kar_aug.data.labels`).
        shown, clicked: columns of lists, where a row is an impression: see `kar_aug.data.shapes`.
        item_columns: of the interactions, which are of their items and make the table of them.
        room: where the columns of long tables are put.

    Raises:
        DataError: A file is not there, cannot be read, or holds a wrong table; or no table has a column so named.
    """
    paths = {"interactions": interactions, "items": items, "users": users}
    called = {name: their_names(columns or {}, name) for name in KEYS}
    frames = {
        name: read_table(
            Path(path),
            ids=[called[name].get(key, key) for key in KEYS[name]],
            id_type=id_type,
            written=TextFormat(separator, encoding, thousands),
            as_lists=[each for each in (shown, clicked) if each is not None],
            room=room,
        )
        for name, path in paths.items()
        if path is not None
    }
    _check_columns(columns or {}, frames)
    tables = {}
    for name, frame in frames.items():
        there = {ours: theirs for ours, theirs in called[name].items() if _has(frame, theirs)}
        renamed, table = _renamed(frame, there), Table(str(paths[name]), there)
        if shown is not None and clicked is not None and name == "interactions":
            renamed = candidates(renamed, shown, clicked, table)
        if label is not None and name == "interactions":
            renamed = labelled(renamed, label)
            renamed = renamed.assign(label=room.column(renamed["label"]))
        tables[name] = typed(name, renamed, table, id_type, room)
        for column in (*KEYS[name], *(_never_empty(tables[name]) if name == "interactions" else ())):
            if column in tables[name]:
                _no_gaps(tables[name], table, column)  # as the file calls it
    if item_columns:
        _require(tables["interactions"], "interactions", ["item_id", "timestamp"])
        tables["interactions"], tables["items"] = items_of(
            tables["interactions"], item_columns, Table(str(interactions))
        )
    return Tables(**tables)


def typed(
    name: str, frame: pd.DataFrame, table: Table, id_type: str | None = None, room: Room = MEMORY
) -> pd.DataFrame:
    """One of the three tables, each column of a type that the project keeps: ids, times, numbers, and all others.

    Args:
        name: "interactions", "items" or "users".
        table: how messages call it and its columns.
        id_type, room: as in `load_tables`.

    Raises:
        DataError: A value is not what it must be; the message names its row.
    """
    if not frame.columns.is_unique:
        return frame  # which is said where its columns are required
    frame = plain(frame, table)
    read: dict[str, Callable[..., pd.Series]] = dict.fromkeys(KEYS[name], partial(ids, id_type=id_type))
    if name == "interactions":
        read |= {"timestamp": times, "rating": numbers, "label": numbers, "order": numbers}
    changed = {}
    for key, read_column in read.items():
        if key in frame:
            column = frame[key]
            kept = read_column(column, table[key], room=room)
            if kept is not column:
                changed[key] = room.column(kept)
    return frame.assign(**changed)


def ids_in(name: str, frame: pd.DataFrame, key: str, columns: Columns, id_type: str | None = None) -> pd.Series | None:
    """The ids that `load_tables` would read from one of the three tables, a row each; None if it has no such column. A
    column that it would refuse comes as text.

    Args:
        key: "user_id" or "item_id".
    """
    theirs = their_names(columns, name).get(key, key)
    if not _has(frame, theirs):
        return None
    column = frame[theirs] if theirs in frame else take(frame[theirs.split(".")[0]], theirs.partition(".")[2])
    return read_ids(column, Place(name, theirs, key), id_type)


def read_ids(column: pd.Series, place: Place, id_type: str | None = None) -> pd.Series:
    """A column of ids as `load_tables` reads it; as text, where it would refuse it."""
    try:
        return ids(plain_column(column, place), place, id_type)
    except DataError:
        return column.map(str, na_action="ignore")


def their_names(columns: Columns, table: str) -> dict[str, str]:
    """What a table may call our columns, by our name."""
    own = columns.get(table)
    return {ours: theirs for ours, theirs in columns.items() if isinstance(theirs, str)} | dict(
        own if isinstance(own, Mapping) else {}
    )


def _has(frame: pd.DataFrame, theirs: str) -> bool:
    return theirs in frame or theirs.split(".")[0] in frame


def _check_columns(columns: Columns, frames: Mapping[str, pd.DataFrame]) -> None:
    """Raise DataError where a name is not that of a column."""
    for ours, given in columns.items():
        theirs = given.items() if isinstance(given, Mapping) else [(ours, given)]
        among = {ours: frames[ours]} if isinstance(given, Mapping) and ours in frames else frames
        for our, their in theirs:
            if not any(_has(frame, their) for frame in among.values()):
                has = "; ".join(f"{name} has {', '.join(map(str, frame.columns))}" for name, frame in among.items())
                raise DataError(
                    f"[data] columns: no table has a column {their!r}, which {our!r} is to be read from. {has}"
                )


def _renamed(frame: pd.DataFrame, called: Mapping[str, str]) -> pd.DataFrame:
    """The table under our names. A column that has one of them already, and is called otherwise, makes way."""
    names = {theirs: ours for ours, theirs in called.items() if theirs in frame}
    taken = {
        ours: take(frame[theirs.split(".")[0]], theirs.partition(".")[2])
        for ours, theirs in called.items()
        if theirs not in frame
    }
    in_the_way = [ours for ours in called if ours in frame and ours not in names]
    return frame.drop(columns=in_the_way).rename(columns=names).assign(**taken)


def _require(frame: pd.DataFrame, name: str, columns: list[str]) -> None:
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(
            f"{name}: column '{repeated[0]}' is there twice. Rename one.", table=name, column=str(repeated[0])
        )
    for column in columns:
        if column not in frame:
            raise DataError(
                f"{name}: column '{column}' is missing. It has: {', '.join(map(str, frame.columns))}. If it is one of "
                f'them, say so in kar.toml: [data] columns = {{ {column} = "..." }}',
                table=name,
                column=column,
            )


def _never_empty(interactions: pd.DataFrame) -> list[str]:
    """Columns that say when an event was, and what it was worth."""
    there = ["timestamp", *(("order",) if "order" in interactions else ())]
    return there if "label" in interactions or "rating" not in interactions else [*there, "rating"]


def _no_gaps(frame: pd.DataFrame, table: Table, column: str) -> None:
    gaps = frame[column].isna()
    if gaps.any():
        row = int(gaps.argmax())
        where = f"row {row}" if gaps.sum() == 1 else f"{gaps.sum():,} rows, the first is row {row}"
        raise table[column].error(f"is empty in {where}. Fill it, or leave such rows out.", row)


def _zero_or_one(label: pd.Series) -> None:
    if not pd.Series(label.unique()).dropna().isin([0, 1]).all():
        wrong = ~label.dropna().isin([0, 1])
        raise Table("interactions")["label"].error(
            f"must hold 0 or 1 only. {first(label, wrong)} Of other numbers say what a click is: [data] label = "
            '"label > 0"'
        )
