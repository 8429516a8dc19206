"""What a request says, in raw ids and raw values, as a model of `compare` reads it: inside the exported model.

A request says what is known when a page is made, and not before: who asks, for which items, when, the context, and the
user's latest events. What belongs to a user or an item (features, numbers, the place by which knowledge is looked up)
is kept in the model, by id, for the candidates as for earlier events: a caller who had to send it would need the tables
at hand, and could send what the model was not trained on. An id without a row, or a new one, is read as the samples
have it: features missing, id unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kar_aug._helpers.keras import tf
from kar_aug.data.encodings import UNKNOWN, Buckets, Categories, Encoding
from kar_aug.data.features import HIST, PAST, Feature
from kar_aug.data.inputs import RATING, SINCE, Inputs
from kar_aug.data.lists import SCORE, Lists
from kar_aug.data.samples import ENTITIES, PAST_VALUE, Column, Samples
from kar_aug.layers._ops.portable import is_portable
from kar_aug.layers.list_scores import BEHIND
from kar_aug.models import wide_floats
from kar_aug.models.encoded import HowLongAgo, Known, encoded, latest, of_time
from kar_aug.models.wide_floats import NAN

TIMESTAMP = "timestamp"
SCORES = "scores"  # the output of a model of lists
_ITEMS = "items"
_SUFFIX = "_missing"
_IDS = tuple(f"{entity}_id" for entity in ENTITIES)


@dataclass(frozen=True)
class RawInput:
    """One input of the exported model.

    Args:
        name: of the column.
        dtype: TensorFlow's.
        axis: what stands beside each other in a row, "events", "values" or "items" (of a list); "" for one value a row.
        several: whether each of these has several values, padded too.
        meaning: in words.
        missing: what stands for a missing value, and for padding.
    """

    name: str
    dtype: Any
    axis: str
    meaning: str
    missing: Any
    several: bool = False

    @property
    def shape(self) -> list[str]:
        """What each axis is."""
        return ["rows", *([self.axis] if self.axis else []), *(["values"] if self.several else [])]

    @property
    def spec(self) -> Any:
        """As a signature has it."""
        return tf.TensorSpec([None] * len(self.shape), self.dtype, self.name)

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "name": self.name,
            "dtype": self.dtype.name,
            "shape": self.shape,
            "meaning": self.meaning,
            "missing": "NaN" if self.missing is NAN else self.missing,
        }


class Request:
    """The raw inputs of one call, and what several features ask of them."""

    def __init__(self, raw: Mapping[str, Any], ids: Mapping[str, Known]) -> None:
        self.raw = raw
        self._ids = ids
        self._found: dict[Any, Any] = {}

    def found(self, name: str, entity: str) -> Any:
        """Of raw ids their places in the catalogue: 0 where there is none, -1 where it is unknown."""
        return self._once(name, lambda: self._ids[entity](self.raw[name]))

    def latest(self, sequence: str, length: int) -> Any:
        """Places of the latest events: see `kar_aug.models.encoded.latest`."""
        return self._once((sequence, length), lambda: latest(self.found(f"{sequence}_item_id", "item") != 0, length))

    def _once(self, key: Any, find: Callable[[], Any]) -> Any:
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]


Reader = Callable[[Request], Any]


class Preprocessing:
    """From raw columns to the inputs of a model, in TensorFlow's graph.

    Args:
        samples: what the model was trained on.
        names: of the model's inputs.
        chosen: what of the data the samples are, in words for those who send requests.
        lists: those that a model of lists was trained on; a request holds whole lists then.
    """

    def __init__(
        self, samples: Samples, names: Collection[str], chosen: Inputs | None = None, lists: Lists | None = None
    ) -> None:
        self._samples, self._chosen, self._lists = samples, chosen or Inputs(), lists
        self._asked: dict[str, RawInput] = {}
        self._kept: dict[int, Any] = {}
        self._ids: dict[str, Known] = {}
        self._how_long_ago = HowLongAgo()
        self._read = [feature for feature in (*samples.features, *samples.keys) if feature.name in names]
        self._readers = {feature.name: self._reader_of(feature) for feature in self._read}
        self.encodings = {f.name: samples.encodings[f.name] for f in self._read if f.name in samples.encodings}

    @property
    def inputs(self) -> list[RawInput]:
        """What a request holds: of the sample itself, then of events."""
        return sorted(self._asked.values(), key=lambda asked: asked.axis == "events")

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What comes back of lists, as JSON can hold it; empty for a model of clicks."""
        meaning = "the higher, the further to the front; equal ones stay in the order of before"
        scores = {"name": SCORES, "dtype": "float32", "shape": ["rows", _ITEMS], "meaning": meaning}
        return [] if self._lists is None else [scores]

    @property
    def tracked(self) -> list[Any]:
        """Variables and tables, which a SavedModel is to hold; no tables where ids are looked up without."""
        tables = () if is_portable() else self._tables
        return [*tables, *(each for each in self._kept.values() if not isinstance(each, Known))]

    @property
    def texts(self) -> list[str]:
        """All that are looked up."""
        return [text for table in self._tables for text in table.values if isinstance(text, str)]

    @property
    def _tables(self) -> list[Known]:
        return [*self._ids.values(), *(each for each in self._kept.values() if isinstance(each, Known))]

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The model's inputs, (rows, 1), (rows, length) or (rows, length, values) each.

        Args:
            raw: by name, as `inputs` says. What has one row holds for all rows of the others.
        """
        request = Request({name: wide_floats.taken_in(values) for name, values in raw.items()}, self._ids)
        rows = tf.reduce_max([tf.shape(values)[0] for values in raw.values()])
        found = {name: read(request) for name, read in self._readers.items()}
        wide = {name: values if values.shape.rank > 1 else values[:, tf.newaxis] for name, values in found.items()}
        return {name: tf.broadcast_to(values, [rows, *values.shape[1:]]) for name, values in wide.items()}

    def served(self, raw: Mapping[str, Any], outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A model's outputs as they are returned: of lists the scores of as many items as were asked for, (rows,
        items); those behind what is read have the score of padding, so that a stable sort leaves them there.
        """
        if self._lists is None:
            return outputs
        (scores,) = outputs.values()
        asked = tf.shape(raw[_IDS[1]])[1]
        behind = tf.maximum(asked - self._lists.size, 0)
        return {SCORES: tf.pad(scores, [[0, 0], [0, behind]], constant_values=BEHIND)[:, :asked]}

    # How a feature is read. What it needs of a request is asked for here, once, and not when it is read.

    def _reader_of(self, feature: Feature) -> Reader:
        read = self._reader(feature)
        if self._lists is None or not self._lists.is_of_items(feature):
            return read
        size = self._lists.size
        return lambda request: _of_size(read(request), size)

    def _reader(self, feature: Feature) -> Reader:
        if feature.sequence:
            return self._of_events(feature)
        if feature.is_key:
            return self._place(feature.name)
        column = self._samples.columns[feature.name]
        if column.entity:
            return self._of_entity(f"{column.entity}_id", column, is_id=feature.name in _IDS)
        missing = feature.name.endswith(_SUFFIX) and feature.name not in self._samples.encodings
        name = feature.name.removesuffix(_SUFFIX) if missing else feature.name
        encoding, derived = self._samples.encodings[name], self._samples.columns[name].derived
        if derived:
            cells = self._of_time(self._ask_time(), derived, encoding)
        else:
            axis = _ITEMS if self._lists is not None and name == SCORE else ""
            cells = self._of_column(name, "values" if feature.length else axis, name, encoding)
        if missing:
            return lambda request: tf.cast(~wide_floats.is_finite(cells(request)), tf.float32)
        encode = self._encoded(encoding)
        if feature.length is None:
            return lambda request: encode(cells(request))
        length = feature.length
        return lambda request: _fitted(encode(cells(request)), length)

    def _place(self, entity: str) -> Reader:
        """The key of an entity: 0 where it is not in the catalogue."""
        name = self._ask_id(entity)
        return lambda request: tf.maximum(request.found(name, entity), 0)

    def _of_entity(self, name: str, column: Column, *, is_id: bool, several: int | None = None) -> Reader:
        """A column of the catalogue, by the raw ids of that name; of several values in it so many of the first."""
        entity = column.entity
        if name == f"{entity}_id":
            self._ask_id(entity)
        table = self._table(column)

        def read(request: Request) -> Any:
            found = request.found(name, entity)
            values = tf.gather(table if several is None else table[:, :several], tf.maximum(found, 0))
            return tf.where(found < 0, UNKNOWN, values) if is_id else values

        return read

    def _of_column(self, name: str, axis: str, meaning: str, encoding: Encoding, *, several: bool = False) -> Reader:
        """Raw values as a request holds them."""
        encode = self._encoded(encoding)
        self._ask(RawInput(name, encode.dtype, axis, f"{meaning}: {_kind(encoding)}", encode.missing, several))
        return lambda request: request.raw[name]

    def _of_time(self, name: str, derived: str, encoding: Encoding) -> Reader:
        dtype = self._encoded(encoding).dtype
        return lambda request: wide_floats.as_dtype(of_time(derived, request.raw[name]), dtype)

    def _of_events(self, feature: Feature) -> Reader:
        """What is told of earlier events: (rows, length), padded with zeros."""
        sequence, length = self._sent(feature.sequence), feature.length or 0
        ids = self._ask_events(sequence)
        if feature.name == PAST_VALUE:
            return self._worth(sequence, length)
        if feature.is_key:
            return _padded(sequence, length, lambda request: tf.maximum(request.found(ids, "item"), 0))
        if feature.name == f"{sequence}_{SINCE}":
            return self._since(sequence, length)
        told, several = self._samples.columns[feature.name].told, feature.values if feature.values > 1 else None
        if told is not None and told.entity == "user":
            of_user = self._of_entity("user_id", told, is_id=False, several=several)
            there = _padded(sequence, length, lambda request: tf.ones_like(request.found(ids, "item")))
            each = (..., tf.newaxis) if several else (...,)
            return lambda request: of_user(request)[:, tf.newaxis] * there(request)[each]
        if told is not None and told.entity:
            return _padded(sequence, length, self._of_entity(ids, told, is_id=feature.name == ids, several=several))
        encoding = self._samples.encodings[feature.name]
        if told is not None:
            cells = self._of_time(self._ask_event_times(sequence), told.derived, encoding)
        else:
            called = feature.name.removeprefix(f"{sequence}_")
            meaning = f"{called} of each" + (f" (of more than {several} values the first are read)" if several else "")
            cells = self._of_column(feature.name, "events", meaning, encoding, several=several is not None)
        encode = self._encoded(encoding)
        if several is None:
            return _padded(sequence, length, lambda request: encode(cells(request)))
        return _padded(sequence, length, lambda request: _fitted(encode(cells(request)), several))

    def _worth(self, sequence: str, length: int) -> Reader:
        """What each event was worth, on the scale of the training part, 0 where nobody says."""
        told_by = self._samples.columns[PAST_VALUE].derived
        called, encode = f"{sequence}_{told_by}", self._encoded(self._samples.encodings[PAST_VALUE])
        click = "1 if it was a click by itself, else 0"
        meaning = (
            f"rating of each: a number; where the log has none, {click}" if told_by == RATING else f"of each, {click}"
        )
        self._ask(RawInput(called, encode.dtype, "events", meaning, encode.missing))

        def read(request: Request) -> Any:
            raw, asked = request.raw[called], self._asked[called].missing
            if asked is NAN:
                return encode(raw)
            # As integers, if they are read as categories too.
            return encode(tf.where(raw == asked, wide_floats.number(NAN), wide_floats.of_integers(raw)))

        return _padded(sequence, length, read)

    def _since(self, sequence: str, length: int) -> Reader:
        now, then = self._ask_time(), self._ask_event_times(sequence)
        # NaN where there is no event: how long ago that was is missing.
        times = _padded(sequence, length, lambda request: request.raw[then], of_times=True)
        return lambda request: self._how_long_ago(
            wide_floats.seconds_between(times(request), request.raw[now][:, tf.newaxis])
        )

    # What a request must hold

    def _ask(self, raw: RawInput) -> str:
        self._asked.setdefault(raw.name, raw)
        return raw.name

    def _ask_id(self, entity: str) -> str:
        ids, meaning = self._known(entity), {"user": "who asks", "item": "what may be shown: the candidate"}[entity]
        axis = ""
        if self._lists is not None and entity == "item":
            axis, most = _ITEMS, self._lists.size
            meaning = f"the list, as it was ordered before; of more than {most} items the first are ordered again"
        return self._ask(RawInput(f"{entity}_id", ids.dtype, axis, meaning, ids.missing))

    def _ask_time(self) -> str:
        return self._ask(RawInput(TIMESTAMP, tf.float64, "", "when: seconds since 1970 (UTC)", NAN))

    def _sent(self, sequence: str) -> str:
        """The sequence that a request sends: all events once, though models read fewer of them than are compared."""
        return HIST if sequence == PAST and self._chosen.events == "all" and self._chosen.history_length else sequence

    def _ask_events(self, sequence: str) -> str:
        length = max(each.length or 0 for each in self._read if each.sequence and self._sent(each.sequence) == sequence)
        if sequence in (HIST, PAST):
            events = "clicks" if sequence == HIST and self._chosen.events == "clicks" else "events"
        else:
            events = f"events where {self._chosen.sequences.get(sequence, sequence)}"
        meaning = f"items of the user's earlier {events}, oldest first; of more than {length} the latest are read"
        ids = self._known("item")
        return self._ask(RawInput(f"{sequence}_item_id", ids.dtype, "events", meaning, ids.missing))

    def _ask_event_times(self, sequence: str) -> str:
        meaning = "when each was: seconds since 1970 (UTC)"
        return self._ask(RawInput(f"{sequence}_{TIMESTAMP}", tf.float64, "events", meaning, NAN))

    # What the model keeps

    def _known(self, entity: str) -> Known:
        """The catalogue of an entity."""
        if entity not in self._ids:
            vocabulary = self._samples.vocabulary[entity]
            self._ids[entity] = Known([id for id in vocabulary if id is not None], 1, -1)
        return self._ids[entity]

    def _table(self, column: Column) -> Any:
        return self._keep(column.values, lambda: tf.Variable(column.values, trainable=False))

    def _encoded(self, encoding: Encoding) -> Any:
        return self._keep(encoding, lambda: encoded(encoding))

    def _keep(self, of: Any, make: Callable[[], Any]) -> Any:
        """One for all features that share it. The samples keep `of` alive, so that no other takes its id."""
        if id(of) not in self._kept:
            self._kept[id(of)] = make()
        return self._kept[id(of)]


def _padded(sequence: str, length: int, read: Reader, *, of_times: bool = False) -> Reader:
    """The latest values of events, (rows, length, ...), of all that a request has: (rows, events, ...). Where there are
    fewer, zeros follow; times that are missing, of times.

    Raises (when a request is read):
        InvalidArgumentError: There are not as many as there are events.
    """

    def pad(request: Request) -> Any:
        values, events = read(request), request.raw[f"{sequence}_item_id"]
        message = f"What is told of events must be of the shape of {sequence}_item_id."
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(values)[:2], tf.shape(events), message)]):
            further = [[0, 0]] * (values.shape.rank - 2)
            padding = wide_floats.number(NAN) if of_times else 0
            padded = tf.pad(values, [[0, 0], [0, 1], *further], constant_values=padding)
        return tf.gather(padded, request.latest(sequence, length), batch_dims=1)

    return pad


def _fitted(values: Any, length: int) -> Any:
    """(rows, ..., length), of any number of values."""
    cut = values[..., :length]
    before = [[0, 0]] * (cut.shape.rank - 1)
    padded = tf.pad(cut, [*before, [0, length - tf.shape(cut)[-1]]])
    padded.set_shape([None] * len(before) + [length])
    return padded


def _of_size(values: Any, size: int) -> Any:
    """(rows, size, ...), of any number of items a row."""
    cut = values[:, :size]
    after = [[0, 0], [0, size - tf.shape(cut)[1]], *[[0, 0]] * (cut.shape.rank - 2)]
    padded = tf.pad(cut, after)
    padded.set_shape([None, size, *cut.shape[2:]])
    return padded


def _kind(encoding: Encoding) -> str:
    if isinstance(encoding, Categories):
        return f"one of {len(encoding.values):,} known values, or another"
    words = "read by quantile buckets" if isinstance(encoding, Buckets) else "put on the scale of the training part"
    return f"a number (a time: its seconds since 1970), {words}"
