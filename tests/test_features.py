"""Features are checked against a slow computation that follows their definition word by word."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.config import DataConfig
from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.encodings import FIRST, MISSING, Buckets
from kar_aug.data.features import Feature
from kar_aug.data.inputs import inputs
from kar_aug.data.labels import where
from kar_aug.data.samples import Samples
from kar_aug.errors import DataError

ITEMS = pd.DataFrame({"item_id": [3, 10, 2], "genres": ["War|Drama", None, "Drama"], "year": [1990, 1991, 1990]})
USERS = pd.DataFrame({"user_id": ["b", "a"], "gender": ["F", None]})
PLAIN = {"event_features": ()}


def tables(rows: list[tuple[Any, ...]], items: pd.DataFrame = ITEMS, users: pd.DataFrame = USERS) -> Tables:
    names = ["user_id", "item_id", "timestamp", "rating", "event", "price"][: len(rows[0])]
    return Tables(pd.DataFrame(rows, columns=pd.Index(names)), items=items, users=users)


def samples(given_tables: Tables, history: int = 30, part: str | None = "train", **chosen: Any) -> Samples:
    """Samples of a small table; all of them in `part`, so that all is known, unless that is None."""
    split = split_interactions(given_tables.interactions, history=history)
    if part is not None:
        split["part"] = split["part"].where(split["part"] == "history", part)
    return build_samples(given_tables, split, **chosen)


def everything(built: Samples) -> dict[str, Any]:
    return built.read(np.arange(len(built)))


# (user, item, time, rating): a and b have two events of history and two samples each.
ROWS = [
    *[("a", 3, 1, 5), ("a", 10, 2, 5), ("a", 2, 3, 1), ("a", 3, 4, 5)],
    *[("b", 2, 1, 5), ("b", 2, 2, 1), ("b", 10, 3, 5), ("b", 3, 4, 5)],
]


def test_places_stand_for_the_ids_of_the_vocabulary_and_zero_for_none() -> None:
    built = samples(tables(ROWS))
    inputs = everything(built)
    assert built.vocabulary == {"user": [None, "a", "b"], "item": [None, 2, 3, 10]}
    assert [built.vocabulary["user"][i] for i in inputs["user"]] == ["a", "a", "b", "b"]
    assert [built.vocabulary["item"][i] for i in inputs["item"]] == [2, 3, 10, 3]
    assert built.label.tolist() == [0, 1, 1, 1] and built.label.dtype == np.float32
    assert all(values.dtype == (np.float32 if name == "past_value" else np.int32) for name, values in inputs.items())


def test_features_describe_their_inputs() -> None:
    built = samples(
        tables(ROWS), user_features=("gender",), item_features=("genres", "year"), history_length=3, user_ids=True
    )
    assert built.features == (
        Feature("user_id", 4),
        Feature("item_id", 5),
        Feature("gender", 3),
        Feature("genres", 4, 2),
        Feature("year", 4),
        Feature("hist_item_id", 5, 3, "item_id", "hist"),
        Feature("hist_rating", 4, 3, "", "hist"),
        Feature("hist_genres", 4, 3, "genres", "hist", values=2),
        Feature("hist_year", 4, 3, "year", "hist"),
        Feature("hist_since", 27, 3, "", "hist"),
    )
    for feature in built.features:
        values = everything(built)[feature.name]
        assert values.shape == (4, *feature.shape)
        assert values.min() >= 0 and values.max() < feature.vocabulary_size


def test_no_user_id_is_read_unless_it_is_asked_for() -> None:
    assert "user_id" not in [feature.name for feature in samples(tables(ROWS)).features]


def test_several_values_of_a_cell_are_a_list_padded_with_zeros() -> None:
    drama, war = 2, 3  # categories in order of their names
    expected = [[drama, 0], [war, drama], [0, 0], [war, drama]]
    assert everything(samples(tables(ROWS), item_features=("genres",)))["genres"].tolist() == expected
    as_lists = ITEMS.assign(genres=[["War", "Drama"], None, np.asarray(["Drama"])])
    assert everything(samples(tables(ROWS, as_lists), item_features=("genres",)))["genres"].tolist() == expected


def test_each_event_has_all_of_its_values_up_to_a_limit() -> None:
    drama, war = 2, 3
    chosen: dict[str, Any] = {"item_features": ("genres",), "history_length": 2}
    read = everything(samples(tables(ROWS), **chosen))
    by_item = dict(zip(read["item"].tolist(), read["genres"].tolist(), strict=True)) | {0: [0, 0]}
    assert read["hist_genres"].tolist() == [[by_item[place] for place in row] for row in read["hist_item"].tolist()]
    assert [war, drama] in read["hist_genres"].reshape(-1, 2).tolist()
    first = samples(tables(ROWS), event_values=1, **chosen)
    assert [f.values for f in first.features] == [1] * len(first.features)
    np.testing.assert_array_equal(everything(first)["hist_genres"], read["hist_genres"][..., 0])


def test_values_that_the_interactions_have_of_each_event_are_read_of_each() -> None:
    given = tables(ROWS)
    tags = [["b", "a", "c"], [], ["c"], ["a", "b"]]
    tagged = given.interactions.assign(tags=[tags[row % 4] for row in range(len(given.interactions))])
    built = samples(
        Tables(tagged, given.items, given.users), event_features=("tags",), event_values=2, history_length=3
    )
    feature = next(each for each in built.features if each.name == "hist_tags")
    assert feature.shape == (3, 2) and built.encodings["hist_tags"].as_dict()["values"] == ["a", "b", "c"]
    codes = {"a": 2, "b": 3, "c": 4}
    events, split = built.sequences["hist"], split_interactions(tagged, history=30)
    for place, row in enumerate(built.rows.tolist()):
        rows = events.kept[events.first[row] : events.stop[row]][-3:]
        expected = [[codes[tag] for tag in split["tags"].iloc[before][:2]] for before in rows]
        expected = [[*values, 0, 0][:2] for values in [*expected, [], [], []][:3]]
        assert everything(built)["hist_tags"][place].tolist() == expected


@pytest.mark.parametrize(("cell", "said"), [("n/a", "leave a cell empty"), ("1,234.5", "thousands")])
def test_a_text_among_numbers_is_named_with_its_row(cell: str, said: str) -> None:
    given = tables(ROWS)
    prices = pd.Series(["1.5", None, "2"] * len(ROWS)).iloc[: len(ROWS)]
    prices.iloc[-1] = cell
    priced = Tables(given.interactions.assign(price=prices.astype("str")), given.items, given.users)
    row = rf"interactions: 'price' must hold numbers.*Row {len(ROWS) - 1} holds '{cell}'\. 1 cells hold none.*{said}"
    with pytest.raises(DataError, match=row):
        samples(priced, numeric={"price": "log"})


def test_a_missing_cell_and_an_entity_without_a_row_are_zero() -> None:
    for users in (USERS[:1], USERS):  # a has no row; a's cell is empty; b is F
        inputs = everything(samples(tables(ROWS, users=users), user_features=("gender",)))
        assert inputs["gender"].tolist() == [0, 0, 2, 2]
    nothing = ITEMS.assign(genres=None)
    assert everything(samples(tables(ROWS, nothing), item_features=("genres",)))["genres"].tolist() == [0] * 4


@pytest.mark.parametrize("entity", ["user", "item"])
def test_a_feature_that_is_no_column_is_named(entity: str) -> None:
    with pytest.raises(DataError, match=f"{entity}s: there is no column 'zip' to make a feature of"):
        samples(tables(ROWS), **{f"{entity}_features": ("zip",)})


@pytest.mark.parametrize(
    "chosen",
    [
        {"user_features": ("country",), "item_features": ("country",)},
        {"user_features": ("gender", "gender")},
        {"item_features": ("item_id",)},
        {"item_features": ("hist_item_id",)},
        {"context": ("country",), "item_features": ("country",)},
    ],
)
def test_a_feature_never_replaces_another_of_its_name(chosen: dict[str, Any]) -> None:
    items = ITEMS.assign(country=["FR", "US", "FR"], hist_item_id="x")
    events = tables(ROWS, items, USERS.assign(country=["DE", "DE"]))
    events.interactions["country"] = "IT"
    with pytest.raises(DataError, match="is there already"):
        samples(events, **chosen)


@pytest.mark.parametrize("told", ["rating", "label"])
def test_what_says_the_label_is_no_context(told: str) -> None:
    with pytest.raises(DataError, match=f"context: '{told}' says what the label is"):
        samples(tables(ROWS), context=(told,))


def test_what_only_later_parts_show_is_unknown_and_fitted_on_nothing() -> None:
    rows = [("a", 3, 1, 5), ("a", 10, 2, 5), ("a", 3, 3, 5), ("a", 10, 4, 1), ("b", 2, 1, 1), ("b", 2, 2, 1)]
    given_tables = tables(rows)
    split = split_interactions(given_tables.interactions, history=2)
    split["part"] = np.where(split["user_id"] == "a", np.where(split["moment"] < 2, "history", "train"), "test")
    built = build_samples(given_tables, split, item_features=("year", "genres"), user_ids=True)
    test = built.read(built.of("test"))
    assert test["item_id"].tolist() == [1, 1] and test["user_id"].tolist() == [1, 1]
    assert test["genres"][:, 0].tolist() == [2, 2], "Drama is a genre of item 3, which was trained on"
    assert built.encodings["year"].as_dict()["values"] == [1990, 1991]
    assert [built.vocabulary["item"][i] for i in test["item"]] == [2, 2], "knowledge of it is found all the same"
    assert built.known("item", built.of("test")).tolist() == [False, False]
    assert built.known("item", built.of("train")).all()


def test_rare_ids_are_as_unknown_as_new_ones() -> None:
    inputs = everything(samples(tables(ROWS), fewest=3))
    assert inputs["item_id"].tolist() == [2, 3, 1, 3], "10 stands twice, 2 and 3 three times"


def test_numbers_come_on_the_scale_that_is_asked_for() -> None:
    rows = [("a", 3, t, 5, "x", price) for t, price in enumerate([1.0, 10.0, 100.0, None, 1000.0, 10.0])]
    scales = {"price": "minmax", "year": "standard"}
    inputs = everything(samples(tables(rows), context=("price",), numeric=scales, history=0))
    np.testing.assert_allclose(inputs["price"][[0, 4]], [0, 1])
    assert inputs["price_missing"].tolist() == [0, 0, 0, 1, 0, 0]
    assert inputs["price"][3] == pytest.approx(np.mean([1, 10, 100, 1000, 10]) / 999 - 1 / 999, abs=1e-6)
    assert "year_missing" not in inputs and inputs["year"].dtype == np.float32
    bucketed = everything(samples(tables(rows), context=("price",), numeric={"price": "buckets"}, history=0))["price"]
    assert bucketed[3] == 0 and (np.diff(bucketed[[0, 1, 2, 4]]) > 0).all() and bucketed[1] == bucketed[5]
    logged = everything(samples(tables(rows), context=("price",), numeric={"price": "log"}, history=0))["price"]
    np.testing.assert_allclose(np.diff(logged[[0, 1, 2, 4]]), np.diff(logged[[0, 1, 2, 4]])[0], rtol=0.5)


def test_hour_and_weekday_are_made_from_the_time() -> None:
    day, hour = 86_400, 3_600
    rows = [("a", 3, time, 5) for time in (0, 5 * hour, day, 2 * day + 23 * hour)]
    built = samples(tables(rows), context=("hour", "weekday"), history=0)
    inputs = everything(built)
    values = built.encodings["hour"].as_dict()["values"], built.encodings["weekday"].as_dict()["values"]
    assert [values[0][i - 2] for i in inputs["hour"]] == [0, 5, 0, 23]
    assert [values[1][i - 2] for i in inputs["weekday"]] == [3, 3, 4, 5], "1970 began on a Thursday"


def test_each_kind_of_event_may_be_a_sequence_of_its_own() -> None:
    rows = [("a", 3, 1, 1, "view", 0), ("a", 10, 2, 5, "buy", 0), ("a", 2, 3, 1, "view", 0), ("a", 3, 4, 5, "buy", 0)]
    kinds = {"views": "event == 'view'", "bought": "event == 'buy' and price < 1"}
    built = samples(tables(rows), history=0, history_length=2, sequences=kinds, event_features=())
    inputs = everything(built)
    two, three, ten = (built.encodings["item_id"].as_dict()["values"].index(i) + 2 for i in (2, 3, 10))
    assert inputs["views_item_id"].tolist() == [[0, 0], [three, 0], [three, 0], [three, two]]
    assert inputs["bought_item_id"].tolist() == [[0, 0], [0, 0], [ten, 0], [ten, 0]]


def test_an_expression_that_cannot_be_evaluated_is_named_with_the_columns() -> None:
    frame = pd.DataFrame({"event": ["a"], "price": [1]})
    for wrong in ("evnt == 'a'", "price +", "price + 1", "event == "):
        with pytest.raises(DataError, match="sequences: views: "):
            where(frame, wrong, "sequences: views")


def test_parts_hold_their_samples_and_batches_all_of_them() -> None:
    given_tables = tables([(f"u{i}", 3, t, 5 if t % 2 else 1) for i in range(10) for t in range(4)])
    built = samples(given_tables, part=None)
    sizes = {part: len(built.of(part)) for part in ("train", "validation", "test", "history")}
    assert sizes == {"train": 16, "validation": 2, "test": 2, "history": 0}
    read = {name: np.concatenate(parts) for name, parts in _together(built, built.of("train")).items()}
    for name, values in built.read(built.of("train")).items():
        np.testing.assert_array_equal(values, read[name])


def _together(built: Samples, places: Any) -> dict[str, list[Any]]:
    parts: dict[str, list[Any]] = {}
    for read in built.batches(places, 7, [feature.name for feature in (*built.features, *built.keys)]):
        for name, values in read.items():
            parts.setdefault(name, []).append(values)
    return parts


events = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(0, 9), st.sampled_from([1, 5])),
    min_size=1,
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(rows=events, length=st.integers(1, 5), history=st.integers(0, 4), clicks=st.booleans())
def test_a_sequence_is_the_latest_events_strictly_before(
    rows: list[tuple[str, int, int, int]], length: int, history: int, clicks: bool
) -> None:
    built = samples(
        tables(rows), history, events="clicks" if clicks else "all", history_length=length, event_features=("rating",)
    )
    split = split_interactions(tables(rows).interactions, history=history)
    inputs = everything(built)
    codes = {value: i + 2 for i, value in enumerate(built.encodings["item_id"].as_dict()["values"])}
    stars = {value: i + 2 for i, value in enumerate(built.encodings["hist_rating"].as_dict()["values"])}
    for place, (_, row) in enumerate(split[split["part"] != "history"].iterrows()):
        before = split[(split["user_id"] == row["user_id"]) & (split["moment"] < row["moment"])]
        before = before[before["label"] > 0] if clicks else before
        latest = before.tail(length)
        padding = [0] * (length - len(latest))
        assert inputs["hist_item_id"][place].tolist() == [codes[i] for i in latest["item_id"]] + padding
        assert inputs["hist_rating"][place].tolist() == [stars[r] for r in latest["rating"]] + padding
        assert (
            inputs["hist_item"][place].tolist()
            == [built.vocabulary["item"].index(i) for i in latest["item_id"]] + padding
        )


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(seconds=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_since_grows_by_one_as_the_time_doubles(seconds: list[int]) -> None:
    first = 10**6  # 0 would be no time at all
    rows = [("a", 3, first, 5), *(("a", 3, first + 1 + at, 5) for at in seconds)]
    inputs = everything(samples(tables(rows), history=0, history_length=30, event_features=("since",)))
    last, times = inputs["hist_since"][-1], sorted(t for _, _, t, _ in rows)
    earlier = [t for t in times if t < times[-1]]
    expected = [min(int(np.log2(1 + (times[-1] - t) / 60)), 24) + 2 for t in earlier]
    assert last[: len(earlier)].tolist() == expected and not last[len(earlier) :].any()


def test_the_preset_kar_is_what_its_authors_feed() -> None:
    """The item, one value of one feature, the last five events with both and their ratings; no user."""
    data = DataConfig(
        interactions="x", inputs="kar", user_features=("gender",), item_features=("genres", "year"), context=("hour",)
    )
    built = samples(tables(ROWS), inputs=inputs(data))
    assert [(f.name, f.length) for f in built.features] == [
        ("item_id", None),
        ("genres", None),
        ("hist_item_id", 5),
        ("hist_rating", 5),
        ("hist_genres", 5),
    ]
    clicks = Tables(tables(ROWS).interactions.drop(columns="rating").assign(label=[0, 1] * 4), items=ITEMS)
    assert [f.name for f in samples(clicks, inputs=inputs(data)).features][2:] == [
        "hist_item_id",
        "hist_label",
        "hist_genres",
    ]
    numbers = dataclasses.replace(data, item_features=("year", "genres"), numeric={"year": "log"})
    assert inputs(numbers).item_features == ("genres",), "a number is no category"


def test_what_is_read_by_default_depends_on_the_protocol() -> None:
    named = {protocol: inputs(DataConfig(interactions="x", protocol=protocol)) for protocol in ("user", "temporal")}
    assert [each.user_ids for each in named.values()] == [False, True]
    assert {each.history_length for each in named.values()} == {50}


def test_that_an_earlier_event_was_a_click_is_read_of_it() -> None:
    given = tables(ROWS)
    clicks = given.interactions.assign(label=[1, 0, None, 1, 0, 1, 0, 1]).drop(columns="rating")
    built = samples(Tables(clicks), history_length=4)
    assert built.encodings["hist_label"].as_dict()["values"] == [0.0, 1.0]
    no, yes, neither = 2, 3, 0
    expected = [[yes, no, 0, 0], [yes, no, neither, 0], [no, yes, 0, 0], [no, yes, no, 0]]
    assert everything(built)["hist_label"].tolist() == expected
    others = samples(Tables(clicks), events="clicks"), samples(Tables(clicks.assign(label=1))), samples(given)
    assert not any("hist_label" in built.encodings for built in others), (
        "where it tells nothing, or a rating tells more"
    )


def test_decimals_told_of_events_are_numbers_and_not_a_name_each() -> None:
    rows = [(user, 1 + k % 5, float(k % 2), 1_500_000_000 + 60 * k) for user in range(20) for k in range(12)]
    log = pd.DataFrame(rows, columns=pd.Index(["user_id", "item_id", "label", "timestamp"]))
    log["paid"] = [Decimal(number % 97) / 10 for number in range(len(log))]
    as_decimals, as_floats = (
        build_samples(Tables(frame), split_interactions(frame), event_features=("paid",))
        for frame in (log, log.assign(paid=log["paid"].astype(float)))
    )
    assert isinstance(as_decimals.encodings["hist_paid"], Buckets)
    assert as_decimals.fingerprint == as_floats.fingerprint


@pytest.mark.parametrize("different", range(2, 40))
def test_no_bucket_is_without_any_of_the_values_that_it_is_of(different: int) -> None:
    """Of few different numbers a quantile may lie between two: the audit took the empty bucket for a leak."""
    random = np.random.default_rng(different)
    for rows in (different, 46, 200):
        values = pd.Series(np.append(0.5 + random.integers(0, different, rows), np.nan))
        buckets = Buckets.fit(values)
        assert sorted({*buckets.encode(values).tolist()}) == [MISSING, *range(FIRST, buckets.size)]
