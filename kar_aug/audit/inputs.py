"""What the CTR model reads: nothing in it may know the sample's own label, or what came after."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.audit import statistics
from kar_aug.audit.findings import Check, Finding, found
from kar_aug.data.features import HISTORY, Samples

_IDS = ("user_id", "item_id")
_FEWEST_ROWS = 20  # of fewer, a column may give the label away by chance


def samples_are_the_split(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether each sample stands in the part that the split says, and none is history."""
    rows = split[split["part"] != "history"]
    if len(rows) == len(samples.part):
        wrong = (samples.part != rows["part"].to_numpy()) | (samples.label != rows["label"].to_numpy(np.float32))
        count = int(wrong.sum())
    else:
        count = abs(len(rows) - len(samples.part))
    leak = Finding("part", count, f"{count:,} samples are not those of the split: other rows, parts or labels.")
    return Check("samples are the split's", len(samples.part), "samples", found(leak))


def click_history(samples: Samples, split: pd.DataFrame) -> Check:
    """Whether all that stands in a sample's click history was clicked by the user, strictly before."""
    if HISTORY not in samples.inputs or (rows := split[split["part"] != "history"]).shape[0] != len(samples.label):
        return Check("click histories hold earlier clicks only", 0, "samples")
    history, items = samples.inputs[HISTORY], len(samples.vocabulary["item"])
    first = _first_clicks(samples, split, items)
    moment, user = rows["moment"].to_numpy(), samples.inputs["user_id"].astype(np.int64)
    bad = np.zeros(len(history), bool)
    for column in history.T:  # a column at a time: all at once would take 20 times the memory
        asked = np.flatnonzero(column)
        clicked = _look_up(first, user[asked] * items + column[asked])
        bad[asked[(clicked < 0) | (clicked >= moment[asked])]] = True
    place = int(bad.argmax())
    leak = Finding(
        "history",
        int(bad.sum()),
        f"{bad.sum():,} samples have clicks in their history that were not made before them.",
        f"a sample of user {samples.vocabulary['user'][user[place]]!r} in {samples.part[place]}" if bad.any() else "",
    )
    return Check("click histories hold earlier clicks only", len(history), "samples", found(leak))


def _first_clicks(samples: Samples, split: pd.DataFrame, items: int) -> tuple[npt.NDArray[np.int64], ...]:
    """(sorted user * items + item, moment of the user's first click on it)."""
    clicks = split[split["label"] > 0]
    codes = [
        clicks[f"{entity}_id"].map({id: code for code, id in enumerate(samples.vocabulary[entity])}).to_numpy(np.int64)
        for entity in ("user", "item")
    ]
    pairs = pd.Series(clicks["moment"].to_numpy()).groupby(codes[0] * items + codes[1]).min()
    return pairs.index.to_numpy(np.int64), pairs.to_numpy(np.int64)


def _look_up(table: tuple[npt.NDArray[np.int64], ...], keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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
        values = samples.inputs[feature.name]
        shown = np.bincount(values, minlength=feature.vocabulary_size)
        clicked = np.bincount(values, weights=samples.label, minlength=feature.vocabulary_size)
        used, told = shown > 0, (clicked == 0) | (clicked == shown)
        if len(values) >= _FEWEST_ROWS and told[used].all() and 0 < clicked.sum() < len(values):
            findings.append(
                Finding("label", 1, f"The feature {feature.name!r} gives the label away: each value has one label.")
            )
    return Check("no feature gives the label away", len(features), "features", found(*findings))


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
