"""What a click is: a column of 0 and 1, a rating, a kind of event, or each row."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.guessing.guesses import EACH_ROW, Guessed
from kar_aug.data.guessing.seen import Seen, shown
from kar_aug.data.guessing.words import (
    AGGREGATES,
    CATEGORIES,
    COMPLETIONS,
    CONTEXT,
    LABELS,
    NO,
    OUTCOMES,
    RANKERS,
    RATINGS,
    SKIPS,
    TYPES,
    WANTED,
    YES,
    says,
    words,
)

NEGATIVES = 4
_MOST_KINDS = 12
_MOST_STEPS = 101  # of a scale of ratings
_KNOWN = {word for line in WANTED for word in line}


@dataclass(frozen=True)
class Clicks:
    """What a click is.

    Args:
        settings: that say it.
        clicked: per row of the interactions whether it is one; None where nothing tells.
        scale: the least and the largest rating; 0 and 1 where there is none.
        label, rating, kind: the columns that tell: of 0 and 1; a rating; a kind of event.
        only: whether there is nothing else in the log.
        sequences: name -> an expression that is true of one of several kinds of event.
    """

    settings: list[Guessed]
    clicked: npt.NDArray[np.bool_] | None
    scale: tuple[float, float] = (0, 1)
    label: str | None = None
    rating: str | None = None
    kind: str | None = None
    only: bool = False
    sequences: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_rated(self) -> bool:
        """Whether a rating alone says what a click is."""
        return self.rating is not None and self.label is None and not any(s.name == ("label",) for s in self.settings)

    @property
    def columns(self) -> set[str]:
        """The columns that tell."""
        return {name for name in (self.label, self.rating, self.kind) if name is not None}


def clicks(columns: Mapping[str, Seen], keys: set[str]) -> Clicks:
    """What a click is in the interactions.

    Args:
        keys: columns that are something else: ids and times.
    """
    others = {name: seen for name, seen in columns.items() if name not in keys}
    label = _first(others, LABELS, _is_label)
    rating = _first(others, RATINGS, _is_rating)
    kind = _first(others, TYPES, _is_kind)
    skip = None
    if label is rating is kind is None:
        label = _first(others, COMPLETIONS, _is_label)
        skip = _first(others, SKIPS, is_flag) if label is None else None
    if skip is not None:
        found, label = _by_skip(others[skip]), skip
    elif label is not None:
        found = _by_label(others[label], rating)
    elif rating is not None and not (kind is not None and others[rating].missing):
        found = _by_rating(others[rating])
    elif kind is not None:
        found = _by_kind(others[kind], rating)
    else:
        said = (
            "no column says what was liked: each row is taken for a click. If one does, say so instead, by a column of "
            f"0 and 1 or by an expression over columns ({_example(others)})"
        )
        found = Clicks([Guessed(("label",), EACH_ROW, said)], None, only=True)
    if found.only:
        found.settings.append(
            Guessed(("negatives",), NEGATIVES, f"there are clicks only: {NEGATIVES} items are drawn beside each")
        )
    sequences = _sequences(others[kind]) if kind is not None else {}
    scale = (0.0, 1.0) if rating is None else (others[rating].numbers.min(), others[rating].numbers.max())
    return Clicks(found.settings, found.clicked, scale, label, rating, kind, found.only, sequences)


def _first(columns: Mapping[str, Seen], called: set[str], fits: object) -> str | None:
    """The column that is called so and fits: one of a single word before others."""
    assert callable(fits)
    named = [name for name, seen in columns.items() if says(name, called) and fits(seen)]
    return min(named, key=lambda name: len(words(name)), default=None)


def is_flag(seen: Seen) -> bool:
    """Whether a column of the interactions says yes or no of what its name does not tell: it may be what came of it."""
    return _is_label(seen) and seen.distinct == 2 and not says(seen.name, CONTEXT | CATEGORIES)


def _is_label(seen: Seen) -> bool:
    return _is_yes_or_no(seen) or (seen.kind in ("boolean", "integer", "number") and set(seen.counts.index) <= {0, 1})


def _is_yes_or_no(seen: Seen) -> bool:
    told = {str(value).strip().lower() for value in seen.counts.index} if seen.distinct == 2 else set()
    return seen.kind == "text" and len(told & YES) == len(told & NO) == 1


def _yes(seen: Seen) -> object:
    return next(value for value in seen.counts.index if str(value).strip().lower() in YES)


def _no(seen: Seen) -> object:
    return next(value for value in seen.counts.index if str(value).strip().lower() in NO)


def _example(columns: Mapping[str, Seen]) -> str:
    """What a label could be: a yes, or that somebody stayed longer than half of them did."""
    answer = next((name for name, seen in columns.items() if is_flag(seen)), None)
    if answer is not None:
        seen = columns[answer]
        return f'"{expression(answer, _yes(seen)) if _is_yes_or_no(seen) else _in_expression(answer)}"'
    stayed = _first(columns, OUTCOMES, lambda seen: seen.kind in ("integer", "number") and seen.distinct > _MOST_KINDS)
    if stayed is None:
        return '"dwell > 30"'
    return f'"{_in_expression(stayed)} > {np.median(columns[stayed].numbers):g}", which half of them are'


def _is_rating(seen: Seen) -> bool:
    numeric = seen.kind in ("integer", "number") and 1 < seen.distinct <= _MOST_STEPS
    return numeric and not says(seen.name, AGGREGATES | RANKERS)


def _is_kind(seen: Seen) -> bool:
    values = {str(value).lower() for value in seen.counts.index} if seen.distinct <= _MOST_KINDS else set()
    return seen.kind == "text" and bool(values & _KNOWN or set().union(*map(words, values)) & _KNOWN)


def _by_label(seen: Seen, rating: str | None) -> Clicks:
    if _is_yes_or_no(seen):
        yes = _yes(seen)
        said = f"{seen.name} has 2 values: {seen.shares()}"
        settings = [Guessed(("label",), expression(seen.name, yes), said), *_told(rating)]
        return Clicks(settings, (seen.cells == yes).to_numpy(bool))
    clicked = seen.cells.fillna(0).astype(bool).to_numpy()
    why = f"0 and 1: {clicked.mean():.1%} of the rows are clicks"
    if seen.missing:
        why += f"; {seen.missing:.1%} say neither: they are events of the past, and no samples"
    settings = [*_called("label", seen.name, why)]
    return Clicks([*settings, *_told(rating)], clicked, only=bool(clicked.all()))


def _by_skip(seen: Seen) -> Clicks:
    """Of a column whose yes says what was not liked."""
    no = _no(seen) if _is_yes_or_no(seen) else 0
    told = expression(seen.name, no) if isinstance(no, str) else f"{_in_expression(seen.name)} == 0"
    clicked = (seen.cells == no).fillna(False).to_numpy(bool)
    said = f"{seen.name} has 2 values: {seen.shares()}. Where it says no is a click"
    return Clicks([Guessed(("label",), told, said)], clicked)


def _by_rating(seen: Seen) -> Clicks:
    steps = np.unique(seen.numbers)
    middle = (steps[0] + steps[-1]) / 2
    near = np.abs(steps[:-1] - middle)  # above the last there is none
    above = float(steps[np.flatnonzero(near == near.min())[-1]])
    clicked = pd.to_numeric(seen.cells).to_numpy(float, na_value=np.nan) > above
    scale = f"{len(steps)} values from {steps[0]:g} to {steps[-1]:g}"
    if steps[0] == 0 and len(steps) > 2 and (steps % 1 == 0).all():
        scale += ". Does 0 say that nothing was rated? Then leave these cells empty"
    if seen.missing:
        why = f"{seen.missing:.1%} of the rows have no rating: no clicks, as those up to the middle of the scale"
        return Clicks([*_called("rating", seen.name, scale), Guessed(("label",), f"rating > {above:g}", why)], clicked)
    why = f"the middle of the scale: {clicked.mean():.1%} of the ratings are above it, and count as clicks"
    number = int(above) if above.is_integer() else above
    return Clicks([*_called("rating", seen.name, scale), Guessed(("click_above",), number, why)], clicked)


def _by_kind(seen: Seen, rating: str | None) -> Clicks:
    kind = min(seen.counts.index, key=lambda value: _want(str(value)))
    clicked = (seen.cells == kind).to_numpy(bool)
    why = f"{seen.name} has {seen.distinct} values: {seen.shares()}"
    if seen.distinct > 1:
        why += f". Models are to foresee {shown(kind)}; all other events are no clicks"
    settings = [Guessed(("label",), expression(seen.name, kind), why), *_told(rating)]
    return Clicks(settings, clicked, only=seen.distinct == 1)


def _told(rating: str | None) -> list[Guessed]:
    """A rating that says nothing of the click."""
    if rating is None:
        return []
    return _called("rating", rating, "what models read of earlier events; the label says what a click is")


def _want(kind: str) -> int:
    told = {kind.lower(), *words(kind)}
    return next((place for place, line in enumerate(WANTED) if told & set(line)), len(WANTED))


def _sequences(seen: Seen) -> dict[str, str]:
    """An expression for each kind of event, where there are several."""
    if seen.distinct < 2:
        return {}
    found: dict[str, str] = {}
    for number, kind in enumerate(seen.counts.index):
        name = re.sub(r"\W+", "_", str(kind).lower(), flags=re.ASCII).strip("_") or f"kind_{number}"
        name = name if name.endswith("s") else f"{name}s"
        found[name if name not in found else f"{name}_{number}"] = expression(seen.name, kind)
    return found


def expression(column: str, value: object) -> str:
    """ "event == 'buy'", as pandas reads it."""
    name, text = _in_expression(column), str(value)
    return f"{name} == '{text}'" if "'" not in text and "\\" not in text else f"{name} == {json.dumps(text)}"


def _in_expression(column: str) -> str:
    return column if column.isidentifier() else f"`{column}`"


def _called(ours: str, theirs: str, why: str) -> list[Guessed]:
    """What a file calls a column of ours, whether it is our name or not: the reason is worth a line."""
    return [Guessed(("columns", ours), theirs, why)]
