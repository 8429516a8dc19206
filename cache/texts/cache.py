"""Answers of the language model, stored by the content of the question, so that nothing is paid for twice.

Two tables carry it: `answers` by key (what was asked, and came back) and `knowledge` by entity (whose it is). The same
question for two entities is one answer. An entity keeps its old answer until a new one is there, and that stays until
`prune`. What answers cost is in the ledger, and stays there whatever happens to them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug.cache.texts import tables
from kar_aug.cache.texts.database import Database, patient
from kar_aug.cache.texts.ledger import Charge, Ledger
from kar_aug.cache.texts.status import STATUSES, Status
from kar_aug.cache.texts.tables import status_of
from kar_aug.errors import StoreError

OF_GROUPS = ":collective-"  # in the name of a kind of knowledge: "item:kar:collective-200" of two hundred groups
_ROWS = 256  # of one statement or commit
_ANSWER = list(tables.answers.c)
_SHORT_PROMPT, _MOST_CHARACTERS = 200, 7  # characters: a prompt in which frames decide; of a token, on the mean
_LINK = [tables.knowledge.c[name] for name in ("knowledge", "entity_id", "key", "prompt_version", "as_of", "updated")]

# What ends when a question is answered.
_SETTLE = tuple(
    sa.delete(table).where(table.c.key.in_(sa.bindparam("keys", expanding=True)))
    for table in (tables.failures, tables.claims, tables.batch_requests)
)
# Where it has not been asked again meanwhile.
_JUDGE = sa.update(tables.answers).where(
    tables.answers.c.key == sa.bindparam("of"),
    tables.answers.c.status == sa.bindparam("before"),
    tables.answers.c.created == sa.bindparam("at"),
)
# An answer that did not fit its schema is nobody's, but without it the question would be asked again.
_NOBODYS = ~sa.exists().where(tables.knowledge.c.key == tables.answers.c.key) & (
    tables.answers.c.status != Status.INVALID
)
_WHOLE = (Status.OK,)
# Of what is equal, the same text. Made once: `json.dumps` makes an encoder for every question.
_in_one_form = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_text_as_json = json.encoder.encode_basestring
_PLAIN = {"content", "role"}


def answer_key(model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> str:
    """32 hex digits of SHA-256 over everything that changes the answer: model, messages, sampling parameters."""
    return AnswerKeys(model, parameters)(messages)


class AnswerKeys:
    """The keys of questions that differ in their messages alone: what they have in common, mostly the first message
    too, is written as JSON and hashed once.
    """

    def __init__(self, model: str, parameters: Mapping[str, Any]) -> None:
        self._start = _bytes(f"[{_in_one_form(model)}, [")
        self._end = f"], {_in_one_form(dict(parameters))}]"
        self._first: Mapping[str, Any] | None = None  # the first message of the latest question, if it is plain
        self._begun = hashlib.sha256()

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """See `answer_key`."""
        first, *others = messages or (None,)
        if first is None or first != self._first:
            self._begin(first)
        digest = self._begun.copy()
        digest.update(_bytes("".join([f", {_message(message)}" for message in others]) + self._end))
        return digest.hexdigest()[:32]

    def _begin(self, first: Mapping[str, Any] | None) -> None:
        # What is equal to a plain message is written alike; 1 and 1.0 are equal, and are not.
        self._first = dict(first) if first is not None and _is_plain(first) else None
        self._begun = hashlib.sha256(self._start)
        self._begun.update(_bytes(_message(first)) if first is not None else b"")


def _message(message: Mapping[str, Any]) -> str:
    """A message as JSON in one form."""
    if _is_plain(message):
        return f'{{"content": {_text_as_json(message["content"])}, "role": {_text_as_json(message["role"])}}}'
    return _in_one_form(message)


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Whether it is two texts, as nearly all are."""
    return message.keys() == _PLAIN and type(message["content"]) is str and type(message["role"]) is str


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def is_of_groups(knowledge: str) -> bool:
    """Whether a kind of knowledge is of groups of entities, whose numbers are nobody's ids."""
    return OF_GROUPS in knowledge


def text_key(text: str) -> str:
    """32 hex digits of SHA-256 over a text: what a vector store keeps beside the vector that encodes it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """What came back for one question. `status` is a `Status`, or its word; only "ok" is knowledge unless asked for.

    `cost` is in US dollars, None if the model's price is not known, and the most that it can be where the server did
    not say its tokens (which are 0 then); `seconds` from request to response; `tier` is "", "flex", "batch" or
    "priority"; `served_model` is what the server says it asked; `raw` the response as it came; `rules` the number of
    those by which status and text were read from it, 0 where nobody knows.
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
    rules: int = 0

    @property
    def prompt_was_cut(self) -> bool:
        """Whether the server counts so few tokens of the prompt that it cannot have read all of it. Tokenizers make
        one token of four or five characters of English prose, and of fewer of every other script.
        """
        if not self.prompt_tokens:
            return False
        size = sum(len(str(message.get("content", ""))) for message in self.messages)
        return size > _SHORT_PROMPT and self.prompt_tokens * _MOST_CHARACTERS < size


class DamagedAnswer(StoreError):
    """A stored answer that is not what was stored, or cannot be read. `key` is its question's, `why` says how."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"The stored answer {key} is damaged ({why}). See: kar-aug cache verify")
        self.key, self.why = key, why

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.why)


IMPORTED = "imported"  # in place of the prompt's version: a text of the user's own


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
        reading: nothing will be written: a file that is not there counts as an empty one, and is not made.

    Raises:
        StoreError: It is not a text cache, is damaged, cannot be reached, or was written by a newer version of kar-aug.
    """

    def __init__(self, where: Path | str, *, reading: bool = False) -> None:
        self.database = Database(where, reading=reading)
        self.ledger = Ledger(self.database)
        # Made once: making them takes longer than running them.
        self._put_answers = self.database.upsert(tables.answers)
        self._put_links = self.database.upsert(tables.knowledge, unless_same=("key", "prompt_version", "as_of"))
        answers, links, among = tables.answers.c, tables.knowledge.c, self.database.among
        self._standing = sa.select(answers.key, sa.type_coerce(answers.status, sa.Text), answers.rules)
        self._standing = self._standing.where(among(answers.key, "keys"))
        of_entities = links.knowledge == sa.bindparam("of"), among(links.entity_id, "ids")
        self._linked = sa.select(links.entity_id, links.key, links.prompt_version, links.as_of).where(*of_entities)
        stands = sa.type_coerce(answers.status, sa.Text), answers.rules
        self._held = sa.select(*self._linked.selected_columns, *stands).where(*of_entities)
        self._held = self._held.join_from(tables.knowledge, tables.answers, links.key == answers.key, isouter=True)

    @property
    def name(self) -> str:
        """The file or address, without a password."""
        return self.database.name

    def __contains__(self, key: str) -> bool:
        return bool(self.answered([key]))

    def answered(self, keys: Collection[str]) -> dict[str, Status]:
        """Those of the questions that have an answer, with its status."""
        return {key: status for key, (status, _) in self.standing(keys).items()}

    @patient
    def standing(self, keys: Collection[str]) -> dict[str, tuple[Status, int]]:
        """Those of the questions that have an answer: its status, and the number of the rules that it is by."""
        if not keys:
            return {}
        with self.database.reading() as connection:
            found = connection.execute(self._standing, {"keys": self.database.values(keys)}).all()
        return {key: (status_of(status), rules) for key, status, rules in found}

    @patient
    def read_by_older_rules(self) -> list[str]:
        """The keys of answers that other rules than today's have read."""
        with self.database.reading() as connection:
            return list(connection.scalars(sa.select(tables.answers.c.key).where(sa.text(tables.IS_OLDER))))

    def texts(self, keys: Collection[str], *, accept: Sequence[str] = _WHOLE) -> dict[str, str]:
        """The texts of those of the questions that have an answer of these statuses."""
        answers, texts = tables.answers.c, {}
        for some in batched(keys, _ROWS):
            statement = sa.select(answers.key, answers.text)
            wanted = answers.key.in_(some), answers.status.in_(list(accept))
            with self.database.reading() as connection:
                texts.update({row.key: row.text for row in connection.execute(statement.where(*wanted))})
        return texts

    @patient
    def get(self, key: str) -> Answer | None:
        """The answer to a question, whatever its status; None if it was never answered.

        Raises:
            DamagedAnswer: It is not what was stored.
        """
        with self.database.reading() as connection:
            row = connection.execute(sa.select(*_ANSWER).where(tables.answers.c.key == key)).one_or_none()
        return _answer(row) if row else None

    @patient
    def some(self, keys: Collection[str]) -> dict[str, Answer]:
        """The answers to these questions, whatever their status; damaged ones are left out."""
        if not keys:
            return {}
        found = self._whole_or_damaged_of(tables.answers.c.key.in_(list(keys)), sorted(keys))
        return {answer.key: answer for answer in found if isinstance(answer, Answer)}

    def answers(self, on_damage: Callable[[DamagedAnswer], None] | None = None) -> Iterator[Answer]:
        """Every answer, in the order of the keys; read as a stream.

        Args:
            on_damage: called for each that is damaged, which is left out; without it the first is raised.
        """
        last = ""
        while keys := self._keys_after(last):
            last = keys[-1]
            for each in self._whole_or_damaged(keys):
                if isinstance(each, Answer):
                    yield each
                elif on_damage is None:
                    raise each
                else:
                    on_damage(each)

    def _keys_after(self, key: str) -> list[str]:
        """Out of the index of keys: it can be read where a row cannot."""
        answers = tables.answers.c
        statement = sa.select(answers.key).where(answers.key > key).order_by(answers.key).limit(_ROWS)
        with self.database.reading() as connection:
            return list(connection.execute(statement).scalars())

    def _whole_or_damaged(self, keys: Sequence[str]) -> Iterator[Answer | DamagedAnswer]:
        """Of all questions from the first to the last of some keys."""
        return self._whole_or_damaged_of(tables.answers.c.key.between(keys[0], keys[-1]), keys)

    def _whole_or_damaged_of(
        self, condition: sa.ColumnElement[bool], keys: Sequence[str]
    ) -> Iterator[Answer | DamagedAnswer]:
        """Of the questions of a condition; should that fail, of each of the keys."""
        statement = sa.select(*_ANSWER).where(condition).order_by(tables.answers.c.key)
        try:
            with self.database.reading() as connection:
                rows = connection.execute(statement).all()
        except StoreError as error:  # a page of the file, or a text that is none
            if error.passing:
                raise
            if len(keys) == 1:
                yield DamagedAnswer(keys[0], str(error).partition("(")[2].partition(")")[0] or "it cannot be read")
                return
            for each in keys:
                yield from self._whole_or_damaged([each])
            return
        for row in rows:
            try:
                yield _answer(row)
            except DamagedAnswer as damaged:
                yield damaged

    def put(self, answer: Answer, links: Iterable[Link] = ()) -> None:
        """Store an answer and whose it is. It is committed, and its failure forgotten, when this returns."""
        self.put_many([(answer, links)])

    def put_many(self, answers: Iterable[tuple[Answer, Iterable[Link]]], *, owner: str = "") -> None:
        """Store answers and whose they are in one commit; claims on their questions end.

        Args:
            owner: who had reserved what they cost; what nobody had is entered into the ledger.
        """
        if pairs := [(answer, list(links)) for answer, links in answers]:
            self.database.committed(lambda connection: self.put_within(connection, pairs, owner))

    def put_within(
        self, connection: sa.Connection, answers: Sequence[tuple[Answer, Sequence[Link]]], owner: str = ""
    ) -> None:
        """The same, within the caller's transaction, which may end with other entries into the ledger."""
        pairs = [(_row(answer), links) for answer, links in answers]
        pairs.sort(key=lambda pair: pair[0]["key"])  # as `_link` does, and for the same reason
        if not pairs:
            return
        keys = [row["key"] for row, _ in pairs]
        connection.execute(self._put_answers, [row for row, _ in pairs])
        now = _now()
        self._link(connection, [(link, now) for _, links in pairs for link in links])
        for statement in _SETTLE:
            connection.execute(statement, {"keys": keys})
        self.ledger.settle(connection, owner, [_charge(row, links) for row, links in pairs])

    def judge(self, answers: Iterable[tuple[Answer, Status]]) -> None:
        """Give stored answers another status and text, as their bodies are read now; not one that came meanwhile.

        Args:
            answers: each with the status that it has had.
        """
        self._judge(sorted(answers, key=lambda pair: pair[0].key))

    @patient
    def _judge(self, answers: Sequence[tuple[Answer, Status]]) -> None:
        rows = []
        for answer, before in answers:
            text = _storable(answer.text)
            row = {"of": answer.key, "before": before, "at": answer.created, "status": answer.status, "text": text}
            row |= {"served_model": _storable(answer.served_model), "checksum": _checksum(text, answer.raw)}
            rows.append(row | {"rules": answer.rules})
        if rows:
            with self.database.writing() as connection:
                connection.execute(_JUDGE, rows)

    def link(self, links: Iterable[Link | tuple[str, int | str, str, str, str | None]]) -> None:
        """Say whose knowledge an answer is."""
        now = _now()
        self.link_as_of([(Link(*link), now) for link in links])

    @patient
    def link_as_of(self, links: Sequence[tuple[Link, str]]) -> None:
        """The same, each since a moment."""
        if links:
            with self.database.writing() as connection:
                self._link(connection, links)

    def _link(self, connection: sa.Connection, links: Sequence[tuple[Link, str]]) -> None:
        rows = {
            (link.knowledge, link.entity_id): {
                **link._asdict(),
                "entity_id": json.dumps(link.entity_id),
                "updated": since,
            }
            for link, since in links
        }
        if rows:  # in one order everywhere, or two processes on PostgreSQL could wait for each other
            ordered = sorted(rows.values(), key=lambda row: (row["knowledge"], row["entity_id"]))
            connection.execute(self._put_links, ordered)

    @patient
    def linked(self, knowledge: str, entity_ids: Collection[int | str]) -> dict[int | str, Link]:
        """The links of those entities that have one, for this kind of knowledge."""
        wanted, found = self._of_entities(self._linked, knowledge, entity_ids)
        return {wanted[id]: Link(knowledge, wanted[id], key, version, as_of) for id, key, version, as_of in found}

    @patient
    def held(self, knowledge: str, entity_ids: Collection[int | str]) -> dict[int | str, Sequence[Any]]:
        """What those entities have that have something, of this kind of knowledge: the key, the prompt's version and
        the as-of time of the link; the status of its answer, as the database's word, and the number of the rules that
        this is by, both None if the answer is lost.
        """
        wanted, found = self._of_entities(self._held, knowledge, entity_ids)
        return {wanted[row[0]]: row[1:] for row in found}

    def _of_entities(
        self, statement: sa.Select[Any], knowledge: str, entity_ids: Collection[int | str]
    ) -> tuple[dict[str, int | str], Sequence[Any]]:
        """The ids as they are stored, and the rows that a statement finds of them."""
        wanted = {str(id) if type(id) is int else json.dumps(id): id for id in entity_ids}
        if not wanted:
            return {}, []
        values = {"of": knowledge, "ids": self.database.values(wanted)}
        with self.database.reading() as connection:
            return wanted, connection.execute(statement, values).all()

    @patient
    def count_linked(self, knowledge: str) -> int:
        """How many entities have an answer for this kind of knowledge, whatever its status."""
        statement = sa.select(sa.func.count()).where(tables.knowledge.c.knowledge == knowledge)
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def links_of(self, keys: Collection[str]) -> dict[str, list[Link]]:
        """Whose knowledge these answers are."""
        return {key: [link for link, _ in links] for key, links in self.links_since(keys).items()}

    def links_since(self, keys: Collection[str]) -> dict[str, list[tuple[Link, str]]]:
        """The same, each with the moment since when it is. A damaged one is left out."""
        linked = tables.knowledge.c
        statement = sa.select(*_LINK).where(linked.key.in_(list(keys))).order_by(linked.knowledge, linked.entity_id)
        links: dict[str, list[tuple[Link, str]]] = {}
        with self.database.reading() as connection:
            for knowledge, entity_id, key, *rest, updated in connection.execute(statement):
                with contextlib.suppress(ValueError):
                    link = Link(knowledge, json.loads(entity_id), key, *rest)
                    links.setdefault(key, []).append((link, updated))
        return links

    def damaged_links(self) -> Iterator[tuple[str, str, str, str]]:
        """(kind of knowledge, id as it stands there, key, why) of entities whose answer, or whose id, is lost."""
        links, answers = tables.knowledge, tables.answers
        columns = (links.c.knowledge, links.c.entity_id, links.c.key, answers.c.key.is_(None))
        statement = sa.select(*columns).select_from(links.outerjoin(answers, links.c.key == answers.c.key))
        with self.database.reading() as connection:
            for knowledge, entity_id, key, is_lost in connection.execution_options(yield_per=_ROWS).execute(statement):
                if is_lost:
                    yield knowledge, entity_id, key, "the answer is not there"
                elif _entity_or_none(entity_id) is None:
                    yield knowledge, entity_id, key, "the id is not what was stored"

    def knowledge(self, knowledge: str, *, accept: Sequence[str] = _WHOLE) -> Iterator[Knowledge]:
        """One kind of knowledge ("user", "item:tags") as a stream; answers of other statuses are left out.

        Raises:
            StoreError: An id is not what was stored.
        """
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
                id = _entity_or_none(entity)
                if id is None:
                    raise StoreError(f"{self.name} holds a damaged id of {knowledge}. See: kar-aug cache verify")
                yield Knowledge(knowledge, id, *rest)

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
        self._fail(row, owner, free)

    @patient
    def _fail(self, row: Mapping[str, Any], owner: str, free: bool) -> None:
        with self.database.writing() as connection:
            connection.execute(self.database.upsert(tables.failures), row)
            connection.execute(sa.delete(tables.claims).where(tables.claims.c.key == row["key"]))
            (self.ledger.release if free else self.ledger.lose)(connection, owner, [row["key"]])

    @patient
    def failures(self, keys: Collection[str] | None = None) -> list[Failure]:
        """Every question without an answer, oldest first; with `keys`, those among them."""
        failures = tables.failures.c
        columns = (failures.key, failures.reason, failures.attempts, failures.permanent)
        statement = sa.select(*columns, failures.knowledge, failures.entity_id).order_by(failures.created, failures.key)
        if keys is not None:
            statement = statement.where(failures.key.in_(list(keys)))
        with self.database.reading() as connection:
            return [
                Failure(row.key, row.reason, row.attempts, row.permanent, row.knowledge, _entity_or_none(row.entity_id))
                for row in connection.execute(statement)
            ]

    @patient
    def noted_since(self, keys: Collection[str], moment: str) -> set[str]:
        """Those of the questions whose answer, or failure, is of a moment (ISO 8601, UTC, seconds) or later."""
        found: set[str] = set()
        with self.database.reading() as connection:
            for table in (tables.answers.c, tables.failures.c):
                statement = sa.select(table.key).where(table.key.in_(list(keys)), table.created >= moment)
                found.update(connection.scalars(statement))
        return found

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


def _row(answer: Answer) -> dict[str, Any]:
    if answer.status not in STATUSES:
        raise ValueError(f"`status` must be one of {STATUSES}. Received: {answer.status!r}")
    text = _storable(answer.text)
    return {
        "key": answer.key,
        "status": answer.status,
        "text": text,
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
        "checksum": _checksum(text, answer.raw),
        "rules": answer.rules,
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


def _checksum(text: str, raw: bytes) -> str:
    """16 hex digits over what an answer says and the response that it was read from."""
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    digest.update(b"\0" + raw)
    return digest.hexdigest()


def _answer(row: Any) -> Answer:
    """Raises:
    DamagedAnswer: The row is not what was stored.
    """
    try:
        raw = zlib.decompress(row.raw) if row.raw else b""
        if row.checksum is not None and row.checksum != _checksum(row.text, raw):
            raise ValueError("its text and response are not what was stored")
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
            raw,
            row.rules,
        )
    except (ValueError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise DamagedAnswer(row.key, str(error)) from None


def _entity_or_none(stored: str | None) -> int | str | None:
    """The id; None where what is stored is none."""
    try:
        id = json.loads(stored or "null")
    except (ValueError, TypeError, RecursionError):
        return None
    return id if isinstance(id, (int, str)) else None


def _storable(text: str) -> str:
    """`text` without what a database cannot hold: half characters (an answer may end in an emoji) and zero bytes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
