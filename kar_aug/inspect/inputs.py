"""What a model reads of a project's data: each feature and where it comes from, the parts, how long histories are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.config import DataConfig
from kar_aug.data.building import DERIVED
from kar_aug.data.cells import flat, text_of, values_of
from kar_aug.data.encodings import FIRST, MISSING, UNKNOWN, Buckets, Scale, numbers_of
from kar_aug.data.features import HIST, Feature
from kar_aug.data.guessing.features import comes_of_clicks, tells_clicks, tells_item
from kar_aug.data.guessing.seen import Seen
from kar_aug.data.inputs import RATING, SINCE
from kar_aug.data.samples import ENTITIES, Samples
from kar_aug.data.split import PARTS, SAMPLE_PARTS, SMALL_CLASS, UNLABELLED
from kar_aug.data.tables import Tables
from kar_aug.data.times import seconds
from kar_aug.pipeline.workspace.data import Data

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
SMALL_ROWS = 1000  # of validation and test: below them an AUC says little
MOSTLY = 0.5
_FIRST = re.compile(r"first (\d+) of a list")
_MOST = 100_000  # samples of a part that shares are counted in, evenly spread
_MISSING_OF = "_missing"  # of a number: whether it is missing
_SHOWN = 24  # characters of an example
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataView(Printed):
    """What a model reads, and of how much.

    Args:
        data: tables, split and samples. Nothing is trained, and TensorFlow is not imported.
    """

    data: Data

    @cached_property
    def features(self) -> pd.DataFrame:
        """A row an input of a model: feature, source (table and column), kind, size (of its vocabulary; 0 of a number),
        mean, sd, min, max (of the training rows' values, in the units of the table), unknown (share of the test rows,
        or of the events that these read, whose value no training row has), missing (likewise, of all rows), examples.
        Of a part with more than 100,000 rows so many are looked at.
        """
        return pd.DataFrame([_row(self.data, feature) for feature in self.data.samples.features])

    @cached_property
    def parts(self) -> pd.DataFrame:
        """A row a part: part, rows, drawn (of them, negatives that were drawn), clicks (their share), users, items,
        first and last (dates).
        """
        split = self.data.split
        return pd.DataFrame(
            [_part(name, rows) for name in (*PARTS, UNLABELLED) if len(rows := split[split["part"] == name])]
        )

    @cached_property
    def histories(self) -> pd.DataFrame:
        """A row a sequence and part: sequence, part, how many events precede a sample as quantiles ("0%" to "100%"),
        and `read`, how many of them a model reads at most.
        """
        samples = self.data.samples
        rows = []
        for name, events in samples.sequences.items():
            for part in SAMPLE_PARTS:
                found = np.quantile(events.counts(samples.rows[samples.of(part)]), QUANTILES)
                quantiles = {f"{share:.0%}": int(value) for share, value in zip(QUANTILES, found, strict=True)}
                rows.append({"sequence": name, "part": part, **quantiles, "read": events.length})
        return pd.DataFrame(rows)

    @cached_property
    def warnings(self) -> list[str]:
        """What may make a comparison worth little, a sentence each."""
        return [*self._of_features(), *self._of_labels(), *self._of_drawn(), *self._of_events(), *self._of_parts()]

    def __str__(self) -> str:
        frames = {"Features": self.features, "Parts": self.parts, "Earlier events": self.histories}
        tables = [f"{title}\n{frame.to_string(index=False)}" for title, frame in frames.items() if len(frame)]
        return "\n\n".join([*tables, *self.warnings])

    def _of_features(self) -> Iterator[str]:
        for row in self.features.to_dict("records"):
            name = row["feature"]
            if _is_constant(row):
                yield f"{name} has one value in training: it tells nothing."
            if row["unknown"] > MOSTLY:
                yield f"{name}: {row['unknown']:.0%} of the test part is unknown to a model."
            if row["missing"] > MOSTLY and row["kind"] != "flag":
                yield f"{name}: {row['missing']:.0%} is missing."
            by_choice = self.data.config.inputs == "kar"
            if (read := _FIRST.fullmatch(row["kind"])) and name.startswith(f"{HIST}_") and not by_choice:
                column = row["source"].split(": ")[-1]
                yield (
                    f"{name}: of more values that an earlier event has in {column}, models read the first {read[1]} "
                    "alone. Put first what tells most, or read more of them: [data] event_values"
                )

    def _of_labels(self) -> Iterator[str]:
        """Columns of an impression that may come of the click which a model is to foresee."""
        samples = self.data.samples
        some = _some(samples, "train")
        for name in self.data.config.context:
            if name in DERIVED:
                continue
            told = Seen(name, _cells(self.data, name, samples.rows[some]))
            if told.kind == "list" or (value := comes_of_clicks(told, samples.label[some] > 0)) is None:
                continue
            yield (
                f"{name}: each of the rows with {value} is a click. If it comes of one, as an order does, a model "
                "reads what it is to foresee: take it out of [data] context, and put it among event_features"
            )

    def _of_drawn(self) -> Iterator[str]:
        """Columns of an impression by which its item is known from those that were drawn beside it: these are given
        what the click has, its price at the time, say.
        """
        samples, split = self.data.samples, self.data.split
        if "drawn" not in split:
            return
        clicked = samples.rows[_some(samples, "train")]
        clicked = clicked[~split["drawn"].to_numpy(bool)[clicked]]
        of_impressions = {*self.data.config.context, *self.data.config.numeric} & set(split.columns)
        for name in sorted(of_impressions & {feature.name for feature in samples.features}):
            told = Seen(name, split[name].iloc[clicked].reset_index(drop=True))
            if tells_item(split["item_id"].iloc[clicked], told):
                yield (
                    f"{name} says much of which item was clicked, and items that were drawn are given what the click "
                    "has: a model tells them apart by it. Take it out of [data] context and numeric; among "
                    "event_features it tells of earlier events"
                )

    def _of_events(self) -> Iterator[str]:
        """That models read the earlier events, clicked or not, and nothing that tells these apart."""
        config, samples, split = self.data.config, self.data.samples, self.data.split
        told = {f.name.removeprefix(f"{HIST}_") for f in samples.features if f.sequence == HIST}
        chosen = config.inputs == "full" and (config.events != "all" or config.sequences)
        if chosen or not told or told & {RATING, "label"}:
            return
        events = np.flatnonzero(~split["drawn"].to_numpy(bool)) if "drawn" in split else np.arange(len(split))
        events = events[_spread(len(events))]
        clicked = split["label"].to_numpy()[events] > 0
        if clicked.all() or not clicked.any():
            return
        cells = {name: split[name].iloc[events].reset_index(drop=True) for name in told if name in split}
        if any(tells_clicks(Seen(name, each), clicked) for name, each in cells.items()):
            return
        yield (
            f"{1 - clicked.mean():.0%} of the earlier events that models read were no clicks, and nothing tells them "
            'from clicks. Say it of each: [data] event_features = ["label", ...]; '
            'events = "clicks" reads these alone'
        )

    def _of_parts(self) -> Iterator[str]:
        for row in self.parts[self.parts["part"].isin(["validation", "test"])].to_dict("records"):
            clicks = round(row["clicks"] * row["rows"])
            if row["rows"] < SMALL_ROWS or min(clicks, row["rows"] - clicks) < SMALL_CLASS:
                yield (
                    f"The {row['part']} part is small: {row['rows']:,} rows, {clicks:,} of them clicks. Below "
                    f"{SMALL_ROWS:,} rows, or {SMALL_CLASS} of either kind, chance decides what comes out."
                )


def _is_constant(row: Mapping[Any, Any]) -> bool:
    """Whether training shows one value: the integers of missing and unknown ones are no values."""
    if row["kind"] in ("flag", "how long ago"):
        return False
    values = row["size"] - FIRST
    return bool(values == 1 and not row["missing"] if row["size"] else row["min"] == row["max"])


def _row(data: Data, feature: Feature) -> dict[str, Any]:
    samples = data.samples
    base = feature.name.removeprefix(f"{feature.sequence}_") if feature.sequence else feature.name
    is_flag = feature.is_number and base.endswith(_MISSING_OF) and base not in samples.encodings
    origin = base.removesuffix(_MISSING_OF) if is_flag else base
    cells = None if is_flag or origin == SINCE else _cells(data, origin, _rows_of(samples, feature))
    is_scaled = isinstance(samples.encodings.get(base), Scale) and not feature.sequence
    told = numbers_of(cells) if is_scaled and cells is not None else None
    return {
        "feature": feature.name,
        "source": _source(data, origin, feature),
        "kind": "flag" if is_flag else _kind(data, feature, base, cells),
        "size": feature.vocabulary_size,
        **_statistics(np.empty(0) if told is None else told[np.isfinite(told)]),
        "unknown": 0.0 if feature.is_number or base == SINCE else _share(samples, feature, ("test",), UNKNOWN),
        "missing": _missing(samples, feature, is_flag=is_flag),
        "examples": "" if cells is None else _examples(cells),
    }


def _rows_of(samples: Samples, feature: Feature) -> Rows:
    """Rows of the split whose cells show what a feature holds: training rows, or events of its sequence."""
    if not feature.sequence:
        return samples.rows[_some(samples, "train")]
    kept = samples.sequences[feature.sequence].kept
    return np.asarray(kept[_spread(len(kept))], np.int64)


def _kind(data: Data, feature: Feature, base: str, cells: pd.Series | None) -> str:
    encoding = data.samples.encodings.get(feature.name)
    if base == SINCE and feature.sequence:
        return "how long ago"
    if isinstance(encoding, Scale):
        return f"number, {data.config.numeric.get(base, 'standard')}"
    if isinstance(encoding, Buckets):
        return "buckets"
    if feature.sequence and cells is not None and _have_more(cells, feature.values):
        return f"first {feature.values} of a list"
    several = feature.values if feature.sequence else feature.length or 1
    return f"list of up to {several}" if several > 1 else "category"


def _have_more(cells: pd.Series, most: int) -> bool:
    """Whether one of the cells holds more than so many values."""
    if pd.api.types.is_numeric_dtype(cells) or pd.api.types.is_datetime64_any_dtype(cells):
        return False
    return any(len(values_of(cell)) > most for cell in cells)


def _source(data: Data, column: str, feature: Feature) -> str:
    """The table and the column, as the file calls it; of earlier events after the name of their sequence."""
    table, ours = _owner(data, column)
    theirs = f"{table}.{_called(data.config, table, ours)}"
    return f"{feature.sequence}: {theirs}" if feature.sequence else theirs


def _owner(data: Data, column: str) -> tuple[str, str]:
    """(table, column) in our names that a feature is made of."""
    samples, tables, split = data.samples, data.feature_tables, data.split
    if column in samples.columns and (entity := samples.columns[column].entity):
        return ("interactions", column) if column in (f"{e}_id" for e in ENTITIES) else (f"{entity}s", column)
    if column in split:
        return "interactions", column
    if column in tables.items:
        return "items", column
    assert column in (*DERIVED, SINCE), column
    return "interactions", "timestamp"


def _called(config: DataConfig, table: str, column: str) -> str:
    own = config.columns.get(table)
    theirs = own.get(column) if isinstance(own, Mapping) else None
    return str(theirs or config.columns.get(column, column))


def _cells(data: Data, column: str, rows: Rows) -> pd.Series:
    """The cells of a column, one each of some rows of the split."""
    table, name = _owner(data, column)
    if table == "interactions":
        if name == "timestamp" and column in DERIVED:
            time = pd.to_datetime(pd.Series(seconds(data.split["timestamp"].iloc[rows])), unit="s")
            return time.dt.hour if column == "hour" else time.dt.day_of_week
        return data.split[name].iloc[rows].reset_index(drop=True)
    entity = table.removesuffix("s")
    frame = _table(data.feature_tables, entity).set_index(f"{entity}_id")[name]
    return frame.reindex(data.split[f"{entity}_id"].to_numpy()[rows]).reset_index(drop=True)


def _table(tables: Tables, entity: str) -> pd.DataFrame:
    return tables.users if entity == "user" else tables.items


def _some(samples: Samples, *parts: str) -> Rows:
    """Samples of some parts, evenly spread where they are very many."""
    found = np.sort(np.concatenate([samples.of(part) for part in parts]))
    return found[_spread(len(found))]


def _spread(rows: int) -> Rows:
    """Places of so many rows, of very many some evenly spread."""
    return np.linspace(0, rows - 1, min(rows, _MOST)).astype(np.int64)


def _share(samples: Samples, feature: Feature, parts: tuple[str, ...], code: int) -> float:
    """Share of rows all of whose values have a code; of a sequence, share of the events that are read."""
    rows = _some(samples, *parts)
    read = samples.read(rows, {feature.name})[feature.name]
    if feature.sequence:
        there = samples.sequences[feature.sequence].before(samples.rows[rows]).there
        read = read[there]
    values = read.reshape(len(read), -1)
    if not len(values):
        return 0.0
    some = (values != MISSING).any(axis=1)
    if code == MISSING:
        return float(1 - some.mean())
    return float((some & ((values == code) | (values == MISSING)).all(axis=1)).mean())


def _missing(samples: Samples, feature: Feature, *, is_flag: bool) -> float:
    if not feature.is_number:
        return _share(samples, feature, SAMPLE_PARTS, MISSING)
    name = feature.name if is_flag else f"{feature.name}{_MISSING_OF}"
    if name not in samples.columns:
        return 0.0
    return float(samples.read(_some(samples, *SAMPLE_PARTS), {name})[name].mean())


def _statistics(numbers: npt.NDArray[np.float64]) -> dict[str, float]:
    if not len(numbers):
        return dict.fromkeys(("mean", "sd", "min", "max"), np.nan)
    found = (numbers.mean(), numbers.std(), numbers.min(), numbers.max())
    return dict(zip(("mean", "sd", "min", "max"), map(float, found), strict=True))


def _examples(cells: pd.Series) -> str:
    """Three of the commonest cells."""
    there = flat(cells).dropna()
    return ", ".join(_cut(value) for value in there.value_counts().index[:3])


def _cut(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else text_of(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _part(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    time = pd.to_datetime(pd.Series(seconds(rows["timestamp"])), unit="s").dt.strftime("%Y-%m-%d")
    return {
        "part": name,
        "rows": len(rows),
        "drawn": int(rows["drawn"].sum()) if "drawn" in rows else 0,
        "clicks": float((rows["label"] > 0).mean()),
        "users": rows["user_id"].nunique(),
        "items": rows["item_id"].nunique(),
        "first": time.min(),
        "last": time.max(),
    }
