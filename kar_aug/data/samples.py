"""Rows to train or test on. Nothing is copied into rows before it is read: a feature of an item is kept once an item,
an event once an event, and a batch gathers what its rows need.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.data.encodings import FIRST, Encoding
from kar_aug.data.features import HIST, PAST, Feature
from kar_aug.data.inputs import SINCE
from kar_aug.data.room import let_go
from kar_aug.data.sequences import Events, Positions, Window
from kar_aug.data.split import PARTS

Array = npt.NDArray[Any]
ENTITIES = ("user", "item")
_SINCE_UNIT = 60.0  # seconds
_SINCE_MOST = 24  # 2^24 minutes are 32 years
SINCE_SIZE = _SINCE_MOST + FIRST + 1
_HASHED_ROWS = 1 << 16
_ALIGNED = 64  # bytes
PAST_VALUE = f"{PAST}_value"


@dataclass(frozen=True)
class Column:
    """Encoded values of a feature: one row an event, or one row a place of the catalogue (`entity` says of which); of a
    feature of earlier events those of its sequence, padded (see `Events.pad`).

    Args:
        derived: what it is of the timestamp: "hour", "weekday"; what says the worth of an event: "rating", "label"; ""
            for a column of the tables.
        told: of a feature of earlier events, the column that tells it of each: of the catalogue, or derived. None where
            interactions say it of each event anew. Where events have several values of it, `values` are not these, but
            their places in `told`, once an event, however many values there are.
    """

    values: Array
    entity: str = ""
    derived: str = ""
    told: Column | None = None


@dataclass(frozen=True)
class Samples:
    """Rows to train or test on, in event order within a user. `kar_aug.data.prepared` keeps them in a folder.

    Args:
        features: what a model reads, in order.
        rows: of each sample, its place among the events.
        label, weight, part, group: of each sample; `part` is a place in `PARTS`, and `group` is what GAUC is
            computed within.
        drawn: of each sample, whether it is a negative that was drawn.
        vocabulary: entity -> ids; the id at place i stands as integer i in `places`. Place 0 is None.
        places: entity -> per event its place in the vocabulary.
        columns: feature -> its values.
        timestamps: of the events, in seconds.
        sequences: name -> the events before each event.
        encodings: feature -> what it was encoded with.
        versions: entity -> per event the number of what was known of the entity by then, which stands in the key
            instead of its place; of those of which there is more than one (see `kar_aug.compare.versions`).
    """

    features: tuple[Feature, ...]
    rows: Positions
    label: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    part: npt.NDArray[np.int8]
    group: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.bool_]
    vocabulary: Mapping[str, list[int | str | None]]
    places: Mapping[str, npt.NDArray[np.int32]]
    columns: Mapping[str, Column]
    timestamps: npt.NDArray[np.float64]
    sequences: Mapping[str, Events]
    encodings: Mapping[str, Encoding]
    versions: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def keys(self) -> tuple[Feature, ...]:
        """The further inputs, for knowledge: "user", "item", and the earlier items, by which it is looked up:
        "hist_item", as many as there are of other features, and "past_item", more of them, with "past_value", what each
        was worth to the user.
        """
        sizes = {entity: len(self.columns[f"{entity}_id"].values) for entity in ENTITIES}
        known = {entity: int(codes.max(initial=0)) + 1 for entity, codes in self.versions.items()}
        sizes |= known
        found = [Feature(entity, size, is_key=True) for entity, size in sizes.items()]
        for name in (HIST, PAST):
            if events := self.sequences.get(name):
                found.append(Feature(f"{name}_item", sizes["item"], events.length, sequence=name, is_key=True))
        if PAST in self.sequences:
            length = self.sequences[PAST].length
            found.append(Feature(PAST_VALUE, 0, length, sequence=PAST, is_key=True))
        return tuple(found)

    def of(self, part: str) -> Positions:
        """Which samples are of a part."""
        return np.flatnonzero(self.part == PARTS.index(part))

    def read(self, samples: Positions, names: Collection[str] | None = None) -> dict[str, Array]:
        """The inputs of some samples, by feature and key: (samples,), (samples, length), or (samples, length, values)
        each.

        Args:
            names: those that are asked for; all by default.
        """
        rows = self.rows[samples]
        asked = [each for each in (*self.features, *self.keys) if names is None or each.name in names]
        windows = {name: self.sequences[name].before(rows) for name in {each.sequence for each in asked} - {""}}
        filled = _empty(len(rows), {each.name: (each.shape, _kind(each)) for each in asked if each.sequence})
        for feature in asked:
            if feature.sequence:
                window = windows[feature.sequence]
                values = self._before(feature, rows, window)
                there = window.there if feature.values == 1 else window.there[..., np.newaxis]
                np.multiply(values, there, out=filled[feature.name])  # 0 is what is missing
        return {each.name: filled[each.name] if each.sequence else self._of(each, rows) for each in asked}

    def shape(self, feature: Feature | None = None) -> list[int | None]:
        """Of a feature as it is read, None for the samples; of the labels if None."""
        return [None] if feature is None else [None, *feature.shape]

    def labels(self, samples: Positions) -> tuple[Array, Array]:
        """Labels and weights of some samples, (samples,) each."""
        return self.label[samples], self.weight[samples]

    def batches(self, samples: Positions, size: int, names: Collection[str]) -> Iterator[dict[str, Array]]:
        """Inputs of samples in their order, `size` at a time."""
        for start in range(0, len(samples), size):
            yield self.read(samples[start : start + size], names)

    def known(self, entity: str, samples: Positions) -> npt.NDArray[np.bool_]:
        """Of each of some samples, whether the training part has its user or item."""
        codes = self.columns[f"{entity}_id"].values
        return np.asarray(codes[self.places[entity][self.rows[samples]]] >= FIRST)

    def events_before(self, samples: Positions) -> Positions:
        """Of each of some samples, how many events a model could read of."""
        events = self.sequences.get(HIST)
        return np.zeros(len(samples), np.int64) if events is None else events.counts(self.rows[samples])

    def let_go(self) -> None:
        """Of mapped files: tell the system that what was read of them may go. What is read next is as it was."""
        told = (column.told.values for column in self.columns.values() if column.told is not None)
        values = (column.values for column in self.columns.values())
        of_events = (part for events in self.sequences.values() for part in (events.kept, events.first, events.stop))
        of_samples = (self.rows, self.label, self.weight, self.part, self.group, self.drawn, self.timestamps)
        for array in (*values, *told, *of_events, *of_samples, *self.places.values(), *self.versions.values()):
            let_go(array)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over everything that a model can read."""
        arrays: list[Array] = [self.columns[name].values for name in sorted(self.columns)]
        for events in self.sequences.values():
            arrays += [events.kept, events.first, events.stop]
        arrays += [self.rows, self.label, self.weight, self.timestamps, self.group, *self.places.values()]
        told = [self.columns[feature.name].told for feature in self.features if feature.values > 1]
        arrays += [column.values for column in told if column is not None]
        described = repr((self.features, self.keys))
        # Of samples without lists of events it is what it was before there were any: what was trained stays found.
        digest = hashlib.sha256(described.replace(f", values={Feature.values})", ")").encode())
        for values in arrays:
            digest.update(np.ascontiguousarray(values).data)
            let_go(values)
        for start in range(0, len(self), _HASHED_ROWS):
            names = np.asarray(PARTS, object)[self.part[start : start + _HASHED_ROWS]]
            digest.update("".join(names).encode())
        return digest.hexdigest()[:16]

    def _of(self, feature: Feature, rows: Positions) -> Array:
        """A feature of the samples themselves."""
        if feature.is_key:
            return self.versions.get(feature.name, self.places[feature.name])[rows]
        column = self.columns[feature.name]
        return column.values[self.places[column.entity][rows] if column.entity else rows]

    def _before(self, feature: Feature, rows: Positions, window: Window) -> Array:
        """A feature of the events before some rows; anything where there are fewer."""
        column = self.columns[feature.name]
        values = window.unmasked(column.values)
        if feature.values > 1 and column.told is not None:
            return np.take(column.told.values[:, : feature.values], values, axis=0)
        if feature.name != f"{feature.sequence}_{SINCE}":
            return values
        return since_code(np.subtract(self.timestamps[rows][:, np.newaxis], values, out=values))


def since_code(seconds: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int32]:
    """How long ago, in powers of two of a minute: 2 for the same minute, 3 up to two, ..."""
    powers = np.maximum(seconds, 0, dtype=np.float32)  # one array for all that follows: this is most of a batch's time
    powers /= _SINCE_UNIT
    powers += 1
    np.log2(powers, out=powers)
    codes = np.minimum(powers, _SINCE_MOST, out=powers).astype(np.int32)
    codes += FIRST
    return codes


def _kind(feature: Feature) -> Any:
    return np.float32 if feature.is_number else np.int32


def _empty(rows: int, wanted: Mapping[str, tuple[tuple[int, ...], Any]]) -> dict[str, Array]:
    """Arrays of so many rows, each row of these shapes and types, to be filled, in one piece of memory.

    The system gives a piece of so many megabytes in large pages, and the C library keeps it for the next batch; of many
    smaller ones it gives each back at once, and to get all their pages anew takes as long as to fill them. Each begins
    where TensorFlow takes an array as it is, without a copy.
    """
    sizes = {name: rows * prod(shape) * np.dtype(kind).itemsize for name, (shape, kind) in wanted.items()}
    piece = np.empty(sum(-(-size // _ALIGNED) * _ALIGNED for size in sizes.values()) + _ALIGNED, np.uint8)
    place, found = -piece.ctypes.data % _ALIGNED, {}
    for name, (shape, kind) in wanted.items():
        found[name] = piece[place : place + sizes[name]].view(kind).reshape(rows, *shape)
        place += -(-sizes[name] // _ALIGNED) * _ALIGNED
    return found
