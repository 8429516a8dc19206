"""A user's own data: three tables, checked, and split so that no knowledge knows a sample.

| table        | required columns            | meaning                                                        |
|--------------|-----------------------------|----------------------------------------------------------------|
| interactions | user_id, item_id, timestamp | one event a row; timestamp in seconds since 1970 or a datetime |
|              | rating *or* label           | a rating, made a click where above a threshold; or 0/1 itself  |
|              | order (optional)            | sorts a user's events where timestamps are rough; equal: ties  |
| items        | item_id                     | optional table; any further column may be a feature or prompt field |
| users        | user_id                     | optional table; likewise                                       |

Ids are integers or strings. Several values in one cell are separated by `|`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._files import read_table
from kar_aug.config import PROTOCOLS
from kar_aug.errors import DataError

PARTS = ("history", "train", "validation", "test")
_LATEST = 9_200_000_000  # seconds: the year 2261, after which no nanosecond timestamp exists


@dataclass(frozen=True)
class Tables:
    """The three tables, checked on construction. `items` and `users` may be empty frames with an id column.

    Raises:
        DataError: A column is missing, an id repeats or is missing, or a value is not what it must be.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"item_id": []}))
    users: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"user_id": []}))

    def __post_init__(self) -> None:
        _require(self.interactions, "interactions", ["user_id", "item_id", "timestamp"])
        if self.interactions.empty:
            raise DataError("interactions: the table has no rows.")
        if not {"rating", "label"} & set(self.interactions.columns):
            raise DataError("interactions: there is neither a column 'rating' nor a column 'label'.")
        value = "label" if "label" in self.interactions else "rating"
        for column in ("user_id", "item_id", "timestamp", value):
            _no_gaps(self.interactions, "interactions", column)
        time = self.interactions["timestamp"]
        if not (pd.api.types.is_numeric_dtype(time) or pd.api.types.is_datetime64_any_dtype(time)):
            raise DataError("interactions: 'timestamp' must hold seconds since 1970, or datetimes, not text.")
        if pd.api.types.is_float_dtype(time) and not np.isfinite(time).all():
            raise DataError("interactions: 'timestamp' holds infinity.")
        if pd.api.types.is_numeric_dtype(time) and time.max() > _LATEST:
            raise DataError(
                f"interactions: 'timestamp' holds {time.max()}, seconds beyond the year 2261. "
                "Milliseconds? Divide by 1000."
            )
        if "order" in self.interactions:
            _no_gaps(self.interactions, "interactions", "order")
            if not pd.api.types.is_numeric_dtype(self.interactions["order"]):
                raise DataError("interactions: 'order' must hold numbers: a user's events are sorted by them.")
        if not pd.api.types.is_numeric_dtype(self.interactions[value]):
            raise DataError(f"interactions: '{value}' must hold numbers, not text.")
        if value == "label" and not self.interactions["label"].isin([0, 1]).all():
            raise DataError("interactions: 'label' must hold 0 or 1 only.")
        for frame, name, key in ((self.items, "items", "item_id"), (self.users, "users", "user_id")):
            _require(frame, name, [key])
            _no_gaps(frame, name, key)
            repeated = frame[key][frame[key].duplicated()]
            if len(repeated):
                raise DataError(
                    f"{name}: {key} {repeated.tolist()[0]!r} stands in more than one row. Keep one row an id."
                )
            expected = _kind(self.interactions, "interactions", key)
            if len(frame) and (kind := _kind(frame, name, key)) != expected:
                raise DataError(
                    f"{name}: {key} holds {kind}s but interactions hold {expected}s, so that no id would be found. "
                    "Give both the same type."
                )

    def ids(self, source: str) -> list[int | str]:
        """Every known id of a source ("user" or "item"), sorted: those of its table and of the interactions."""
        table = self.users if source == "user" else self.items
        column = f"{source}_id"
        known = set(self.interactions[column].tolist()) | set(table[column].tolist())
        return sorted(known)


def load_tables(
    interactions: Path,
    items: Path | None = None,
    users: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
) -> Tables:
    """Read the three tables from Parquet or CSV files.

    Args:
        columns: the files' own names, by ours: `{"user_id": "uid", "timestamp": "ts"}`. A name holds for every table
            that has such a column; all other columns keep theirs.

    Raises:
        DataError: A file is not there, cannot be read, or holds a wrong table; or no table has a column so named.
    """
    paths = {"interactions": interactions, "items": items, "users": users}
    frames = {name: read_table(path) for name, path in paths.items() if path is not None}
    return Tables(**_renamed(frames, columns or {}))


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
        part: "history", "train", "validation" or "test".
        Where `order` is given, a timestamp that contradicts it is raised to the latest before it.

    Raises:
        DataError: The shares leave nothing to train on, or there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"There is no protocol {protocol!r}. Known: {', '.join(PROTOCOLS)}")
    used = validation + test + (history_share if protocol == "temporal" else 0)
    if history < 0 or not 0 < validation < 1 or not 0 < test < 1 or not 0 < history_share < 1 or used >= 1:
        raise DataError(
            "A split needs history >= 0, shares between 0 and 1, and something left to train on. "
            f"Received: history={history}, validation={validation}, test={test}"
            + (f", history_share={history_share}" if protocol == "temporal" else "")
        )
    frame = _in_event_order(interactions)
    if "label" not in frame:
        frame["label"] = frame["rating"] > click_above
    frame["label"] = frame["label"].astype("float32")
    if protocol == "temporal":
        frame["part"] = _part_of_time(frame["timestamp"], history_share, validation, test)
    else:
        part_of_user = _part_of_user(frame["user_id"], validation, test, seed)
        frame["part"] = np.where(_in_history(frame, history), "history", part_of_user)
    return frame


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


def _renamed(frames: Mapping[str, pd.DataFrame], columns: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """The tables under our names; those of the interactions with their dates read."""
    for ours, theirs in columns.items():
        if not any(theirs in frame for frame in frames.values()):
            has = "; ".join(f"{name} has {', '.join(map(str, frame.columns))}" for name, frame in frames.items())
            raise DataError(
                f"[data] columns: no table has a column {theirs!r}, which {ours!r} is to be read from. {has}"
            )
    names = {theirs: ours for ours, theirs in columns.items()}
    renamed = {name: frame.rename(columns=names) for name, frame in frames.items()}
    renamed["interactions"] = _with_dates(renamed["interactions"])
    return renamed


def _with_dates(interactions: pd.DataFrame) -> pd.DataFrame:
    """CSV knows no datetimes: "2024-01-31 18:00:00" is one all the same."""
    if "timestamp" not in interactions or pd.api.types.infer_dtype(interactions["timestamp"]) != "string":
        return interactions
    try:
        return interactions.assign(timestamp=pd.to_datetime(interactions["timestamp"], format="ISO8601", utc=True))
    except ValueError:
        return interactions  # checked, and refused, as any other table


def _require(frame: pd.DataFrame, name: str, columns: list[str]) -> None:
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(f"{name}: column '{repeated[0]}' is there twice. Rename one.")
    for column in columns:
        if column not in frame:
            raise DataError(
                f"{name}: column '{column}' is missing. It has: {', '.join(map(str, frame.columns))}. If it is one of "
                f'them, say so in kar.toml: [data] columns = {{ {column} = "..." }}'
            )


def _no_gaps(frame: pd.DataFrame, name: str, column: str) -> None:
    gaps = frame[column].isna()
    if gaps.any():
        raise DataError(f"{name}: '{column}' is empty in {gaps.sum()} rows, the first is row {int(gaps.argmax())}.")


def _kind(frame: pd.DataFrame, name: str, key: str) -> str:
    """ "integer" or "string": what ids may be, because stores and caches keep these two apart and no other."""
    kind = pd.api.types.infer_dtype(frame[key], skipna=False)
    if kind not in ("integer", "string"):
        raise DataError(f"{name}: '{key}' must hold integers or strings, all of one kind; it holds: {kind}.")
    if kind == "integer" and len(frame) and int(frame[key].max()) >= 2**63:
        raise DataError(
            f"{name}: '{key}' holds {frame[key].max()}, more than 64-bit integers can. Make the ids strings."
        )
    return kind
