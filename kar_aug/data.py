"""A user's own data: three tables, checked, and split so that no knowledge knows a sample.

| table        | required columns            | meaning                                                        |
|--------------|-----------------------------|----------------------------------------------------------------|
| interactions | user_id, item_id, timestamp | one event a row; timestamp in seconds since 1970 or a datetime |
|              | rating *or* label           | a rating, made a click where above a threshold; or 0/1 itself  |
| items        | item_id                     | optional table; any further column may be a feature or prompt field |
| users        | user_id                     | optional table; likewise                                       |

Ids are integers or strings. Several values in one cell are separated by `|`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.errors import DataError

PARTS = ("history", "train", "validation", "test")


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


def load_tables(interactions: Path, items: Path | None = None, users: Path | None = None) -> Tables:
    """Read the three tables from Parquet or CSV files.

    Raises:
        DataError: A file is not there, cannot be read, or holds a wrong table.
    """
    frames = {"interactions": _read(interactions)}
    if items is not None:
        frames["items"] = _read(items)
    if users is not None:
        frames["users"] = _read(users)
    return Tables(**frames)


def split_interactions(
    interactions: pd.DataFrame,
    *,
    history: int = 30,
    click_above: float = 3,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:
    """The interactions in time order, with the columns that say what each row may be used for.

    Per user, the first min(n/2, `history`) events are the history: the prompt may see them, no model is trained
    or tested on them. Where that cut would fall between events of the same second, it moves back to the last
    change of time, so that a sample is always later than all that the prompt saw.

    Args:
        interactions: columns user_id, item_id, timestamp and rating or label.
        history: most events of a user that the prompt may see.
        click_above: a rating above this is a click (label 1). Not used where `label` is given.
        validation, test: shares of users (user_part) and of time (temporal_part), each in (0, 1).
        seed: draws the users of each part.

    Returns:
        The rows sorted by user and time, and these columns more:
        label: 1.0 for a click, else 0.0.
        part: "history", or the part of the *user*: "train", "validation", "test" (KAR section 4.1: users are split).
        temporal_part: "history", "train", "validation", "test" by four spans of time, the same for all users.
    """
    if history < 0 or not 0 < validation < 1 or not 0 < test < 1 or validation + test >= 1:
        raise DataError(
            "A split needs history >= 0, shares between 0 and 1, and something left to train on. "
            f"Received: history={history}, validation={validation}, test={test}"
        )
    frame = interactions.sort_values(["user_id", "timestamp"], kind="stable", ignore_index=True)
    if "label" not in frame:
        frame["label"] = frame["rating"] > click_above
    frame["label"] = frame["label"].astype("float32")
    in_history = _in_history(frame, history)
    users = np.asarray(sorted(frame["user_id"].unique()), dtype=object)
    shuffled = np.random.default_rng(seed).permutation(users)
    cuts = np.round(np.cumsum([test, validation]) * len(users)).astype(int)
    part_of_user = dict.fromkeys(shuffled, "train")
    part_of_user.update(dict.fromkeys(shuffled[: cuts[0]], "test"))
    part_of_user.update(dict.fromkeys(shuffled[cuts[0] : cuts[1]], "validation"))
    frame["part"] = np.where(in_history, "history", frame["user_id"].map(part_of_user))
    frame["temporal_part"] = _temporal_part(frame["timestamp"], validation, test)
    return frame


def as_of(split: pd.DataFrame) -> pd.Series:
    """Per user, the time of the last event that the prompt may see (index: user_id)."""
    return split[split["part"] == "history"].groupby("user_id")["timestamp"].max()


def _in_history(frame: pd.DataFrame, history: int) -> npt.NDArray[np.bool_]:
    """Rows of `frame` (sorted by user and time) within each user's history."""
    groups = frame.groupby("user_id", sort=False)["timestamp"]
    position, size = groups.cumcount(), groups.transform("size")
    wanted = np.minimum(size // 2, history)
    # A tie across the cut: the first event after it is as old as the last before it. Its time goes to the samples.
    first_after = frame["timestamp"].where(position == wanted).groupby(frame["user_id"]).transform("min")
    before = (position < wanted) & (frame["timestamp"] < first_after)
    return before.to_numpy()


def _temporal_part(timestamp: pd.Series, validation: float, test: float) -> npt.NDArray[np.str_]:
    """Four spans of global time. A span begins at a timestamp, so that equal timestamps share a part."""
    remaining = 1 - validation - test
    shares = [remaining / 2, remaining, remaining + validation]
    cuts = [timestamp.quantile(share, interpolation="lower") for share in shares]
    return np.asarray(PARTS)[np.searchsorted(pd.Series(cuts), timestamp, side="left")]


def _read_csv(path: Path) -> pd.DataFrame:
    # A title or id may be spelt "None" or "NA": only an empty cell is missing.
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".parquet": pd.read_parquet, ".csv": _read_csv}


def _read(path: Path) -> pd.DataFrame:
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: only {' and '.join(_READERS)} files are read.")
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    try:
        return reader(path)
    except (OSError, ValueError) as error:  # pyarrow's and pandas' parse errors are ValueErrors
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _require(frame: pd.DataFrame, name: str, columns: list[str]) -> None:
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise DataError(f"{name}: column '{repeated[0]}' is there twice. Rename one.")
    for column in columns:
        if column not in frame:
            raise DataError(f"{name}: column '{column}' is missing. It has: {', '.join(map(str, frame.columns))}")


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
