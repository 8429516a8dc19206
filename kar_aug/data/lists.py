"""Samples as lists: what one page showed to one user, in the order in which it was ranked before. Padded when read.

A list is all samples of one `impression_id` in one part. What is said once for all of them is read at its first sample,
the earliest: the user, the context, and the events before. Were it read at each, the third item of a synthetic list
would be ranked by a model that had seen how the first two were rated.

| what comes               | what is done                                                                              |
|--------------------------|-------------------------------------------------------------------------------------------|
| no `impression_id`       | no list: the row is read as an earlier event only                                         |
| an item twice in a list  | once, where it stood first; clicked if one of its rows was                                |
| a list of one            | left out of training and metrics: there is nothing to order                               |
| no click in a list       | kept: every metric of it is 0, and of the losses the pointwise one alone learns from it   |
| more items than are read | the first are ranked; the others stay behind them, in their order                         |
| items without an order   | one is drawn, the same each time: the order of a file may know what was clicked           |
| equal scores of a model  | the order of before                                                                       |
| a score that is NaN      | an error: the training has diverged                                                       |
| a part without a list    | an error; and so is a context that differs within a list                                  |
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.config import ID_TYPES
from kar_aug.data.cells import flat
from kar_aug.data.encodings import numbers_of
from kar_aug.data.features import Feature
from kar_aug.data.ids import ids
from kar_aug.data.place import Place
from kar_aug.data.samples import Array, Samples
from kar_aug.data.sequences import Positions
from kar_aug.data.split import PARTS, SAMPLE_PARTS, brought, is_sample, part_codes
from kar_aug.data.types import plain_column
from kar_aug.errors import DataError

# Columns of interactions that make a list, and are no features of anything.
IMPRESSION, POSITION, SCORE = "impression_id", "position", "initial_score"
SCORED = (IMPRESSION, "item_id")  # the keys of a table of scores
# The column of samples that says where each stood in its list: 0, 1, ...
PLACE = "list_place"
_ROWS = 1 << 16  # of some lists together, padded
Numbers = npt.NDArray[np.float32]
_log = logging.getLogger("kar_aug")


class Lists:
    """The lists among some samples, numbered 0, 1, ...

    Args:
        samples: made with `Inputs(lists=...)`.
        most: items of a list that are read.

    Attributes:
        size: to which lists are padded: `most`, or the longest list.
        lengths: of each list.
        singles: lists of one item, which are left out.

    Raises:
        DataError: A part has no list.
    """

    def __init__(self, samples: Samples, most: int) -> None:
        self.samples = samples
        place = samples.columns[PLACE].values[samples.rows]
        listed = np.flatnonzero(samples.group >= 0)
        order = listed[np.lexsort((place[listed], samples.part[listed], samples.group[listed]))]
        group, part = samples.group[order], samples.part[order]
        starts = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (part[1:] != part[:-1])][: len(order)])
        lengths = np.diff(np.r_[starts, len(order)])
        several = lengths > 1
        self.singles = int((~several).sum())
        self._order, self._starts, self.lengths = order, starts[several], lengths[several]
        first = np.minimum.reduceat(order, starts) if len(starts) else order
        self._first, self._part = first[several], part[starts[several]]
        if not len(self):
            raise DataError(f"No two samples have the same {IMPRESSION}: there is no list to be ranked again.")
        for name in SAMPLE_PARTS:
            if not len(self.of(name)):
                remedy = "validation and test smaller" if name == "train" else f"{name} larger"
                raise DataError(
                    f"The {name} part has no list of two items or more; {len(self):,} lists are in other parts. Make "
                    f"[data] {remedy}."
                )
        self.size = int(min(most, self.lengths.max()))

    def __len__(self) -> int:
        return len(self.lengths)

    # What `compare.batches.Batches` asks of what it reads.

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those of the samples."""
        return self.samples.features

    @property
    def keys(self) -> tuple[Feature, ...]:
        """Those of the samples."""
        return self.samples.keys

    def of(self, part: str) -> Positions:
        """Which lists are of a part."""
        return np.flatnonzero(self._part == PARTS.index(part))

    def shape(self, feature: Feature | None = None) -> list[int | None]:
        """Of a feature as it is read; of the labels if None."""
        if feature is None:
            return [None, self.size]
        further = feature.shape
        return [None, self.size, *further] if self.is_of_items(feature) else [None, *further]

    def read(self, lists: Positions, names: Collection[str] | None = None) -> dict[str, Array]:
        """The inputs of some lists: of the items (lists, size) or (lists, size, length), zeros after the last; all
        others as those of one sample.
        """
        wanted = [f.name for f in (*self.features, *self.keys) if names is None or f.name in names]
        of_items = {f.name for f in (*self.features, *self.keys) if self.is_of_items(f)}
        members = self.members(lists, self.size)
        flat = self.samples.read(np.maximum(members, 0).ravel(), of_items & set(wanted))
        once = self.samples.read(self._first[lists], set(wanted) - of_items)
        there = members >= 0
        shaped = {name: values.reshape(*members.shape, *values.shape[1:]) for name, values in flat.items()}
        padded = {n: v * there.reshape(*there.shape, *[1] * (v.ndim - 2)).astype(v.dtype) for n, v in shaped.items()}
        return {name: padded[name] if name in padded else once[name] for name in wanted}

    def let_go(self) -> None:
        """As of the samples: see there."""
        self.samples.let_go()

    def as_samples(self, members: Positions, names: Collection[str]) -> dict[str, Array]:
        """The inputs of the samples of some lists, (lists, length), as a model of clicks reads them: each item with
        what is said at the list's first moment, (lists * length,) or (lists * length, any).
        """
        of_items = {f.name for f in (*self.features, *self.keys) if self.is_of_items(f)} & set(names)
        flat = self.samples.read(np.maximum(members, 0).ravel(), of_items)
        once = self.samples.read(self._first_of(members), set(names) - of_items)
        return flat | {name: np.repeat(values, members.shape[1], axis=0) for name, values in once.items()}

    def _first_of(self, members: Positions) -> Positions:
        """The earliest sample of each list."""
        return np.where(members < 0, len(self.samples), members).min(axis=1)

    def labels(self, lists: Positions) -> tuple[Numbers, Numbers]:
        """(1.0 for a click, else 0.0, and -1.0 after the last item, (lists, size); the lists' weights, (lists,))."""
        return self._labels(self.members(lists, self.size)), self.samples.weight[self._first[lists]]

    # What metrics ask.

    def is_of_items(self, feature: Feature) -> bool:
        """Whether each item of a list has its own; all else is the same for the whole list."""
        if feature.is_key:
            return feature.name == "item"
        column = self.samples.columns[feature.name]
        return not feature.sequence and (column.entity == "item" or feature.name.removesuffix("_missing") == SCORE)

    def members(self, lists: Positions, size: int) -> Positions:
        """The samples of some lists in the order of before, (lists, size), -1 after the last."""
        places = np.arange(size)
        at = self._starts[lists][:, np.newaxis] + places
        there = places < self.lengths[lists][:, np.newaxis]
        return np.where(there, self._order[np.minimum(at, len(self._order) - 1)], -1)

    def blocks(self, part: str, rows: int = _ROWS) -> Iterator[tuple[Positions, Numbers]]:
        """The lists of a part, so many at a time: samples, (lists, longest), and labels, padded with -1.

        Args:
            rows: lists * longest is no more, unless one list is.
        """
        for some in self._some(part, rows):
            members = self.members(some, int(self.lengths[some].max()))
            yield members, self._labels(members)

    def _some(self, part: str, rows: int = _ROWS) -> Iterator[Positions]:
        """Which lists are in each block of a part."""
        of = self.of(part)
        while len(of):
            padded = np.maximum.accumulate(self.lengths[of[:rows]]) * np.arange(1, len(of[:rows]) + 1)
            many = max(1, int((padded <= rows).sum()))
            yield of[:many]
            of = of[many:]

    def by_sample(self, part: str, scores: Numbers) -> Numbers:
        """Scores of the lists of a part, (lists, size), as one for each sample of that part, (samples,): -inf for those
        behind what was read, and NaN for those of no list.

        Raises:
            ValueError: A score of an item is not finite.
        """
        samples, done = self.samples.of(part), 0
        found = np.full(len(self.samples), np.nan, np.float32)
        for some in self._some(part):
            members = self.members(some, int(self.lengths[some].max()))
            found[members[members >= 0]] = -np.inf
            read = members[:, : self.size]
            given = scores[done : done + len(some), : read.shape[1]][read >= 0]
            if not np.isfinite(given).all():
                raise ValueError(f"Scores of the {part} part contain NaN or infinity: the training has diverged.")
            found[read[read >= 0]] = given
            done += len(some)
        return found[samples]

    def _labels(self, members: Positions) -> Numbers:
        return np.where(members >= 0, self.samples.label[np.maximum(members, 0)], np.float32(-1))

    def told(self) -> list[str]:
        """How many lists there are, and what was done with odd ones, in words."""
        found = []
        for part in SAMPLE_PARTS:
            clicked = [(label > 0).any(axis=1) for _, label in self.blocks(part)]
            without = int(sum((~each).sum() for each in clicked))
            found.append(f"{len(self.of(part)):,} of {part}" + (f" ({without:,} without a click)" if without else ""))
        longer = int((self.lengths > self.size).sum())
        further = [f"{self.singles:,} of one item are left out"] if self.singles else []
        further += [f"of {longer:,} the first {self.size} items are ranked"] if longer else []
        return [", ".join(found), *further]


def with_scores(split: pd.DataFrame, scores: pd.DataFrame, where: str) -> pd.DataFrame:
    """The split with the `initial_score` of a table of impression_id, item_id and initial_score. What is not in it is
    behind all that is; how much that is, is said.

    Args:
        scores: its ids may be text where those of the split are integers, as in a file without types.
        where: the table lies, for messages.

    Raises:
        DataError: A column is not there, an id is not what those of the split are, or nothing in it is of these lists.
    """
    keys = [*SCORED]
    for column in (*keys, SCORE):
        if column not in scores:
            raise DataError(f"[data] initial_scores: {where} has no column {column!r}.", column=column)
    own = {key: ids(plain_column(split[key], Place("interactions", key)), Place("interactions", key)) for key in keys}
    theirs = {key: _like(own[key], scores[key], Place(where, key)) for key in keys}
    known = pd.Series(numbers_of(scores[SCORE])).groupby([theirs[key].map(str).to_numpy() for key in keys]).first()
    wanted = pd.MultiIndex.from_arrays([own[key].map(str) for key in keys])
    found = np.where(split[IMPRESSION].notna(), known.reindex(wanted).to_numpy(np.float64), np.nan)
    if not np.isfinite(found).any():
        raise DataError(
            f"[data] initial_scores: {where} holds no item of these lists. It is made for one seed and one log: make "
            "it again (Project.list_scores).",
            column=SCORE,
        )
    share = np.isfinite(found[is_sample(split) & split[IMPRESSION].notna().to_numpy()]).mean()
    if share < 1:
        _log.warning("%s scores %.1f%% of the items in lists. All others stand behind these.", where, 100 * share)
    return split.assign(**{SCORE: found})


def _like(own: pd.Series, column: pd.Series, place: Place) -> pd.Series:
    """A column of ids as `own` has them, integers or strings."""
    kind = pd.api.types.infer_dtype(own, skipna=True)
    return ids(plain_column(column, place), place, kind if kind in ID_TYPES else None)


def check_said_once(samples: Samples) -> None:
    """What is read once for a list must be the same for all of its items: also, lest it point at one of them.

    Raises:
        DataError: A context or number of interactions differs within a list.
    """
    listed = np.flatnonzero(samples.group >= 0)
    _, first, of = np.unique(
        samples.group[listed] * len(PARTS) + samples.part[listed], return_index=True, return_inverse=True
    )
    for feature in samples.features:
        column = samples.columns[feature.name]
        name = feature.name if feature.name in samples.encodings else feature.name.removesuffix("_missing")
        if feature.sequence or column.entity or column.derived or name == SCORE:
            continue
        values = column.values[samples.rows[listed]]
        differ = (values != values[first[of.ravel()]]).reshape(len(listed), -1).any(axis=1)
        if differ.any():
            raise DataError(
                f"[data] lists: {name!r} of interactions differs within {len(np.unique(of.ravel()[differ])):,} of "
                f"{len(first):,} lists, and is read once for a list, at its first moment: it would be that of one item "
                "for all. Leave it out of context and numeric; what is of an item goes into items (or item_columns).",
                table="interactions",
                column=name,
            )


def impressions(split: pd.DataFrame) -> pd.DataFrame:
    """The split, whose impressions are lists, each item in them once.

    An item that a list's rows name twice is ranked once, where it stood first, and was clicked if one of its rows was:
    a log may have a row for what was shown and another for the click.

    Raises:
        DataError: No row says which impression it is of, or one impression is of two users.
    """
    if IMPRESSION not in split:
        raise DataError(
            f"[data] lists: interactions have no column {IMPRESSION!r}, which says what was shown together. They have: "
            f'{brought(split)}. Of a log without lists some can be made: lists = "kar"',
            table="interactions",
            column=IMPRESSION,
        )
    split = split.assign(**{IMPRESSION: _ids_of_lists(split[IMPRESSION])})
    users = split.loc[is_sample(split)].groupby(IMPRESSION)["user_id"].nunique()
    if (users > 1).any():
        several = pd.Series(users.index[users > 1][:1]).tolist()[0]
        raise DataError(
            f"[data] lists: {IMPRESSION} {several!r} is of {users.max()} users. Give each list an id of its own: the "
            "user's and the impression's together, where impressions are numbered a user.",
            table="interactions",
            column=IMPRESSION,
        )
    split = _each_once(split)
    _name_cut(split)
    return split


def _ids_of_lists(column: pd.Series) -> pd.Series:
    """A column of ids of lists; an empty text is none.

    Raises:
        DataError: They are structs.
    """
    if pd.api.types.is_numeric_dtype(column):
        return column
    column = flat(column)
    empty = column == ""
    return column.mask(empty) if empty.any() else column


def _each_once(split: pd.DataFrame) -> pd.DataFrame:
    """The split without further rows of an item in its list, be it a sample's or one of the history."""
    # Of the history too: what was met there once is one event of those that came later.
    rows = np.flatnonzero((part_codes(split["part"]) >= 0) & split[IMPRESSION].notna().to_numpy())
    listed = split.iloc[rows]
    keys = [IMPRESSION, "item_id"]
    if not listed.duplicated(keys).any():
        return split
    place = places_in_lists(listed, np.asarray(pd.factorize(listed[IMPRESSION])[0], np.int64))
    codes = [np.asarray(pd.factorize(listed[key])[0], np.int64) for key in keys]
    first = np.lexsort([np.asarray(place, np.int64), *codes])
    further = listed.iloc[first].duplicated(keys).to_numpy()
    label = split["label"].to_numpy(copy=True)
    label[rows] = listed.groupby(keys, sort=False)["label"].transform("max").to_numpy()
    _log.warning(
        "[data] lists: %s rows name an item that stands in their list already. It is ranked once, where it stood "
        "first, and was clicked if one of its rows says so.",
        f"{further.sum():,}",
    )
    kept = np.ones(len(split), bool)
    kept[rows[first[further]]] = False
    return split.assign(label=label)[kept].reset_index(drop=True)


def _name_cut(split: pd.DataFrame) -> None:
    """Say how many lists the split has cut, for the rows of each have several times."""
    listed = split[IMPRESSION].notna().to_numpy() & (part_codes(split["part"]) >= 0)
    parts = pd.Series(part_codes(split["part"])[listed]).groupby(split[IMPRESSION].to_numpy()[listed])
    cut = int((parts.max() != parts.min()).sum())
    if cut:
        _log.warning(
            "[data] lists: %s of %s lists are cut in two by the split, as their rows have different times. Each piece "
            "is a list of its own then, often without what was clicked. Give all rows of a list the time of its page.",
            f"{cut:,}",
            f"{parts.ngroups:,}",
        )


def places_in_lists(split: pd.DataFrame, group: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Of each row where it stands in its list, 0, 1, ...: by `initial_score`, from the highest; equal ones, and those
    of a log without scores, by `position`; all others as drawn. 0 for rows of no list.
    """
    drawn = np.random.default_rng(17).random(len(split))
    keys: list[Any] = [drawn]
    if POSITION in split:
        keys.append(_known(numbers_of(split[POSITION])))
    if SCORE in split:
        keys.append(_known(-numbers_of(split[SCORE])))
    order = np.lexsort((*keys, group))
    sorted_groups = group[order]
    new = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]][: len(order)]
    starts = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    places = np.empty(len(order), np.int32)
    places[order] = np.arange(len(order)) - starts
    return np.where(group >= 0, places, np.int32(0))


def _known(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values, those that are missing beyond all."""
    return np.where(np.isnan(values), np.inf, values)
