"""Tables and a split turned into what a CTR model reads: features of user, item, context and earlier events; labels.

Nothing is copied into rows before it is read: a feature of an item is kept once an item, an event once an event, and a
batch gathers what its rows need. All that is fitted (vocabularies, scales, buckets) is fitted on the training part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.encodings import FIRST, MISSING, SCALES, Buckets, Categories, Encoding, Scale
from kar_aug.data.sequences import Positions, sequence
from kar_aug.data.sequences import Sequence as Events
from kar_aug.data.split import in_training, is_sample
from kar_aug.data.tables import Tables
from kar_aug.errors import DataError

Array = npt.NDArray[Any]
SEPARATOR = "|"
HIST = "hist_"
HISTORY = "hist_item_id"
RATING, SINCE = "rating", "since"
DERIVED = ("hour", "weekday")
ENTITIES = ("user", "item")
_FEW_NUMBERS = 30  # of so many different numbers each is a category: ratings by halves, say
_SINCE_UNIT = 60.0  # seconds; `since` is the logarithm (base 2) of the minutes that have passed
_SINCE_MOST = 24  # 2^24 minutes are 32 years


@dataclass(frozen=True)
class Inputs:
    """What a model reads.

    Args:
        user_features, item_features: columns of the tables, as categories; several values in a cell are a list.
        context: columns of the interactions that are known when the impression is made; "hour" and "weekday" are
            made from the timestamp where there are no such columns.
        numeric: column of any table -> "standard", "log", "minmax", or "buckets" (quantiles, embedded).
        events: "all", or "clicks" alone, in the sequence of earlier events.
        event_features: what is told of each earlier event beside its item: columns of interactions or items, and
            "since", how long ago it was. None: the rating, if there is one, the features of items, and since.
        sequences: further sequences: name -> expression over the interactions' columns, "event == 'view'".
        history_length: how many of the latest events are read.
        user_ids: whether the user's id is a feature.
        fewest: an id with fewer training events is as unknown as a new one.
    """

    user_features: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    numeric: Mapping[str, str] = field(default_factory=dict)
    events: str = "all"
    event_features: tuple[str, ...] | None = None
    sequences: Mapping[str, str] = field(default_factory=dict)
    history_length: int = 50
    user_ids: bool = False
    fewest: int = 1


@dataclass(frozen=True)
class Feature:
    """One input of a model.

    Args:
        name: of the input.
        vocabulary_size: a category is an integer in [0, vocabulary_size): 0 is missing or padding, 1 unknown. 0 for a
            number, which is a float32.
        length: None for one value a row, else the number of values a row is padded to.
        embedding: the feature whose embedding table it shares, itself by default.
        sequence: the sequence of earlier events that it tells of, "" if it is of the sample itself.
    """

    name: str
    vocabulary_size: int = 0
    length: int | None = None
    embedding: str = ""
    sequence: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is a number and no category."""
        return not self.vocabulary_size


@dataclass(frozen=True)
class Column:
    """Encoded values: one row an event, or one row an entity of the catalogue (`entity` says of which)."""

    values: Array
    entity: str = ""


@dataclass(frozen=True)
class Samples:
    """Rows to train or test on, in event order within a user.

    Args:
        features: what a model reads, in order.
        rows: of each sample, its place among the events.
        label, weight, part, group: of each sample; `group` is what GAUC is computed within.
        vocabulary: entity -> ids; the id at place i stands as integer i in `codes`. Place 0 is None.
        codes: entity -> per event its place in the vocabulary: by it knowledge is looked up, of ids that no model was
            trained on, too.
        columns: feature -> its values; `timestamps` are those of the events, in seconds.
        sequences: name -> the events before each event.
        encodings: feature -> what it was encoded with.
    """

    features: tuple[Feature, ...]
    rows: Positions
    label: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    part: npt.NDArray[Any]
    group: npt.NDArray[np.int64]
    vocabulary: Mapping[str, list[int | str | None]]
    codes: Mapping[str, npt.NDArray[np.int32]]
    columns: Mapping[str, Column]
    timestamps: npt.NDArray[np.float64]
    sequences: Mapping[str, Events]
    encodings: Mapping[str, Encoding]

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, part: str) -> Positions:
        """Which samples are of a part."""
        return np.flatnonzero(self.part == part)

    def read(self, places: Positions) -> dict[str, Array]:
        """The inputs of some samples: every feature; and the places of user, item and earlier items in the vocabulary
        as "user", "item" and "hist_item", by which knowledge is looked up."""
        rows = self.rows[places]
        before = {name: events.rows(rows) for name, events in self.sequences.items()}
        inputs = {feature.name: self._read(feature, rows, before) for feature in self.features}
        for entity in ENTITIES:
            inputs[entity] = self.codes[entity][rows]
        if "hist" in before:
            events, there = before["hist"]
            inputs[f"{HIST}item"] = np.where(there, self.codes["item"][events], 0)
        return inputs

    def of(self, part: str) -> tuple[dict[str, Array], npt.NDArray[np.float32]]:
        """Inputs and labels of a whole part."""
        places = self.places(part)
        return self.read(places), self.label[places]

    def batches(self, places: Positions, size: int) -> Iterator[tuple[Positions, dict[str, Array]]]:
        """Inputs of samples in their order, `size` at a time, with which they are."""
        for start in range(0, len(places), size):
            some = places[start : start + size]
            yield some, self.read(some)

    def known(self, entity: str, places: Positions) -> npt.NDArray[np.bool_]:
        """Of each sample, whether the model was trained on its user or item."""
        column = self.columns[f"{entity}_id"]
        return np.asarray(column.values[self.codes[entity][self.rows[places]]] >= FIRST)

    def _read(self, feature: Feature, rows: Positions, before: Mapping[str, Any]) -> Array:
        if not feature.sequence:
            return self._values(feature.name, rows)
        events, there = before[feature.sequence]
        if feature.name.endswith(f"_{SINCE}"):
            return np.where(there, _since(self.timestamps[rows][:, np.newaxis] - self.timestamps[events]), MISSING)
        values = self._values(feature.name, events)
        return np.where(there, values, np.zeros((), values.dtype))

    def _values(self, name: str, rows: Positions) -> Array:
        column = self.columns[name]
        return column.values[self.codes[column.entity][rows] if column.entity else rows]


def build_samples(tables: Tables, split: pd.DataFrame, inputs: Inputs | None = None, **settings: Any) -> Samples:
    """Features of every interaction that is a sample.

    Args:
        split: what `split_interactions` returned.
        inputs: what a model reads; or its settings by name.

    Raises:
        DataError: A column is not there, stands for two features, or holds what it must not.
    """
    builder = _Builder(tables, split, inputs or Inputs(**settings))
    return builder.samples()


class _Builder:
    """Makes columns one by one; `names` guards that no feature replaces another."""

    def __init__(self, tables: Tables, split: pd.DataFrame, inputs: Inputs) -> None:
        self.tables, self.split, self.inputs = tables, split, inputs
        self.trained = in_training(split)
        self.vocabulary: dict[str, list[int | str | None]] = {e: [None, *tables.ids(e)] for e in ENTITIES}
        self.codes = {e: _places(self.vocabulary[e], split[f"{e}_id"]) for e in ENTITIES}
        self.features: list[Feature] = []
        self.columns: dict[str, Column] = {}
        self.encodings: dict[str, Encoding] = {}
        self.sequences: dict[str, Events] = {}

    def samples(self) -> Samples:
        """All features, then the samples."""
        self._add_ids()
        for entity, names in (("user", self.inputs.user_features), ("item", self.inputs.item_features)):
            for name in names:
                self._add_of_entity(entity, name)
        for name in self.inputs.context:
            self._add_of_event(name)
        for name in self.inputs.numeric:
            if name not in self.encodings:
                self._add_number_wherever(name)
        self._add_sequences()
        rows = np.flatnonzero(is_sample(self.split))
        return Samples(
            features=tuple(self.features),
            rows=rows,
            label=self.split["label"].to_numpy(np.float32)[rows],
            weight=self._of_samples("weight", rows, 1.0).astype(np.float32),
            part=self.split["part"].to_numpy()[rows],
            group=self._group(rows),
            vocabulary=self.vocabulary,
            codes=self.codes,
            columns=self.columns,
            timestamps=seconds(self.split["timestamp"]),
            sequences=self.sequences,
            encodings=self.encodings,
        )

    def _of_samples(self, name: str, rows: Positions, missing: float) -> Array:
        if name not in self.split:
            return np.full(len(rows), missing)
        return self.split[name].fillna(missing).to_numpy(np.float64)[rows]

    def _group(self, rows: Positions) -> npt.NDArray[np.int64]:
        name = "impression_id" if "impression_id" in self.split else "user_id"
        return pd.factorize(self.split[name])[0].astype(np.int64)[rows]

    # What is added

    def _add_ids(self) -> None:
        for entity in ENTITIES:
            name = f"{entity}_id"
            encoding = Categories.fit(self.split.loc[self.trained, name], fewest=self.inputs.fewest)
            codes = np.r_[MISSING, encoding.encode(pd.Series(self.vocabulary[entity][1:]))].astype(np.int32)
            self.columns[name], self.encodings[name] = Column(codes, entity), encoding
            if entity == "item" or self.inputs.user_ids:
                self._feature(Feature(name, encoding.size))

    def _add_of_entity(self, entity: str, name: str) -> None:
        table = self._table(entity)
        if name not in table:
            raise DataError(f"{entity}s: there is no column '{name}' to make a feature of.")
        self._check_new(f"{entity}s", name)
        cells = table[name]
        trained = table[f"{entity}_id"].isin(self.split.loc[self.trained, f"{entity}_id"].unique()).to_numpy()
        where = _places(self.vocabulary[entity], table[f"{entity}_id"])
        if name in self.inputs.numeric:
            self._add_number(name, cells, trained, entity, where)
            return
        owner, value = _exploded(cells)
        encoding = Categories.fit(value[trained[owner]])
        length = max(int(np.bincount(owner).max(initial=0)), 1)
        codes = np.zeros((len(self.vocabulary[entity]), length), np.int32)
        codes[where[owner], _place_within(owner)] = encoding.encode(value)
        self.encodings[name] = encoding
        self.columns[name] = Column(codes[:, 0] if length == 1 else codes, entity)
        self._feature(Feature(name, encoding.size, None if length == 1 else length))

    def _add_of_event(self, name: str) -> None:
        cells = self._context(name)
        self._check_new("interactions", name)
        if name in self.inputs.numeric:
            self._add_number(name, cells, self.trained, "", None)
            return
        encoding = Categories.fit(cells[self.trained])
        self.columns[name], self.encodings[name] = Column(encoding.encode(cells)), encoding
        self._feature(Feature(name, encoding.size))

    def _add_number_wherever(self, name: str) -> None:
        """A number that is named under `numeric` alone: of the one table that has it."""
        owners = [entity for entity in ENTITIES if name in self._table(entity)]
        in_events = name in self.split and name not in ("rating", "label", "weight")
        if len(owners) + in_events > 1:
            raise DataError(f"numeric: {name!r} is a column of several tables. Name it in item_features, say.")
        if owners:
            self._add_of_entity(owners[0], name)
        else:
            self._add_of_event(name)

    def _add_number(
        self, name: str, cells: pd.Series, trained: npt.NDArray[np.bool_], entity: str, where: Array | None
    ) -> None:
        """One feature, and another that says whether it is missing, where it may be.

        Args:
            trained: which cells the training part shows.
            where: of each cell, its entity's place in the vocabulary; None for cells of events.
        """
        how = self.inputs.numeric[name]
        if how not in SCALES:
            raise DataError(f"numeric: {name!r} is to be {how!r}, which is unknown. Known: {', '.join(SCALES)}")
        encoding: Buckets | Scale
        if how == "buckets":
            encoding = Buckets.fit(cells[trained])
            self._feature(Feature(name, encoding.size))
        else:
            encoding = Scale.fit(cells[trained], how)
            self._feature(Feature(name))
        self.encodings[name] = encoding
        missing = encoding.missing if isinstance(encoding, Scale) else MISSING
        self.columns[name] = self._column(encoding.encode(cells), entity, where, missing)
        if isinstance(encoding, Scale) and encoding.may_miss:
            gone = cells.isna().to_numpy(np.float32)
            self.columns[f"{name}_missing"] = self._column(gone, entity, where, 1.0)
            self._feature(Feature(f"{name}_missing"))

    def _column(self, values: Array, entity: str, where: Array | None, missing: float) -> Column:
        if where is None:
            return Column(values)
        column = np.full(len(self.vocabulary[entity]), missing, values.dtype)
        column[where] = values
        return Column(column, entity)

    def _add_sequences(self) -> None:
        inputs, split = self.inputs, self.split
        happened = ~split["drawn"].to_numpy(bool) if "drawn" in split else np.ones(len(split), bool)
        chosen = {"hist": happened & (split["label"] > 0).to_numpy() if inputs.events == "clicks" else happened}
        for name, expression in inputs.sequences.items():
            if name in ("hist", *ENTITIES):
                raise DataError(f"sequences: {name!r} is a name of kar-aug's own. Choose another.")
            chosen[name] = happened & where(split, expression, f"sequences: {name}").to_numpy(bool)
        user = self.codes["user"].astype(np.int64)
        moment = split["moment"].to_numpy(np.int64)
        if not inputs.history_length:
            return
        for name, events in chosen.items():
            self.sequences[name] = sequence(name, user, moment, events, inputs.history_length)
            self._sequence_feature(name, "item_id", self.columns["item_id"], self.encodings["item_id"])
            for feature in self._event_features():
                self._add_event_feature(name, feature)

    def _event_features(self) -> tuple[str, ...]:
        if self.inputs.event_features is not None:
            return self.inputs.event_features
        rated = (RATING,) if RATING in self.split else ()
        return (*rated, *self.inputs.item_features, SINCE)

    def _add_event_feature(self, name: str, feature: str) -> None:
        if feature == SINCE:
            self._feature(Feature(f"{name}_{SINCE}", _SINCE_MOST + FIRST + 1, self.inputs.history_length, "", name))
            return
        if feature in self.columns and not isinstance(self.encodings[feature], Scale):
            column = self.columns[feature]
            first = column.values if column.values.ndim == 1 else column.values[:, 0]  # of several values the first
            self._sequence_feature(name, feature, Column(first, column.entity), self.encodings[feature])
            return
        if feature in self.split:
            cells, entity, trained = self.split[feature], "", self.trained
        elif feature in self.tables.items:
            cells, entity = _first_values(self.tables.items[feature]), "item"
            trained = self.tables.items["item_id"].isin(self.split.loc[self.trained, "item_id"].unique()).to_numpy()
        else:
            raise DataError(f"event_features: neither interactions nor items have a column {feature!r}.")
        encoding = _categories_or_buckets(cells, trained)
        where = _places(self.vocabulary["item"], self.tables.items["item_id"]) if entity else None
        self._sequence_feature(name, feature, self._column(encoding.encode(cells), entity, where, MISSING), encoding)

    def _sequence_feature(self, name: str, feature: str, column: Column, encoding: Encoding) -> None:
        called = f"{name}_{feature}"
        self.columns[called], self.encodings[called] = column, encoding
        shared = next((f.name for f in self.features if f.name == feature), "") or next(
            (f.embedding or f.name for f in self.features if f.sequence and f.name.endswith(f"_{feature}")), ""
        )
        assert not isinstance(encoding, Scale)
        self._feature(Feature(called, encoding.size, self.inputs.history_length, shared, name))

    # Helpers

    def _feature(self, feature: Feature) -> None:
        self.features.append(feature)

    def _check_new(self, table: str, name: str) -> None:
        reserved = name in self.columns or name.startswith(HIST) or name in (*ENTITIES, "label", "weight", "part")
        if reserved:
            raise DataError(f"{table}: the feature {name!r} is there already. Leave it out, or rename the column.")

    def _context(self, name: str) -> pd.Series:
        if name in (RATING, "label", "weight"):
            raise DataError(f"context: {name!r} says what the label is. It can be told of earlier events only.")
        if name in self.split:
            return self.split[name]
        if name in DERIVED:
            time = pd.to_datetime(pd.Series(seconds(self.split["timestamp"])), unit="s")
            return time.dt.hour if name == "hour" else time.dt.day_of_week
        raise DataError(
            f"context: interactions have no column {name!r}. They have: {', '.join(map(str, self.split.columns))}"
        )

    def _table(self, entity: str) -> pd.DataFrame:
        return self.tables.users if entity == "user" else self.tables.items


def where(frame: pd.DataFrame, expression: str, name: str) -> pd.Series:
    """The rows of a frame for which an expression over its columns is true: "event == 'buy'".

    Raises:
        DataError: It cannot be evaluated, or is neither true nor false.
    """
    try:
        found = frame.eval(expression, engine="python")
    except Exception as error:  # pandas raises whatever the parser, the names or the types raise
        columns = ", ".join(map(str, frame.columns))
        raise DataError(f"{name}: {expression!r} cannot be evaluated: {error}. Columns: {columns}") from None
    if not isinstance(found, pd.Series) or not pd.api.types.is_bool_dtype(found.dtype):
        raise DataError(f"{name}: {expression!r} is neither true nor false of a row.")
    return found.fillna(False).astype(bool)


def seconds(timestamp: pd.Series) -> npt.NDArray[np.float64]:
    """Times in seconds since 1970."""
    if pd.api.types.is_datetime64_any_dtype(timestamp):
        utc = timestamp.dt.tz_convert("UTC").dt.tz_localize(None) if timestamp.dt.tz is not None else timestamp
        return utc.astype("datetime64[ns]").astype("int64").to_numpy(np.float64) / 1e9
    return timestamp.to_numpy(np.float64)


def values_of(cell: Any) -> list[str]:
    """The values in a cell: of a list each, of text those between `|`."""
    if isinstance(cell, (list, tuple, np.ndarray)):
        return [str(value) for value in cell if value is not None]
    return [] if pd.isna(cell) else str(cell).split(SEPARATOR)


def _exploded(cells: pd.Series) -> tuple[Positions, pd.Series]:
    """Of each value in the cells, the row it stands in, and the value."""
    lists = pd.Series([values_of(cell) for cell in cells.tolist()])
    counts = lists.str.len().to_numpy(np.int64) if len(lists) else np.empty(0, np.int64)
    values = [value for cell in lists.tolist() for value in cell]
    return np.repeat(np.arange(len(lists)), counts), pd.Series(values, dtype=object)


def _place_within(owner: Positions) -> Positions:
    """0, 1, ... within each run of equal owners."""
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else owner
    sizes = np.diff(np.r_[starts, len(owner)])
    return np.arange(len(owner)) - np.repeat(starts, sizes)


def _first_values(cells: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(cells):
        return cells
    return pd.Series([next(iter(values_of(cell)), None) for cell in cells.tolist()], index=cells.index)


def _categories_or_buckets(cells: pd.Series, trained: npt.NDArray[np.bool_]) -> Categories | Buckets:
    """Numbers that are many are put into buckets; all else is a category each."""
    shown = cells[trained]
    numbers = pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)
    if numbers and shown.nunique() > _FEW_NUMBERS:
        return Buckets.fit(shown)
    return Categories.fit(shown)


def _places(vocabulary: Sequence[Any], ids: pd.Series) -> npt.NDArray[np.int32]:
    """Places of ids in a vocabulary that holds them all."""
    return pd.Index(vocabulary[1:]).get_indexer(pd.Index(ids)).astype(np.int32) + 1


def _since(passed: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """How long ago, in powers of two of a minute: 2 for the same minute, 3 up to two, ..."""
    powers = np.log2(1 + np.maximum(passed, 0) / _SINCE_UNIT)
    return np.minimum(powers, _SINCE_MOST).astype(np.int32) + FIRST
