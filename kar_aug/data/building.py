"""Tables and a split made into samples: features of user, item, context and earlier events; labels.

All that is fitted (vocabularies, scales, buckets) is fitted on the training part, and on what came before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_pandas_object

from kar_aug.data.cells import SEPARATOR, values_of, word
from kar_aug.data.encodings import (
    MISSING,
    SCALES,
    Buckets,
    Categories,
    Encoding,
    Scale,
    missing_of,
    numbers_of,
    of_thousands,
)
from kar_aug.data.features import HIST, PAST, Feature
from kar_aug.data.inputs import RATING, SINCE, Inputs
from kar_aug.data.labels import where
from kar_aug.data.lists import IMPRESSION, PLACE, POSITION, SCORE, check_said_once, places_in_lists
from kar_aug.data.place import Place, first
from kar_aug.data.room import MEMORY, Room, is_arrow_text, series
from kar_aug.data.samples import ENTITIES, PAST_VALUE, SINCE_SIZE, Array, Column, Samples
from kar_aug.data.sequences import Events, Positions, events_before
from kar_aug.data.split import brought, in_training, is_sample, part_codes
from kar_aug.data.tables import Tables
from kar_aug.data.times import seconds
from kar_aug.data.types import numbers_of_text
from kar_aug.errors import DataError

DERIVED = ("hour", "weekday")
_FEW_NUMBERS = 30  # of so many different numbers each is a category: ratings by halves, say
_TOLD = (RATING, "label", "weight")  # what says the label
_OURS = (*ENTITIES, "label", "weight", "part", "moment", "drawn", f"{PAST}_item", PAST_VALUE)


def build_samples(
    tables: Tables, split: pd.DataFrame, inputs: Inputs | None = None, room: Room = MEMORY, **settings: Any
) -> Samples:
    """Features of every interaction that is a sample.

    Args:
        split: what `split_interactions` returned.
        inputs: what a model reads; or its settings by name.
        room: where long columns are put. Each is made a block of events at a time; beside it, some bytes an event are
            held of one column that buckets, a scale or groups by impression are made of.

    Raises:
        DataError: A column is not there, stands for two features, or holds what it must not.
    """
    return _Builder(tables, split, inputs or Inputs(**settings), room).samples()


class _Builder:
    """Makes columns one by one."""

    def __init__(self, tables: Tables, split: pd.DataFrame, inputs: Inputs, room: Room) -> None:
        self.tables, self.split, self.inputs, self.room = tables, split, inputs, room
        self.trained = in_training(split, room)
        self.vocabulary: dict[str, list[int | str | None]] = {e: [None, *tables.ids(e, room)] for e in ENTITIES}
        self.places = {e: _places(self.vocabulary[e], split[f"{e}_id"], room) for e in ENTITIES}
        timestamp = split["timestamp"]
        self.timestamps = room.filled(len(split), np.float64, lambda block: seconds(timestamp.iloc[block]))
        self.features: list[Feature] = []
        self.columns: dict[str, Column] = {}
        self.encodings: dict[str, Encoding] = {}
        self.sequences: dict[str, Events] = {}
        self.told: dict[str, tuple[Categories | Buckets, npt.NDArray[np.int32]]] = {}
        self.places_before: dict[tuple[str, str], Array] = {}

    def samples(self) -> Samples:
        """All features, then the samples."""
        self._add_ids()
        for entity, names in (("user", self.inputs.user_features), ("item", self.inputs.item_features)):
            for name in names:
                self._add_of_entity(entity, name)
        for name in self.inputs.context:
            self._add_of_events(name)
        for name in self.inputs.numeric:
            if name not in self.encodings:
                self._add_number_wherever(name)
        if self.inputs.lists:
            self._add_lists()
        if self.inputs.history_length:
            self._add_sequences()
        if self.inputs.past_length:
            self._add_past()
        rows = self.room.true(is_sample(self.split, self.room))
        part = self.split["part"]
        samples = Samples(
            features=tuple(self.features),
            rows=rows,
            label=self.room.taken(self.split["label"].to_numpy(np.float32), rows),
            weight=self._weight(rows),
            part=self.room.filled(len(rows), np.int8, lambda block: part_codes(part.iloc[rows[block]])),
            group=self.room.taken(self._group(), rows),
            drawn=self.room.taken(self._drawn(), rows),
            vocabulary=self.vocabulary,
            places=self.places,
            columns=self.columns,
            timestamps=self.timestamps,
            sequences=self.sequences,
            encodings=self.encodings,
        )
        if self.inputs.lists:
            check_said_once(samples)
        return samples

    def _weight(self, rows: Positions) -> npt.NDArray[np.float32]:
        name = self.inputs.weight
        if name is None:
            return self.room.filled(len(rows), np.float32, lambda block: 1)
        if name not in self.split:
            raise DataError(f"weight: interactions have no column {name!r}.", table="interactions", column=name)
        cells = self.split[name]

        def numbers(block: slice) -> npt.NDArray[np.float32]:
            return pd.to_numeric(cells.iloc[rows[block]], errors="coerce").to_numpy(np.float32, na_value=np.nan)

        weight = self.room.filled(len(rows), np.float32, numbers)
        none = self.room.filled(len(rows), bool, lambda block: ~(np.isfinite(weight[block]) & (weight[block] >= 0)))
        if none.any() or not weight.any():
            held = cells.iloc[rows[int(none.argmax())]]
            held = "nothing" if pd.isna(held) else repr(held.item() if isinstance(held, np.generic) else held)
            raise DataError(
                f"weight: {name!r} must hold a number of at least 0 in each sample, and not 0 in all. "
                f"{np.count_nonzero(none):,} of {len(rows):,} samples have none; the first holds {held}.",
                table="interactions",
                column=name,
            )
        mean = weight.mean()
        return self.room.filled(len(rows), np.float32, lambda block: weight[block] / mean)

    def _group(self) -> npt.NDArray[np.int64]:
        if "impression_id" in self.split:
            return _numbered(self.split["impression_id"], self.room)
        user, group, last = self.places["user"], self.room.empty(len(self.split), np.int64), 0
        for block in self.room.blocks_of_users(user):
            group[block] = last + np.cumsum(np.r_[False, user[block][1:] != user[block][:-1]])
            last = group[block.stop - 1] + 1
        self.room.let_go()
        return group

    def _drawn(self) -> npt.NDArray[np.bool_]:
        if "drawn" in self.split:
            return self.split["drawn"].to_numpy(bool)
        return self.room.filled(len(self.split), bool, lambda block: False)

    def _happened(self) -> npt.NDArray[np.bool_]:
        drawn = self._drawn()
        return self.room.filled(len(drawn), bool, lambda block: ~drawn[block])

    # Features of the sample itself

    def _add_ids(self) -> None:
        for entity in ENTITIES:
            name = f"{entity}_id"
            ids = (cells[shown] for _, cells, shown in _parts(self.split[name], self.trained, self.room))
            encoding = Categories.fit(ids, fewest=self.inputs.fewest)
            codes = np.r_[MISSING, encoding.encode(pd.Series(self.vocabulary[entity][1:]))].astype(np.int32)
            self.columns[name], self.encodings[name] = Column(codes, entity), encoding
            if self.inputs.item_ids if entity == "item" else self.inputs.user_ids:
                self.features.append(Feature(name, encoding.size))

    def _add_of_entity(self, entity: str, name: str) -> None:
        table = self._table(entity)
        if name not in table:
            raise DataError(
                f"{entity}s: there is no column '{name}' to make a feature of.", table=f"{entity}s", column=name
            )
        self._check_new(f"{entity}s", name)
        self._add(name, table[name], self._shown(entity), entity)

    def _add_of_events(self, name: str) -> None:
        cells = self._context(name)
        self._check_new("interactions", name)
        self._add(name, cells, self.trained, "")
        if name not in self.split:
            self.columns[name] = replace(self.columns[name], derived=name)

    def _add_number_wherever(self, name: str) -> None:
        """A number that is named under `numeric` alone: of the one table that has it."""
        owners = [entity for entity in ENTITIES if name in self._table(entity)]
        in_events = name in self.split and name not in (*_TOLD, self.inputs.weight)
        if len(owners) + in_events > 1:
            raise DataError(f"numeric: {name!r} is a column of several tables. Name it in item_features, say.")
        if owners:
            self._add_of_entity(owners[0], name)
        else:
            self._add_of_events(name)

    def _add(self, name: str, cells: pd.Series, shown: npt.NDArray[np.bool_], entity: str) -> None:
        """A feature of a column.

        Args:
            shown: which cells the training part shows.
            entity: of whose table it is a column; "" of the events'.
        """
        if name in self.inputs.numeric:
            self._add_number(name, cells, shown, entity)
            return
        values = _Values(cells, self.room, 1 if self.inputs.first_values else None)
        encoding = values.fit(shown)
        length = values.most
        codes = values.codes(encoding, length)
        self._keep(name, codes, encoding, entity, MISSING)
        self.features.append(Feature(name, encoding.size, None if length == 1 else length))

    def _add_number(self, name: str, cells: pd.Series, shown: npt.NDArray[np.bool_], entity: str) -> None:
        """One feature, and another that says whether it is missing, where it may be."""
        how = self.inputs.numeric[name]
        if how not in SCALES:
            raise DataError(f"numeric: {name!r} is to be {how!r}, which is unknown. Known: {', '.join(SCALES)}")
        self._check_numbers(name, entity)
        if how == "buckets":
            buckets = Buckets.fit(cells, shown, room=self.room)
            self._keep(name, self._encoded(cells, buckets), buckets, entity, MISSING)
            self.features.append(Feature(name, buckets.size))
            return
        scale = Scale.fit(cells, how, shown, may_miss=self._lacks_rows(entity), room=self.room)
        self._keep(name, self._encoded(cells, scale), scale, entity, scale.missing)
        self.features.append(Feature(name))
        if scale.may_miss:
            self._check_new(entity or "interactions", f"{name}_missing")
            gone = self.room.filled(len(cells), np.float32, lambda block: missing_of(cells.iloc[block]))
            self.columns[f"{name}_missing"] = self._column(gone, entity, 1.0)
            self.features.append(Feature(f"{name}_missing"))

    def _check_numbers(self, name: str, entity: str) -> None:
        """Raise DataError, which names the row in the table as it was read, where a text is no number."""
        table = self._table(entity) if entity else self.tables.interactions
        if name not in table or not isinstance(table[name].dtype, pd.StringDtype):
            return
        wrong = self.room.made(table[name].dropna(), numbers_of_text).isna()
        if wrong.any():
            said = first(table[name], wrong)
            raise Place(f"{entity}s" if entity else "interactions", name).error(
                f"must hold numbers, as [data] numeric says. {said} {int(wrong.sum()):,} cells hold none: leave a cell "
                f"empty where it is not known.{of_thousands(said)}"
            )

    def _encoded(self, cells: pd.Series, encoding: Buckets | Scale) -> Array:
        kind = np.int32 if isinstance(encoding, Buckets) else np.float32
        return self.room.filled(len(cells), kind, lambda block: encoding.encode(cells.iloc[block]))

    def _keep(self, name: str, values: Array, encoding: Encoding, entity: str, missing: float) -> None:
        self.columns[name], self.encodings[name] = self._column(values, entity, missing), encoding

    def _column(self, values: Array, entity: str, missing: float) -> Column:
        """Values by row of a table, as a column by place in the catalogue; by event as they are."""
        if not entity:
            return Column(values)
        by_place = np.full((len(self.vocabulary[entity]), *values.shape[1:]), missing, values.dtype)
        by_place[_places(self.vocabulary[entity], self._table(entity)[f"{entity}_id"])] = values
        return Column(by_place, entity)

    # Lists

    def _add_lists(self) -> None:
        """Where each row stands in its list; and what it was ranked by, as a number."""
        self.columns[PLACE] = Column(places_in_lists(self.split, self._group()))
        if SCORE in self.split:
            self.inputs = replace(self.inputs, numeric={**self.inputs.numeric, SCORE: "standard"})
            self._add(SCORE, self.split[SCORE], self.trained, "")

    # Features of earlier events

    def _add_sequences(self) -> None:
        happened, label = self._happened(), self.split["label"].to_numpy()
        chosen = {HIST: happened}
        if self.inputs.events == "clicks":
            chosen[HIST] = self.room.filled(len(label), bool, lambda block: happened[block] & (label[block] > 0))
        for name, expression in self.inputs.sequences.items():
            if name in (HIST, PAST, *ENTITIES):
                raise DataError(f"sequences: {name!r} is a name of kar-aug's own. Choose another.")
            true = where(self.split, expression, f"sequences: {name}").to_numpy(bool)
            chosen[name] = self.room.filled(len(true), bool, lambda block: happened[block] & true[block])  # noqa: B023
        moment, told = self.split["moment"].to_numpy(np.int64), self._event_features(happened)
        for name, rows in chosen.items():
            self.sequences[name] = events_before(
                self.places["user"], moment, rows, self.inputs.history_length, self.room
            )
            if self.inputs.item_ids:
                self._add_event_feature(name, "item_id", self.columns["item_id"], self.encodings["item_id"])
            for feature in told:
                self._add_told(name, feature)
        self.columns[f"{HIST}_item"] = Column(self._places_before(HIST, "item"))

    def _add_past(self) -> None:
        """All events, and what each was worth: its rating; where there are none, its label."""
        happened, known = self._happened(), self.sequences.get(HIST)
        if known is not None and self.inputs.events == "all":
            past = replace(known, length=self.inputs.past_length)
        else:
            moment = self.split["moment"].to_numpy(np.int64)
            past = events_before(self.places["user"], moment, happened, self.inputs.past_length, self.room)
        told_by = RATING if RATING in self.split else "label"
        worth = self.split[told_by]
        scale = self._standard(worth, happened)
        values = self.room.filled(len(worth), np.float32, lambda block: scale.encode(worth.iloc[block]))
        self.sequences[PAST], self.encodings[PAST_VALUE] = past, scale
        self.columns[f"{PAST}_item"] = Column(past.pad(self.places["item"], room=self.room))
        self.columns[PAST_VALUE] = Column(past.pad(values, room=self.room), derived=told_by)

    def _standard(self, cells: pd.Series, happened: npt.NDArray[np.bool_]) -> Scale:
        """The scale of the training part's, on which their mean, and what is missing, is 0, and their deviation 1."""
        rows, room = len(cells), self.room
        shown = room.filled(rows, bool, lambda block: self.trained[block] & happened[block])
        numbers = room.filled(rows, np.float64, lambda block: numbers_of(cells.iloc[block]))
        known = room.filled(rows, bool, lambda block: shown[block] & np.isfinite(numbers[block]))
        mean = float(np.mean(numbers, where=known)) if known.any() else 0.0
        away = room.filled(rows, np.float64, lambda block: np.square(numbers[block] - mean))
        deviation = float(np.sqrt(np.sum(away, where=known) / max(1, int(np.count_nonzero(shown)))))
        return Scale(False, mean, deviation if deviation > 0 else 1.0, 0.0, False)

    def _event_features(self, happened: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        if self.inputs.event_features is not None:
            return self.inputs.event_features
        worth = (RATING,) if RATING in self.split else ("label",) if self._some_are_clicks(happened) else ()
        scaled = [name for name, how in self.inputs.numeric.items() if how != "buckets"]
        since = (SINCE,) if self.inputs.tells_since else ()
        return (*worth, *(name for name in self.inputs.item_features if name not in scaled), *since)

    def _some_are_clicks(self, happened: npt.NDArray[np.bool_]) -> bool:
        """Whether some of the earlier events that are read were clicks, and others not."""
        if self.inputs.events == "clicks":
            return False
        label = self.split["label"].to_numpy()
        blocks = self.room.blocks(len(label))
        clicked = [label[block][self.trained[block] & happened[block]] > 0 for block in blocks]
        return any(each.any() for each in clicked) and not all(each.all() for each in clicked)

    def _add_told(self, sequence: str, name: str) -> None:
        """What is told of each event of a sequence beside its item: by the feature of that name, or a column."""
        if name == SINCE:
            called = f"{sequence}_{SINCE}"
            self.columns[called] = Column(self.sequences[sequence].pad(self.timestamps, room=self.room))
            self.features.append(Feature(called, SINCE_SIZE, self.inputs.history_length, "", sequence))
            return
        if name in self.columns and not isinstance(self.encodings[name], Scale):
            self._add_event_feature(sequence, name, self.columns[name], self.encodings[name])
            return
        if name in self.split:
            cells, entity, shown = self.split[name], "", self.trained
        elif name in self.tables.items:
            cells, entity, shown = self.tables.items[name], "item", self._shown("item")
        else:
            raise DataError(f"event_features: neither interactions nor items have a column {name!r}.", column=name)
        if name not in self.told:  # the same for all sequences, whichever events each has
            self.told[name] = _told(cells, shown, self.room, self.inputs.event_values)
        encoding, codes = self.told[name]
        self._add_event_feature(sequence, name, self._column(codes, entity, MISSING), encoding)

    def _add_event_feature(self, sequence: str, name: str, column: Column, encoding: Encoding) -> None:
        assert not isinstance(encoding, Scale)
        called = f"{sequence}_{name}"
        self._check_new("event_features", called)
        several = 1 if column.values.ndim == 1 else min(column.values.shape[1], self.inputs.event_values)
        if column.entity and several > 1:
            values = self._places_before(sequence, column.entity)
        else:
            if column.values.ndim > 1:
                column = replace(column, values=column.values[:, 0] if several == 1 else column.values[:, :several])
            places = self.places[column.entity] if column.entity else None
            values = self.sequences[sequence].pad(column.values, places, self.room)
        self.columns[called] = Column(values, told=column if column.entity or column.derived else None)
        self.encodings[called] = encoding
        shared = next((f.embedding or f.name for f in self.features if _tells(f, name)), "")
        length = self.inputs.history_length
        self.features.append(Feature(called, encoding.size, length, shared, sequence, values=several))

    def _places_before(self, sequence: str, entity: str) -> Array:
        """Of the events of a sequence the places of their users or items, as windows are read from."""
        if (sequence, entity) not in self.places_before:
            events = self.sequences[sequence]
            self.places_before[sequence, entity] = events.pad(self.places[entity], room=self.room)
        return self.places_before[sequence, entity]

    # Helpers

    def _check_new(self, table: str, name: str) -> None:
        if name in self.columns or name in _OURS or (table != "event_features" and name.startswith(f"{HIST}_")):
            raise DataError(
                f"{table}: the feature {name!r} is there already. Leave it out, or rename the column.",
                table=table,
                column=name,
            )

    def _context(self, name: str) -> pd.Series:
        if name in (*_TOLD, self.inputs.weight):
            raise DataError(f"context: {name!r} says what the label is. It can be told of earlier events only.")
        if self.inputs.lists and name in (IMPRESSION, POSITION, SCORE):
            raise DataError(
                f"context, numeric: {name!r} says where an item stood in its list. Models read it as the order of the "
                "list, and as nothing else: leave it out.",
                table="interactions",
                column=name,
            )
        if name in self.split:
            return self.split[name]
        if name in DERIVED:
            return series(self.room.filled(len(self.split), np.int32, partial(self._derived, name)))
        raise DataError(
            f"context: interactions have no column {name!r}. They have: {brought(self.split)}",
            table="interactions",
            column=name,
        )

    def _derived(self, name: str, block: slice) -> pd.Series:
        time = pd.to_datetime(pd.Series(self.timestamps[block]), unit="s")
        return time.dt.hour if name == "hour" else time.dt.day_of_week

    def _table(self, entity: str) -> pd.DataFrame:
        return self.tables.users if entity == "user" else self.tables.items

    def _shown(self, entity: str) -> npt.NDArray[np.bool_]:
        """Which rows of an entity's table the training part shows."""
        places, seen = self.places[entity], np.zeros(len(self.vocabulary[entity]), bool)
        for block in self.room.blocks(len(places)):
            seen[places[block][self.trained[block]]] = True
        return np.asarray(seen[_places(self.vocabulary[entity], self._table(entity)[f"{entity}_id"])])

    def _lacks_rows(self, entity: str) -> bool:
        """Whether some of the catalogue have no row in their table."""
        return bool(entity) and len(self._table(entity)) < len(self.vocabulary[entity]) - 1


class _Values:
    """The values in the cells of a column, a block of cells at a time. One value a cell, integers or text, or several:
    that the whole column decides.

    Args:
        first: of several values in a cell, so many of the first alone.
    """

    def __init__(self, cells: pd.Series, room: Room = MEMORY, first: int | None = None) -> None:
        self._cells, self._room, self._first, self._kind = cells, room, first, _kind(cells, room)
        self.most = 1  # values in a cell; known when all were gone through

    def __iter__(self) -> Iterator[tuple[slice, Positions, pd.Series]]:
        """(which cells, of each value the place of its cell among these, the value)."""
        for block in self._room.blocks(len(self._cells)):
            owner, values = self._of(self._cells.iloc[block])
            self.most = max(self.most, int(np.bincount(owner).max(initial=1)))
            yield block, owner, values

    def fit(self, shown: npt.NDArray[np.bool_]) -> Categories:
        """The values of the cells that are shown."""
        return Categories.fit(values[shown[block][owner]] for block, owner, values in self)

    def codes(self, encoding: Categories | Buckets, length: int) -> npt.NDArray[np.int32]:
        """Integers of the cells, where each holds so many values at most: (cells,), or (cells, length) if these are
        several.
        """
        codes = self._room.empty(len(self._cells) if length == 1 else (len(self._cells), length), np.int32)
        for block, owner, values in self:
            codes[block] = MISSING
            codes[block][owner if length == 1 else (owner, _place_within(owner))] = encoding.encode(values)
        self._room.let_go()
        return codes

    def _of(self, cells: pd.Series) -> tuple[Positions, pd.Series]:
        there = np.flatnonzero(cells.notna().to_numpy())
        held = cells.iloc[there]
        if held.empty:
            return there, pd.Series(dtype=object)
        if self._kind == "integers":
            return there, held.astype("int64").reset_index(drop=True)
        if self._kind == "text":
            return there, held.astype(str).astype(object).reset_index(drop=True)
        if is_arrow_text(held):
            return self._of_text(there, held)
        if (in_arrow := _lists_in_arrow(held)) is not None:
            return self._of_lists(there, in_arrow)
        lists = [values_of(cell) for cell in held.tolist()]
        owner = np.repeat(there, np.fromiter(map(len, lists), np.int64, len(lists)))
        return self._first_of(owner, np.array([value for values in lists for value in values], object))

    def _of_text(self, there: Positions, held: pd.Series) -> tuple[Positions, pd.Series]:
        text: Any = held.array.__arrow_array__()
        lists = pc.split_pattern(text.combine_chunks(), SEPARATOR)
        coded = pc.list_flatten(lists).dictionary_encode()  # an object a different value, not one a value
        values = coded.dictionary.to_numpy(zero_copy_only=False)[coded.indices.to_numpy()]
        return self._first_of(np.repeat(there, pc.list_value_length(lists).to_numpy()), values)

    def _of_lists(self, there: Positions, lists: pa.Array) -> tuple[Positions, pd.Series]:
        """As `values_of` says of each: what is missing in a list, and an empty text, is no value."""
        coded = pc.list_flatten(lists).dictionary_encode()
        words = np.array([*map(word, coded.dictionary.to_pylist()), ""], object)
        values = words[coded.indices.fill_null(-1).to_numpy()]
        kept = values != ""
        return self._first_of(np.repeat(there, pc.list_value_length(lists).to_numpy())[kept], values[kept])

    def _first_of(self, owner: Positions, values: npt.NDArray[Any]) -> tuple[Positions, pd.Series]:
        """Of the values of each cell so many as are read."""
        if self._first is not None:
            kept = _place_within(owner) < self._first
            owner, values = owner[kept], values[kept]
        return owner, pd.Series(values, dtype=object)


def _lists_in_arrow(cells: pd.Series) -> pa.Array | None:
    """Cells that are lists of text, whole numbers or decimals, in Arrow's memory, which is gone through in a fifth of
    the time; None for any others. Among decimals Arrow makes 1 of True, and writes those of 32 bits otherwise: they
    must be arrays of 64 bits.
    """
    if not cells.map(type).isin([list, tuple, np.ndarray]).all():
        return None
    try:
        found = pa.array(cells.tolist(), from_pandas=True)
    except (pa.ArrowException, ValueError, OverflowError):  # of several kinds, or half a character
        return None
    kind = found.type.value_type
    if pa.types.is_float64(kind):
        return found if all(getattr(cell, "dtype", None) == np.float64 for cell in cells) else None
    return found if pa.types.is_string(kind) or pa.types.is_integer(kind) else None


def exploded(cells: pd.Series) -> pd.Series:
    """The values in the cells: an integer where the column holds integers, else text."""
    found = [values for _, _, values in _Values(cells) if len(values)]
    return pd.concat(found, ignore_index=True) if found else pd.Series(dtype=object)


def _kind(cells: pd.Series, room: Room) -> str:
    """What the cells of a column hold: "integers", or "text", one value each; or "lists"."""
    parts = [cells.iloc[block] for block in room.blocks(len(cells))]
    if pd.api.types.is_bool_dtype(cells) or pd.api.types.is_integer_dtype(cells):
        return "integers"
    if pd.api.types.is_float_dtype(cells) and all(bool((part.dropna() % 1 == 0).all()) for part in parts):
        return "integers"
    if pd.api.types.infer_dtype(cells) != "string":
        return "text" if pd.api.types.is_numeric_dtype(cells) else "lists"
    several = any(bool(part.dropna().str.contains(SEPARATOR, regex=False).any()) for part in parts)
    return "lists" if several else "text"


def _parts(
    cells: pd.Series, mask: npt.NDArray[np.bool_], room: Room
) -> Iterator[tuple[slice, pd.Series, npt.NDArray[np.bool_]]]:
    """A column and a mask of it, a block at a time."""
    return ((block, cells.iloc[block], mask[block]) for block in room.blocks(len(cells)))


def _numbered(cells: pd.Series, room: Room) -> npt.NDArray[np.int64]:
    """The values of a column as 0, 1, ... in the order of their first rows, -1 where one is missing: as `pd.factorize`
    does, which has to remember all of them at once. Equal values are told here among those of one hash.
    """
    count = room.parts(len(cells))
    if count <= 1:
        return pd.factorize(cells)[0].astype(np.int64, copy=False)
    part = room.filled(len(cells), np.uint16, lambda block: hash_pandas_object(cells.iloc[block], index=False) % count)
    first = room.empty(len(cells), np.int64)  # of each row, the first that holds the same
    for rows in room.gathered(part):
        codes = pd.factorize(cells.iloc[rows])[0]
        _, at = np.unique(codes[codes >= 0], return_index=True)
        first[rows] = np.r_[rows[codes >= 0][at], -1][codes]
    room.let_go()
    number, numbers = 0, room.empty(len(cells), np.int64)
    for block in room.blocks(len(cells)):
        new = first[block] == np.arange(block.start, block.stop)
        numbers[block] = number - 1 + np.cumsum(new)
        number += int(np.count_nonzero(new))
    return room.filled(len(cells), np.int64, lambda block: np.where(first[block] < 0, -1, numbers[first[block]]))


def _place_within(owner: Positions) -> Positions:
    """0, 1, ... within each run of equal owners."""
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else owner
    sizes = np.diff(np.r_[starts, len(owner)])
    return np.arange(len(owner)) - np.repeat(starts, sizes)


def _plain_numbers(cells: pd.Series) -> pd.Series:
    """Decimals as the numbers that they are."""
    is_decimal = cells.dtype == object and pd.api.types.infer_dtype(cells, skipna=True) == "decimal"
    return pd.Series(numbers_of(cells), cells.index, name=cells.name) if is_decimal else cells


def _told(
    cells: pd.Series, shown: npt.NDArray[np.bool_], room: Room, most: int
) -> tuple[Categories | Buckets, npt.NDArray[np.int32]]:
    """What events are told with: numbers that are many are put into buckets, all else is a category each. Of several
    values in a cell `most` of the first.
    """
    encoding: Categories | Buckets
    cells = _plain_numbers(cells)
    if not _are_numbers(cells):
        values = _Values(cells, room, most)
        encoding = values.fit(shown)
        return encoding, values.codes(encoding, values.most)
    if _are_many(cells, shown, room):
        encoding = Buckets.fit(cells, shown, room=room)
    else:
        encoding = Categories.fit(cells[shown] for _, cells, shown in _parts(cells, shown, room))
    return encoding, told_codes(cells, encoding, room)


def told_codes(
    cells: pd.Series, encoding: Categories | Buckets, room: Room = MEMORY, values: int = 1
) -> npt.NDArray[np.int32]:
    """The integers that events are told with, (cells,); or (cells, values), of several values in a cell so many of the
    first.
    """
    cells = _plain_numbers(cells)
    if _are_numbers(cells):
        return room.filled(len(cells), np.int32, lambda block: encoding.encode(cells.iloc[block]))
    return _Values(cells, room, values).codes(encoding, values)


def _are_many(numbers: pd.Series, shown: npt.NDArray[np.bool_], room: Room) -> bool:
    different: set[float] = set()
    for _, part, mask in _parts(numbers, shown, room):
        different |= set(part[mask].dropna().unique().tolist())
        if len(different) > _FEW_NUMBERS:
            return True
    return False


def _are_numbers(cells: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _tells(feature: Feature, name: str) -> bool:
    """Whether a feature has the values of `name`, so that it shares its embedding."""
    return feature.name == (f"{feature.sequence}_{name}" if feature.sequence else name)


def _places(vocabulary: Sequence[Any], ids: pd.Series, room: Room = MEMORY) -> npt.NDArray[np.int32]:
    """Places of ids in a vocabulary that holds them all."""
    index = pd.Index(vocabulary[1:])
    return room.filled(len(ids), np.int32, lambda block: index.get_indexer(pd.Index(ids.iloc[block])) + 1)
