"""What the CTR model reads: nothing in it may know the sample's own label, or what came after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.audit import statistics
from kar_aug.audit.findings import Check, Finding, found
from kar_aug.audit.split import samples_of
from kar_aug.data.building import told_codes
from kar_aug.data.encodings import FIRST, Buckets, Scale
from kar_aug.data.features import HIST, PAST
from kar_aug.data.room import MEMORY, Room, among, blocks, different
from kar_aug.data.samples import ENTITIES, Column, Samples
from kar_aug.data.split import PARTS, distinct, is_sample, part_codes

_IDS = ("user_id", "item_id")
_FEWEST_ROWS = 20  # of fewer, a column may give the label away by chance
_READ_ROWS = 65_536
_SPREAD_ROWS = 100_000
_EXACT = 1e-3  # float32 sums
Places = npt.NDArray[np.int64]


def samples_are_the_split(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether each sample stands in the part that the split says, and none is history."""
    passed = count = 0
    for rows in samples_of(split):
        same = slice(passed, passed + len(rows))
        part, label = part_codes(rows["part"]), rows["label"].to_numpy(np.float32)
        if passed + len(rows) <= len(samples):
            count += int(((samples.part[same] != part) | (samples.label[same] != label)).sum())
        passed += len(rows)
    if passed != len(samples):
        count = abs(passed - len(samples))
    leak = Finding("part", count, f"{count:,} samples are not those of the split: other rows, parts or labels.")
    return Check("samples are the split's", len(samples), "samples", found(leak))


def earlier_events(samples: Samples, split: pd.DataFrame, room: Room = MEMORY) -> Check:
    """Whether all that a model reads of earlier events is of the user, and happened strictly before the sample.

    Of "past", which is as long as histories are, 100,000 samples are looked at, evenly spread.
    """
    name = "earlier events are earlier"
    rows = room.true(is_sample(split, room))
    spread = {HIST: 1, PAST: max(1, len(samples) // _SPREAD_ROWS)}
    keys = {f"{sequence}_item": step for sequence, step in spread.items() if sequence in samples.sequences}
    if not keys or len(rows) != len(samples):
        return Check(name, 0, "samples")
    places = {entity: pd.Index(samples.vocabulary[entity][1:]) for entity in ENTITIES}
    bad, example = 0, ""
    for block in room.blocks_of_users(distinct(split["user_id"], room)[1]):
        first, stop = np.searchsorted(rows, [block.start, block.stop])
        wrong = _late(samples, keys, places, split.iloc[block], np.arange(first, stop), rows[first:stop] - block.start)
        bad += len(wrong)
        if len(wrong) and not example:
            user = samples.vocabulary["user"][samples.places["user"][samples.rows[wrong[0]]]]
            example = f"a sample of user {user!r} in {PARTS[samples.part[wrong[0]]]}"
        samples.let_go()
        room.let_go()
    text = f"{bad:,} samples read of events that did not happen to their user before them."
    return Check(name, len(samples), "samples", found(Finding("history", bad, text, example)))


def _late(
    samples: Samples,
    keys: Mapping[str, int],
    places: Mapping[str, pd.Index],
    events: pd.DataFrame,
    wanted: Places,
    rows: Places,
) -> Places:
    """Those of some samples that read what was not yet, or happened to somebody else.

    Args:
        keys: inputs of earlier items, each of every so many samples.
        places: of ids in the vocabularies.
        events: all events of their users.
        rows: the place of each sample among these events.
    """
    items = len(samples.vocabulary["item"])
    first = _first_events(places, events, items)
    moment, users = events["moment"].to_numpy()[rows], samples.places["user"][samples.rows[wanted]].astype(np.int64)
    late = np.zeros(len(wanted), bool)
    for key, step in keys.items():
        for start in range(0, len(wanted), _READ_ROWS * step):
            some = np.arange(start, min(start + _READ_ROWS * step, len(wanted)), step)
            read = samples.read(wanted[some], {key})[key]
            late[some] |= _wrong(first, items, users[some], moment[some], read)
    return wanted[late]


def _wrong(
    first: tuple[Places, Places], items: int, users: Places, moments: Places, read: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    """Which samples read of an event that had not happened to their user. Where none reads anything wrong, most need no
    look: what the user's sample before read was right there, and is right later.

    Args:
        first: what `_first_events` returned.
        users, moments: of each sample.
        read: places of the earlier items, (samples, length); 0 is none.
    """
    wrong, there = np.zeros(len(read), bool), read > 0
    for looked_at in (there & ~_read_before(users, moments, read), there):
        rows = np.nonzero(looked_at)[0]
        happened = _look_up(first, users[rows] * items + read[looked_at])
        late = (happened < 0) | (happened >= moments[rows])
        if not late.any():
            return wrong
    wrong[rows[late]] = True
    return wrong


def _read_before(users: Places, moments: Places, read: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Of all that is read, what the sample above, of the same user and no later, read too, there or one place on."""
    known = np.zeros(read.shape, bool)
    known[1:] = read[1:] == read[:-1]
    known[1:, :-1] |= read[1:, :-1] == read[:-1, 1:]
    known[1:] &= ((users[1:] == users[:-1]) & (moments[1:] >= moments[:-1]))[:, np.newaxis]
    return known


def _first_events(places: Mapping[str, pd.Index], events: pd.DataFrame, items: int) -> tuple[Places, Places]:
    """(sorted user * items + item, moment of the user's first event with it), of events that are no drawn negatives."""
    happened = events[~events["drawn"].to_numpy(bool)] if "drawn" in events else events
    user, item = (places[e].get_indexer(pd.Index(happened[f"{e}_id"])) + 1 for e in ENTITIES)
    pairs = pd.Series(happened["moment"].to_numpy()).groupby(user.astype(np.int64) * items + item).min()
    return pairs.index.to_numpy(np.int64), pairs.to_numpy(np.int64)


def _look_up(table: tuple[Places, Places], keys: Places) -> Places:
    known, values = table
    if not len(known):
        return np.full(len(keys), -1)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, values[places], -1)


def labels(samples: Samples) -> Check:
    """Whether no feature gives the label away: each of its values with one label only."""
    features = [f for f in samples.features if f.length is None and f.name not in _IDS]
    findings = [
        Finding("label", 1, f"The feature {feature.name!r} gives the label away: each value has one label.")
        for feature in features
        if _tells_label(samples, feature.name)
    ]
    return Check("no feature gives the label away", len(features), "features", found(*findings))


def _tells_label(samples: Samples, name: str) -> bool:
    """Whether each value of a feature has one label. That it has not is seen after few of the samples."""
    counts = pd.DataFrame()
    for block in blocks(len(samples)):
        rows = np.arange(block.start, block.stop)
        values, label = samples.read(rows, {name})[name], pd.Series(samples.label[block])
        more = label.groupby(values).agg(shown="size", clicked="sum")
        counts = pd.concat([counts, more]).groupby(level=0).sum()
        if not ((counts["clicked"] == 0) | (counts["clicked"] == counts["shown"])).all():
            return False
    clicked = counts["clicked"].sum()
    return len(samples) >= _FEWEST_ROWS and _repeats(counts["shown"]) and 0 < clicked < len(samples)


def _repeats(shown: pd.Series) -> bool:
    """Whether values come again: of numbers that are all different each has one label, and tells nothing."""
    return bool(len(shown) < shown.sum() / 2)


def fitted_on_training(samples: Samples, split: pd.DataFrame, room: Room = MEMORY) -> Check:
    """Whether no vocabulary has a value, and no scale a bound, that the training part does not show."""
    training = _Training.of(split, room)
    findings = []
    fitted: dict[int, str] = {}  # by encoding: events share that of a feature, which stands before
    for name, encoding in samples.encodings.items():
        if fitted.setdefault(id(encoding), name) != name:
            continue
        if isinstance(encoding, Scale):
            fault = _off_scale(_Spread.of(samples, name, training), encoding)
        else:
            seen = np.zeros(encoding.size, bool)
            for codes in _shown(samples, name, training):
                seen[codes] = True
            lacking = encoding.size - FIRST - int(seen[FIRST:].sum())
            fault = lacking > 0 and not (isinstance(encoding, Buckets) and lacking <= 1)
        samples.let_go()
        if fault:
            findings.append(Finding("fitted", 1, f"The feature {name!r} was fitted on more than the training part."))
    return Check("vocabularies and scales are the training part's", len(fitted), "features", found(*findings))


class _Training(NamedTuple):
    """Which events of a split are of the training part, or of its users' histories."""

    split: pd.DataFrame
    rows: npt.NDArray[np.bool_]
    room: Room

    @classmethod
    def of(cls, split: pd.DataFrame, room: Room) -> _Training:
        part, user = split["part"], split["user_id"]
        are_theirs = among(
            different(user.iloc[block][part.iloc[block] == "train"] for block in room.blocks(len(split)))
        )

        def trained(block: slice) -> pd.Series:
            own = part.iloc[block]
            return (own == "train") | ((own == "history") & are_theirs(user.iloc[block]))

        return cls(split, room.filled(len(split), bool, trained), room)


def _shown(samples: Samples, name: str, training: _Training) -> Iterator[npt.NDArray[Any]]:
    """Values of a feature in the training part, some at a time: one an event, or one a user or item that it has."""
    split, trained, room = training
    column = samples.columns[name]
    feature = next((each for each in (*samples.features, *samples.keys) if each.name == name), None)
    if feature is not None and feature.sequence:
        told, encoding = name.removeprefix(f"{feature.sequence}_"), samples.encodings[name]
        if told in split and not isinstance(encoding, Scale):  # of all events: a sequence may have some alone
            codes = told_codes(split[told], encoding, room, feature.values)
            yield from (codes[block][trained[block]] for block in room.blocks(len(codes)))
            return
        if column.told is not None and feature.values > 1:  # there are places of them alone
            seen = _seen(samples, column.told, training)
            yield column.told.values[seen, : feature.values]
            return
        kept = samples.sequences[feature.sequence].kept
        yield from (column.values[block][trained[kept[block]]] for block in room.blocks(len(kept)))
    elif column.entity:
        yield column.values[_seen(samples, column, training)]
    else:
        yield from (column.values[block][trained[block]] for block in room.blocks(len(trained)))


def _seen(samples: Samples, column: Column, training: _Training) -> npt.NDArray[np.bool_]:
    """Which rows of a column of the catalogue the training part shows."""
    places, seen = samples.places[column.entity], np.zeros(len(column.values), bool)
    for block in training.room.blocks(len(places)):
        seen[places[block][training.rows[block]]] = True
    return seen


class _Spread(NamedTuple):
    """How numbers spread."""

    rows: int
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Samples, name: str, training: _Training) -> _Spread:
        """Of a feature's numbers in the training part, those that are not missing."""
        gone = f"{name}_missing"
        parts = []
        flags = _shown(samples, gone, training) if gone in samples.columns else repeat(None)
        for values, missing in zip(_shown(samples, name, training), flags, strict=False):
            known = (values if missing is None else values[missing == 0]).astype(np.float64)
            if len(known):
                parts.append((len(known), known.sum(), (known**2).sum(), known.min(), known.max()))
        if not parts:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        count, total, squares, low, high = (np.asarray(each) for each in zip(*parts, strict=True))
        mean = total.sum() / count.sum()
        deviation = np.sqrt(max(0.0, squares.sum() / count.sum() - mean**2))
        return cls(int(count.sum()), float(mean), float(deviation), float(low.min()), float(high.max()))


def _off_scale(known: _Spread, scale: Scale) -> bool:
    """Whether the training part does not fill its own scale: mean 0 and deviation 1, or 0 to 1."""
    if known.rows < 2 or known.low == known.high:
        return False
    if abs(scale.missing) < _EXACT:  # standard, log: what is missing is read as the mean
        return abs(known.mean) > _EXACT or abs(known.deviation - 1) > _EXACT
    return abs(known.low) > _EXACT or abs(known.high - 1) > _EXACT


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
