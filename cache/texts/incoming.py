"""Answers of another cache, or of a file, brought into this one: what is newer here stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.cache import Answer, DamagedAnswer, Link, TextCache
from kar_aug.cache.texts.status import Status

_ROWS = 256


class Incoming(NamedTuple):
    """An answer, and whose it is since when. `owner` is who had reserved what it cost, where that was in this cache."""

    answer: Answer
    links: Sequence[tuple[Link, str]]
    owner: str = ""


@dataclass(frozen=True)
class Brought:
    """What was done: answers that are new, and entities that keep another answer, which is as new or newer."""

    new: int
    kept: int

    def __str__(self) -> str:
        kept = f"; {self.kept:,} entities keep the newer answers that they have" if self.kept else ""
        return f"{self.new:,} answers are new{kept}"


def bring(answers: Iterable[Incoming], cache: TextCache) -> Brought:
    """Whole answers that are there stay; refused, empty or otherwise unusable ones give way to newer ones. An entity
    becomes that of an incoming answer unless it has a newer one.
    """
    new = kept = 0
    for some in batched(answers, _ROWS):
        found = {each.answer.key: each for each in reversed(some)}
        there = _staying({key: each.answer for key, each in found.items()}, cache)
        for owner in sorted({each.owner for each in found.values()}):
            put = [(each.answer, ()) for key, each in found.items() if each.owner == owner and key not in there]
            cache.put_many(put, owner=owner)
        incoming = [pair for each in some for pair in each.links]
        newer, older = _newer(incoming, cache)
        cache.link_as_of(newer)
        new, kept = new + len(found) - len(there), kept + older
    return Brought(new, kept)


def merge(source: TextCache, target: TextCache, on_damage: Callable[[DamagedAnswer], None] | None = None) -> Brought:
    """Bring in the answers of another cache, and whose they are.

    Args:
        on_damage: as in `TextCache.answers`.
    """

    def answers() -> Iterable[Incoming]:
        for some in batched(source.answers(on_damage), _ROWS):
            links = source.links_since([answer.key for answer in some])
            yield from (Incoming(answer, links.get(answer.key, ())) for answer in some)

    return bring(answers(), target)


def _staying(incoming: Mapping[str, Answer], cache: TextCache) -> set[str]:
    """The keys under which what is there stays."""
    answers = tables.answers.c
    statement = sa.select(answers.key, answers.status, answers.created).where(answers.key.in_(list(incoming)))
    with cache.database.reading() as connection:
        return {
            key
            for key, status, created in connection.execute(statement)
            if status == Status.OK or incoming[key].created <= created
        }


def _newer(incoming: Sequence[tuple[Link, str]], cache: TextCache) -> tuple[list[tuple[Link, str]], int]:
    """Those links that are newer than what their entities have, of one entity the newest; and how many entities keep
    another answer.
    """
    newest = {(link.knowledge, link.entity_id): (link, since) for link, since in sorted(incoming, key=_since)}
    there = _there(newest, cache)
    newer, kept = [], 0
    for place, (link, since) in newest.items():
        key, its_since = there.get(place, ("", ""))
        if since > its_since:
            newer.append((link, since))
        else:
            kept += key != link.key
    return newer, kept


def _since(pair: tuple[Link, str]) -> str:
    return pair[1]


def _there(places: Collection[tuple[str, int | str]], cache: TextCache) -> dict[tuple[str, int | str], tuple[str, str]]:
    """Whose key entities have now, and since when."""
    links, there = tables.knowledge.c, {}
    for knowledge in {knowledge for knowledge, _ in places}:
        ids = {json.dumps(id): id for kind, id in places if kind == knowledge}
        statement = sa.select(links.entity_id, links.key, links.updated)
        for some in batched(ids, _ROWS):
            with cache.database.reading() as connection:
                wanted = statement.where(links.knowledge == knowledge, links.entity_id.in_(some))
                for entity_id, key, updated in connection.execute(wanted):
                    there[knowledge, ids[entity_id]] = key, updated
    return there
