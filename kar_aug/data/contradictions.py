"""Samples of the same user, item and moment that say the opposite: a view and the purchase it led to, as two rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.split import PARTS, UNLABELLED, is_sample, part_codes

_KEYS = ["user_id", "item_id", "moment"]


def contradictory(split: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of `split` that are samples beside one of the same user, item and moment with the other label."""
    found = np.zeros(len(split), bool)
    rows = np.flatnonzero(is_sample(split))
    labels = split.iloc[rows].groupby(_KEYS, sort=False)["label"]
    found[rows] = (labels.transform("max") != labels.transform("min")).to_numpy()
    return found


def without_contradictions(split: pd.DataFrame) -> pd.DataFrame:
    """The split, in which of samples of the same user, item and moment one is left, a click if there is one. The others
    are events without a label: somebody's past.
    """
    rows = np.flatnonzero(is_sample(split))
    samples = split.iloc[rows][[*_KEYS, "label"]].reset_index(drop=True)
    kept = samples.sort_values("label", ascending=False, kind="stable").drop_duplicates(_KEYS).index
    others = np.delete(rows, kept)
    label, part = split["label"].to_numpy(copy=True), part_codes(split["part"]).copy()
    label[others], part[others] = np.nan, len(PARTS)
    part[part < 0] = len(PARTS)
    return split.assign(label=label, part=pd.Categorical.from_codes(part, pd.Index([*PARTS, UNLABELLED]), ordered=True))
