"""Tables and a split made into samples: features of user, item, context and earlier events; labels.

All that is fitted (vocabularies, scales, buckets) is fitted on the training part, and on what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.cells import SEPARATOR, values_of
from kar_aug.data.encodings import MISSING, SCALES, Buckets, Categories, Encoding, Scale, missing_of
from kar_aug.data.features import HIST, PAST, Feature
from kar_aug.data.inputs import RATING, SINCE, Inputs
from kar_aug.data.labels import where
from kar_aug.data.samples import ENTITIES, PAST_VALUE, SINCE_SIZE, Array, Column, Samples
from kar_aug.data.sequences import Events, Positions, events_before
from kar_aug.data.split import in_training, is_sample, part_codes
from kar_aug.data.tables import Tables
from kar_aug.data.times import seconds
from kar_aug.errors import DataError

DERIVED = ("hour", "weekday")
_FEW_NUMBERS = 30  # of so many different numbers each is a category: ratings by halves, say
_TOLD = (RATING, "label", "weight")  # what says the label
_OURS = (*ENTITIES, "label", "weight", "part", "moment", "drawn", f"{PAST}_item", PAST_VALUE)


def build_samples(tables: Tables, split: pd.DataFrame, inputs: Inputs | None = None, **settings: Any) -> Samples:
    """Features of every interaction that is a sample.

    Args:
        split: what `split_interactions` returned.
        inputs: what a model reads; or its settings by name.

    Raises:
        DataError: A column is not there, stands for two features, or holds what it must not.
    """
    return _Builder(tables, split, inputs or Inputs(**settings)).samples()


class _Builder:
    """Makes columns one by one."""

    def __init__(self, tables: Tables, split: pd.DataFrame, inputs: Inputs) -> None:
        self.tables, self.split, self.inputs = tables, split, inputs
        self.trained = in_training(split)
        self.vocabulary: dict[str, list[int | str | None]] = {e: [None, *tables.ids(e)] for e in ENTITIES}
        self.places = {e: _places(self.vocabulary[e], split[f"{e}_id"]) for e in ENTITIES}
        self.features: list[Feature] = []
        self.columns: dict[str, Column] = {}
        self.encodings: dict[str, Encoding] = {}
        self.sequences: dict[str, Events] = {}
        self.told: dict[str, tuple[Categories | Buckets, npt.NDArray[np.int32]]] = {}

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
        if self.inputs.history_length:
            self._add_sequences()
        if self.inputs.past_length:
            self._add_past()
        rows = np.flatnonzero(is_sample(self.split))
        return Samples(
            features=tuple(self.features),
            rows=rows,
            label=self.split["label"].to_numpy(np.float32)[rows],
            weight=self._weight(rows),
            part=part_codes(self.split["part"])[rows],
            group=self._group(rows),
            drawn=self._drawn()[rows],
            vocabulary=self.vocabulary,
            places=self.places,
            columns=self.columns,
            timestamps=seconds(self.split["timestamp"]),
            sequences=self.sequences,
            encodings=self.encodings,
        )

    def _weight(self, rows: Positions) -> npt.NDArray[np.float32]:
        name = self.inputs.weight
        if name is None:
            return np.ones(len(rows), np.float32)
        if name not in self.split:
            raise DataError(f"weight: interactions have no column {name!r}.", table="interactions", column=name)
        weight = pd.to_numeric(self.split[name], errors="coerce").to_numpy(np.float32, na_value=np.nan)[rows]
        if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
            raise DataError(
                f"weight: {name!r} must hold a number of at least 0 in each sample, and not 0 in all.",
                table="interactions",
                column=name,
            )
        return weight / weight.mean()

    def _group(self, rows: Positions) -> npt.NDArray[np.int64]:
        name = "impression_id" if "impression_id" in self.split else "user_id"
        return pd.factorize(self.split[name])[0].astype(np.int64)[rows]

    def _drawn(self) -> npt.NDArray[np.bool_]:
        return self.split["drawn"].to_numpy(bool) if "drawn" in self.split else np.zeros(len(self.split), bool)

    # Features of the sample itself

    def _add_ids(self) -> None:
        for entity in ENTITIES:
            name = f"{entity}_id"
            encoding = Categories.fit(self.split.loc[self.trained, name], fewest=self.inputs.fewest)
            codes = np.r_[MISSING, encoding.encode(pd.Series(self.vocabulary[entity][1:]))].astype(np.int32)
            self.columns[name], self.encodings[name] = Column(codes, entity), encoding
            if entity == "item" or self.inputs.user_ids:
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
        owner, values = exploded(cells, first=self.inputs.first_values)
        encoding = Categories.fit(values[shown[owner]])
        length = int(np.bincount(owner).max(initial=1))
        codes = np.zeros((len(cells), length), np.int32)
        codes[owner, _place_within(owner)] = encoding.encode(values)
        self._keep(name, codes[:, 0] if length == 1 else codes, encoding, entity, MISSING)
        self.features.append(Feature(name, encoding.size, None if length == 1 else length))

    def _add_number(self, name: str, cells: pd.Series, shown: npt.NDArray[np.bool_], entity: str) -> None:
        """One feature, and another that says whether it is missing, where it may be."""
        how = self.inputs.numeric[name]
        if how not in SCALES:
            raise DataError(f"numeric: {name!r} is to be {how!r}, which is unknown. Known: {', '.join(SCALES)}")
        if how == "buckets":
            buckets = Buckets.fit(cells[shown])
            self._keep(name, buckets.encode(cells), buckets, entity, MISSING)
            self.features.append(Feature(name, buckets.size))
            return
        scale = Scale.fit(cells[shown], how, may_miss=self._lacks_rows(entity))
        self._keep(name, scale.encode(cells), scale, entity, scale.missing)
        self.features.append(Feature(name))
        if scale.may_miss:
            self._check_new(entity or "interactions", f"{name}_missing")
            self.columns[f"{name}_missing"] = self._column(missing_of(cells), entity, 1.0)
            self.features.append(Feature(f"{name}_missing"))

    def _keep(self, name: str, values: Array, encoding: Encoding, entity: str, missing: float) -> None:
        self.columns[name], self.encodings[name] = self._column(values, entity, missing), encoding

    def _column(self, values: Array, entity: str, missing: float) -> Column:
        """Values by row of a table, as a column by place in the catalogue; by event as they are."""
        if not entity:
            return Column(values)
        by_place = np.full((len(self.vocabulary[entity]), *values.shape[1:]), missing, values.dtype)
        by_place[_places(self.vocabulary[entity], self._table(entity)[f"{entity}_id"])] = values
        return Column(by_place, entity)

    # Features of earlier events

    def _add_sequences(self) -> None:
        happened = ~self._drawn()
        clicks = happened & (self.split["label"] > 0).to_numpy() if self.inputs.events == "clicks" else happened
        chosen = {HIST: clicks}
        for name, expression in self.inputs.sequences.items():
            if name in (HIST, PAST, *ENTITIES):
                raise DataError(f"sequences: {name!r} is a name of kar-aug's own. Choose another.")
            chosen[name] = happened & where(self.split, expression, f"sequences: {name}").to_numpy(bool)
        moment = self.split["moment"].to_numpy(np.int64)
        for name, rows in chosen.items():
            self.sequences[name] = events_before(self.places["user"], moment, rows, self.inputs.history_length)
            self._add_event_feature(name, "item_id", self.columns["item_id"], self.encodings["item_id"])
            for feature in self._event_features():
                self._add_told(name, feature)
        self.columns[f"{HIST}_item"] = Column(self.sequences[HIST].pad(self.places["item"]))

    def _add_past(self) -> None:
        """All events, and what each was worth: its rating; where there are none, its label."""
        moment = self.split["moment"].to_numpy(np.int64)
        past = events_before(self.places["user"], moment, ~self._drawn(), self.inputs.past_length)
        told_by = RATING if RATING in self.split else "label"
        worth = self.split[told_by].astype("float64")
        trained = self.trained & ~self._drawn()
        worth = worth.fillna(worth[trained].mean())
        scale = Scale.fit(worth[trained], "standard")
        self.sequences[PAST], self.encodings[PAST_VALUE] = past, scale
        self.columns[f"{PAST}_item"] = Column(past.pad(self.places["item"]))
        self.columns[PAST_VALUE] = Column(past.pad(scale.encode(worth)), derived=told_by)

    def _event_features(self) -> tuple[str, ...]:
        if self.inputs.event_features is not None:
            return self.inputs.event_features
        rated = (RATING,) if RATING in self.split else ()
        scaled = [name for name, how in self.inputs.numeric.items() if how != "buckets"]
        since = (SINCE,) if self.inputs.tells_since else ()
        return (*rated, *(name for name in self.inputs.item_features if name not in scaled), *since)

    def _add_told(self, sequence: str, name: str) -> None:
        """What is told of each event of a sequence beside its item: by the feature of that name, or a column."""
        if name == SINCE:
            called = f"{sequence}_{SINCE}"
            self.columns[called] = Column(self.sequences[sequence].pad(seconds(self.split["timestamp"])))
            self.features.append(Feature(called, SINCE_SIZE, self.inputs.history_length, "", sequence))
            return
        if name in self.columns and not isinstance(self.encodings[name], Scale):
            column = self.columns[name]
            first = column if column.values.ndim == 1 else replace(column, values=column.values[:, 0])
            self._add_event_feature(sequence, name, first, self.encodings[name])
            return
        if name in self.split and name != "label":
            cells, entity, shown = self.split[name], "", self.trained
        elif name in self.tables.items:
            cells, entity, shown = self.tables.items[name], "item", self._shown("item")
        else:
            raise DataError(f"event_features: neither interactions nor items have a column {name!r}.", column=name)
        if name not in self.told:  # the same for all sequences, whichever events each has
            self.told[name] = _told(cells, shown)
        encoding, codes = self.told[name]
        self._add_event_feature(sequence, name, self._column(codes, entity, MISSING), encoding)

    def _add_event_feature(self, sequence: str, name: str, column: Column, encoding: Encoding) -> None:
        assert not isinstance(encoding, Scale)
        called = f"{sequence}_{name}"
        self._check_new("event_features", called)
        by_event = column.values[self.places[column.entity]] if column.entity else column.values
        told = column if column.entity or column.derived else None
        self.columns[called] = Column(self.sequences[sequence].pad(by_event), told=told)
        self.encodings[called] = encoding
        shared = next((f.embedding or f.name for f in self.features if _tells(f, name)), "")
        self.features.append(Feature(called, encoding.size, self.inputs.history_length, shared, sequence))

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
        if name in self.split:
            return self.split[name]
        if name in DERIVED:
            time = pd.to_datetime(pd.Series(seconds(self.split["timestamp"])), unit="s")
            return time.dt.hour if name == "hour" else time.dt.day_of_week
        raise DataError(
            f"context: interactions have no column {name!r}. They have: {', '.join(map(str, self.split.columns))}",
            table="interactions",
            column=name,
        )

    def _table(self, entity: str) -> pd.DataFrame:
        return self.tables.users if entity == "user" else self.tables.items

    def _shown(self, entity: str) -> npt.NDArray[np.bool_]:
        """Which rows of an entity's table the training part shows."""
        key = f"{entity}_id"
        return self._table(entity)[key].isin(self.split.loc[self.trained, key].unique()).to_numpy()

    def _lacks_rows(self, entity: str) -> bool:
        """Whether some of the catalogue have no row in their table."""
        return bool(entity) and len(self._table(entity)) < len(self.vocabulary[entity]) - 1


def exploded(cells: pd.Series, *, first: bool = False) -> tuple[Positions, pd.Series]:
    """Of each value in the cells, the row it stands in, and the value: an integer where the column holds integers, else
    text.

    Args:
        first: of several values in a cell, the first alone.
    """
    there = np.flatnonzero(cells.notna().to_numpy())
    held = cells.iloc[there]
    if held.empty:
        return there, pd.Series(dtype=object)
    if pd.api.types.is_bool_dtype(held) or pd.api.types.is_integer_dtype(held):
        return there, held.astype("int64").reset_index(drop=True)
    if pd.api.types.is_float_dtype(held) and (held % 1 == 0).all():
        return there, held.astype("int64").reset_index(drop=True)
    if not _may_hold_several(held):
        return there, held.astype(str).astype(object).reset_index(drop=True)
    lists = [values_of(cell) for cell in held.tolist()]
    lists = [values[:1] for values in lists] if first else lists
    owner = np.repeat(there, np.fromiter(map(len, lists), np.int64, len(lists)))
    return owner, pd.Series([value for values in lists for value in values], dtype=object)


def _may_hold_several(cells: pd.Series) -> bool:
    """Whether any cell is more than one value; asked of whole columns, for that is fast."""
    if pd.api.types.infer_dtype(cells) != "string":
        return not pd.api.types.is_numeric_dtype(cells)
    return bool(cells.str.contains(SEPARATOR, regex=False).any())


def _place_within(owner: Positions) -> Positions:
    """0, 1, ... within each run of equal owners."""
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else owner
    sizes = np.diff(np.r_[starts, len(owner)])
    return np.arange(len(owner)) - np.repeat(starts, sizes)


def _told(cells: pd.Series, shown: npt.NDArray[np.bool_]) -> tuple[Categories | Buckets, npt.NDArray[np.int32]]:
    """What events are told with: numbers that are many are put into buckets, all else is a category each. Of several
    values the first.
    """
    if _are_numbers(cells):
        encoding = (Buckets if cells[shown].nunique() > _FEW_NUMBERS else Categories).fit(cells[shown])
    else:
        owner, values = exploded(cells, first=True)
        encoding = Categories.fit(values[shown[owner]])
    return encoding, told_codes(cells, encoding)


def told_codes(cells: pd.Series, encoding: Categories | Buckets) -> npt.NDArray[np.int32]:
    """The integers that events are told with: of several values in a cell that of the first."""
    if _are_numbers(cells):
        return encoding.encode(cells)
    owner, values = exploded(cells, first=True)
    codes = np.zeros(len(cells), np.int32)
    codes[owner] = encoding.encode(values)
    return codes


def _are_numbers(cells: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells)


def _tells(feature: Feature, name: str) -> bool:
    """Whether a feature has the values of `name`, so that it shares its embedding."""
    return feature.name == (f"{feature.sequence}_{name}" if feature.sequence else name)


def _places(vocabulary: Sequence[Any], ids: pd.Series) -> npt.NDArray[np.int32]:
    """Places of ids in a vocabulary that holds them all."""
    return pd.Index(vocabulary[1:]).get_indexer(pd.Index(ids)).astype(np.int32) + 1
