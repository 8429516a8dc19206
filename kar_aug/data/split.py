"""The interactions, split so that no knowledge knows a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.place import Table
from kar_aug.data.room import MEMORY, Room, among, blocks, different, series
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

    Args:
        room: where long columns are put.
    """

    history: int
    history_share: float
    validation: float
    test: float
    seed: int
    room: Room = MEMORY


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
    room: Room = MEMORY,
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
        room: where long columns are put.

    Returns:
        The rows sorted by user and event order, and these columns more:
        label: 1.0 for a click, else 0.0.
        moment: 0, 1, ... in a user's event order; ties have the same.
        part: "history", "train", "validation" or "test"; "unlabelled" for an event without a label, which is read as an
            earlier event only. A categorical, in that order.
        Where `order` is given, a timestamp that contradicts it is raised to the latest before it.

    Raises:
        DataError: The shares leave nothing to train on, or there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"There is no protocol {protocol!r}. Known: {', '.join(PROTOCOLS)}")
    shares = Shares(history, history_share, validation, test, seed, room)
    if history < 0 or not 0 < validation < 1 or not 0 < test < 1 or not 0 < history_share < 1 or validation + test >= 1:
        raise _nothing_left(f"history={history}, validation={validation}, test={test}")
    frame = _ordered(interactions, click_above, room)
    frame["part"] = _with_unlabelled(PROTOCOLS.load(protocol)(frame, shares), frame["label"], room)
    return frame


def timeline(interactions: pd.DataFrame, *, click_above: float = 3, room: Room = MEMORY) -> pd.DataFrame:
    """The same columns of all interactions, whatever a split makes of them, with "history" as the part of each: what a
    question that is of its own moment may see. How the log grows afterwards changes nothing before.
    """
    frame = _ordered(interactions, click_above, room)
    frame["part"] = _as_parts(np.zeros(len(frame), np.int8))
    return frame


def _ordered(interactions: pd.DataFrame, click_above: float, room: Room) -> pd.DataFrame:
    """In event order, with `moment` and `label`."""
    frame = _in_event_order(typed("interactions", interactions, Table("interactions"), room=room), room)
    frame["label"] = series(_labels(frame, click_above, room))
    return frame


def brought(split: pd.DataFrame) -> str:
    """The columns of the interactions that a split is of, for messages: without what it adds."""
    return ", ".join(str(name) for name in split if name not in ("part", "moment", "drawn"))


def is_sample(split: pd.DataFrame, room: Room = MEMORY) -> npt.NDArray[np.bool_]:
    """Rows of `split` that are trained or tested on."""
    part = split["part"]
    return room.filled(len(split), bool, lambda block: part_codes(part.iloc[block]) > PARTS.index("history"))


def part_codes(part: pd.Series) -> npt.NDArray[np.int8]:
    """Parts as places in `PARTS`; -1 for "unlabelled"."""
    if not isinstance(part.dtype, pd.CategoricalDtype):
        return pd.Index(PARTS).get_indexer(pd.Index(part)).astype(np.int8)
    code_of_category = np.r_[pd.Index(PARTS).get_indexer(part.cat.categories), -1].astype(np.int8)
    return np.asarray(code_of_category[part.cat.codes.to_numpy()])


def by_user(frame: pd.DataFrame, shares: Shares) -> pd.Categorical[Any]:
    """The protocol "user"."""
    room = shares.room
    users, user = distinct(frame["user_id"], room)
    part_of_user = _parts_of_users(len(users), shares.validation, shares.test, shares.seed)
    codes = room.empty(len(frame), np.int8)
    for block in room.blocks_of_users(user):
        in_history = _in_history(user[block], frame["moment"].to_numpy()[block], shares.history)
        codes[block] = np.where(in_history, PARTS.index("history"), part_of_user[user[block]])
    room.let_go()
    return _as_parts(codes)


def by_time(frame: pd.DataFrame, shares: Shares) -> pd.Categorical[Any]:
    """The protocol "temporal"."""
    if shares.validation + shares.test + shares.history_share >= 1:
        raise _nothing_left(
            f"history={shares.history}, validation={shares.validation}, test={shares.test}, "
            f"history_share={shares.history_share}"
        )
    return _part_of_time(frame["timestamp"], shares)


def _nothing_left(received: str) -> DataError:
    return DataError(
        "A split needs history >= 0, shares between 0 and 1, and something left to train on. Received: " + received
    )


def in_training(split: pd.DataFrame, room: Room = MEMORY) -> npt.NDArray[np.bool_]:
    """Rows of `split` by which anything may be fitted: the training part, and the histories of its users."""
    part, user = split["part"], split["user_id"]
    history, train = PARTS.index("history"), PARTS.index("train")
    are_theirs = among(
        different(user.iloc[block][part_codes(part.iloc[block]) == train] for block in room.blocks(len(split)))
    )

    def trained(block: slice) -> npt.NDArray[np.bool_]:
        codes = part_codes(part.iloc[block])
        return np.asarray((codes == train) | ((codes == history) & are_theirs(user.iloc[block])))

    return room.filled(len(split), bool, trained)


def as_of(split: pd.DataFrame, key: str = "timestamp") -> pd.Series:
    """Per user, the time of the last event that the prompt may see (index: user_id).

    Args:
        key: the column that says which event is the last, and is given.
    """
    found = []
    for block in blocks(len(split)):
        rows = split.iloc[block]
        is_history = rows["part"] == "history"
        found.append(rows[key][is_history].groupby(rows["user_id"][is_history]).max())
    return pd.concat(found).groupby(level=0).max() if found else split[key].iloc[:0]


def distinct(ids: pd.Series, room: Room = MEMORY) -> tuple[list[int | str], npt.NDArray[np.int32]]:
    """The different ids of a column, sorted; and of each row which of them it holds."""
    found = different(ids.iloc[block] for block in room.blocks(len(ids)))
    index = pd.Index(found)
    return found, room.filled(len(ids), np.int32, lambda block: index.get_indexer(pd.Index(ids.iloc[block])))


def _in_event_order(interactions: pd.DataFrame, room: Room) -> pd.DataFrame:
    """A copy sorted by user and event order, with `moment`."""
    key = "order" if "order" in interactions else "timestamp"
    user = distinct(interactions["user_id"], room)[1]
    order = _event_order(user, interactions[key].to_numpy(), room)
    columns = {name: room.ordered(interactions[name], order) for name in interactions.columns}
    user = room.taken(user, order)
    moment = room.empty(len(order), np.int64)
    times = columns["timestamp"]
    latest = room.empty(len(order), times.to_numpy().dtype) if key == "order" else None
    for block in room.blocks_of_users(user):
        moment[block] = _moments(user[block], columns[key].to_numpy()[block])
        if latest is not None:
            latest[block] = _risen(user[block], moment[block], times.iloc[block])
    room.let_go()
    risen = {} if latest is None else {"timestamp": series(latest)}
    return pd.DataFrame({**columns, **risen, "moment": series(moment)}, copy=False)


def _event_order(user: npt.NDArray[np.int32], key: npt.NDArray[Any], room: Room) -> npt.NDArray[np.int64]:
    """Rows by user, then by key, then as they are: those of so many users at a time as have a block of rows."""
    counts = np.zeros(int(user.max(initial=-1)) + 1, np.int64)
    for block in room.blocks(len(user)):
        np.add.at(counts, user[block], 1)  # which np.bincount would make anew, of all users, for each block
    span = room.spans(counts)
    order, done = room.empty(len(user), np.int64), 0
    for rows in room.gathered(room.taken(span, user)):
        order[done : done + len(rows)] = rows[np.lexsort((key[rows], user[rows]))]
        done += len(rows)
    room.let_go()
    return order


def _moments(user: npt.NDArray[np.int32], key: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """0, 1, ... in the event order of each user; ties have the same."""
    new_user = np.r_[True, user[1:] != user[:-1]]
    moments = np.cumsum(new_user | np.r_[True, key[1:] != key[:-1]])
    return np.asarray(moments - np.maximum.accumulate(np.where(new_user, moments, 0)))


def _risen(user: npt.NDArray[np.int32], moment: npt.NDArray[np.int64], timestamp: pd.Series) -> pd.Series:
    """Times, each raised to the latest of its moment and of those before."""
    latest = timestamp.groupby([user, moment], sort=False).transform("max")
    return latest.groupby(user, sort=False).cummax()


def _labels(frame: pd.DataFrame, click_above: float, room: Room) -> npt.NDArray[np.float32]:
    if "label" not in frame:
        rating = frame["rating"]
        return room.filled(len(frame), np.float32, lambda block: rating.iloc[block] > click_above)
    label = frame["label"]
    return room.filled(len(frame), np.float32, lambda block: label.iloc[block].astype("float32"))


def _as_parts(codes: npt.NDArray[np.int8]) -> pd.Categorical[Any]:
    return pd.Categorical.from_codes(codes, pd.Index(PARTS), ordered=True)


def _with_unlabelled(part: Any, label: pd.Series, room: Room) -> pd.Categorical[Any]:
    """Parts as they are kept; samples that have no label are none."""
    parts, history = pd.Series(part, copy=False), PARTS.index("history")

    def kept(block: slice) -> npt.NDArray[np.int8]:
        given = part_codes(parts.iloc[block])
        unlabelled = label.iloc[block].isna().to_numpy() & (given != history)
        return np.where(unlabelled, np.int8(len(PARTS)), given)

    codes = room.filled(len(label), np.int8, kept)
    names = (*PARTS, UNLABELLED) if codes.max(initial=0) == len(PARTS) else PARTS
    return pd.Categorical.from_codes(codes, pd.Index(names), ordered=True)


def _in_history(user: npt.NDArray[np.int32], moment: npt.NDArray[np.int64], history: int) -> npt.NDArray[np.bool_]:
    """Of some users' events in their order, those within each user's history."""
    groups = pd.Series(moment).groupby(user, sort=False)
    position, size = groups.cumcount(), groups.transform("size")
    wanted = np.minimum(size // 2, history)
    # A tie across the cut: the first event after it is as old as the last before it. Its moment goes to the samples.
    first_after = pd.Series(moment).where(position == wanted).groupby(user).transform("min")
    before = (position < wanted) & (moment < first_after)
    return before.to_numpy()


def _parts_of_users(users: int, validation: float, test: float, seed: int) -> npt.NDArray[np.int8]:
    """The part of each user, in the order of their ids: a random share is tested on, another validated."""
    shuffled = np.random.default_rng(seed).permutation(users)
    cuts = np.round(np.cumsum([test, validation]) * users).astype(int)
    parts = np.full(users, PARTS.index("train"), np.int8)
    parts[shuffled[: cuts[0]]] = PARTS.index("test")
    parts[shuffled[cuts[0] : cuts[1]]] = PARTS.index("validation")
    return parts


def _part_of_time(timestamp: pd.Series, shares: Shares) -> pd.Categorical[Any]:
    """Four spans of global time. A span begins at a timestamp, so that equal timestamps share a part."""
    room, times = shares.room, timestamp.to_numpy()
    numbers = times.view(np.int64) if times.dtype.kind == "M" else times
    copy = room.filled(len(numbers), numbers.dtype, lambda block: numbers[block])  # which is brought into another order
    wanted = [shares.history_share, 1 - shares.validation - shares.test, 1 - shares.test]
    cuts = pd.Series(np.quantile(copy, wanted, method="lower", overwrite_input=True).astype(times.dtype))

    def span(block: slice) -> npt.NDArray[Any]:
        return np.searchsorted(cuts, timestamp.iloc[block], side="left")

    return _as_parts(room.filled(len(timestamp), np.int8, span))
