"""The split itself, seen without the code that made it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pandas as pd

from kar_aug.audit.findings import Check, Finding, found, shown
from kar_aug.data import PARTS, as_of
from kar_aug.data.room import blocks
from kar_aug.data.split import is_sample


def event_key(split: pd.DataFrame) -> str:
    """The column that says which of a user's events came first."""
    return "order" if "order" in split else "timestamp"


def history_before_samples(split: pd.DataFrame) -> Check:
    """Whether every sample is strictly later than all that its user's prompt may see."""
    key = event_key(split)
    last = as_of(split, key)
    count, bad, example = 0, 0, ""
    for samples in samples_of(split):
        seen = last.reindex(samples["user_id"]).set_axis(samples.index)
        early = samples[(seen.notna() & (samples[key] <= seen)).to_numpy()]
        count, bad = count + len(samples), bad + len(early)
        example = example or ("" if early.empty else _event(early.iloc[0]))
    text = f"{bad:,} samples are not later than all that their user's prompt may see."
    return Check(
        "samples come after their user's history", count, "samples", found(Finding("history", bad, text, example))
    )


def samples_of(split: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The samples, so many at a time that the log need not fit into memory."""
    for block in blocks(len(split)):
        rows = split.iloc[block]
        yield rows[is_sample(rows)]


def parts_apart(split: pd.DataFrame, protocol: str) -> Check:
    """Whether no user ("user"), or no time ("temporal"), stands in two parts."""
    if protocol == "temporal":
        return _times_apart(split)
    pairs = pd.concat([samples[["user_id", "part"]].drop_duplicates() for samples in samples_of(split)])
    parts = pairs.drop_duplicates().groupby("user_id")["part"].count()
    both = parts[parts > 1]
    leak = Finding(
        "part",
        len(both),
        f"{len(both):,} users have samples in more than one of train, validation and test.",
        "" if both.empty else f"user {shown(both.index[0])}",
    )
    return Check("no user is both trained and tested on", len(parts), "users", found(leak))


def _times_apart(split: pd.DataFrame) -> Check:
    of_blocks = [
        split.iloc[block].groupby("part", observed=True)["timestamp"].agg(["min", "max"])
        for block in blocks(len(split))
    ]
    spans = pd.concat(of_blocks).groupby(level=0, observed=True).agg({"min": "min", "max": "max"})
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
