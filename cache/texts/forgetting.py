"""Entities taken out of a text cache for good: what was asked about them, what was answered, and whose it was.

What goes, in one transaction: the links of an entity, the answers that are nobody else's then, its failures, and its
requests in batches. An answer that others have too is the answer to the very same messages: it says nothing of the one
that it does not say of them, and stays theirs; the link goes.

Of an answer that a newer prompt superseded, nobody knows any more whose it was. So all that are nobody's go which may
have been of such an entity: those whose ledger does not say that they were about the other kind.

The ledger keeps what was paid, when, and for which kind of knowledge. It forgets the question: its key is a hash over
what was asked, by which whoever has the tables could find the row again. In its place stands what the caller names it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug._helpers.database import sweep
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.cache import TextCache, is_of_groups
from kar_aug.cache.texts.workers import dead
from kar_aug.errors import StoreError

NO_QUESTION = "forgotten"  # in the ledger, where the key of a question was that has no other name
# Kinds of questions about users whose ids begin with the user's, as `repr` writes it: about parts of histories (see
# kar_aug.prompts.histories.summaries), and of fairness audits (see kar_aug.pipeline.fairness).
_PARTS = ("history", "audit")
_BLOCKS = ":blocks-"  # likewise, in the middle: "user:kar:blocks-30"
_OWNER = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+) """)
_ROWS = 256
_PATTERNS = 100  # of one statement: SQLite takes a condition of a thousand terms, and each of these is several
Id = int | str


@dataclass(frozen=True)
class Whom:
    """Those to be forgotten.

    Args:
        entity: "user" or "item".
        groups: the groups that they are in: ("20", 3) for the fourth of twenty.
        drawn_anew: all groups that were drawn together with these, whose numbers will be other groups'.
    """

    entity: str
    ids: Collection[Id]
    groups: Collection[tuple[str, int]] = ()
    drawn_anew: Collection[tuple[str, int]] = ()

    def is_about(self, knowledge: str | None, entity_id: Any) -> bool:
        """Whether a kind of knowledge of an entity is theirs."""
        kind = (knowledge or "").partition(":")[0]
        if is_of_groups(knowledge or ""):
            return kind == self.entity and ((knowledge or "").rpartition("-")[2], entity_id) in self.groups
        if kind in _PARTS or _BLOCKS in (knowledge or ""):
            return self.entity == "user" and any(str(entity_id).startswith(f"{id!r} ") for id in self.ids)
        return kind == self.entity and any(type(id) is type(entity_id) and id == entity_id for id in self.ids)

    def is_void(self, knowledge: str, entity_id: Any) -> bool:
        """Whether a kind of knowledge is of another group whose number will be another's."""
        kind, _, count = knowledge.partition(":")[0], *knowledge.rpartition("-")[1:]
        return is_of_groups(knowledge) and kind == self.entity and (count, entity_id) in self.drawn_anew

    @property
    def kinds(self) -> tuple[str, ...]:
        """How their kinds of knowledge begin."""
        return ("user", *_PARTS) if self.entity == "user" else ("item",)


@dataclass
class Taken:
    """What goes, or went.

    Args:
        links: entity's answers that were theirs, shared ones included; `shared` are those that others keep.
        keys: of all questions that are gone.
        nobodys: how many of the answers were superseded, or never anybody's.
        batches: (name, when it was made) of batches at a server that hold a request about them.
        asked: (model, first day, last day) of what was asked about them.
    """

    links: int = 0
    shared: int = 0
    answers: int = 0
    nobodys: int = 0
    failures: int = 0
    requests: int = 0
    ledger: int = 0
    keys: set[str] = field(default_factory=set)
    batches: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether there was anything that was surely theirs."""
        return bool(self.links or self.failures or self.requests)


class _Undone(Exception):
    """Nothing was to be changed."""


def refuse_jobs(cache: TextCache) -> None:
    """Raise StoreError while a process asks or encodes by this cache: it might store what is being taken away."""
    with cache.database.reading() as connection:
        _refuse_jobs(cache, connection)


def forget_entities(
    cache: TextCache, whom: Whom, *, dry_run: bool = False, named: Callable[[str], str | None] = lambda key: None
) -> Taken:
    """Delete all about them, and on SQLite leave no trace in the file or its journal.

    Args:
        dry_run: find out what would go, and change nothing.
        named: what the ledger calls a question from now on, by its key; None where it has no name.

    Raises:
        StoreError: A job is running on this cache, or another process reads it.
    """
    taken = Taken()
    try:
        with cache.database.writing() as connection:
            if not dry_run:
                _refuse_jobs(cache, connection)
            if not cache.database.postgresql:
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            _forget(connection, cache, whom, taken, named)
            if dry_run:
                raise _Undone
    except _Undone:
        return taken
    leave_no_trace(cache)
    return taken


def leave_no_trace(cache: TextCache) -> None:
    """Have the database write its files without what was deleted."""
    if cache.database.file is not None:
        cache.close()  # connections of its own would hold old pages
        sweep(cache.database.file)
    elif cache.database.postgresql:
        cache.database.vacuum()


def forget_questions(cache: TextCache, named: Callable[[str], str | None]) -> int:
    """Delete answers that are nobody's, and answer questions about those who were forgotten; how many they were.

    Args:
        named: of the key of such a question what the ledger calls it from now on; None for all others.
    """
    answers, links = tables.answers.c, tables.knowledge.c
    with cache.database.writing() as connection:
        nobodys = sa.select(answers.key).where(~sa.exists().where(links.key == answers.key))
        keys = [key for key in connection.scalars(nobodys) if named(key) is not None]
        if keys and not cache.database.postgresql:
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        _delete(connection, tables.answers, keys)
        _unname(connection, keys, named)
    if keys:
        leave_no_trace(cache)
    return len(keys)


def linked_entities(cache: TextCache, entity: str) -> set[Id]:
    """All users, or items, that the cache knows an answer of."""
    links = tables.knowledge.c
    found: set[Id] = set()
    statement = sa.select(links.knowledge, links.entity_id)
    with cache.database.reading() as connection:
        for knowledge, stored in connection.execution_options(yield_per=_ROWS).execute(statement):
            kind, id = knowledge.partition(":")[0], _id(stored)
            if id is None or is_of_groups(knowledge):
                continue
            if kind in _PARTS or _BLOCKS in knowledge:
                if entity == "user" and (owner := _OWNER.match(str(id))):
                    found.add(ast.literal_eval(owner[1]))
            elif kind == entity:
                found.add(id)
    return found


def _refuse_jobs(cache: TextCache, connection: sa.Connection) -> None:
    workers = tables.workers
    gone = dead(cache.database, connection)
    living = connection.execute(sa.select(workers).where(workers.c.owner.not_in(gone))).all()
    if living:
        host, pid = living[0].host.split()[0], living[0].pid
        raise StoreError(
            f"{cache.name}: a job is running on it (process {pid} on {host}). Wait for it, or end it, and run again.",
            path=cache.name,
        )


def _forget(
    connection: sa.Connection, cache: TextCache, whom: Whom, taken: Taken, named: Callable[[str], str | None]
) -> None:
    failures = tables.failures
    mine = [row for row in _links(connection, whom) if whom.is_about(row.knowledge, _id(row.entity_id))]
    void = [row for row in _links(connection, whom) if whom.is_void(row.knowledge, _id(row.entity_id))]
    _unlink(connection, mine)
    failed = [
        row for row in connection.execute(sa.select(failures)) if whom.is_about(row.knowledge, _id(row.entity_id))
    ]
    requested = _drop_requests(connection, cache, whom, taken)
    keys = {row.key for row in mine} | {row.key for row in failed} | requested
    shared = _linked(connection, keys)
    nobodys = _nobodys(connection, whom, keys) if mine or failed or requested else set()
    taken.keys = (keys - shared) | nobodys
    taken.links, taken.shared, taken.failures = len(mine), len({r.key for r in mine} & shared), len(failed)
    taken.nobodys = len(nobodys)
    _unlink(connection, void)  # after what is nobody's was counted: their answers stay, for equal groups drawn anew
    taken.asked = _asked(connection, keys)
    taken.answers = _delete(connection, tables.answers, taken.keys)
    for table in (tables.failures, tables.claims):
        _delete(connection, table, {row.key for row in failed} | taken.keys)
    taken.ledger = _unname(connection, taken.keys, named)


def _unlink(connection: sa.Connection, rows: Iterable[Any]) -> None:
    links = tables.knowledge
    for row in rows:
        here = (links.c.knowledge == row.knowledge, links.c.entity_id == row.entity_id)
        connection.execute(sa.delete(links).where(*here))


def _unname(connection: sa.Connection, keys: Iterable[str], named: Callable[[str], str | None]) -> int:
    """Take questions out of the ledger, whose sums stay; how many lines these are."""
    count, key_of = 0, tables.ledger.c.key
    for some in batched(sorted(keys), _ROWS):
        names = {key: named(key) or NO_QUESTION for key in some}
        statement = sa.update(tables.ledger).where(key_of.in_(some)).values(key=sa.case(names, value=key_of))
        count += connection.execute(statement).rowcount
    return count


def _links(connection: sa.Connection, whom: Whom) -> Sequence[Any]:
    """The links that may be theirs."""
    links = tables.knowledge.c
    found: dict[tuple[str, str], Any] = {}

    def look(some: sa.ColumnElement[bool]) -> None:
        for row in connection.execute(sa.select(tables.knowledge).where(some)):
            found[row.knowledge, row.entity_id] = row

    numbers = {number for _, number in (*whom.groups, *whom.drawn_anew)}
    stored = [*map(json.dumps, whom.ids), *map(json.dumps, sorted(numbers))]
    for ids in batched(stored, _ROWS):
        look(links.entity_id.in_(ids))
    for owners in batched(whom.ids, _PATTERNS):
        parts = [links.entity_id.startswith(json.dumps(f"{id!r} ")[:-1], autoescape=True) for id in owners]
        of_parts = sa.or_(links.knowledge.in_(_PARTS), links.knowledge.contains(_BLOCKS))
        look(sa.and_(of_parts, sa.or_(*parts)))
    return [*found.values()]


def _drop_requests(connection: sa.Connection, cache: TextCache, whom: Whom, taken: Taken) -> set[str]:
    """Take them out of batches. Their answers, when they come, are nobody's question, and are not stored."""
    requests, gone = tables.batch_requests, set()
    for row in connection.execute(sa.select(requests.c.key, requests.c.marker, requests.c.links)).all():
        links = [link for link in _document(row.links) if isinstance(link, list) and len(link) > 1]
        left = [link for link in links if not whom.is_about(link[0], link[1])]
        if len(left) == len(links):
            continue
        here = requests.c.key == row.key
        if left:
            connection.execute(sa.update(requests).where(here).values(links=json.dumps(left)))
            continue
        connection.execute(sa.delete(requests).where(here))
        cache.ledger.lose(connection, row.marker, [row.key])
        gone.add((row.key, row.marker))
    batches = tables.batches
    markers = {marker for _, marker in gone}
    for batch in connection.execute(sa.select(batches).where(batches.c.marker.in_(markers))).all():
        if batch.input_file or batch.batch_id:
            taken.batches.append((batch.batch_id or batch.input_file, batch.created))
        left_in_it = sa.select(requests.c.key).where(requests.c.marker == batch.marker).limit(1)
        if batch.state == "prepared" and connection.execute(left_in_it).first() is None:
            connection.execute(sa.delete(batches).where(batches.c.marker == batch.marker))
    taken.requests = len(gone)
    return {key for key, _ in gone}


def _linked(connection: sa.Connection, keys: Iterable[str]) -> set[str]:
    """Those that are still somebody's."""
    links, found = tables.knowledge.c, set()
    for some in batched(sorted(keys), _ROWS):
        found |= set(connection.scalars(sa.select(links.key).where(links.key.in_(some))))
    return found


def _nobodys(connection: sa.Connection, whom: Whom, keys: Collection[str]) -> set[str]:
    """Answers that are nobody's, and may have been theirs."""
    answers, links, ledger = tables.answers.c, tables.knowledge.c, tables.ledger.c
    statement = sa.select(answers.key).where(~sa.exists().where(links.key == answers.key))
    found = set(connection.scalars(statement)) - set(keys)
    others: set[str] = set()
    for some in batched(sorted(found), _ROWS):
        said = sa.select(ledger.key, ledger.knowledge).where(ledger.key.in_(some), ledger.knowledge.is_not(None))
        for key, knowledge in connection.execute(said):
            if knowledge.partition(":")[0] not in whom.kinds:
                others.add(key)
    return found - others


def _asked(connection: sa.Connection, keys: Iterable[str]) -> list[tuple[str, str, str]]:
    """Of which models these questions were asked, and when."""
    rows = tables.ledger.c
    found: dict[str, tuple[str, str]] = {}
    for some in batched(sorted(keys), _ROWS):
        statement = sa.select(rows.model, sa.func.min(rows.created), sa.func.max(rows.created))
        for model, first, last in connection.execute(statement.where(rows.key.in_(some)).group_by(rows.model)):
            before = found.get(model, (first, last))
            found[model] = (min(first, before[0]), max(last, before[1]))
    return [(model, first[:10], last[:10]) for model, (first, last) in sorted(found.items())]


def _delete(connection: sa.Connection, table: sa.Table, keys: Iterable[str]) -> int:
    count = 0
    for some in batched(sorted(keys), _ROWS):
        count += connection.execute(sa.delete(table).where(table.c.key.in_(some))).rowcount
    return count


def _id(stored: str | None) -> Any:
    return _document(stored, None)


def _document(stored: str | None, otherwise: Any = ()) -> Any:
    """What was stored as JSON."""
    try:
        return json.loads(stored or "null")
    except (ValueError, RecursionError):
        return otherwise
