"""One value, several or none in a cell: a list is read like text that bars separate, and a struct by nobody."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples
from support.small_tables import EVENTS, GENRES, ITEMS, assert_same, prompts, samples

from kar_aug.audit import statistics
from kar_aug.cache import TextCache
from kar_aug.cache.texts.imported import import_texts
from kar_aug.cache.texts.verify import contradictions, vocabularies
from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples, exploded
from kar_aug.data.cells import Unreadable, flat, mended, text_of, values_of
from kar_aug.data.place import Table
from kar_aug.data.types import plain
from kar_aug.errors import DataError
from kar_aug.pipeline.workspace.metadata import metadata_scenario
from kar_aug.prompts import Scenario, item_prompts
from kar_aug.prompts.text import clean

ODD = [None, "", "a|b", "\ud83d", 3, 2.5, 2.0, 1e16, 1e-7, float("nan"), True, b"raw", Decimal("1.50"), 2**70]
LISTS = [None if cell is None else cell.split("|") for cell in GENRES]
WORDS = st.text(st.characters(exclude_characters="|", codec="utf-8"), min_size=1, max_size=6)


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.sampled_from(ODD), min_size=1, max_size=3, unique_by=repr).flatmap(
        lambda some: st.lists(st.none() | st.lists(st.sampled_from(some), max_size=4), min_size=1, max_size=5)
    ),
    st.booleans(),
)
def test_the_lists_of_a_column_hold_what_each_cell_does(cells: list[list[Any] | None], as_arrays: bool) -> None:
    column = pd.Series([np.array(c) if as_arrays and c else c for c in cells], dtype=object)
    assert exploded(column).tolist() == [value for cell in column for value in values_of(cell)]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5))
def test_a_list_is_what_bars_separate(words: list[str]) -> None:
    joined = "|".join(words)
    for cell in (words, tuple(words), np.array(words, dtype=object), pa.array(words).to_numpy(zero_copy_only=False)):
        assert values_of(cell) == values_of(joined) == tuple(words)
        assert text_of(cell) == joined and clean(cell) == clean(joined)


def test_what_a_list_holds_becomes_words() -> None:
    assert values_of([1, 2.0, np.float32(2.5), None, np.nan, "", b"x", True]) == ("1", "2", "2.5", "x", "True")
    assert values_of(None) == values_of(np.nan) == values_of(pd.NA) == values_of([]) == values_of(pd.NaT) == ()
    assert values_of({"b", "a"}) == ("a", "b") and values_of(7) == ("7",)
    assert values_of(["A|B", "C"]) == ("A|B", "C") and text_of(["A|B", "C"]) == "A/B|C", "it stays one value"
    for cell in ({"a": 1}, [{"a": 1}], [["a"]], Unreadable("no value")):
        for read in (values_of, text_of, clean):
            with pytest.raises(DataError):
                read(cell)


LISTED: dict[str, Any] = {
    "lists": LISTS,
    "arrays": [None if cell is None else np.array(cell) for cell in LISTS],
    "arrow": pd.array(LISTS, pd.ArrowDtype(pa.list_(pa.string()))),
    "text of Python": [None if cell is None else repr(cell) for cell in LISTS],
    "text of JSON": [None if cell is None else json.dumps(cell) for cell in LISTS],
    "text of numpy": [None if cell is None else str(np.array(cell)) for cell in LISTS],
}


@pytest.mark.parametrize("form", LISTED)
def test_lists_are_read_as_bars_are_in_models_prompts_and_metadata(form: str) -> None:
    items = ITEMS.assign(genres=LISTED[form])
    assert_same(samples(EVENTS, items), samples(EVENTS))
    for scenario in ("movies", "books"):
        assert prompts(EVENTS, items, scenario) == prompts(EVENTS, scenario=scenario)
    assert "Genres: Drama, Comedy\n" in prompts(EVENTS, items)[-8].text
    split, by = split_interactions(EVENTS), metadata_scenario(Scenario.load("movies"))
    told = [[p.text for p in item_prompts(by, Tables(EVENTS, each), split)] for each in (items, ITEMS)]
    assert told[0] == told[1] and "genres: Drama, Comedy." in told[0][0]


def test_text_that_only_looks_like_lists_stays_text(caplog: pytest.LogCaptureFixture) -> None:
    for cells in (["[REC]", "[1] One"], ["['a']", "b"], ["[1984]", "[x"], ["[]", "x"]):
        frame = pd.DataFrame({"title": cells})
        assert plain(frame, Table("items")) is frame
    assert not caplog.text
    plain(pd.DataFrame({"genres": ["['a']", "[]"]}), Table("items.csv"))
    assert caplog.messages == [
        "items.csv: 'genres' holds lists written as text. They are read as several values: ['a']"
    ]


STRUCT = pa.struct({"id": pa.int64(), "name": pa.string()})
STRUCTS: dict[str, Any] = {
    "structs": [{"id": 1, "name": "Drama"}] * 8,
    "lists of structs": [[], None, *[[{"id": 1, "name": "Drama"}]] * 6],
    "arrow": pd.array([[{"id": 1, "name": "Drama"}]] * 8, pd.ArrowDtype(pa.list_(STRUCT))),
    "text": [repr([{"id": 1, "name": "Drama"}])] * 8,
}  # fmt: skip


@pytest.mark.parametrize("form", STRUCTS)
def test_structs_are_refused_by_whoever_reads_them_and_by_nobody_else(form: str) -> None:
    items = ITEMS.assign(genres=STRUCTS[form])
    message = (
        r"^items: 'genres' holds structs \(id, name\), which are no values\. Say which key to take: "
        r'\[data\] columns = \{ genres = "genres\.name" \}$'
    )
    with pytest.raises(DataError, match=message):
        prompts(EVENTS, items)
    with pytest.raises(DataError, match=message):
        samples(EVENTS, items)
    split = split_interactions(EVENTS)
    with pytest.raises(DataError, match=message):
        statistics.columns("item", Tables(EVENTS, items).items, ["genres"], split)
    build_samples(Tables(EVENTS, items), split, item_features=["year"])


def test_lists_of_lists_and_bytes_that_are_no_text_are_refused_by_whoever_reads_them() -> None:
    with pytest.raises(DataError, match=r"items: 'genres' holds lists of lists"):
        samples(EVENTS, ITEMS.assign(genres=[[["a"]]] * 8))
    with pytest.raises(DataError, match=r"items: 'genres' holds bytes that are no UTF-8 text"):
        samples(EVENTS, ITEMS.assign(genres=[b"\xff\xd8"] * 8))
    assert "Genres: Drama\n" in prompts(EVENTS, ITEMS.assign(genres=[b"Drama"] * 8))[-1].text


def test_the_audit_reads_lists_as_it_reads_bars() -> None:
    split = split_interactions(EVENTS, protocol="temporal", validation=0.2, test=0.3)
    for genres in (GENRES, LISTS):
        check = statistics.columns("item", Tables(EVENTS, ITEMS.assign(genres=genres)).items, ["genres"], split)
        assert check.count == 1 and check.leaks == ()
    assert flat(pd.Series(LISTS)).fillna("").tolist() == [cell or "" for cell in GENRES]
    column = pd.Series(GENRES)
    assert flat(column) is column


def test_verify_reads_lists_as_it_reads_bars() -> None:
    for genres in (GENRES, LISTS):
        row = {"genres": genres[0], "title": None, "year": pd.NA, **vocabularies({"genres": genres})}
        assert list(contradictions("A war film.", row)) == ["says war, the table says Drama|Comedy"]
        assert list(contradictions("A comedy.", row)) == []


def test_texts_that_are_lists_are_imported_a_line_each(tmp_path: Path, cache: TextCache) -> None:
    rows: list[dict[str, Any]] = [
        {"item_id": 1.0, "text": ["First part.", "Second \ud83d part."], "as_of": 1_500_000_000_000},
        {"item_id": 2.0, "text": [], "as_of": 1_500_000_001_000},
        {"item_id": 3.0, "text": None},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = import_texts(tmp_path / "a.jsonl", cache, {"item": [1, 2, 3], "user": [1]})
    assert (done.texts, done.empty, done.unknown) == (1, 2, 0)
    found = list(cache.knowledge("item"))
    assert [(k.entity_id, k.text, k.as_of) for k in found] == [
        (1, "First part.\nSecond \ufffd part.", "2017-07-14T02:40:00")
    ]


def test_imported_ids_are_of_the_type_of_the_data(tmp_path: Path, cache: TextCache) -> None:
    (tmp_path / "a.csv").write_text("item_id,text,as_of\n007,Bond.,2024-01-31 18:00:00+02:00\n")
    assert import_texts(tmp_path / "a.csv", cache, {"item": ["007", "B"], "user": [1]}).unknown == 0
    assert next(cache.knowledge("item")).as_of == "2024-01-31T16:00:00"
    pd.DataFrame({"item_id": ["7", "8"], "text": "x"}).to_parquet(tmp_path / "b.parquet")
    assert import_texts(tmp_path / "b.parquet", cache, {"item": [7, 9], "user": [1]}).unknown == 1
    (tmp_path / "c.csv").write_text("item_id,text,as_of\n7,x,never\n")
    with pytest.raises(DataError, match=r"c\.csv: 'as_of' must hold .* Row 0 holds 'never'"):
        import_texts(tmp_path / "c.csv", cache, {"item": [7], "user": [1]})


@settings(max_examples=examples(100), deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=8))
def test_no_text_of_a_table_is_one_that_cannot_be_sent(text: str) -> None:
    clean(text).encode()
    mended(text).encode()
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    assert mended(whole) == whole


def test_half_a_character_in_a_title_reaches_no_prompt() -> None:
    titles = pd.Series(["Fun \ud83d", *"abcdefg"], dtype=object)
    shown = prompts(EVENTS, ITEMS.assign(title=titles))
    assert any("Fun \ufffd" in prompt.text for prompt in shown)
    assert all(prompt.text.encode() for prompt in shown)


def test_half_a_character_in_a_frame_is_no_reason_to_stop() -> None:
    broken = pd.Series(["Fun \ud83d|B"] * len(ITEMS), dtype=object)
    found = samples(EVENTS, ITEMS.assign(genres=broken))
    assert found.encodings["genres"].values == ("B", "Fun \ufffd")
