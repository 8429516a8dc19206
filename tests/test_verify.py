"""Answers that should not be trusted are flagged; those that may be trusted are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kar_aug.cache import Answer, Link, TextCache, answer_key
from kar_aug.cache.texts.verify import contradictions, exclude, other_language, verify, vocabularies

FARGO = {"title": "Fargo (1996)", "year": "1996", "genres": "Crime|Drama|Thriller"}
GENRES = vocabularies(
    {"genres": ["Crime|Drama|Thriller", "Comedy", "Animation|Children's|Horror"], "title": ["A", "B"]}
)
GOOD = "Fargo is a crime drama by the Coen brothers, released in 1996. Its mood is dry, cold and humorous."


@pytest.fixture
def cache(tmp_path: Path) -> TextCache:
    return TextCache(tmp_path / "answers.sqlite")


def put(cache: TextCache, number: int, text: str, status: str = "ok", **changes: Any) -> str:
    messages = [{"role": "user", "content": f"Movie {number}?"}]
    key = answer_key("m", messages, {"seed": 0})
    answer = Answer(**{"key": key, "status": status, "text": text, "model": "m", "messages": messages, **changes})
    answer = Answer(**{**answer.__dict__, "parameters": {"seed": 0}})
    cache.put(answer, [Link("item", number, key, "v1")])
    return key


def kinds(cache: TextCache, **options: Any) -> set[tuple[str, Any]]:
    return {(flag.kind, flag.entity_id) for flag in verify(cache, **options)}


def test_a_good_answer_gets_no_flag(cache: TextCache) -> None:
    put(cache, 1, GOOD)
    assert list(verify(cache, metadata=lambda source, id: FARGO | GENRES, language="en")) == []


@pytest.mark.parametrize(
    ("text", "status", "kind"),
    [
        ("As an AI language model, I cannot watch movies.", "ok", "refusal"),
        ("I'm sorry, but I don't have information about this movie.", "ok", "refusal"),
        ("I can't provide that.", "refused", "refusal"),
        ("Fargo is a", "truncated", "truncated"),
        ("", "empty", "empty"),
        ("Fargo is a crime drama.", "wrong_model", "wrong_model"),
        ("Fargo ist ein Kriminalfilm der Brüder Coen über eine Entführung, die im Schnee misslingt.", "ok",
         "wrong_language"),
        ("这部电影讲述了一起绑架案,发生在明尼苏达州的冰天雪地里。" * 4, "ok", "wrong_language"),
    ],
)  # fmt: skip
def test_what_is_no_knowledge_on_its_face_is_flagged(cache: TextCache, text: str, status: str, kind: str) -> None:
    put(cache, 1, GOOD)
    put(cache, 2, text, status)
    assert kinds(cache, language="en") == {(kind, 2)}


def test_equal_answers_to_different_questions_are_flagged_and_shared_ones_are_not(cache: TextCache) -> None:
    first = put(cache, 1, GOOD)
    cache.link([Link("item", 9, first, "v1")])
    put(cache, 2, "  " + GOOD.upper())
    flags = list(verify(cache))
    assert len(flags) in (1, 2) and {flag.kind for flag in flags} == {"duplicate"}
    assert "item" in flags[0].detail


def test_an_answer_under_the_wrong_key_is_damaged(cache: TextCache) -> None:
    put(cache, 1, GOOD)
    with cache.database.writing() as connection:
        connection.execute(sa.text("UPDATE answers SET messages = replace(messages, 'Movie 1', 'Movie 2')"))
    assert kinds(cache) == {("damaged", 1)}


def test_a_damaged_index_is_found(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with TextCache(path) as cache:
        for i in range(50):
            put(cache, i, f"{i} " * 500)
    with TextCache(path) as cache, cache.database.writing() as connection:  # the index now says other things
        connection.execute(sa.text("PRAGMA writable_schema = ON"))
        connection.execute(
            sa.text("UPDATE sqlite_master SET sql = replace(sql, '\"key\"', 'source') WHERE name LIKE 'ix_k%'")
        )
    with TextCache(path) as cache:
        assert any(flag.kind == "damaged" and flag.key == "" for flag in verify(cache))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, []),
        ("Fargo (1996) was released in 1997 in Europe.", []),
        ("Released in 1962, Fargo is a western.", ["says 1962, the table says 1996"]),
        ("Fargo is a 1954 film. It was remade and released in 1996.", []),
        ("Fargo is an animation for the whole family. There is crime too.", ["says animation, the table says "]),
        ("A comedy of crime.", []),
        ("It has nothing of a horror movie.", ["says horror, the table says Crime|Drama|Thriller"]),
        ("2001 is a good year. Born in 1950, the director likes snow.", []),
    ],
)
def test_contradictions_with_the_items_own_row(text: str, found: list[str]) -> None:
    said = list(contradictions(text, FARGO | GENRES))
    assert len(said) == len(found) and all(a.startswith(b) for a, b in zip(said, found, strict=True))


def test_a_year_in_the_title_is_no_statement() -> None:
    row = {"title": "1984 (1984)", "year": "1984"}
    assert list(contradictions("1984 is a film released in 1985 after the book 1984.", row)) == []
    assert list(contradictions("It came out in 1950.", {"title": "X"})) == []


def test_short_or_nameful_texts_have_no_language() -> None:
    assert other_language("Toy Story", "en") is None
    assert other_language(GOOD, "en") is None


def test_excluded_answers_are_no_knowledge_and_are_asked_again(cache: TextCache) -> None:
    key = put(cache, 1, "As an AI language model, I cannot watch movies.")
    put(cache, 2, GOOD)
    exclude(cache, {flag.key for flag in verify(cache) if flag.kind == "refusal"})
    assert [k.entity_id for k in cache.knowledge("item")] == [2]
    assert cache.answered([key]) == {key: "refused"}
