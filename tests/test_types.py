"""Columns as people have them: whatever type they came as, models and prompts read the same of them."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples
from support.small_tables import EVENTS, ITEMS, assert_same, prompts, samples

from kar_aug.data import Tables, as_of, split_interactions
from kar_aug.data.ids import ids_of_text
from kar_aug.data.place import Place, Table
from kar_aug.data.types import plain
from kar_aug.errors import DataError
from kar_aug.prompts import Scenario, item_prompts, user_prompts
from kar_aug.prompts.text import clean

PLACE = Place("events.csv", "uid", "user_id")
FORMS = {
    "nullable": lambda frame: frame.convert_dtypes(),
    "arrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda frame: frame.astype(object),
    "categories": lambda frame: frame.astype("category"),
    "dictionaries": lambda frame: pa.Table.from_pandas(frame.astype("category")).to_pandas(types_mapper=pd.ArrowDtype),
    "decimals": lambda frame: frame.assign(
        **{n: frame[n].map(Decimal) for n in ("rating", "timestamp", "user_id") if n in frame}
    ),
    "small": lambda frame: frame.astype({n: "int32" for n in frame.columns if frame[n].dtype == "int64"}),
    "repeated index": lambda frame: frame.set_index(np.zeros(len(frame), int)),
}


@pytest.mark.parametrize("form", FORMS)
def test_models_and_prompts_read_the_same_of_columns_of_any_type(form: str) -> None:
    """MovieLens has `year` as Int64 with gaps: so it stays."""
    interactions, items = FORMS[form](EVENTS), FORMS[form](ITEMS)
    assert_same(samples(interactions, items), samples(EVENTS))
    assert prompts(interactions, items) == prompts(EVENTS)


def test_what_has_a_type_of_its_own_stays_as_it_is() -> None:
    frame = EVENTS.assign(when=pd.to_datetime(EVENTS["timestamp"], unit="s"), ok=True, title="x", half=0.5)
    assert plain(frame, Table("interactions")) is frame
    gaps = pd.DataFrame({"year": pd.array([1995, None], "Int64"), "price": pd.array([1.5, None], "Float64")})
    found = plain(gaps.assign(ok=pd.array([True, None], "boolean")), Table("items"))
    assert found["year"].dtype == "Int64" and found["price"].dtype == "float64"
    assert found["ok"].tolist() == [True, None] and list(map(clean, found["ok"])) == ["True", ""]
    nested = plain(pd.DataFrame({"on": pd.Series([True, False], dtype=object)}), Table("items"))
    assert nested["on"].dtype == bool, "as keys of structs come: an exported model takes 0 and 1 of them"


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6), st.booleans())
def test_integers_that_were_written_as_text_are_these_integers(numbers: list[int], gap: bool) -> None:
    texts = pd.Series([*map(str, numbers), *([None] if gap else [])], dtype="str")
    found = ids_of_text(texts, PLACE)
    assert found.dropna().tolist() == numbers and found.isna().sum() == gap
    assert ids_of_text(texts, PLACE, "string") is texts


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.from_regex(r"-?0{0,2}[0-9]{1,3}(\.0)?", fullmatch=True), min_size=1, max_size=6))
def test_two_texts_are_one_id_only_where_a_person_says_so(texts: list[str]) -> None:
    column = pd.Series(texts, dtype="str")
    assert ids_of_text(column, PLACE, "integer").tolist() == [int(float(text)) for text in texts]
    try:
        found = ids_of_text(column, PLACE)
    except DataError as error:
        assert "which as integers are one id" in str(error)  # noqa: PT017
    else:
        bare = {text.removesuffix(".0") for text in texts}
        assert len({int(text) for text in bare}) == len(bare) == found.nunique()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1.0, 2.0, 1.0], [1, 2]),
        ([Decimal("1"), Decimal("2.0"), Decimal("1")], [1, 2]),
        (pd.array([1, 2, 1], "Int64"), [1, 2]),
        (pd.array([1, 2, 1], "uint8"), [1, 2]),
        (pd.Categorical([1, 2, 1]), [1, 2]),
        (pd.Categorical(["b", "a", "b"]), ["a", "b"]),
        (["B", "a", "B"], ["B", "a"]),
        ([b"B", b"a", b"B"], ["B", "a"]),
        (pd.array(["B", "a", "B"], pd.ArrowDtype(pa.large_binary())), ["B", "a"]),
        (pd.array(["B", "a", "B"], "string"), ["B", "a"]),
    ],
)
def test_ids_of_any_type_are_integers_or_strings(ids: Any, expected: list[Any]) -> None:
    frame = pd.DataFrame({"user_id": ids, "item_id": ids, "timestamp": [1, 2, 3], "rating": [1, 5, 3]})
    tables = Tables(frame, items=pd.DataFrame({"item_id": ids[:2]}))
    assert tables.ids("item") == tables.ids("user") == expected
    assert {type(id) for id in tables.ids("item")} == {type(expected[0])}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0, np.nan, 2.0], "interactions: 'user_id' is empty in row 1."),
        ([1.0, 2.5, 2.0], "it holds: floating."),
        ([1.0, 2.0, 1e17], "holds decimals, which do not keep so many digits. Row 2 holds 1e+17."),
        ([1, "a", 2], 'it holds: mixed-integer. Read all as text: [data] id_type = "string"'),
        ([b"\xff", b"\xfe", b"\x00"], "must hold integers or strings"),
        ([2**63, 1, 2], "more than 64-bit integers can"),
    ],
)
def test_ids_of_which_nobody_knows_what_they_are_are_refused(ids: list[Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        Tables(pd.DataFrame({"user_id": ids, "item_id": 1, "timestamp": 1, "rating": 1}))
    assert message in str(raised.value)


@pytest.mark.parametrize("ratings", [[Decimal("4.5"), Decimal("1")], ["4.5", "1"], pd.array([4.5, 1], "Float64")])
def test_ratings_of_any_type_are_numbers(ratings: Any) -> None:
    frame = pd.DataFrame({"user_id": 1, "item_id": [1, 2], "timestamp": [1, 2], "rating": ratings})
    assert split_interactions(frame)["label"].tolist() == [1, 0]
    assert Tables(frame).interactions["rating"].tolist() == [4.5, 1.0]
    with pytest.raises(DataError, match=r"'rating' must hold numbers, not text\. Row 0 holds '4,5'\. Write .* point"):
        Tables(frame.assign(rating=["4,5", "1,0"]))
    with pytest.raises(DataError, match=r"'rating' must hold numbers\. Row 0 holds datetime\.date"):
        Tables(frame.assign(rating=datetime.date(2024, 1, 31)))
    labels = frame.drop(columns="rating").assign(label=pd.array([True, False], "boolean"))
    assert split_interactions(labels)["label"].tolist() == [1, 0]


@pytest.mark.parametrize("case", ["one event each", "all at once", "no history wanted"])
def test_where_nobody_has_a_history_nobody_is_asked_about(case: str) -> None:
    events = {
        "one event each": EVENTS.drop_duplicates("user_id"),
        "all at once": EVENTS.assign(timestamp=0),
        "no history wanted": EVENTS,
    }[case]
    split = split_interactions(events, history=0 if case == "no history wanted" else 30)
    assert as_of(split).empty
    assert list(user_prompts(Scenario.load("movies"), Tables(events, ITEMS), split)) == []
    assert len(list(item_prompts(Scenario.load("movies"), Tables(events, ITEMS), split))) == 8
