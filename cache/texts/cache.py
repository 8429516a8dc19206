"""Answers of the language model, stored by the content of the question, so that nothing is paid for twice.

Two tables carry it: `answers` by key (what was asked, and came back) and `knowledge` by entity (whose it is). The same
question for two entities is one answer. An entity keeps its old answer until a new one is there, and that stays until
`prune`. What answers cost is in the ledger, and stays there whatever happens to them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from kar_aug._batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.database import Database
from kar_aug.cache.texts.ledger import Charge, Ledger
from kar_aug.cache.texts.status import STATUSES, Status

_ROWS = 256  # of one statement or commit
_ANSWER = list(tables.answers.c)
_SHORT_PROMPT, _MOST_CHARACTERS = 200, 7  # characters: a prompt in which frames decide; of a token, on the mean

# What ends when a question is answered.
_SETTLE = tuple(
    sa.delete(table).where(table.c.key.in_(sa.bindparam("keys", expanding=True)))
    for table in (tables.failures, tables.claims, tables.batch_requests)
)
# An answer that did not fit its schema is nobody's, but without it the question would be asked again.
_NOBODYS = ~sa.exists().where(tables.knowledge.c.key == tables.answers.c.key) & (
    tables.answers.c.status != Status.INVALID
)
_WHOLE = (Status.OK,)


def answer_key(model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> str:
    """32 hex digits of SHA-256 over everything that changes the answer: model, messages, sampling parameters."""
    question = json.dumps([model, list(messages), dict(parameters)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def text_key(text: str) -> str:
    """32 hex digits of SHA-256 over a text: what a vector store keeps beside the vector that encodes it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """What came back for one question. `status` is a `Status`, or its word; only "ok" is knowledge unless asked for.

    `cost` is in US dollars, None if the model's price is not known, and the most that it can be where the server did
    not say its tokens (which are 0 then); `seconds` from request to response; `tier` is "", "flex" or "batch";
    `served_model` is what the server says it asked; `raw` the response as it came.
    """

    key: str
    status: Status | str
    text: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    created: str = ""
    parameters: Mapping[str, Any] | None = None
    served_model: str = ""
    tier: str = ""
    cost: float | None = None
    raw: bytes = b""

    @property
    def prompt_was_cut(self) -> bool:
        """Whether the server counts so few tokens of the prompt that it cannot have read all of it. Tokenizers make
        one token of four or five characters of English prose, and of fewer of every other script.
        """
        if not self.prompt_tokens:
            return False
        size = sum(len(str(message.get("content", ""))) for message in self.messages)
        return size > _SHORT_PROMPT and self.prompt_tokens * _MOST_CHARACTERS < size


class Link(NamedTuple):
    """Whose knowledge an answer is. `knowledge` is its kind: "user", "item", by another recipe than "kar" "item:tags";
    `as_of` the time of the last event that the prompt saw.
    """

    knowledge: str
    entity_id: int | str
    key: str
    prompt_version: str
    as_of: str | None = None


@dataclass(frozen=True)
class Knowledge:
    """The text about one entity, and where it comes from. `knowledge` is its kind ("user", "item:tags"), `as_of` the
    time of the last event that its prompt saw.
    """

    knowledge: str
    entity_id: int | str
    text: str
    key: str
    model: str
    prompt_version: str
    as_of: str | None
    created: str = ""


@dataclass(frozen=True)
class Failure:
    """A question without an answer. A permanent one was rejected for itself: asking again is no use."""

    key: str
    reason: str
    attempts: int
    permanent: bool = False
    knowledge: str | None = None
    entity_id: int | str | None = None


class TextCache:
    """A database of answers. Safe to kill at any moment: a stored answer is committed, or it is not there.

    Args:
        where: the path of a SQLite file, made if it is not there; or a `postgresql://` URL, for teams that share one.

    Raises:
        StoreError: It is not a text cache, is damaged, cannot be reached, or was written by a newer version of kar-aug.
    """

    def __init__(self, where: Path | str) -> None:
        self.database = Database(where)
        self.ledger = Ledger(self.database)
        # Made once: making them takes longer than running them.
        self._put_answers = self.database.upsert(tables.answers)
        self._put_links = self.database.upsert(tables.knowledge, unless_same=("key", "prompt_version", "as_of"))

    @property
    def name(self) -> str:
        """The file or address, without a password."""
        return self.database.name

    def __contains__(self, key: str) -> bool:
        return bool(self.answered([key]))

    def answered(self, keys: Collection[str]) -> dict[str, Status]:
        """Those of the questions that have an answer, with its status."""
        answers = tables.answers.c
        with self.database.reading() as connection:
            found = connection.execute(sa.select(answers.key, answers.status).where(answers.key.in_(list(keys))))
            return {row.key: row.status for row in found}

    def texts(self, keys: Collection[str], *, accept: Sequence[str] = _WHOLE) -> dict[str, str]:
        """The texts of those of the questions that have an answer of these statuses."""
        answers, texts = tables.answers.c, {}
        for some in batched(keys, _ROWS):
            statement = sa.select(answers.key, answers.text)
            wanted = answers.key.in_(some), answers.status.in_(list(accept))
            with self.database.reading() as connection:
                texts.update({row.key: row.text for row in connection.execute(statement.where(*wanted))})
        return texts

    def get(self, key: str) -> Answer | None:
        """The answer to a question, whatever its status; None if it was never answered."""
        with self.database.reading() as connection:
            row = connection.execute(sa.select(*_ANSWER).where(tables.answers.c.key == key)).one_or_none()
        return _answer(row) if row else None

    def some(self, keys: Collection[str]) -> dict[str, Answer]:
        """The answers to these questions, whatever their status."""
        if not keys:
            return {}
        with self.database.reading() as connection:
            found = connection.execute(sa.select(*_ANSWER).where(tables.answers.c.key.in_(list(keys))))
            return {row.key: _answer(row) for row in found}

    def answers(self) -> Iterator[Answer]:
        """Every answer, in the order of the keys; read as a stream."""
        with self.database.reading() as connection:
            statement = sa.select(*_ANSWER).order_by(tables.answers.c.key)
            for row in connection.execution_options(yield_per=_ROWS).execute(statement):
                yield _answer(row)

    def put(self, answer: Answer, links: Iterable[Link] = ()) -> None:
        """Store an answer and whose it is. It is committed, and its failure forgotten, when this returns."""
        self.put_many([(answer, links)])

    def put_many(self, answers: Iterable[tuple[Answer, Iterable[Link]]], *, owner: str = "") -> None:
        """Store answers and whose they are in one commit; claims on their questions end.

        Args:
            owner: who had reserved what they cost; what nobody had is entered into the ledger.
        """
        pairs = list(answers)
        if pairs:
            with self.database.writing() as connection:
                self.put_within(connection, pairs, owner)

    def put_within(
        self, connection: sa.Connection, answers: Iterable[tuple[Answer, Iterable[Link]]], owner: str = ""
    ) -> None:
        """The same, within the caller's transaction, which may end with other entries into the ledger."""
        pairs = [(_row(answer), list(links)) for answer, links in answers]
        pairs.sort(key=lambda pair: pair[0]["key"])  # as `_link` does, and for the same reason
        if not pairs:
            return
        keys = [row["key"] for row, _ in pairs]
        connection.execute(self._put_answers, [row for row, _ in pairs])
        self._link(connection, [link for _, links in pairs for link in links])
        for statement in _SETTLE:
            connection.execute(statement, {"keys": keys})
        self.ledger.settle(connection, owner, [_charge(row, links) for row, links in pairs])

    def judge(self, answers: Iterable[tuple[Answer, Status]]) -> None:
        """Give stored answers another status and text, as their bodies are read now; not one that came meanwhile.

        Args:
            answers: each with the status that it has had.
        """
        rows = tables.answers.c
        with self.database.writing() as connection:
            for answer, before in sorted(answers, key=lambda pair: pair[0].key):
                changed = _row(answer)
                same = (rows.key == answer.key, rows.status == before, rows.created == answer.created)
                values = {name: changed[name] for name in ("status", "text", "served_model")}
                connection.execute(sa.update(tables.answers).where(*same).values(**values))

    def link(self, links: Iterable[Link | tuple[str, int | str, str, str, str | None]]) -> None:
        """Say whose knowledge an answer is."""
        rows = [Link(*link) for link in links]
        if rows:
            with self.database.writing() as connection:
                self._link(connection, rows)

    def _link(self, connection: sa.Connection, links: Sequence[Link]) -> None:
        now = _now()
        rows = {
            (link.knowledge, link.entity_id): {
                **link._asdict(),
                "entity_id": json.dumps(link.entity_id),
                "updated": now,
            }
            for link in links
        }
        if rows:  # in one order everywhere, or two processes on PostgreSQL could wait for each other
            ordered = sorted(rows.values(), key=lambda row: (row["knowledge"], row["entity_id"]))
            connection.execute(self._put_links, ordered)

    def linked(self, knowledge: str, entity_ids: Collection[int | str]) -> dict[int | str, Link]:
        """The links of those entities that have one, for this kind of knowledge."""
        links = tables.knowledge.c
        columns = (links.entity_id, links.key, links.prompt_version, links.as_of)
        wanted = [json.dumps(entity_id) for entity_id in entity_ids]
        statement = sa.select(*columns).where(links.knowledge == knowledge, links.entity_id.in_(wanted))
        with self.database.reading() as connection:
            found = (Link(knowledge, json.loads(id), *rest) for id, *rest in connection.execute(statement))
            return {link.entity_id: link for link in found}

    def count_linked(self, knowledge: str) -> int:
        """How many entities have an answer for this kind of knowledge, whatever its status."""
        statement = sa.select(sa.func.count()).where(tables.knowledge.c.knowledge == knowledge)
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def links_of(self, keys: Collection[str]) -> dict[str, list[Link]]:
        """Whose knowledge these answers are."""
        linked = tables.knowledge.c
        columns = (linked.knowledge, linked.entity_id, linked.key, linked.prompt_version, linked.as_of)
        statement = sa.select(*columns).where(linked.key.in_(list(keys))).order_by(*columns[:2])
        links: dict[str, list[Link]] = {}
        with self.database.reading() as connection:
            for knowledge, entity_id, *rest in connection.execute(statement):
                link = Link(knowledge, json.loads(entity_id), *rest)
                links.setdefault(link.key, []).append(link)
        return links

    def knowledge(self, knowledge: str, *, accept: Sequence[str] = _WHOLE) -> Iterator[Knowledge]:
        """One kind of knowledge ("user", "item:tags") as a stream; answers of other statuses are left out."""
        linked, answers = tables.knowledge.c, tables.answers.c
        entity_id = sa.collate(linked.entity_id, "C") if self.database.postgresql else linked.entity_id
        statement = (
            sa.select(
                linked.entity_id,
                answers.text,
                answers.key,
                answers.model,
                linked.prompt_version,
                linked.as_of,
                answers.created,
            )
            .join_from(tables.knowledge, tables.answers, linked.key == answers.key)
            .where(linked.knowledge == knowledge, answers.status.in_(list(accept)))
            .order_by(entity_id)
        )
        with self.database.reading() as connection:
            for entity, *rest in connection.execution_options(yield_per=_ROWS).execute(statement):
                yield Knowledge(knowledge, json.loads(entity), *rest)

    def of_entity(self, knowledge: str, entity_id: int | str) -> Answer | None:
        """The answer about one entity, whatever its status."""
        link = self.linked(knowledge, [entity_id]).get(entity_id)
        return self.get(link.key) if link else None

    def fail(
        self,
        key: str,
        reason: str,
        attempts: int,
        *,
        permanent: bool = False,
        link: Link | None = None,
        owner: str = "",
        free: bool = False,
    ) -> None:
        """Note that a question could not be answered, and why; a claim on it ends.

        Args:
            owner: who had reserved what it can cost; `free`, whether the server surely charged nothing.
        """
        row = {
            "key": key,
            "reason": _storable(reason),
            "attempts": attempts,
            "permanent": permanent,
            "created": _now(),
            "knowledge": link.knowledge if link else None,
            "entity_id": json.dumps(link.entity_id) if link else None,
        }
        with self.database.writing() as connection:
            connection.execute(self.database.upsert(tables.failures), row)
            connection.execute(sa.delete(tables.claims).where(tables.claims.c.key == key))
            (self.ledger.release if free else self.ledger.lose)(connection, owner, [key])

    def failures(self, keys: Collection[str] | None = None) -> list[Failure]:
        """Every question without an answer, oldest first; with `keys`, those among them."""
        failures = tables.failures.c
        columns = (failures.key, failures.reason, failures.attempts, failures.permanent)
        statement = sa.select(*columns, failures.knowledge, failures.entity_id).order_by(failures.created, failures.key)
        if keys is not None:
            statement = statement.where(failures.key.in_(list(keys)))
        with self.database.reading() as connection:
            return [
                Failure(row.key, row.reason, row.attempts, row.permanent, row.knowledge, _entity(row.entity_id))
                for row in connection.execute(statement)
            ]

    def counts(self) -> dict[str, int]:
        """Answers by status, `failed` among them, and the tokens the server reported."""
        answers = tables.answers.c
        with self.database.reading() as connection:
            found = connection.execute(sa.select(answers.status, sa.func.count()).group_by(answers.status))
            counts = dict.fromkeys(STATUSES, 0) | {row[0]: row[1] for row in found}
            counts["failed"] = connection.execute(sa.select(sa.func.count()).select_from(tables.failures)).scalar_one()
            tokens = connection.execute(
                sa.select(sa.func.sum(answers.prompt_tokens), sa.func.sum(answers.completion_tokens))
            ).one()
        counts["prompt_tokens"], counts["completion_tokens"] = (int(count or 0) for count in tokens)
        return counts

    def spent(self, model: str | None = None) -> float:
        """US dollars that were spent, or can be by requests on their way or lost; for one model if it is named. What
        happened to the answers since does not matter.
        """
        return self.ledger.spent(model)

    def usage(self) -> list[tuple[str, str, int, int, int, float | None]]:
        """(model, tier, answers, prompt tokens, completion tokens, US dollars) of each model and tier, of the answers
        that are stored.
        """
        answers = tables.answers.c
        columns = (answers.model, sa.func.coalesce(answers.tier, ""))
        sums = (answers.prompt_tokens, answers.completion_tokens, answers.cost)
        statement = sa.select(*columns, sa.func.count(), *map(sa.func.sum, sums)).group_by(*columns).order_by(*columns)
        with self.database.reading() as connection:
            return [
                (model, tier, count, int(asked or 0), int(answered or 0), cost)
                for model, tier, count, asked, answered, cost in connection.execute(statement)
            ]

    def count_superseded(self) -> int:
        """How many answers are nobody's knowledge (any more)."""
        with self.database.reading() as connection:
            statement = sa.select(sa.func.count()).select_from(tables.answers).where(_NOBODYS)
            return connection.execute(statement).scalar_one()

    def prune(self) -> int:
        """Delete those. Returns how many. What they cost stays in the ledger."""
        with self.database.writing() as connection:
            return connection.execute(sa.delete(tables.answers).where(_NOBODYS)).rowcount

    def close(self) -> None:
        """Release the file."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def merge(source: TextCache, target: TextCache) -> int:
    """Bring the answers of another cache, and whose they are, into this one. Answers that are there stay.

    Returns:
        How many answers were new.
    """
    new = 0
    for answers in batched(source.answers(), _ROWS):
        keys = [answer.key for answer in answers]
        there = target.answered(keys)
        links = source.links_of(keys)
        target.put_many((answer, links.get(answer.key, ())) for answer in answers if answer.key not in there)
        target.link(link for key in there for link in links.get(key, ()))
        new += len(keys) - len(there)
    return new


def _row(answer: Answer) -> dict[str, Any]:
    if answer.status not in STATUSES:
        raise ValueError(f"`status` must be one of {STATUSES}. Received: {answer.status!r}")
    return {
        "key": answer.key,
        "status": answer.status,
        "text": _storable(answer.text),
        "model": answer.model,
        "messages": json.dumps(list(answer.messages)),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "seconds": answer.seconds,
        "created": answer.created or _now(),
        "parameters": None if answer.parameters is None else json.dumps(dict(answer.parameters), sort_keys=True),
        "served_model": _storable(answer.served_model),
        "tier": answer.tier,
        "cost": answer.cost,
        "raw": zlib.compress(answer.raw) if answer.raw else None,
    }


def _charge(row: Mapping[str, Any], links: Sequence[Link]) -> Charge:
    return Charge(
        row["key"],
        row["model"],
        row["cost"],
        row["prompt_tokens"] or 0,
        row["completion_tokens"] or 0,
        known=bool(row["prompt_tokens"]),
        knowledge=links[0].knowledge if links else None,
        tier=row["tier"] or "",
        created=row["created"],
    )


def _answer(row: Any) -> Answer:
    return Answer(
        row.key,
        row.status,
        row.text,
        row.model,
        json.loads(row.messages),
        row.prompt_tokens,
        row.completion_tokens,
        row.seconds,
        row.created,
        json.loads(row.parameters) if row.parameters else None,
        row.served_model or "",
        row.tier or "",
        row.cost,
        zlib.decompress(row.raw) if row.raw else b"",
    )


def _entity(stored: str | None) -> int | str | None:
    return None if stored is None else json.loads(stored)


def _storable(text: str) -> str:
    """`text` without what a database cannot hold: half characters (an answer may end in an emoji) and zero bytes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
