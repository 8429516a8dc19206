"""Which answers should not be trusted: damaged ones, and those that are no knowledge on their face.

Nothing is asked and nothing is judged by a model: each check is a rule that a person can read, so that a flag says what
to look at and not what is true.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.cache import Answer, DamagedAnswer, Link, TextCache, answer_key
from kar_aug.cache.texts.status import STATUSES, Status
from kar_aug.data.cells import SEPARATOR, is_list, text_of, values_of

_ROWS = 256
_REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|language model)\b|\bi(?:'m| am) (?:sorry|unable|not able)\b"
    r"|\bi (?:can(?:'t|not)|do(?:n't| not) have) (?:\w+ )?(?:help|assist|provide|access|information|knowledge|answer)\b"
    r"|\bmy (?:knowledge|training) (?:cutoff|cut-off|data)\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 300  # characters: later on, "I am sorry" may be a quotation
_LANGUAGE_CHARACTERS = 80  # below this the language of a text full of names cannot be told
_LANGUAGE_SURE = 0.9
_YEAR_SAID = re.compile(
    r"\b(?:released|released theatrically|came out|premiered|published|made|produced)\s+(?:in|on)\s+(?:\w+\s+){0,3}?"
    r"((?:19|20)\d\d)\b|\b((?:19|20)\d\d)\s+(?:[\w-]+\s+){0,3}(?:film|movie|book|novel|album|game)\b",
    re.IGNORECASE,
)
_YEAR_OF_TITLE = re.compile(r"\(((?:19|20)\d\d)\)\s*$")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


@dataclass(frozen=True)
class Flag:
    """One thing that is wrong with one answer. `knowledge` and `entity_id` are None if it is nobody's knowledge."""

    kind: str
    key: str
    knowledge: str | None
    entity_id: int | str | None
    detail: str


Metadata = Callable[[str, int | str], Mapping[str, Any]]


def verify(cache: TextCache, *, metadata: Metadata | None = None, language: str | None = None) -> Iterator[Flag]:
    """Look at every answer; a stream, in the order of the keys.

    Args:
        metadata: gives the row of a (knowledge, entity_id), which an answer must not contradict.
        language: what answers are to be in, as an ISO 639-1 code ("en").
    """
    for line in cache.database.check():
        yield Flag("damaged", "", None, None, f"{cache.name}: {line}")
    seen: dict[bytes, str] = {}
    damaged: list[DamagedAnswer] = []
    for answers in batched(cache.answers(damaged.append), _ROWS):
        links = cache.links_of([answer.key for answer in answers])
        for answer in answers:
            owners: list[Link | None] = [*links.get(answer.key, [])] or [None]
            name = answer.key if owners[0] is None else f"{owners[0].knowledge} {owners[0].entity_id}"
            for kind, detail in _wrong(answer, language, seen, name):
                yield from (_flag(kind, answer, owner, detail) for owner in owners)
            if metadata is None or not answer.text:
                continue
            for owner in owners:
                if owner is not None:
                    row = metadata(owner.knowledge, owner.entity_id)
                    yield from (_flag("contradiction", answer, owner, d) for d in contradictions(answer.text, row))
    for some in batched(damaged, _ROWS):
        links = cache.links_of([each.key for each in some])
        for each in some:
            whose: list[Link | None] = [*links.get(each.key, [])] or [None]
            yield from (_flag("damaged", each, owner, each.why) for owner in whose)
    for knowledge, entity_id, key, why in cache.damaged_links():
        yield Flag("damaged", key, knowledge, entity_id, why)


def exclude(cache: TextCache, keys: Collection[str]) -> None:
    """Take answers out of the knowledge: they count as refused, and `retry_failed` asks for them again."""
    for batch in batched(sorted(keys), _ROWS):
        with cache.database.writing() as connection:
            statement = sa.update(tables.answers).where(tables.answers.c.key.in_(batch))
            connection.execute(statement.values(status=Status.REFUSED))


def _flag(kind: str, answer: Answer | DamagedAnswer, owner: Link | None, detail: str) -> Flag:
    return Flag(kind, answer.key, owner.knowledge if owner else None, owner.entity_id if owner else None, detail)


def _wrong(answer: Answer, language: str | None, seen: dict[bytes, str], name: str) -> Iterator[tuple[str, str]]:
    parameters = answer.parameters
    known = parameters is not None and answer.messages
    if known and answer_key(answer.model, answer.messages, parameters or {}) != answer.key:
        yield "damaged", "the key is not that of the question"
    if answer.status not in STATUSES:
        yield "damaged", f"there is no status {answer.status!r}"
    if answer.prompt_was_cut:
        yield "cut_prompt", f"the server read {answer.prompt_tokens:,} tokens of the prompt, and there were more"
    if answer.status == Status.MALFORMED:
        yield "malformed", "the body cannot be read as an answer"
        return
    if answer.status == Status.UNFINISHED:
        yield "unfinished", "it ended in an error, or for an unknown reason"
    if answer.status == Status.EMPTY or not answer.text.strip():
        yield "empty", "nothing was answered"
        return
    if answer.status == Status.TRUNCATED:
        yield "truncated", f"cut off after {answer.completion_tokens} tokens"
    if answer.status == Status.WRONG_MODEL:
        yield "wrong_model", f"{answer.served_model} answered for {answer.model}"
    refusal = _REFUSAL.search(answer.text[:_REFUSAL_WITHIN])
    if answer.status == Status.REFUSED or refusal:
        yield "refusal", refusal.group(0) if refusal else "the server says so"
    if not {"response_format", "answer_schema"}.isdisjoint(parameters or {}):
        return  # JSON is in no language, and many items have equal attributes
    if language is not None and (other := other_language(answer.text, language)):
        yield "wrong_language", f"looks like {other}, not {language}"
    digest = hashlib.blake2b(" ".join(answer.text.lower().split()).encode("utf-8", "replace"), digest_size=12).digest()
    if digest in seen:
        yield "duplicate", f"the same text as {seen[digest]}"
    else:
        seen[digest] = name


def contradictions(text: str, row: Mapping[str, Any]) -> Iterator[str]:
    """What a text says against the entity's own row: another year, or only genres that it has not.

    A year is looked for in the columns `year` and `title`; other columns whose table holds several values a cell come
    with the key "|column" and the set of all values, as `vocabularies` makes them.
    """
    title = text_of(row.get("title"))
    stated = text_of(row.get("year")) or "".join(_YEAR_OF_TITLE.findall(title))
    match = re.match(r"((?:19|20)\d\d)", stated)
    if match:
        year = int(match.group(1))
        said = [int(a or b) for a, b in _YEAR_SAID.findall(text.replace(title, ""))]
        if said and all(abs(year - other) > 1 for other in said):
            yield f"says {said[0]}, the table says {year}"
    first = _SENTENCE_END.split(text, maxsplit=1)[0].lower()
    for column, vocabulary in row.items():
        if not column.startswith("|"):
            continue
        own = {value.strip().lower() for value in values_of(row.get(column[1:])) if value.strip()}
        named = {value for value in vocabulary if re.search(rf"\b{re.escape(value)}\b", first)}
        if own and named and not named & own:
            yield f"says {', '.join(sorted(named))}, the table says {text_of(row[column[1:]])}"


def vocabularies(columns: Mapping[str, Collection[Any]]) -> dict[str, frozenset[str]]:
    """The values of those columns that hold several a cell, under the name "|column"."""
    found = {}
    for name, values in columns.items():
        cells = [value for value in values if isinstance(value, str) or is_list(value)]
        if any(is_list(cell) or SEPARATOR in cell for cell in cells):
            parts = {part.strip().lower() for cell in cells for part in values_of(cell)}
            found[f"|{name}"] = frozenset(part for part in parts if part and not part.startswith("("))
    return found


def other_language(text: str, expected: str) -> str | None:
    """The language of a text if it is surely not the expected one; None for short texts, or without py3langid."""
    classify = _classifier()
    if classify is None or len(text) < _LANGUAGE_CHARACTERS:
        return None
    language, probability = classify(text)
    return language if language != expected and probability > _LANGUAGE_SURE else None


@functools.cache
def _classifier() -> Callable[[str], tuple[str, float]] | None:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
