"""Every wrong table is one clear error, and a split never lets a prompt see a sample."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.data import PARTS, Tables, as_of, load_tables, split_interactions
from kar_aug.data.labels import where
from kar_aug.data.room import counted, different
from kar_aug.errors import DataError

Change = dict[str, Any]


def events(**changes: Any) -> pd.DataFrame:
    """Three good events, some columns changed or, where None, left out."""
    columns = {"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [10, 20, 30], "rating": [1, 5, 3], **changes}
    return pd.DataFrame({name: values for name, values in columns.items() if values is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": None}, "interactions: column 'user_id' is missing. It has: item_id, timestamp, rating"),
        ({"timestamp": None}, "interactions: column 'timestamp' is missing"),
        ({"rating": None}, "interactions: there is neither a column 'rating' nor a column 'label'."),
        ({"user_id": [1, None, 2]}, "interactions: 'user_id' is empty in row 1."),
        ({"item_id": ["a", "b", None]}, "interactions: 'item_id' is empty in row 2."),
        ({"timestamp": [None, None, 3]}, "interactions: 'timestamp' is empty in 2 rows, the first is row 0."),
        ({"rating": [1, np.nan, 3]}, "interactions: 'rating' is empty in row"),
        ({"timestamp": ["1998", "1999", "2000"]}, "'timestamp' holds years, or seconds? Row 0 holds 1998."),
        (
            {"timestamp": ["2024-01-31", "soon", "2024"]},
            "or datetimes. Row 1 holds 'soon'",
        ),
        ({"rating": ["1", "bad", "ugly"]}, "interactions: 'rating' must hold numbers, not text. Row 1 holds 'bad'."),
        ({"label": [0, 1, 2]}, "must hold 0 or 1 only. Row 2 holds 2. Of other numbers say"),
        # No store keeps such ids: they must be refused before answers about them are paid for.
        ({"user_id": [1.5, 2.0, 3.0]}, "user_id"),
        ({"user_id": [True, False, True]}, "user_id"),
        ({"item_id": [1, "a", 2]}, "item_id"),
        ({"timestamp": [1, np.inf, 2]}, "timestamp"),
        (
            {"timestamp": [1_600_000_000_000, 2, 3]},
            "by its size, but not in each row. Row 1 holds 2.",
        ),
        ({"timestamp": [10**20, 10**20, 10**20]}, "which is no time even in nanoseconds"),
        ({"order": [0, None, 1]}, "interactions: 'order' is empty in row 1."),
        ({"order": ["a", "b", "c"]}, "interactions: 'order' must hold numbers"),
    ],
)
def test_a_wrong_interactions_table_is_one_clear_error(change: Change, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        Tables(events(**change))


@pytest.mark.parametrize(
    ("source", "ids", "message"),
    [
        ("item", None, "items: column 'item_id' is missing. It has: name"),
        ("user", None, "users: column 'user_id' is missing. It has: name"),
        ("item", [1, 1], "items: item_id 1 stands in more than one row. Keep one row an id."),
        ("user", [2, 2], "users: user_id 2 stands in more than one row. Keep one row an id."),
        ("item", [1, None], "items: 'item_id' is empty in row 1."),
        ("item", ["1", "2"], "items: item_id holds strings but interactions hold integers, so that no id would"),
        (
            "user",
            [1.5, 2.0],
            "users: 'user_id' must hold integers or strings, all of one kind; it holds: floating. Row 0 holds 1.5.",
        ),
        ("user", [[1], [2]], "it holds: mixed. Row 0 holds [1]."),
    ],
)
def test_a_wrong_entity_table_is_one_clear_error(source: str, ids: list[Any] | None, message: str) -> None:
    table = pd.DataFrame({f"{source}_id": ids, "name": "x"} if ids else {"name": ["x"]})
    with pytest.raises(DataError, match=re.escape(message)):
        Tables(events(), **{f"{source}s": table})


def test_ids_are_those_of_both_tables_sorted() -> None:
    tables = Tables(events(), items=pd.DataFrame({"item_id": [9, 2]}))
    assert tables.ids("item") == [1, 2, 9]
    assert tables.ids("user") == [1, 2]
    assert all(type(id) is int for id in tables.ids("item"))


@st.composite
def interactions(draw: st.DrawFn) -> pd.DataFrame:
    """Events of a few users in any order, with many equal timestamps."""
    row = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 12), st.integers(1, 5))
    frame = pd.DataFrame(draw(st.lists(row, min_size=1, max_size=60)))
    frame.columns = pd.Index(["user_id", "item_id", "timestamp", "rating"])
    if draw(st.booleans()):
        frame["user_id"] = "user " + frame["user_id"].astype(str)
    return frame


@settings(max_examples=examples(50), deadline=None)
@given(interactions(), st.integers(0, 8))
def test_history_is_the_longest_early_part_that_ends_between_two_times(frame: pd.DataFrame, history: int) -> None:
    split = split_interactions(frame, history=history)
    for _, group in split.groupby("user_id"):
        times, seen = group["timestamp"].tolist(), (group["part"] == "history").tolist()
        assert times == sorted(times)
        most = min(len(times) // 2, history)
        cuts = [0, *(k for k in range(1, most + 1) if times[k] > times[k - 1])]
        assert seen == [i < max(cuts) for i in range(len(times))]


@settings(max_examples=examples(50), deadline=None)
@given(interactions(), st.integers(0, 8))
def test_every_sample_is_later_than_all_that_the_prompt_saw(frame: pd.DataFrame, history: int) -> None:
    split = split_interactions(frame, history=history)
    samples = split[split["part"] != "history"]
    seen_until = samples["user_id"].map(as_of(split))
    assert (seen_until.isna() | (samples["timestamp"] > seen_until)).all()
    sides = split.assign(seen=split["part"] == "history").groupby(["user_id", "timestamp"])["seen"].nunique()
    assert (sides == 1).all(), "equal times of a user stay together"


@settings(max_examples=examples(50), deadline=None)
@given(interactions(), st.integers(0, 3))
def test_users_not_rows_are_split(frame: pd.DataFrame, seed: int) -> None:
    split = split_interactions(frame, validation=0.2, test=0.3, seed=seed)
    samples = split[split["part"] != "history"]
    part_of_user = samples.groupby("user_id")["part"].agg(set)
    assert (part_of_user.map(len) == 1).all()
    assert len(part_of_user) == frame["user_id"].nunique(), "each user has samples"
    counts = part_of_user.map(min).value_counts()
    users = len(part_of_user)
    assert counts.get("test", 0) == round(0.3 * users)
    assert counts.get("test", 0) + counts.get("validation", 0) == round(0.5 * users)


@settings(max_examples=examples(50), deadline=None)
@given(interactions())
def test_temporal_cuts_are_the_same_for_all_users_and_keep_ties_together(frame: pd.DataFrame) -> None:
    split = split_interactions(frame, protocol="temporal", validation=0.2, test=0.2)
    order = split["part"].map(PARTS.index)
    by_time = order.groupby(split["timestamp"]).agg(["min", "max"])
    assert (by_time["min"] == by_time["max"]).all(), "one time, one part, whoever the user is"
    assert by_time["min"].is_monotonic_increasing
    samples = split[split["part"] != "history"]
    assert samples.empty or not len(as_of(split)) or as_of(split).max() < samples["timestamp"].min()


def test_temporal_parts_have_their_shares_by_hand() -> None:
    frame = pd.DataFrame({"user_id": [1, 2] * 50, "item_id": 1, "timestamp": range(100), "rating": 5})
    split = split_interactions(frame, protocol="temporal", validation=0.1, test=0.2).sort_values("timestamp")
    assert split["part"].tolist() == ["history"] * 40 + ["train"] * 30 + ["validation"] * 10 + ["test"] * 20
    split = split_interactions(frame, protocol="temporal", history_share=0.1, test=0.2)
    assert (split["part"] == "history").sum() == 10


def test_a_user_of_one_span_has_history_or_samples_and_no_more() -> None:
    """u1 is done before u2 begins."""
    frame = pd.DataFrame({"user_id": [1] * 10 + [2] * 10, "item_id": 1, "timestamp": range(20), "rating": 5})
    split = split_interactions(frame, protocol="temporal", history_share=0.5)
    assert set(split.loc[split["user_id"] == 1, "part"]) == {"history"}
    assert set(split.loc[split["user_id"] == 2, "part"]) == {"train", "validation", "test"}
    assert as_of(split).index.tolist() == [1]


@settings(max_examples=examples(50), deadline=None)
@given(interactions(), st.integers(0, 8), st.sampled_from(["user", "temporal"]), st.randoms())
def test_a_given_order_decides_where_timestamps_are_rough(
    frame: pd.DataFrame, history: int, protocol: str, random: Any
) -> None:
    frame["order"] = [random.randint(0, 5) for _ in range(len(frame))]
    split = split_interactions(frame, protocol=protocol, history=history, history_share=0.3)
    for _, group in split.groupby("user_id"):
        assert group["order"].is_monotonic_increasing and group["timestamp"].is_monotonic_increasing
        assert group["moment"].tolist() == group["order"].rank(method="dense").sub(1).astype(int).tolist()
        parts = group["part"].map(PARTS.index)
        assert (parts.groupby(group["moment"]).nunique() == 1).all() and parts.is_monotonic_increasing
    if protocol == "user":
        alone = split_interactions(frame.assign(timestamp=frame["order"]).drop(columns="order"), history=history)
        assert split["part"].tolist() == alone["part"].tolist(), "as if the order were the time"


def test_a_timestamp_that_contradicts_the_order_is_raised() -> None:
    frame = events(user_id=[1, 1, 1], timestamp=[10, 30, 20], order=[0, 1, 2])
    assert split_interactions(frame)["timestamp"].tolist() == [10, 30, 30]


@settings(max_examples=examples(30), deadline=None)
@given(interactions())
def test_the_same_seed_gives_the_same_split_and_leaves_the_input_alone(frame: pd.DataFrame) -> None:
    before = frame.copy(deep=True)
    first = split_interactions(frame, seed=7)
    pd.testing.assert_frame_equal(first, split_interactions(frame, seed=7))
    pd.testing.assert_frame_equal(frame, before)
    shuffled = split_interactions(frame.sample(frac=1, random_state=1), seed=7)
    columns = ["user_id", "timestamp", "moment", "part"]
    pd.testing.assert_frame_equal(first[columns], shuffled[columns])


def test_another_seed_draws_other_users() -> None:
    frame = pd.DataFrame({"user_id": range(40), "item_id": 1, "timestamp": 1, "rating": 5})
    parts = [split_interactions(frame, seed=seed)["part"].tolist() for seed in range(3)]
    assert parts[0] != parts[1] != parts[2]
    assert [p.count("test") for p in parts] == [4, 4, 4] and parts[0].count("validation") == 4


def test_an_expression_reads_columns_and_no_variable_of_ours() -> None:
    frame = pd.DataFrame({"dwell": [1, 5], "seen": [True, False]})
    assert where(frame, "dwell > 3 or seen", "label").tolist() == [True, True]
    for expression in ("@frame.dwell > 3", "@name == 'label'", "@pd.isna(dwell)"):
        with pytest.raises(DataError, match=r"^label: .* cannot be evaluated"):
            where(frame, expression, "label")


@pytest.mark.parametrize(
    "expression",
    [
        "event != 'skip'", "event not in ['skip']", "not (event == 'skip')", "~(event == 'skip')", "'skip' != event",
        "event != 'skip' and dwell > 3", "kind != 'skip'", "not dwell < 3", "~(dwell < 3) | event == 'buy'",
    ],
)  # fmt: skip
def test_of_what_is_missing_no_expression_is_true(expression: str) -> None:
    """A row whose event nobody knows is no click because it is no skip."""
    frame = pd.DataFrame({"event": ["skip", None, "play"], "dwell": [1, np.nan, 5.0]})
    frame["kind"] = frame["event"].astype("category")
    assert where(frame, expression, "label").tolist() == [False, False, True]


@pytest.mark.parametrize("kind", ["object", "boolean"])
def test_nor_is_it_of_a_gap_between_true_and_false(kind: Any) -> None:
    frame = pd.DataFrame({"skipped": pd.Series([True, None, False], dtype=kind), "dwell": [1, 2, 3]})
    for expression in ("not skipped", "~skipped", "skipped == False", "not (skipped or dwell > 5)"):
        assert where(frame, expression, "label").tolist() == [False, False, True], expression
    assert where(frame, "skipped or dwell == 2", "label").tolist() == [True, True, False]
    assert where(frame, "skipped.isna()", "label").tolist() == [False, True, False]


def test_numbers_are_neither_true_nor_false() -> None:
    frame = pd.DataFrame({"skipped": [1, None, 0]})
    with pytest.raises(DataError, match=r"label: 'not skipped' cannot be evaluated: of numbers .* write \"n == 0\"\."):
        where(frame, "not skipped", "label")


def test_an_expression_may_ask_for_what_is_missing() -> None:
    frame = pd.DataFrame({"event": ["skip", None, "play"], "dwell": [1, 2, np.nan]})
    assert where(frame, "event.isna() or event == 'play'", "label").tolist() == [False, True, True]
    assert where(frame, "not (event.notna() and event == 'skip')", "label").tolist() == [False, True, True]
    assert where(frame, "event != 'skip' or dwell == 2", "label").tolist() == [False, True, True]
    assert where(frame, "`event` == 'play'", "label").tolist() == [False, False, True]


def test_a_rating_above_the_threshold_is_a_click_and_a_given_label_stays() -> None:
    rated = events(user_id=[1, 1, 1], rating=[3, 3.5, 4])
    assert split_interactions(rated)["label"].tolist() == [0, 1, 1]
    assert split_interactions(rated, click_above=3.5)["label"].tolist() == [0, 0, 1]
    labelled = split_interactions(rated.assign(label=[True, False, True]), click_above=9)
    assert labelled["label"].tolist() == [1, 0, 1] and labelled["label"].dtype == np.float32


def test_datetimes_split_like_the_seconds_they_stand_for() -> None:
    frame = events(user_id=[1, 1, 1], timestamp=[30, 10, 20])
    dated = frame.assign(timestamp=pd.to_datetime(frame["timestamp"], unit="s", utc=True))
    columns = ["item_id", "moment", "part"]
    for options in ({}, {"protocol": "temporal"}):
        pd.testing.assert_frame_equal(
            split_interactions(dated, **options)[columns], split_interactions(frame, **options)[columns]
        )
    ordered = split_interactions(dated.assign(order=[0, 1, 2]))
    assert ordered["timestamp"].tolist() == [dated["timestamp"].max().tz_localize(None)] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"history": -1},
        {"validation": 0},
        {"test": 1},
        {"validation": 0.5, "test": 0.5},
        {"test": float("nan")},
        {"protocol": "temporal", "history_share": 0.8},
        {"protocol": "temporal", "history_share": 0},
    ],
)
def test_a_split_that_leaves_nothing_to_train_on_is_refused(change: Change) -> None:
    with pytest.raises(DataError, match=r"A split needs history >= 0, shares between 0 and 1.*Received: history="):
        split_interactions(events(), **change)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(DataError, match=r"no protocol 'leave-one-out'\. Known: user, temporal"):
        split_interactions(events(), protocol="leave-one-out")


def test_a_users_own_names_of_columns_are_enough(tmp_path: Path) -> None:
    own = events().rename(columns={"user_id": "uid", "item_id": "sku", "timestamp": "at", "rating": "stars"})
    own["at"] = ["2024-01-31 18:00:00", "2024-01-31T18:00:01Z", "2024-02-01"]
    own.to_csv(tmp_path / "events.csv", index=False)
    pd.DataFrame({"sku": [1, 2], "name": ["A", "B"]}).to_parquet(tmp_path / "items.parquet")
    columns = {"user_id": "uid", "item_id": "sku", "timestamp": "at", "rating": "stars", "title": "name"}
    tables = load_tables(tmp_path / "events.csv", tmp_path / "items.parquet", columns=columns)
    assert list(tables.interactions) == ["user_id", "item_id", "timestamp", "rating"]
    assert list(tables.items) == ["item_id", "title"]
    assert tables.interactions["timestamp"].diff().dt.total_seconds().tolist()[1:] == [1.0, 21_599.0]
    with pytest.raises(
        DataError, match=r"no table has a column 'nme', which 'title' is to be read from\. interactions"
    ):
        load_tables(tmp_path / "events.csv", tmp_path / "items.parquet", columns={**columns, "title": "nme"})
    with pytest.raises(DataError, match=r"'user_id' is missing.*\[data\] columns = \{ user_id = "):
        load_tables(tmp_path / "events.csv")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_parquet_and_csv_files_hold_the_same_tables(tmp_path: Path, suffix: str) -> None:
    items = pd.DataFrame({"item_id": [1, 2], "title": ["Amélie, 《千と千尋》", 'with "quotes"\nand a line']})
    paths = {"interactions": events(), "items": items, "users": pd.DataFrame({"user_id": [1, 2]})}
    for name, frame in paths.items():
        save = frame.to_parquet if suffix == ".parquet" else frame.to_csv
        save(tmp_path / f"{name}{suffix}", index=False)
    tables = load_tables(*(tmp_path / f"{name}{suffix}" for name in paths))
    for name, frame in paths.items():
        pd.testing.assert_frame_equal(getattr(tables, name), frame)
    assert load_tables(tmp_path / f"interactions{suffix}").ids("item") == [1, 2]


def _parquet(path: Path, damage: Callable[[bytes], bytes]) -> None:
    events().to_parquet(path)
    path.write_bytes(damage(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.parquet", None, "there is no such file"),
        ("missing.csv", None, "there is no such file"),
        ("events.json", "{}", "interactions: column 'user_id' is missing"),
        ("events.xlsx", "user_id", r"only \.parquet, \.csv, .* files are read"),
        ("events", "user_id", r"only \.parquet, \.csv, .* files are read"),
        ("empty.csv", "", "cannot be read"),
        ("ragged.csv", "user_id,item_id\n1,2\n1,2,3,4\n", "cannot be read"),
        ("quote.csv", 'user_id,item_id\n"1,2\n', "cannot be read"),
        ("zeros.csv", b"user_id\n\0\1\2\n", "is no text"),
        ("empty.parquet", b"", "cannot be read"),
        ("garbage.parquet", b"garbage" * 99, "cannot be read"),
        ("half.parquet", lambda good: good[: len(good) // 2], "cannot be read"),
        ("footer.parquet", lambda good: good[:-300] + bytes(200) + good[-100:], "cannot be read"),
        ("other.csv", "a,b\n1,2\n", "interactions: column 'user_id' is missing. It has: a, b"),
        ("gap.csv", "user_id,item_id,timestamp,rating\n1,1,1,1\n,1,1,1\n", "'user_id' is empty in row"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if callable(content):
        _parquet(path, content)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as raised:
        load_tables(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or message.startswith(("interactions", "'user_id'"))


def test_files_whose_ids_have_different_types_are_refused(tmp_path: Path) -> None:
    events().to_csv(tmp_path / "events.csv", index=False)
    (tmp_path / "items.csv").write_text("item_id,title\n1,One\nB2,Two\n")
    with pytest.raises(DataError, match="items: item_id holds strings but interactions hold integers"):
        load_tables(tmp_path / "events.csv", tmp_path / "items.csv")
    (tmp_path / "users.csv").write_text("user_id\n1\n1\n")
    with pytest.raises(DataError, match="users: user_id 1 stands in more than one row"):
        load_tables(tmp_path / "events.csv", users=tmp_path / "users.csv")


@given(st.lists(st.lists(st.integers(0, 9) | st.none(), max_size=8), max_size=8))
def test_what_comes_in_parts_is_counted_as_if_it_came_at_once(parts: list[list[int | None]]) -> None:
    whole = pd.Series([value for part in parts for value in part], dtype="Int64").dropna()
    series = [pd.Series(part, dtype="Int64").dropna() for part in parts]
    assert different(series) == sorted(set(whole))
    assert counted(pd.Series(part, dtype="Int64") for part in parts).to_dict() == whole.value_counts().to_dict()
