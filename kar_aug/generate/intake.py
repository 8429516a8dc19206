"""Between the transports and the cache: which prompts are open, and what an answer, or none, means for them.

    prompts ── open, claim ──> questions ──> a transport ──> bodies ── read ──> answers ── store, answered ──> the cache
                                  ^                │                                                  │
                                  │                └── failed: recorded, for good or until the next run
                                  └──── the question once more, with what did not fit ────────────────┘

Requests, the Batch API and files of JSON lines carry questions out and bodies back, and decide nothing else: not what a
status means, whose an answer is, how it is counted, or what is asked again.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from kar_aug._helpers.batched import batched
from kar_aug._helpers.servers.words import without_keys
from kar_aug.cache import Answer, BatchBook, Claims, Link, Order, Reservation, Status, TextCache
from kar_aug.cache.texts.cache import IMPORTED, DamagedAnswer
from kar_aug.cache.texts.ledger import Charge, billionths
from kar_aug.cache.texts.tables import RULES, status_of
from kar_aug.config import LanguageModel
from kar_aug.errors import Hopeless
from kar_aug.generate.answers import read_answer
from kar_aug.generate.choices import no_completion
from kar_aug.generate.cost import Prices, asked_tier, most_cost
from kar_aug.generate.faults import Fault, NoCompletion, Rejected, server_name
from kar_aug.generate.judging import differ, is_to_be_read, read_again
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import Question, Questions, question_of
from kar_aug.generate.remarks import remarks_on
from kar_aug.prompts import Prompt

BATCH = 256
Held = Sequence[Any]  # see `TextCache.held`
_OK = Status.OK.value
_SHOWN = 200  # characters of what a server says
_NAMELESS = b"a line of the results that names no question:\n"
TWICE = "the answer does not fit the schema, twice"
LOST = "the server does not know the batch any more (--forget-batch asks again)"
# Answers that `retry_failed` asks for again: nothing in them is knowledge. A truncated one would be cut off again.
_UNUSABLE = (
    Status.REFUSED, Status.EMPTY, Status.UNFINISHED, Status.MALFORMED, Status.WRONG_MODEL, Status.INVALID
)  # fmt: skip
# What a file of responses may bring in whole, though nothing is to be asked.
_MAY_COME_WHOLE = (None, Status.MALFORMED, Status.UNFINISHED)


def accepted(model: LanguageModel) -> tuple[Status, ...]:
    """Statuses of answers that count as knowledge."""
    return (Status.OK, Status.TRUNCATED) if model.accept_truncated else (Status.OK,)


class Found(NamedTuple):
    """What is known of a prompt: its question, with the status of its answer; whether it was rejected before; and what
    its entity has. `judged` is its stored answer as it is read today, and as it was stored, where these differ;
    `imported` says that its entity has a text of the user's own, which no answer is to replace.
    """

    question: Question
    rejected: bool
    linked: Link | None
    judged: tuple[Answer, Answer] | None = None
    imported: bool = False


def is_open(found: Found, *, retry_failed: bool) -> bool:
    """Whether a prompt is to be asked: see `Survey.is_open`."""
    status = found.question.status
    if found.imported:
        return False
    if retry_failed:
        return status is None or status in _UNUSABLE
    return status is None and not found.rejected


class Survey:
    """Looks prompts up, counts what is new, changed and unchanged, and says which are to be asked. Reads only.

    Args:
        progress: what is counted into.
        retry_failed: ask again what was rejected, refused or empty before.
        whole: whether these are all prompts there are. Of a part, nothing is counted as gone.
    """

    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        progress: Progress,
        *,
        retry_failed: bool = False,
        whole: bool = True,
    ) -> None:
        self._cache, self._model, self._progress, self._retry = cache, model, progress, retry_failed
        self._whole = whole
        self._questions = Questions(model)
        self._seen: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def look(self, prompts: Sequence[Prompt]) -> list[Found]:
        """What is known of each prompt. One whose answer does not fit its schema comes as the question after that."""
        return self._look(prompts, list(map(self._questions.key, prompts)), self._held(prompts))

    def settled(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """Of each prompt that is settled, the key of its answer: its entity has it, whole and by today's rules. Of most
        prompts of a rerun there is nothing more to know. Counts nothing.
        """
        keys, held = map(self._questions.key, prompts), self._held(prompts)
        return [
            key if _is_settled(prompt, key, has) else None for prompt, key, has in zip(prompts, keys, held, strict=True)
        ]

    def unsettled(self, prompts: Sequence[Prompt]) -> list[Found]:
        """What `look` says, of those alone that are not settled."""
        keys, held = list(map(self._questions.key, prompts)), self._held(prompts)
        settled, rest = Counter[str](), []
        for row, (prompt, key, has) in enumerate(zip(prompts, keys, held, strict=True)):
            if _is_settled(prompt, key, has):
                settled[prompt.knowledge] += 1
            else:
                rest.append(row)
        for knowledge, count in settled.items():
            self._seen[knowledge] = self._seen.get(knowledge, 0) + count
        self._progress.total += len(prompts) - len(rest)
        self._progress.unchanged += len(prompts) - len(rest)
        return self._look([prompts[row] for row in rest], [keys[row] for row in rest], [held[row] for row in rest])

    def _look(self, prompts: Sequence[Prompt], keys: Sequence[str], held: Sequence[Held | None]) -> list[Found]:
        questions = list(map(self._questions.of, prompts, keys))
        statuses, judged = self._answered(questions)
        for row, question in enumerate(questions):
            if statuses.get(question.key) == Status.INVALID and question.schema is not None:
                questions[row] = self._repaired(question)
        if repaired := [question for question in questions if question.key not in statuses and question.asked_before]:
            more_statuses, more_judged = self._answered(repaired)
            statuses, judged = statuses | more_statuses, judged | more_judged
        missing = {question.key for question in questions} - statuses.keys()
        rejected = {f.key for f in self._cache.failures(missing) if f.permanent} if missing else set()
        found = [
            Found(
                question.with_status(statuses.get(question.key)),
                question.key in rejected,
                None if has is None else Link(prompt.knowledge, prompt.entity_id, *has[:3]),
                judged.get(question.key),
                has is not None and self._is_imported(*has),
            )
            for question, prompt, has in zip(questions, prompts, held, strict=True)
        ]
        for each in found:
            self._count(each)
        return found

    def is_open(self, found: Found) -> bool:
        """Whether it is to be asked: it has no answer and was not rejected, or is to be tried again."""
        return is_open(found, retry_failed=self._retry)

    def open(self, prompts: Iterable[Prompt]) -> Iterator[Question]:
        """Those of a stream of prompts that are to be asked; equal ones come once each."""
        for batch in batched(prompts, BATCH):
            yield from (found.question for found in self.unsettled(batch) if self.is_open(found))
        self.end()

    def end(self) -> None:
        """All prompts were read: entities with knowledge that none was about are gone."""
        self._progress.gone = sum(max(0, count - self._seen.get(k, 0)) for k, count in self._before.items())

    def _answered(self, questions: Sequence[Question]) -> tuple[dict[str, Status], dict[str, tuple[Answer, Answer]]]:
        """The statuses of the questions' answers as they are read today; and those answers that were read otherwise, or
        by older rules, with what they were.
        """
        found = self._cache.standing({question.key for question in questions})
        statuses = {key: status for key, (status, _) in found.items()}
        judged = {}
        for key, stored in self._cache.some([key for key, each in found.items() if is_to_be_read(*each)]).items():
            read = read_again(stored, self._model)
            if read != stored:
                judged[key] = read, stored
                statuses[key] = status_of(read.status)
        return statuses, judged

    def _repaired(self, question: Question) -> Question:
        try:
            answer = self._cache.get(question.key)
        except DamagedAnswer:  # `retry_failed` asks it anew, as it asks for all that is of no use
            return question
        return question if answer is None else question.repaired(answer.text)

    def _held(self, prompts: Sequence[Prompt]) -> list[Held | None]:
        """What the entities of prompts have now, and how it stands: see `TextCache.held`."""
        ids: dict[str, list[int | str]] = {}
        for prompt in prompts:
            ids.setdefault(prompt.knowledge, []).append(prompt.entity_id)
        for knowledge in ids.keys() - self._before.keys() if self._whole else ():
            self._before[knowledge] = self._cache.count_linked(knowledge)
        there = {knowledge: self._cache.held(knowledge, some) for knowledge, some in ids.items()}
        return [there[prompt.knowledge].get(prompt.entity_id) for prompt in prompts]

    def _is_imported(self, key: str, version: str, as_of: str | None, status: str | None, rules: int | None) -> bool:
        """Whether what an entity has is a text that was imported, is knowledge still, and is not to be replaced."""
        return version == IMPORTED and status == _OK and not self._model.replace_imported

    def _count(self, found: Found) -> None:
        progress, linked = self._progress, found.linked
        progress.total += 1
        if linked is None:
            progress.new += 1
        else:
            self._seen[linked.knowledge] = self._seen.get(linked.knowledge, 0) + 1
            same = found.imported or linked.key == found.question.key
            progress.unchanged += same
            progress.changed += not same


def _is_settled(prompt: Prompt, key: str, has: Held | None) -> bool:
    return has == (key, prompt.version, prompt.as_of, _OK, RULES)


class Intake:
    """Takes prompts in and answers back. Several threads may use one.

    Args:
        progress: what is counted into.
        claims: by which processes on one cache share the questions; None where nothing is asked.
        prices: to know what answers cost.
        retry_failed: ask again what was rejected, refused or empty before.
        retry_before: of answers, only those that are older than this moment (ISO 8601, UTC, seconds).
        whole: as in `Survey`.
        on_note: called with a sentence for what a person should know of the answers: once a kind.

    Attributes:
        hopeless: set by the first answer of another model than the one that was asked: why no further question should
            be sent. Answers that are paid for already are taken in all the same.
    """

    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        progress: Progress,
        prices: Prices,
        *,
        claims: Claims | None = None,
        retry_failed: bool = False,
        retry_before: str | None = None,
        whole: bool = True,
        on_note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._cache, self._model, self._progress, self._prices = cache, model, progress, prices
        self._retry_before = retry_before
        self._claims, self._owner = claims, claims.owner if claims else ""
        self._on_note = on_note
        self._survey = Survey(cache, model, progress, retry_failed=retry_failed, whole=whole)
        self._counting = threading.Lock()
        self._lost: set[str] = set()
        self.hopeless: Hopeless | None = None

    # Prompts

    def open(self, prompts: Iterable[Prompt], *, though_rejected: bool = False) -> list[Question]:
        """Those of some prompts that are to be asked, equal ones as one question; the entities of all that are answered
        are linked.

        Args:
            though_rejected: also those that were rejected before, or whose answers broke off: where answers are there
                already, and nothing is sent.
        """
        questions: dict[str, Question] = {}
        answered: list[Link] = []
        judged: dict[str, tuple[Answer, Answer]] = {}
        prompts = list(prompts)
        unsettled = self._survey.unsettled(prompts)
        skipped, cached = 0, len(prompts) - len(unsettled)
        for found in unsettled:
            question = found.question
            if found.judged is not None:
                judged[question.key] = found.judged
            if found.imported:
                cached += 1
            elif self._survey.is_open(found) or (though_rejected and question.status in _MAY_COME_WHOLE):
                known = questions.get(question.key)
                questions[question.key] = question.for_all([*known.links, *question.links]) if known else question
            elif question.status in (None, Status.INVALID):
                skipped += 1
            else:
                cached += 1
                if question.status != Status.OK:
                    self._count_worth(question.status)
                answered += [link for link in question.links if link != found.linked]
        if judged:
            self._cache.judge((read, status_of(stored.status)) for read, stored in judged.values())
        self._cache.link(answered)
        self._count(skipped=skipped, cached=cached, judged=sum(differ(*each) for each in judged.values()))
        return list(questions.values())

    def end(self) -> None:
        """All prompts were read."""
        self._survey.end()

    def claim(self, questions: Collection[Question]) -> list[Question]:
        """Those that are now this process's to ask; the others are answered, or somebody else's."""
        if self._claims is None:
            raise ValueError("An intake without claims asks nothing.")
        again = {question.key for question in questions if question.status is not None}
        keys = [question.key for question in questions]
        mine = self._claims.claim(keys, again=again, again_before=self._retry_before)
        return [question for question in questions if question.key in mine]

    # Money

    def order(self, question: Question, *, tier: str = "", before: str = "") -> Order:
        """A request for a question, with the most that it can cost.

        Args:
            tier: that it is sure to be charged by: "batch".
            before: what became of the request for the same question before, as in `Order`.
        """
        price, model = self._prices.of(question.model), self._model
        most = None
        if price is not None:
            most = most_cost(price, question.messages, question.parameters, model.max_tokens, tier or asked_tier(model))
        knowledge = question.links[0].knowledge if question.links else None
        return Order(question.key, question.model, most, knowledge, tier, before)

    def surplus(self, question: Question, answer: Answer) -> int:
        """By how much an answer cost more than was to be expected at most, in billionths of a US dollar."""
        most = billionths(self.order(question).most) if answer.cost is not None else None
        return 0 if most is None else max(0, (billionths(answer.cost) or 0) - most)

    def give_back(self, keys: Collection[str]) -> None:
        """Requests for these questions, which are reserved, were not sent, or refused without charge."""
        ledger = self._cache.ledger
        self._cache.database.committed(lambda connection: ledger.release(connection, self._owner, keys))

    def reserve_for_batches(self) -> None:
        """Batches of a kar-aug without a ledger run on: reserve what they can cost still."""
        BatchBook(self._cache).reserve(lambda request: self.order(question_of(request), tier="batch"))

    # Answers

    def read(self, question: Question, body: bytes, *, seconds: float = 0.0, tier: str = "") -> Answer:
        """What the body of a response says.

        Raises:
            NoCompletion: It is no answer, and was not paid for; it is kept all the same, as nobody's.
        """
        price, model = self._prices.of(question.model), self._model
        answer = read_answer(
            body,
            question,
            price,
            served_model=model.served_model,
            seconds=seconds,
            tier=tier,
            asked_tier=asked_tier(model),
            unlimited=model.max_tokens,
        )
        if answer.status == Status.MALFORMED and (instead := no_completion(body)):
            # Beside the question's own answer, so that it is asked again as if nothing had come.
            self._cache.put(replace(answer, key=f"{question.key}-no-completion", parameters=None, cost=None))
            raise NoCompletion(f"the server answered 200 with {without_keys(instead)[:_SHOWN]}")
        if answer.status == Status.WRONG_MODEL and self.hopeless is None:
            self.hopeless = self._by_another_model(answer)
        return answer

    def nobodys(self, question: Question, line: bytes, *, tier: str = "") -> Answer:
        """The answer to a question that nothing was said of, where a line of the results names no question: perhaps it
        is this. It costs the most that it can, and cannot be read, as long as it may be another's.
        """
        body = _NAMELESS + line
        answer = read_answer(body, question, None, tier=tier)
        return replace(answer, cost=self.order(question, tier=tier).most)

    def charge(self, question: Question, body: bytes, under: str, *, tier: str) -> None:
        """Write down, once, what an answer cost that is not kept.

        Args:
            under: what stands in the ledger in place of the question's key.
        """
        answer = read_answer(body, question, self._prices.of(question.model), tier=tier)
        charge = Charge(
            under,
            question.model,
            answer.cost,
            answer.prompt_tokens,
            answer.completion_tokens,
            known=bool(answer.prompt_tokens),
            tier=tier,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._cache.database.committed(lambda connection: self._cache.ledger.enter_once(connection, charge))

    def store(
        self, answers: Collection[tuple[Question, Answer]], orders: Sequence[Order] = (), *, owner: str | None = None
    ) -> Reservation:
        """Keep answers, and whose they are, and reserve what the next requests can cost, in one commit. What does not
        fit its schema is nobody's.

        Args:
            owner: who had reserved what the answers cost; this process if None.
        """
        kept = [(answer, question.links if _fits(answer) else ()) for question, answer in answers]
        owner = self._owner if owner is None else owner
        if self._claims is None:
            self._cache.put_many(kept, owner=owner)
            return Reservation()
        claims = self._claims

        def commit(connection: sa.Connection) -> Reservation:
            self._cache.put_within(connection, kept, owner)
            return claims.reserve(connection, orders, self._model.max_cost)

        return self._cache.database.committed(commit)

    def answered(self, question: Question, answer: Answer, late: Sequence[Link] = ()) -> Question | None:
        """What follows from an answer that is stored. Returns the question that is to be asked because of it, if any.

        Args:
            question: with the links of all who waited for the answer.
            late: those of them that came when it was being stored.
        """
        if late and _fits(answer):
            self._cache.link(late)
        self._remark(question, answer)
        self._count(
            asked=int(_fits(answer)),
            cached=len(question.links) - 1 if _fits(answer) else 0,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=answer.cost or 0.0,
        )
        return None if _fits(answer) else self._after_misfit(question)

    def take(self, answers: Sequence[tuple[Question, Answer]], *, owner: str | None = None) -> list[Question]:
        """`store`, then `answered` of each."""
        self.store(answers, owner=owner)
        followed = (self.answered(question, answer) for question, answer in answers)
        return [question for question in followed if question is not None]

    def failed(self, question: Question, fault: Fault, attempts: int, *, owner: str | None = None) -> None:
        """Record that a question has no answer: for good if it was rejected, else until the next run.

        Args:
            owner: who had reserved what it can cost; this process if None.
        """
        link = question.links[0] if question.links else None
        self._cache.fail(
            question.key,
            fault.reason,
            attempts,
            permanent=fault.permanent,
            link=link,
            owner=self._owner if owner is None else owner,
            free=fault.free,
        )
        self._count_failed(fault.reason, len(question.links))

    def postponed(self, question: Question, reason: str) -> None:
        """A question that this transport cannot ask now: its entities are without an answer, and it stays open."""
        self._count_failed(reason, len(question.links))

    # What other processes do

    def elsewhere(self, keys: Collection[str]) -> dict[str, Status | None]:
        """Those of the questions that others have answered, with the status; None where a batch is about to."""
        found: dict[str, Status | None] = dict(self._cache.answered(keys))
        if self._claims is not None:
            in_batches = self._claims.in_batches(keys) - found.keys()
            self._lost |= BatchBook(self._cache).lost(in_batches)
            found |= dict.fromkeys(in_batches)
        return found

    def answered_elsewhere(self, question: Question, status: Status | None) -> Question | None:
        """What follows for a question that `elsewhere` found. Returns what is to be asked because of it, or nothing."""
        if status == Status.INVALID:
            return self._after_misfit(question)
        if status is None and question.key in self._lost:
            self.postponed(question, LOST)
        elif status is None:
            self._count(elsewhere=len(question.links))
        else:
            self._cache.link(question.links)
            self._count_worth(status, len(question.links))
            self._count(cached=len(question.links))
        return None

    # Behind these

    def _after_misfit(self, question: Question) -> Question | None:
        """The question that asks for another answer; None after two that do not fit, and the entities have failed."""
        stored = self._cache.get(question.key)  # as it is stored, since that is what a later run will read
        if stored is not None and not question.asked_before:
            return question.repaired(stored.text)
        self.failed(question, Rejected(TWICE), 2)
        return None

    def _by_another_model(self, answer: Answer) -> Hopeless:
        served = answer.served_model
        return Hopeless(
            f"{server_name(self._model)} was asked for {answer.model!r} and answered as {served!r}. "
            f"If that is the same model, set [generate] served_model = {json.dumps(served)} and run the same command: "
            "what is stored is read again, at no cost.",
            key=answer.key,
        )

    def _remark(self, question: Question, answer: Answer) -> None:
        """Count what there is to say of an answer; the first of a kind is said at once."""
        count = max(1, len(question.links))
        if _fits(answer):
            self._count_worth(answer.status, count)
        for remark in remarks_on(answer, self._model):
            with self._counting:
                first = self._progress.count(self._progress.remarks, remark, count)
            if first:
                link = question.links[0] if question.links else None
                whose = f"{link.knowledge} {link.entity_id}" if link else f"answer {question.key}"
                self._on_note(f"{whose}: {remark}. Others like it are counted at the end.")

    def _count_worth(self, status: Status | str | None, count: int = 1) -> None:
        """Count answers that are no knowledge."""
        if status is not None and status not in accepted(self._model):
            with self._counting:
                self._progress.count(self._progress.no_knowledge, status, count)

    def _count(self, **counts: float) -> None:
        with self._counting:
            for name, count in counts.items():
                setattr(self._progress, name, getattr(self._progress, name) + count)

    def _count_failed(self, reason: str, count: int) -> None:
        with self._counting:
            self._progress.count_failure(reason, count)


def _fits(answer: Answer) -> bool:
    return answer.status != Status.INVALID
