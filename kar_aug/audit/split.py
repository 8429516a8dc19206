"""The split itself, seen without the code that made it."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from kar_aug.audit.findings import Check, Finding, found, shown
from kar_aug.data import PARTS
from kar_aug.data.split import is_sample


def event_key(split: pd.DataFrame) -> str:
    """The column that says which of a user's events came first."""
    return "order" if "order" in split else "timestamp"


def history_before_samples(split: pd.DataFrame) -> Check:
    """Whether every sample is strictly later than all that its user's prompt may see."""
    key = event_key(split)
    is_history = split["part"] == "history"
    last = split[is_history].groupby("user_id")[key].max()
    samples = split[is_sample(split)]
    seen = last.reindex(samples["user_id"]).set_axis(samples.index)
    bad = samples[(seen.notna() & (samples[key] <= seen)).to_numpy()]
    leak = Finding(
        "history",
        len(bad),
        f"{len(bad):,} samples are not later than all that their user's prompt may see.",
        "" if bad.empty else _event(bad.iloc[0]),
    )
    return Check("samples come after their user's history", len(samples), "samples", found(leak))


def parts_apart(split: pd.DataFrame, protocol: str) -> Check:
    """Whether no user ("user"), or no time ("temporal"), stands in two parts."""
    if protocol == "temporal":
        return _times_apart(split)
    samples = split[is_sample(split)]
    parts = samples.groupby("user_id")["part"].nunique()
    both = parts[parts > 1]
    leak = Finding(
        "part",
        len(both),
        f"{len(both):,} users have samples in more than one of train, validation and test.",
        "" if both.empty else f"user {shown(both.index[0])}",
    )
    return Check("no user is both trained and tested on", len(parts), "users", found(leak))


def _times_apart(split: pd.DataFrame) -> Check:
    spans = split.groupby("part")["timestamp"].agg(["min", "max"])
    present = [part for part in PARTS if part in spans.index]
    overlaps = []
    for earlier, later in pairwise(present):
        ends, begins = spans["max"][earlier], spans["min"][later]
        count = int(((split["part"] == later) & (split["timestamp"] <= ends)).sum())
        overlaps.append(
            Finding(
                "part",
                count,
                f"{count:,} events of {later} are not later than all of {earlier}.",
                f"{earlier} lasts to {ends}, {later} begins at {begins}",
            )
        )
    return Check("history, train, validation and test follow each other", len(split), "events", found(*overlaps))


def _event(row: pd.Series) -> str:
    return f"user {shown(row['user_id'])}, item {shown(row['item_id'])}, at {row['timestamp']}, in {row['part']}"
