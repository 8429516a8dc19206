"""The interactions, split so that no knowledge knows a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.place import Table
from kar_aug.data.tables import typed
from kar_aug.errors import DataError
from kar_aug.registry import PROTOCOLS

PARTS = ("history", "train", "validation", "test")
SAMPLE_PARTS = PARTS[1:]
UNLABELLED = "unlabelled"
SMALL_CLASS = 50  # rows of the rarer class: of fewer, AUC differs by chance alone


@dataclass(frozen=True)
class Shares:
    """How much goes where; see `split_interactions`. A protocol is a function of the events in their order and of this
    to a part a row.
    """

    history: int
    history_share: float
    validation: float
    test: float
    seed: int


def split_interactions(
    interactions: pd.DataFrame,
    *,
    protocol: str = "user",
    history: int = 30,
    history_share: float = 0.4,
    click_above: float = 3,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:
    """The interactions in event order, with the columns that say what each row may be used for.

    A user's events are ordered by `order` if there is such a column, else by `timestamp`; equal ones are ties, and no
    cut falls between ties. History is what the prompt may see, and no model is trained or tested on it.

    protocol "user" (KAR section 4.1): *users* are split into train, validation and test. A user's first
    min(n/2, `history`) events are the history; where that cut would fall into a tie it moves back before it.

    protocol "temporal": time is cut three times, at the same moments for all users, into history < train < validation
    < test. A user whose events all lie in one span has samples but no history, or history but no samples.

    Args:
        interactions: columns user_id, item_id, timestamp and rating or label; optionally order.
        history: most events of a user that the prompt may see, under "user".
        history_share: share of all events in the span before the first cut, under "temporal".
        click_above: a rating above this is a click (label 1). Not used where `label` is given.
        validation, test: shares of the users, or under "temporal" of all events; each in (0, 1).
        seed: draws the users of each part, under "user".

    Returns:
        The rows sorted by user and event order, and these columns more:
        label: 1.0 for a click, else 0.0.
        moment: 0, 1, ... in a user's event order; ties have the same.
        part: "history", "train", "validation" or "test"; "unlabelled" for an event without a label, which is read as an
            earlier event only.
        Where `order` is given, a timestamp that contradicts it is raised to the latest before it.

    Raises:
        DataError: The shares leave nothing to train on, or there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"There is no protocol {protocol!r}. Known: {', '.join(PROTOCOLS)}")
    shares = Shares(history, history_share, validation, test, seed)
    if history < 0 or not 0 < validation < 1 or not 0 < test < 1 or not 0 < history_share < 1 or validation + test >= 1:
        raise _nothing_left(f"history={history}, validation={validation}, test={test}")
    frame = _in_event_order(typed("interactions", interactions, Table("interactions")))
    if "label" not in frame:
        frame["label"] = frame["rating"] > click_above
    frame["label"] = frame["label"].astype("float32")
    frame["part"] = PROTOCOLS.load(protocol)(frame, shares)
    unlabelled = frame["label"].isna() & (frame["part"] != "history")
    frame["part"] = frame["part"].where(~unlabelled, UNLABELLED)
    return frame


def is_sample(split: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of `split` that are trained or tested on."""
    return split["part"].isin(SAMPLE_PARTS).to_numpy()


def part_codes(part: pd.Series) -> npt.NDArray[np.int8]:
    """Parts as places in `PARTS`; -1 for "unlabelled"."""
    return pd.Index(PARTS).get_indexer(pd.Index(part)).astype(np.int8)


def by_user(frame: pd.DataFrame, shares: Shares) -> npt.NDArray[np.str_]:
    """The protocol "user"."""
    part_of_user = _part_of_user(frame["user_id"], shares.validation, shares.test, shares.seed)
    return np.where(_in_history(frame, shares.history), "history", part_of_user)


def by_time(frame: pd.DataFrame, shares: Shares) -> npt.NDArray[np.str_]:
    """The protocol "temporal"."""
    if shares.validation + shares.test + shares.history_share >= 1:
        raise _nothing_left(
            f"history={shares.history}, validation={shares.validation}, test={shares.test}, "
            f"history_share={shares.history_share}"
        )
    return _part_of_time(frame["timestamp"], shares.history_share, shares.validation, shares.test)


def _nothing_left(received: str) -> DataError:
    return DataError(
        "A split needs history >= 0, shares between 0 and 1, and something left to train on. Received: " + received
    )


def in_training(split: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of `split` by which anything may be fitted: the training part, and the histories of its users."""
    part = split["part"].to_numpy()
    users = split["user_id"].isin(split.loc[part == "train", "user_id"].unique()).to_numpy()
    return np.asarray((part == "train") | ((part == "history") & users))


def as_of(split: pd.DataFrame) -> pd.Series:
    """Per user, the time of the last event that the prompt may see (index: user_id)."""
    return split[split["part"] == "history"].groupby("user_id")["timestamp"].max()


def _in_event_order(interactions: pd.DataFrame) -> pd.DataFrame:
    """A copy sorted by user and event order, with `moment`."""
    key = "order" if "order" in interactions else "timestamp"
    frame = interactions.sort_values(["user_id", key], kind="stable", ignore_index=True)
    new_user = (frame["user_id"] != frame["user_id"].shift()).to_numpy()
    new_moment = new_user | (frame[key] != frame[key].shift()).to_numpy()
    moments = np.cumsum(new_moment)
    frame["moment"] = moments - np.maximum.accumulate(np.where(new_user, moments, 0))
    if key == "order":
        latest = frame.groupby(moments, sort=False)["timestamp"].transform("max")
        frame["timestamp"] = latest.groupby(frame["user_id"], sort=False).cummax()
    return frame


def _in_history(frame: pd.DataFrame, history: int) -> npt.NDArray[np.bool_]:
    """Rows of `frame` (in event order) within each user's history."""
    groups = frame.groupby("user_id", sort=False)["moment"]
    position, size = groups.cumcount(), groups.transform("size")
    wanted = np.minimum(size // 2, history)
    # A tie across the cut: the first event after it is as old as the last before it. Its moment goes to the samples.
    first_after = frame["moment"].where(position == wanted).groupby(frame["user_id"]).transform("min")
    before = (position < wanted) & (frame["moment"] < first_after)
    return before.to_numpy()


def _part_of_user(user_id: pd.Series, validation: float, test: float, seed: int) -> pd.Series:
    """Per row the part of its user: a random share of the users is tested on, another validated."""
    users = np.asarray(sorted(user_id.unique()), dtype=object)
    shuffled = np.random.default_rng(seed).permutation(users)
    cuts = np.round(np.cumsum([test, validation]) * len(users)).astype(int)
    part_of_user = dict.fromkeys(shuffled, "train")
    part_of_user.update(dict.fromkeys(shuffled[: cuts[0]], "test"))
    part_of_user.update(dict.fromkeys(shuffled[cuts[0] : cuts[1]], "validation"))
    return user_id.map(part_of_user)


def _part_of_time(timestamp: pd.Series, history_share: float, validation: float, test: float) -> npt.NDArray[np.str_]:
    """Four spans of global time. A span begins at a timestamp, so that equal timestamps share a part."""
    shares = [history_share, 1 - validation - test, 1 - test]
    cuts = [timestamp.quantile(share, interpolation="lower") for share in shares]
    return np.asarray(PARTS)[np.searchsorted(pd.Series(cuts), timestamp, side="left")]
