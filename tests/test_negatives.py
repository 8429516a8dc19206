"""Negatives that are drawn: never what the user had clicked, never an event, and the same for the same seed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.negatives import with_negatives
from kar_aug.data.room import Room
from kar_aug.errors import DataError


def clicks(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "timestamp"])).assign(label=1, device="phone")
    split = split_interactions(frame, history=1)
    split["part"] = split["part"].where(split["part"] == "history", "train")
    return split


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 9)), min_size=3, max_size=40),
    count=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_nothing_is_drawn_that_the_user_had_clicked(rows: list[tuple[int, int, int]], count: int, seed: int) -> None:
    split = clicks(rows)
    both = with_negatives(split, count, seed)
    with tempfile.TemporaryDirectory() as folder:
        by_blocks = with_negatives(split, count, seed, Room(Path(folder), memory=7 << 10))
        pd.testing.assert_frame_equal(both, by_blocks)
    drawn, real = both[both["drawn"]], both[~both["drawn"]]
    assert real.drop(columns="drawn").reset_index(drop=True).equals(split), "the events stay as they were"
    assert (drawn["label"] == 0).all() and (drawn["part"] == "train").all() and (drawn["device"] == "phone").all()
    for row in drawn.itertuples():
        before = split[(split["user_id"] == row.user_id) & (split["moment"] <= row.moment)]
        assert row.item_id not in before["item_id"].tolist()
        assert row.item_id in split["item_id"].tolist()


def test_there_are_as_many_as_asked_for_and_popular_items_are_drawn_more() -> None:
    random = np.random.default_rng(0)
    items = random.geometric(0.05, 4000) % 60
    split = clicks([(i % 200, int(item), i) for i, item in enumerate(items)])
    drawn = with_negatives(split, 3, 0).query("drawn")
    assert len(drawn) == 3 * (split["part"] == "train").sum()
    often, seldom = (drawn["item_id"] == split["item_id"].mode()[0]).mean(), (drawn["item_id"] == 59).mean()
    assert often > 2 * seldom > 0


def test_a_drawn_row_is_a_sample_and_no_event() -> None:
    split = with_negatives(clicks([(0, i, i) for i in range(8)] + [(1, 9, 0), (1, 8, 1)]), 2, 0)
    tables = Tables(split[["user_id", "item_id", "timestamp", "label"]])
    built = build_samples(tables, split, history_length=9, event_features=())
    read: dict[str, Any] = built.read(np.arange(len(built)))
    assert len(built) == (split["part"] != "history").sum()
    clicked = {built.vocabulary["item"].index(i) for i in range(8)}
    of_user_0 = read["hist_item"][read["user"] == 1]
    assert set(of_user_0[of_user_0 > 0].tolist()) <= clicked
    moments = split.loc[(split["user_id"] == 0) & (split["part"] != "history"), "moment"].tolist()
    assert [(row > 0).sum() for row in of_user_0] == moments


def test_without_a_click_there_is_nothing_to_draw_by() -> None:
    split = clicks([(0, 1, 1), (0, 2, 2)]).assign(label=np.float32(0))
    with pytest.raises(DataError, match="the training part has no click"):
        with_negatives(split, 1, 0)
