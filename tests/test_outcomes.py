"""Views that become purchases: what is a sample, what a click, and what a past may show of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug import Project
from kar_aug.cli import main
from kar_aug.config import Config, DataConfig
from kar_aug.data import split_interactions
from kar_aug.data.labels import labelled
from kar_aug.data.outcomes import foretold, with_outcomes
from kar_aug.data.room import MEMORY, Room
from kar_aug.data.samples import PAST_VALUE
from kar_aug.errors import ConfigError, DataError

HOUR = 3600
KINDS = ("view", "cart", "purchase")


def log(rows: list[tuple[int, int, int, str]]) -> pd.DataFrame:
    """Of (user, item, hour, kind)."""
    frame = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "timestamp", "kind"]))
    return labelled(frame.assign(timestamp=frame["timestamp"] * HOUR), "kind == 'purchase'")


def split_of(rows: list[tuple[int, int, int, str]], room: Room = MEMORY, hours: float | None = 24) -> pd.DataFrame:
    split = split_interactions(log(rows), history=1)
    window = None if hours is None else hours * HOUR
    return with_outcomes(split, "kind == 'view'", window, room)


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 60), st.sampled_from(KINDS)),
        min_size=2,
        max_size=40,
    )
)
def test_a_view_is_a_click_if_its_user_buys_its_item_within_the_window(rows: list[tuple[int, int, int, str]]) -> None:
    before = split_interactions(log(rows), history=1)
    settled = before["timestamp"] + 24 * HOUR <= before["timestamp"].max()
    if not (settled & (before["part"] != "history") & (before["kind"] == "view")).any():
        with pytest.raises(DataError, match=r"is true of no row|no sample is left"):
            split_of(rows)
        return
    split = split_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        pd.testing.assert_frame_equal(split, split_of(rows, Room(Path(folder), memory=7 << 10)))
    end = split["timestamp"].max()
    assert (split["rating"] == (split["kind"] == "purchase")).all(), "an event of the past is what it said by itself"
    for row, was in zip(split.itertuples(), before.itertuples(), strict=True):
        bought = split[
            (split["user_id"] == row.user_id) & (split["item_id"] == row.item_id) & (split["kind"] == "purchase")
        ]["timestamp"]
        if was.part == "history":
            assert row.part == "history" and row.label == (row.kind == "purchase")
        elif row.kind != "view" or row.timestamp + 24 * HOUR > end:
            assert row.part == "unlabelled" and np.isnan(row.label), "no sample, or nobody knows yet"
        else:
            follows = bought.between(row.timestamp, row.timestamp + 24 * HOUR).any()
            assert row.part == was.part and row.label == follows


@pytest.mark.parametrize(
    ("samples", "hours", "said"),
    [
        ("kind == 'look'", 24, "is true of no row"),
        ("kind == 'view'", 9600, "of 400 days after it ends later than the log"),
    ],
)
def test_where_no_sample_is_left_it_says_why(samples: str, hours: float, said: str) -> None:
    split = split_interactions(log([(user, 0, hour, "view") for user in range(30) for hour in range(4)]), history=1)
    with pytest.raises(DataError, match="samples") as error:
        with_outcomes(split, samples, hours * HOUR)
    assert said in str(error.value)


def test_without_a_window_a_sample_is_what_its_row_says() -> None:
    rows = [(u, i, 3 * i, kind) for u in range(30) for i, kind in enumerate(("view", "view", "purchase", "view"))]
    split = split_of(rows, hours=None)
    assert set(split.loc[split["part"].isin(["train", "test", "validation"]), "kind"]) == {"view"}
    assert (split.loc[split["kind"] == "view", "label"] == 0).all()


def visits(users: int = 60) -> pd.DataFrame:
    """Each user looks at an item every two days; every third is bought after a minute, the day's last event."""
    rows = []
    for user in range(users):
        for visit in range(12):
            item, at = (user + 7 * visit) % 20, 1_700_000_000 + visit * 172_800 + user
            rows.append((user, item, at, "view"))
            if (user + visit) % 3 == 0:
                rows.append((user, item, at + 60, "purchase"))
    return pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "timestamp", "kind"]))


def project(folder: Path, **data: object) -> Project:
    items = pd.DataFrame({"item_id": range(20), "title": [f"thing {i}" for i in range(20)]})
    settings = {"workdir": str(folder), "data": {"label": "kind == 'purchase'", "history": 4, **data}}
    return Project(settings, interactions=visits(), items=items)


def test_no_past_shows_what_became_of_an_event_only_later(tmp_path: Path) -> None:
    """A view that is bought a day after the next view is no purchase yet in that one's past."""
    late = pd.DataFrame(
        [(u, i, 1_700_000_000 + i * HOUR, "view") for u in range(40) for i in range(8)]
        + [(u, i, 1_700_000_000 + 30 * HOUR + i, "purchase") for u in range(40) for i in range(8) if (u + i) % 2]
        + [(u, 9, 1_700_000_000 + 90 * HOUR, "view") for u in range(40)],
        columns=pd.Index(["user_id", "item_id", "timestamp", "kind"]),
    )
    data = {
        "label": "kind == 'purchase'", "samples": "kind == 'view'", "conversion_window": "2 days", "history": 2,
        "past_length": 8,
    }  # fmt: skip
    job = Project({"workdir": str(tmp_path), "data": data}, interactions=late)
    samples = job.workspace.data.samples
    rows = samples.of("train")
    assert 0 < samples.label[rows].mean() < 1
    worth = samples.read(rows, {PAST_VALUE})[PAST_VALUE]
    none = samples.encodings[PAST_VALUE].encode(pd.Series([0.0]))
    assert np.isin(worth.round(5), np.r_[0.0, none].astype(np.float32).round(5)).all(), "padding, or nothing bought"


@pytest.mark.slow
def test_check_says_that_rows_tell_each_other_apart_and_what_to_set(tmp_path: Path) -> None:
    (trap,) = [t for t in project(tmp_path / "a").check().traps if "tell kinds of rows apart" in t.text]
    assert (
        trap.text.startswith("100% of the clicks come within a day of another event")
        and "samples = \"kind == 'view'\", conversion_window" in trap.text
    )
    mended = project(tmp_path / "b", samples="kind == 'view'", conversion_window="1 day")
    assert not [t for t in mended.check().traps if "tell kinds of rows apart" in t.text]
    assert mended.workspace.data.samples.label.mean() == pytest.approx(1 / 3, abs=0.05)


def test_init_writes_what_is_meant_where_purchases_follow_views(tmp_path: Path) -> None:
    visits().rename(columns={"kind": "event_type"}).to_csv(tmp_path / "events.csv", index=False)
    done = CliRunner().invoke(main, ["init", "--data", str(tmp_path), "--output", str(tmp_path / "kar.toml")])
    assert done.exit_code == 0, done.output
    data = Config.load(tmp_path / "kar.toml").data
    assert (data.label, data.samples) == ("event_type == 'purchase'", "event_type == 'view'")
    assert data.conversion_window == "1 day" and not data.one_sample


def test_events_that_come_again_are_no_steps() -> None:
    user, item = np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1])
    clicked = np.array([False, True, False, True, False, False])
    assert foretold(user, item, np.arange(6.0), clicked) == (1, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label": "x == 1", "conversion_window": "soon"}, 'must be "1 day", "12 hours" or the like, not \'soon\''),
        ({"label": "x == 1", "conversion_window": "0 days"}, "must be"),
        ({"conversion_window": "1 day"}, "goes with label"),
        (
            {"label": "x == 1", "conversion_window": "1 day", "event_features": ("label",)},
            "what became of it only later",
        ),
        ({"label": "x == 1", "samples": "x == 0", "event_features": ("label",)}, 'is its "rating": name that'),
    ],
)
def test_a_window_is_a_time_and_has_something_to_wait_for(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="conversion_window") as error:
        DataConfig(interactions="log.csv", **settings)
    assert said in str(error.value)
