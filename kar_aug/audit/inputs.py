"""What the CTR model reads: nothing in it may know the sample's own label, or what came after."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.audit import statistics
from kar_aug.audit.findings import Check, Finding, found
from kar_aug.data.building import told_codes
from kar_aug.data.encodings import FIRST, Buckets, Scale
from kar_aug.data.features import HIST, PAST
from kar_aug.data.samples import Samples
from kar_aug.data.split import PARTS, is_sample, part_codes

_IDS = ("user_id", "item_id")
_FEWEST_ROWS = 20  # of fewer, a column may give the label away by chance
_READ_ROWS = 65_536
_SPREAD_ROWS = 100_000
_EXACT = 1e-3  # float32 sums
Places = npt.NDArray[np.int64]


def samples_are_the_split(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether each sample stands in the part that the split says, and none is history."""
    rows = split[is_sample(split)]
    if len(rows) == len(samples):
        wrong = (samples.part != part_codes(rows["part"])) | (samples.label != rows["label"].to_numpy(np.float32))
        count = int(wrong.sum())
    else:
        count = abs(len(rows) - len(samples))
    leak = Finding("part", count, f"{count:,} samples are not those of the split: other rows, parts or labels.")
    return Check("samples are the split's", len(samples), "samples", found(leak))


def earlier_events(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether all that a model reads of earlier events is of the user, and happened strictly before the sample.

    Of "past", which is as long as histories are, 100,000 samples are looked at, evenly spread.
    """
    name = "earlier events are earlier"
    rows = split[is_sample(split)]
    spread = {HIST: 1, PAST: max(1, len(samples) // _SPREAD_ROWS)}
    steps = {f"{sequence}_item": step for sequence, step in spread.items() if sequence in samples.sequences}
    if not steps or len(rows) != len(samples):
        return Check(name, 0, "samples")
    items = len(samples.vocabulary["item"])
    first = _first_events(samples, split, items)
    moment, users = rows["moment"].to_numpy(np.int64), samples.places["user"][samples.rows].astype(np.int64)
    bad = np.zeros(len(samples), bool)
    for key, step in steps.items():
        for start in range(0, len(samples), _READ_ROWS * step):
            some = np.arange(start, min(start + _READ_ROWS * step, len(samples)), step)
            events = samples.read(some, {key})[key]
            there = events > 0
            happened = _look_up(first, (users[some][:, np.newaxis] * items + events)[there])
            late = np.zeros(events.shape, bool)
            moments = np.broadcast_to(moment[some][:, np.newaxis], events.shape)[there]
            late[there] = (happened < 0) | (happened >= moments)
            bad[some] |= late.any(axis=1)
    place = int(bad.argmax())
    part = PARTS[samples.part[place]]
    leak = Finding(
        "history",
        int(bad.sum()),
        f"{bad.sum():,} samples read of events that did not happen to their user before them.",
        f"a sample of user {samples.vocabulary['user'][users[place]]!r} in {part}" if bad.any() else "",
    )
    return Check(name, len(samples), "samples", found(leak))


def _first_events(samples: Samples, split: pd.DataFrame, items: int) -> tuple[Places, Places]:
    """(sorted user * items + item, moment of the user's first event with it), of events that are no drawn negatives."""
    happened = split[~split["drawn"].to_numpy(bool)] if "drawn" in split else split
    places = [
        happened[f"{e}_id"].map({id: place for place, id in enumerate(samples.vocabulary[e])}).to_numpy(np.int64)
        for e in ("user", "item")
    ]
    pairs = pd.Series(happened["moment"].to_numpy()).groupby(places[0] * items + places[1]).min()
    return pairs.index.to_numpy(np.int64), pairs.to_numpy(np.int64)


def _look_up(table: tuple[Places, Places], keys: Places) -> Places:
    known, values = table
    if not len(known):
        return np.full(len(keys), -1)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, values[places], -1)


def labels(samples: Samples) -> Check:
    """Whether no feature gives the label away: each of its values with one label only."""
    findings = []
    features = [f for f in samples.features if f.length is None and f.name not in _IDS]
    for feature in features:
        read = samples.read(np.arange(len(samples)), {feature.name})[feature.name]
        values = pd.factorize(read)[0]
        shown = np.bincount(values)
        clicked = np.bincount(values, weights=samples.label, minlength=len(shown))
        told = (clicked == 0) | (clicked == shown)
        if len(values) >= _FEWEST_ROWS and _repeats(shown) and told.all() and 0 < clicked.sum() < len(values):
            findings.append(
                Finding("label", 1, f"The feature {feature.name!r} gives the label away: each value has one label.")
            )
    return Check("no feature gives the label away", len(features), "features", found(*findings))


def _repeats(shown: Places) -> bool:
    """Whether values come again: of numbers that are all different each has one label, and tells nothing."""
    return len(shown) < shown.sum() / 2


def fitted_on_training(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether no vocabulary has a value, and no scale a bound, that the training part does not show."""
    part = split["part"].to_numpy()
    users = split.loc[part == "train", "user_id"].unique()
    trained = (part == "train") | ((part == "history") & split["user_id"].isin(users).to_numpy())
    findings = []
    fitted: dict[int, str] = {}  # by encoding: events share that of a feature, which stands before
    for name, encoding in samples.encodings.items():
        if fitted.setdefault(id(encoding), name) != name:
            continue
        shown = _shown(samples, name, trained, split)
        if isinstance(encoding, Scale):
            gone = f"{name}_missing"
            known = shown[_shown(samples, gone, trained, split) == 0] if gone in samples.columns else shown
            fault = _off_scale(known.astype(np.float64), encoding)
        else:
            known = np.unique(shown[shown >= FIRST])
            lacking = encoding.size - FIRST - len(known)
            fault = lacking > 0 and not (isinstance(encoding, Buckets) and lacking <= 1)
        if fault:
            findings.append(Finding("fitted", 1, f"The feature {name!r} was fitted on more than the training part."))
    return Check("vocabularies and scales are the training part's", len(fitted), "features", found(*findings))


def _shown(samples: Samples, name: str, trained: npt.NDArray[np.bool_], split: pd.DataFrame) -> npt.NDArray[Any]:
    """Values of a feature in the training part: one an event, or one a user or item that it has."""
    column = samples.columns[name]
    feature = next((each for each in (*samples.features, *samples.keys) if each.name == name), None)
    if feature is not None and feature.sequence:
        told, encoding = name.removeprefix(f"{feature.sequence}_"), samples.encodings[name]
        if told in split and not isinstance(encoding, Scale):
            return told_codes(split.loc[trained, told], encoding)  # of all events: a sequence may have some alone
        kept = samples.sequences[feature.sequence].kept
        return column.values[: len(kept)][trained[kept]]
    if column.entity:
        return column.values[np.unique(samples.places[column.entity][trained])]
    return column.values[trained]


def _off_scale(known: npt.NDArray[np.float64], scale: Scale) -> bool:
    """Whether the training part does not fill its own scale: mean 0 and deviation 1, or 0 to 1."""
    if len(known) < 2 or not np.ptp(known):
        return False
    if abs(scale.missing) < _EXACT:  # standard, log: what is missing is read as the mean
        return bool(abs(known.mean()) > _EXACT or abs(known.std() - 1) > _EXACT)
    return bool(abs(known.min()) > _EXACT or abs(known.max() - 1) > _EXACT)


def vocabularies(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether ids are numbered as they are sorted: by popularity, their numbers would tell what was clicked later.

    An id that is only in the test part has a number too, so that its knowledge is found; nothing is learnt for it.
    """
    findings: list[Finding] = []
    for entity, vocabulary in samples.vocabulary.items():
        known = [id for id in vocabulary if id is not None]
        if known != sorted(known):
            table = pd.DataFrame({f"{entity}_id": known, "its number": np.arange(len(known))})
            findings += statistics.columns(entity, table, ["its number"], split).leaks
    count = sum(len(vocabulary) - 1 for vocabulary in samples.vocabulary.values())
    return Check("ids are numbered without counting events", count, "ids", found(*findings))
