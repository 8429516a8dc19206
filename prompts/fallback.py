"""Texts about users whom the language model is not asked about, because they have little or no history: at no cost.

profile    what the users table says of the user
average    what the users of this service like most: the same for all; what is said of a user without a profile, too

Both say in their first words what they are, and come with a mark, so that no count or report takes them for knowledge
of a language model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kar_aug.config import FALLBACKS
from kar_aug.data import Tables
from kar_aug.prompts.entities import users_with_history
from kar_aug.prompts.scenario import Scenario
from kar_aug.prompts.text import clean

_SHOWN = 10  # items that an average user likes


@dataclass(frozen=True)
class Fallback:
    """A text about a user; `kind` is "profile only" or "average user"."""

    user_id: int | str
    kind: str
    text: str


def fallback_texts(
    mode: str, scenario: Scenario, tables: Tables, split: pd.DataFrame, *, min_events: int = 1
) -> Iterator[Fallback]:
    """Texts of all users with fewer than `min_events` in their history; nothing for the mode "none".

    Popularity is counted in the histories alone, like in the prompts.
    """
    if mode not in FALLBACKS:
        raise ValueError(f"`mode` must be one of {FALLBACKS}. Received: {mode!r}")
    if mode == "none":
        return
    profiles = tables.users.set_index("user_id").to_dict("index")
    average = _average(scenario, tables, split)
    asked = set(users_with_history(split, min_events))
    for user_id in tables.ids("user"):
        if user_id in asked:
            continue
        row = profiles.get(user_id, {})
        fields = [(field, clean(row.get(field, ""), scenario.limits.characters)) for field in scenario.user["fields"]]
        said = [f"{field.replace('_', ' ').capitalize()}: {value}." for field, value in fields if value]
        alone = mode == "profile" and bool(said)
        kind, text = ("profile only", " ".join(["Known by the profile only.", *said])) if alone else average
        yield Fallback(user_id, kind, text)


def _average(scenario: Scenario, tables: Tables, split: pd.DataFrame) -> tuple[str, str]:
    """(its mark, the text)."""
    liked = split[(split["part"] == "history") & (split["label"] > 0)]["item_id"].value_counts()
    ordered = sorted(liked.items(), key=lambda pair: (-pair[1], str(pair[0])))
    rows: dict[Any, dict[str, Any]] = tables.items.set_index("item_id").to_dict("index")  # type: ignore[assignment]
    names = [scenario.name_of(rows[item]) for item, _ in ordered if item in rows]
    names = [name for name in names if name][:_SHOWN]
    words = scenario.words
    text = f"Nothing is known of this user: the average of all. {words['items'].capitalize()} liked by most users: "
    return "average user", text + ("; ".join(names) or "unknown") + "."
