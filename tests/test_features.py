"""Features are checked against a slow computation that follows their definition word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kar_aug.data import Tables, split_interactions
from kar_aug.data.features import HISTORY, Feature, Samples, build_samples
from kar_aug.errors import DataError

ITEMS = pd.DataFrame({"item_id": [3, 10, 2], "genres": ["War|Drama", None, "Drama"], "year": [1990, 1991, 1990]})
USERS = pd.DataFrame({"user_id": ["b", "a"], "gender": ["F", None]})


def tables(rows: list[tuple[str, int, int, int]], items: pd.DataFrame = ITEMS, users: pd.DataFrame = USERS) -> Tables:
    frame = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "timestamp", "rating"]))
    return Tables(frame, items=items, users=users)


def samples(given_tables: Tables, history: int = 30, **options: Any) -> Samples:
    return build_samples(given_tables, split_interactions(given_tables.interactions, history=history), **options)


# (user, item, time, rating): a and b have two events of history and two samples each.
ROWS = [
    *[("a", 3, 1, 5), ("a", 10, 2, 5), ("a", 2, 3, 1), ("a", 3, 4, 5)],
    *[("b", 2, 1, 5), ("b", 2, 2, 1), ("b", 10, 3, 5), ("b", 3, 4, 5)],
]


def test_integers_stand_for_the_ids_of_the_vocabulary_and_zero_for_none() -> None:
    built = samples(tables(ROWS))
    assert built.vocabulary == {"user": [None, "a", "b"], "item": [None, 2, 3, 10]}
    assert [built.vocabulary["user"][i] for i in built.inputs["user_id"]] == ["a", "a", "b", "b"]
    assert [built.vocabulary["item"][i] for i in built.inputs["item_id"]] == [2, 3, 10, 3]
    assert built.label.tolist() == [0, 1, 1, 1] and built.label.dtype == np.float32
    assert all(values.dtype == np.int32 for values in built.inputs.values())


def test_features_describe_their_inputs() -> None:
    built = samples(tables(ROWS), user_features=["gender"], item_features=["genres", "year"], history_length=3)
    assert built.features == (
        Feature("user_id", 3),
        Feature("item_id", 4),
        Feature("gender", 2),
        Feature("genres", 3, 2),
        Feature("year", 3),
        Feature(HISTORY, 4, 3, embedding="item_id"),
    )
    for feature in built.features:
        values = built.inputs[feature.name]
        assert values.shape == ((4,) if feature.length is None else (4, feature.length))
        assert values.min() >= 0 and values.max() < feature.vocabulary_size


def test_several_values_of_a_cell_are_a_list_padded_with_zeros() -> None:
    built = samples(tables(ROWS), item_features=["genres"])
    drama, war = 1, 2  # categories in order of their names
    assert built.inputs["genres"].tolist() == [[drama, 0], [war, drama], [0, 0], [war, drama]]


def test_a_missing_cell_and_an_entity_without_a_row_are_zero() -> None:
    built = samples(tables(ROWS, users=USERS[:1]), user_features=["gender"])
    assert built.inputs["gender"].tolist() == [0, 0, 1, 1], "a has no row, b is F"
    built = samples(tables(ROWS), user_features=["gender"])
    assert built.inputs["gender"].tolist() == [0, 0, 1, 1], "a's cell is empty"
    nothing = ITEMS.assign(genres=None)
    assert samples(tables(ROWS, nothing), item_features=["genres"]).inputs["genres"].tolist() == [0] * 4


@pytest.mark.parametrize("source", ["user", "item"])
def test_a_feature_that_is_no_column_is_named(source: str) -> None:
    with pytest.raises(DataError, match=f"{source}s: there is no column 'zip' to make a feature of"):
        samples(tables(ROWS), **{f"{source}_features": ["zip"]})


def test_an_item_table_with_a_column_user_id_is_still_about_items() -> None:
    uploaded = ITEMS.assign(user_id=["b", "a", "z"])
    expected = samples(tables(ROWS), item_features=["year"]).inputs["year"]
    np.testing.assert_array_equal(samples(tables(ROWS, uploaded), item_features=["year"]).inputs["year"], expected)


@pytest.mark.parametrize(
    "chosen",
    [
        {"user_features": ["country"], "item_features": ["country"]},
        {"user_features": ["gender", "gender"]},
        {"item_features": ["item_id"]},
        {"item_features": [HISTORY]},
    ],
)
def test_a_feature_never_replaces_another_of_its_name(chosen: dict[str, list[str]]) -> None:
    """What stands as integer i in `item_id` must be `vocabulary["item"][i]`: knowledge is looked up by it."""
    items = ITEMS.assign(country=["FR", "US", "FR"], **{HISTORY: "x"})
    with pytest.raises(DataError, match=next(iter(chosen.values()))[0]):
        samples(tables(ROWS, items, USERS.assign(country=["DE", "DE"])), **chosen)


def test_one_part_is_taken_with_its_labels() -> None:
    given_tables = tables([(f"u{i}", 3, t, 5 if t % 2 else 1) for i in range(10) for t in range(4)])
    built = samples(given_tables)
    taken = {part: built.of(part) for part in ("train", "validation", "test", "history")}
    assert {part: len(label) for part, (_, label) in taken.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
        "history": 0,
    }
    inputs, label = taken["test"]
    rows = built.part == "test"
    np.testing.assert_array_equal(label, built.label[rows])
    for name, values in inputs.items():
        np.testing.assert_array_equal(values, built.inputs[name][rows])


def test_histories_are_the_latest_clicks_oldest_first() -> None:
    built = samples(tables(ROWS), history_length=2)
    ids = [[built.vocabulary["item"][i] for i in row] for row in built.inputs[HISTORY]]
    assert ids == [[3, 10], [3, 10], [2, None], [2, 10]]


EVENT = st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 12), st.integers(1, 5))


@settings(max_examples=50, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=50), st.integers(0, 6), st.integers(1, 5))
def test_histories_hold_earlier_clicks_only(rows: list[Any], history: int, length: int) -> None:
    given_tables = tables(rows)
    split = split_interactions(given_tables.interactions, history=history)
    built = build_samples(given_tables, split, history_length=length)
    chosen = split[split["part"] != "history"]
    assert len(chosen) == len(built.label)
    for row, sample in zip(built.inputs[HISTORY], chosen.itertuples(), strict=True):
        shown = [built.vocabulary["item"][i] for i in row if i]
        earlier = split[
            (split["user_id"] == sample.user_id) & (split["timestamp"] < sample.timestamp) & (split["label"] > 0)
        ]
        assert shown == earlier["item_id"].tolist()[-length:]
        assert row.tolist() == [*(i for i in row if i), *[0] * (length - len(shown))], "zeros come after"


def test_no_part_of_time_has_samples_that_a_prompt_saw() -> None:
    """u0 is done before u1 begins."""
    given_tables = tables([(f"u{t // 10}", 3, t, 5) for t in range(20)])
    split = split_interactions(given_tables.interactions, protocol="temporal", validation=0.2, test=0.2)
    built = build_samples(given_tables, split)
    assert built.part.tolist() == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4
    assert [built.vocabulary["user"][i] for i in built.inputs["user_id"]] == ["u0"] * 2 + ["u1"] * 10


def test_clicks_tied_in_the_given_order_are_not_history_of_each_other() -> None:
    given_tables = tables(ROWS)
    ordered = given_tables.interactions.assign(timestamp=1, order=[0, 1, 2, 2, 0, 1, 2, 3])
    built = build_samples(given_tables, split_interactions(ordered), history_length=2)
    assert [[built.vocabulary["item"][i] for i in row] for row in built.inputs[HISTORY]] == [
        [3, 10], [3, 10], [2, None], [2, 10],
    ]  # fmt: skip
