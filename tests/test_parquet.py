"""Answers leave as Parquet and come back as they were."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.cache import STATUSES, Answer, Link, TextCache, merge
from kar_aug.cache.texts.incoming import Brought
from kar_aug.cache.texts.parquet import export_parquet, export_shards, import_parquet, parquet_files
from kar_aug.cache.texts.spilt import Spill, import_spilt
from kar_aug.errors import StoreError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
ENTITY = st.one_of(st.integers(-(2**62), 2**62), TEXT)


def filled(path: Path, count: int = 20) -> TextCache:
    cache = TextCache(path)
    for i in range(count):
        messages = [{"role": "user", "content": f"Movie {i} (1996)?"}]
        key = f"{i:032x}"
        answer = Answer(key, "ok", f"About {i}", "m", messages, 7, 3, 0.5, parameters={"seed": 0}, cost=0.25)
        cache.put(answer, [Link("item", i, key, "v1"), Link("user", f"u{i}", key, "v2", "1998-01-01")])
    cache.put(Answer("f" * 32, "refused", "", "m", [], created="2026-01-01T00:00:00+00:00"))  # of all caches
    return cache


def everything(cache: TextCache) -> list[object]:
    answers = [(a.key, a.status, a.text, a.model, list(a.messages), a.prompt_tokens, a.cost) for a in cache.answers()]
    return [answers, *(sorted(map(str, cache.knowledge(source))) for source in ("item", "user"))]


def test_a_cache_comes_back_from_parquet(tmp_path: Path) -> None:
    cache, copy = filled(tmp_path / "a.sqlite"), TextCache(tmp_path / "b.sqlite")
    assert export_parquet(cache, tmp_path / "a.parquet") == 41
    assert import_parquet(tmp_path / "a.parquet", copy) == Brought(21, 0)
    assert everything(copy) == everything(cache)
    assert import_parquet(tmp_path / "a.parquet", copy) == Brought(0, 0)


def test_shards_hold_keys_of_any_form_once_and_what_a_killed_export_left_is_no_shard(tmp_path: Path) -> None:
    cache, copy = filled(tmp_path / "a.sqlite"), TextCache(tmp_path / "b.sqlite")
    for key in ("request-1", "F" * 32, "00", "8f\u00e9"):
        cache.put(Answer(key, "ok", f"About {key}", "m", []))
    left = tmp_path / "shards" / ".00001-of-00004.0123456789ab.parquet"
    left.parent.mkdir()
    left.write_bytes(b"half of a file")
    assert export_shards(cache, left.parent, 4) == 45 and not left.exists()
    for path in parquet_files(left.parent):
        import_parquet(path, copy)
    assert everything(copy) == everything(cache)


def test_prompts_can_be_left_out(tmp_path: Path) -> None:
    export_parquet(filled(tmp_path / "a.sqlite"), tmp_path / "a.parquet", messages=False)
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert frame["messages"].isna().all() and frame["text"].notna().all()
    assert "1996" not in frame.to_csv()
    copy = TextCache(tmp_path / "b.sqlite")
    import_parquet(tmp_path / "a.parquet", copy)
    assert len(list(copy.knowledge("item"))) == 20


@pytest.mark.slow
@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.tuples(ENTITY, TEXT, st.sampled_from(STATUSES)), max_size=8, unique_by=lambda row: repr(row[0])))
def test_any_answer_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int | str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with TextCache(folder / "a.sqlite") as cache, TextCache(folder / "b.sqlite") as copy:
        for i, (entity_id, text, status) in enumerate(rows):
            cache.put(
                Answer(f"{i:032x}", status, text, text, [], parameters={}), [Link("item", entity_id, f"{i:032x}", text)]
            )
        export_parquet(cache, folder / "a.parquet")
        import_parquet(folder / "a.parquet", copy)
        assert everything(copy) == everything(cache)


def test_caches_merge_and_keep_what_was_there(tmp_path: Path) -> None:
    target, source = filled(tmp_path / "a.sqlite", 10), filled(tmp_path / "b.sqlite", 20)
    target.put(Answer(f"{0:032x}", "ok", "kept", "m", []))
    assert merge(source, target) == Brought(10, 0)
    assert len(list(target.knowledge("item"))) == 20
    first = target.get(f"{0:032x}")
    assert first is not None and first.text == "kept"


def test_an_older_export_does_not_win_over_a_newer_answer(tmp_path: Path) -> None:
    with TextCache(tmp_path / "a.sqlite") as cache:
        for number, text in enumerate(("text v1", "text v2", "text v3")):
            cache.put(Answer(f"{number}", "ok", text, "m", []))
            cache.link_as_of([(Link("item", 1, f"{number}", f"v{number}"), f"2026-01-0{number + 1}T00:00:00+00:00")])
            export_parquet(cache, tmp_path / f"{number}.parquet")
        old = pd.read_parquet(tmp_path / "0.parquet").drop(columns="updated")  # by an older kar-aug
        old.assign(created="2025-12-01T00:00:00+00:00").to_parquet(tmp_path / "older.parquet")
    with TextCache(tmp_path / "b.sqlite") as copy:
        import_parquet(tmp_path / "1.parquet", copy)
        for older in ("0", "older"):
            done = import_parquet(tmp_path / f"{older}.parquet", copy)
            assert done.kept == 1 and "1 entities keep the newer answers that they have" in str(done)
        assert [k.text for k in copy.knowledge("item")] == ["text v2"]
        assert str(import_parquet(tmp_path / "2.parquet", copy)) == "1 answers are new"
        assert [k.text for k in copy.knowledge("item")] == ["text v3"]
        with TextCache(tmp_path / "a.sqlite") as cache:
            assert merge(copy, cache) == Brought(0, 0)


def test_an_answer_that_was_asked_again_comes_back_over_the_refused_one_and_not_the_other_way(tmp_path: Path) -> None:
    early, late = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    refused, whole = (
        Answer("k", "refused", "no", "m", [], created=early),
        Answer("k", "ok", "yes", "m", [], created=late),
    )
    later = Answer("k", "refused", "no", "m", [], created="2026-01-03T00:00:00+00:00")
    with TextCache(tmp_path / "a.sqlite") as cache:
        cache.put(refused)
        said = []
        for answer in (whole, refused, later):
            spill = Spill(cache)
            spill.add([(answer, [Link("item", 1, "k", "v1")])])
            assert spill.path is not None
            said.append((import_spilt(spill.path, cache).new, [each.text for each in cache.answers()]))
    assert said == [(1, ["yes"]), (0, ["yes"]), (0, ["yes"])]


@pytest.mark.parametrize("content", [b"", b"PAR1 no", b"{}\n"])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(StoreError, match=r"bad\.parquet cannot be read as Parquet"):
        import_parquet(tmp_path / "bad.parquet", TextCache(tmp_path / "a.sqlite"))


def test_a_parquet_file_of_something_else_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
    pd.DataFrame({"key": [1], "text": [2], "status": ["fine"], "model": ["m"]}).to_parquet(tmp_path / "y.parquet")
    cache = TextCache(tmp_path / "a.sqlite")
    with pytest.raises(StoreError, match=r"x\.parquet holds no answers: there is no column 'key'"):
        import_parquet(tmp_path / "x.parquet", cache)
    with pytest.raises(StoreError, match=r"y\.parquet holds a row that is no answer"):
        import_parquet(tmp_path / "y.parquet", cache)
