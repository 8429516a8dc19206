"""What prompts may show of a column: what says something in words, and nothing that was counted over the log."""

from __future__ import annotations

from collections.abc import Mapping

from kar_aug.data.guessing.features import COUNTED, MEAN_RATINGS, RESERVED, Use
from kar_aug.data.guessing.seen import Seen
from kar_aug.data.guessing.words import IDS, LATER, OF_THINGS, TEXTS, says, says_outcome, words

_MEASURES = {
    "price", "year", "age", "born", "pages", "length", "size", "duration", "runtime", "minutes", "income", "salary",
    "wage", "cost", "fee", "budget", "weight", "height", "rooms", "bedrooms", "servings", "calories", "players",
}  # fmt: skip
_SHORT = 60  # characters on average: what is told of each event of a history
_MOST, _MOST_IN_A_HISTORY = 12, 5
_CERTAIN = {"verified"}  # that a purchase was real says nothing of a taste


def fields(columns: Mapping[str, Seen], uses: Mapping[str, Use]) -> list[str]:
    """Columns of users or items that a prompt may show, in their order."""
    return [name for name, seen in columns.items() if name in uses and _speaks(seen, uses[name])][:_MOST]


def short(columns: Mapping[str, Seen]) -> list[str]:
    """Those of them that can be told of each event."""
    return [name for name, seen in columns.items() if _is_short(seen)][:_MOST_IN_A_HISTORY]


def of_events(columns: Mapping[str, Seen], uses: Mapping[str, Use]) -> list[str]:
    """Columns of the interactions that tell of an earlier event: a review, a quantity, how long was read."""
    return [name for name, seen in columns.items() if name in uses and _tells(seen)]


def _speaks(seen: Seen, use: Use) -> bool:
    told = words(seen.name)
    if seen.kind in ("empty", "unreadable", "boolean") or seen.is_address or use.why == COUNTED:
        return False
    if not told or seen.name in RESERVED or (told[-1] in IDS - {"code", "number"}):
        return False
    if seen.distinct < 2:
        return False
    if seen.kind == "time":
        return says(seen.name, OF_THINGS - {"end", "last", "expire"})
    if seen.kind in ("integer", "number"):
        return says(seen.name, _MEASURES) and not says(seen.name, MEAN_RATINGS)
    return True


def _tells(seen: Seen) -> bool:
    told = set(words(seen.name))
    if seen.kind in ("empty", "unreadable", "list", "time") or seen.distinct < 2 or told & (LATER | _CERTAIN):
        return False
    if seen.kind == "text":
        return bool(told & TEXTS)
    return says_outcome(seen.name)


def _is_short(seen: Seen) -> bool:
    long = seen.kind == "time" or says(seen.name, TEXTS - {"title", "headline"})
    return not long and _length(seen) <= _SHORT


def _length(seen: Seen) -> float:
    """Characters of a cell on average, in which lists may have several values."""
    return seen.length * max(1.0, seen.counts.sum() / max(1, len(seen.there)))
