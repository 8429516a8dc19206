"""The Batch API: the same questions at half the price, answered within a day.

Everything is on disk before it is waited for, so that a job which is killed, or simply stopped, finds its batches
again. A batch carries our name for it in its metadata: where the answer to `batches.create` was lost, it is looked for
before another is made, because a batch is charged whether or not anybody knows of it. One that the server does not know
any more is set aside, and the others are collected: see `forget_batch`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import IO, Any, TypeVar

from kar_aug._helpers.batched import batched
from kar_aug._helpers.servers.addresses import client_options, normalised, shown
from kar_aug._helpers.servers.clients import trusted
from kar_aug._helpers.servers.responses import bounded
from kar_aug._helpers.servers.waits import SAY_SECONDS, pause
from kar_aug.cache import Answer, Batch, BatchBook, Claims, Request, TextCache
from kar_aug.cache.texts import tables
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, GenerationError, Hopeless, LimitReached
from kar_aug.generate.cost import Prices
from kar_aug.generate.faults import (
    Barred,
    Expired,
    Fault,
    Faults,
    Passing,
    Rejected,
    Unavailable,
    Unreachable,
    client_errors,
)
from kar_aug.generate.intake import BATCH, LOST, Intake
from kar_aug.generate.jsonl import (
    MOST_BYTES,
    MOST_REQUESTS,
    Nobodys,
    Response,
    answer_of,
    read_responses,
    request_line,
    response_to,
)
from kar_aug.generate.limits import requests_reached
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import Question, question_of, request_of
from kar_aug.generate.server import api_key, import_openai
from kar_aug.prompts import Prompt

_TIER = "batch"  # by which every answer of a batch is charged
_CENTS = 1e-9  # US dollars that floats may be off by
_MARK = "kar_aug"  # the name of our marker in a batch's metadata
_ROUNDS = 3  # batches that one question is put into before it is listed as failed
_CLOCKS_SECONDS = 86_400  # by which the server's clock and ours surely do not differ
_OVER = ("completed", "expired", "cancelled", "failed")
_GONE = (403, 404, 410)  # what is not there any more, or is of another project's key
_YOUNG_SECONDS = 60.0  # in which a server may not find yet what it has just made
_TRIES_UNREACHED = 3
_IN_A_BATCH = 5  # requests refused, and none answered: it was not for the prompts
T = TypeVar("T")


class _Gone(Exception):
    """The server does not know a batch, or a file, that it has made."""


def generate_batches(
    prompts: Iterable[Prompt],
    cache: TextCache,
    model: LanguageModel,
    *,
    key: str | None = None,
    prices: Prices | None = None,
    retry_failed: bool = False,
    most_requests: int = MOST_REQUESTS,
    wait: bool = True,
    poll_seconds: float = 30.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda sentence: None,
) -> Progress:
    """Ask every prompt that has no answer yet through the Batch API, and bring in what batches have answered.

    Args:
        most_requests: of one batch.
        wait: whether to stay until all batches are over; the same call later goes on either way.
        poll_seconds: between two looks at the batches.
        on_note: called with a sentence for what a person should know: a batch that started, expired, was collected.
        (the others as in `generate`)

    Raises:
        LimitReached: max_cost or max_requests kept prompts out; what was asked is answered and stored.
        GenerationError: The server cannot be reached or refuses the key; or, when all others are stored, it refused a
            batch, or some answers are another model's.
        KeyboardInterrupt: Ctrl-C came; batches go on running at the server.
    """
    prices = prices or Prices()
    if model.max_cost is not None:
        prices.needed(model.model)
    with Claims(cache) as claims:
        progress = Progress()
        intake = Intake(cache, model, progress, prices, claims=claims, retry_failed=retry_failed, on_note=on_note)
        key = api_key(model) if key is None else key
        job = _Batches(cache, model, key, claims, intake, progress, on_progress, on_note)
        try:
            intake.reserve_for_batches()
            job.go_on()
            job.submit(prompts, min(most_requests, MOST_REQUESTS))
            while wait and job.running:
                job.look()
                if job.running:
                    time.sleep(poll_seconds)
            if not wait:
                job.look()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{job.progress}. {len(job.running)} batches go on at the server; run the same command to collect them."
            ) from None
        finally:
            job.close()
    if (why := intake.hopeless or job.refused or job.limit) is not None:
        raise why
    return progress


def forget_batch(cache: TextCache, name: str) -> int:
    """Take a batch out of the book, so that its prompts can be asked again: one that the server does not know any more.
    What it may still answer is never collected.

    Args:
        name: the server's id of it, as notes and `--status` show it.

    Returns:
        How many requests were without an answer.

    Raises:
        ConfigError: There is no such batch.
    """
    book = BatchBook(cache)
    there = {batch.batch_id or batch.marker: batch for batch in book.batches()}
    if name not in there:
        raise ConfigError(f"There is no batch {name!r}. Those that are not collected: {', '.join(there) or 'none'}.")
    count = sum(1 for _ in book.requests(there[name].marker))
    book.close(there[name].marker)
    return count


class _Batches:
    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        key: str,
        claims: Claims,
        intake: Intake,
        progress: Progress,
        on_progress: Callable[[Progress], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.cache, self.model, self.claims = cache, model, claims
        self.intake, self.progress = intake, progress
        self.on_progress, self.on_note = on_progress, on_note
        self.book = BatchBook(cache)
        self.running: list[Batch] = []
        self.claimed: set[str] = set()
        self.misfits: list[Question] = []
        self.free: set[str] = set()
        # Of the batch that is being collected: what was refused, what anything was said of, and lines that name nobody.
        self.rejected: list[tuple[Request, Rejected]] = []
        self.told: set[str] = set()
        self.nobodys: list[bytes] = []
        self.limit: LimitReached | None = None
        self.refused: GenerationError | None = None
        self.made: dict[str, float] = {}  # when, by marker, those of this run
        self.reached = False
        self.faults = Faults(model, key)
        cache.database.patience = model.give_up_after
        openai = import_openai()
        self.client = openai.OpenAI(
            timeout=model.timeout,
            max_retries=0,
            http_client=bounded(openai.DefaultHttpxClient(verify=trusted()), math.inf),
            **client_options(model.base_url, key),
        )

    def close(self) -> None:
        self.cache.database.patience = 0.0
        self.client.close()

    # Submitting

    def go_on(self) -> None:
        """Take up the batches of earlier runs, those of this server; one that another process watches is left to it."""
        here = normalised(self.model.base_url)
        for batch in self.book.batches():
            if normalised(batch.base_url) == here and self._is_ours(batch):
                self._start(batch)

    def submit(self, prompts: Iterable[Prompt], most_requests: int) -> None:
        """Put every prompt without an answer into a batch."""
        questions: dict[str, Question] = {}
        size = 0
        room = self._room()
        for question in self._open(prompts):
            if question.key in questions:
                links = (*questions[question.key].links, *question.links)
                questions[question.key] = question.for_all(links)
                continue
            room -= self.intake.order(question, tier=_TIER).most or 0.0
            if self._crosses_limit(len(questions)) or room < 0:
                self.limit = self.limit or self._cost_reached()
                break
            length = len(_line(question))
            if len(questions) == most_requests or size + length > MOST_BYTES:
                self._prepare(map(request_of, questions.values()))
                questions, size = {}, 0
            questions[question.key] = question
            size += length
        self._prepare(map(request_of, questions.values()))
        self.claims.release(self.claimed)  # what a limit kept out, another process may ask

    def _room(self) -> float:
        """US dollars that are left, as far as can be told now; what counts is what there is when a batch is noted."""
        most, name = self.model.max_cost, self.model.model
        return math.inf if most is None else most - self.cache.spent(name) + _CENTS

    def _open(self, prompts: Iterable[Prompt]) -> Iterator[Question]:
        """Questions that are ours to ask."""
        for batch in batched(prompts, BATCH):
            mine = self._claim(self.intake.open(batch))
            self.claimed = {question.key for question in mine}
            yield from mine
        self.intake.end()

    def _claim(self, questions: Sequence[Question]) -> list[Question]:
        """Those that are ours to ask; the entities of those that run in a batch wait for that."""
        mine = self.intake.claim(questions)
        keys = {question.key for question in mine}
        others = [question for question in questions if question.key not in keys]
        self.book.join(link for question in others for link in question.links)
        self.progress.elsewhere += sum(len(question.links) for question in others)
        return mine

    def _crosses_limit(self, chosen: int) -> bool:
        most, sent = self.model.max_requests, self.progress.requests + chosen
        if most is not None and sent >= most:
            self.limit = requests_reached(most, sent)
        return self.limit is not None

    def _cost_reached(self) -> LimitReached:
        most = self.model.max_cost or 0.0
        return LimitReached(
            f"Stopped at --max-cost {most:g}: the batches so far can cost up to that. Raise it to go on.",
            setting="max_cost",
            limit=most,
            spent=self.cache.spent(self.model.model),
        )

    def _prepare(self, requests: Iterable[Request]) -> None:
        """Make a batch of requests, as far as there is money for them."""
        requests = list(requests)
        if not requests:
            return
        orders = [self.intake.order(question_of(request), tier=_TIER) for request in requests]
        batch = self.book.prepare(requests, shown(self.model.base_url), orders, self.model.max_cost)
        if batch.requests < len(requests):
            self.limit = self.limit or self._cost_reached()
        if batch.requests:
            self.progress.requests += batch.requests
            there = requests if batch.requests == len(requests) else self.book.requests(batch.marker)
            self.progress.elsewhere += sum(len(request.links) for request in there)
            if self._is_ours(batch):  # another process may have come upon it first
                self._start(batch)

    def _is_ours(self, batch: Batch) -> bool:
        """Whether this process watches the batch: of several on one cache, one does."""
        name = f"batch:{batch.marker}"
        return name in self.claims.claim({name})

    def _start(self, batch: Batch) -> None:
        """Bring a batch from wherever it stands to running."""
        if batch.state == "uploaded":  # by an earlier run; files do not stay for ever
            try:
                batch = self._made(batch)
            except _Gone:
                batch = replace(batch, state="prepared")
        if batch.state == "prepared":
            batch = self._made(self._noted(batch, state="uploaded", input_file=self._upload(batch)))
        self.running.append(batch)

    def _made(self, batch: Batch) -> Batch:
        """Let the server make the batch of an uploaded file."""
        fresh = batch.state == "uploaded" and batch.marker in self.made
        batch = self._noted(batch, state="running", batch_id=self._create(batch, fresh=fresh))
        self.made[batch.marker] = time.monotonic()
        self.on_note(f"batch {batch.batch_id}: {batch.requests:,} requests")
        return batch

    def _noted(self, batch: Batch, **changes: Any) -> Batch:
        self.book.note(batch.marker, **changes)
        return replace(batch, **changes)

    def _upload(self, batch: Batch) -> str:
        with tempfile.TemporaryFile() as file:
            for request in self.book.requests(batch.marker):
                file.write(_line(question_of(request)))

            def upload() -> str:
                file.seek(0)
                name = f"kar-aug-{batch.marker}.jsonl"
                return self.client.files.create(file=(name, file, "application/jsonl"), purpose="batch").id

            name = self._try(upload)
            self.made[batch.marker] = time.monotonic()
            return name

    def _create(self, batch: Batch, *, fresh: bool) -> str:
        def create() -> str:
            there = self._find(batch)
            if there is not None:
                return there
            made = self.client.batches.create(
                input_file_id=batch.input_file or "",
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_MARK: batch.marker},
            )
            return made.id

        return self._try(create, gone=() if fresh else (400, *_GONE))

    def _find(self, batch: Batch) -> str | None:
        """The server's id of a batch whose making we may have missed."""
        made = datetime.fromisoformat(batch.created).timestamp()
        for there in self.client.batches.list(limit=100):  # the newest first
            if there.created_at < made - _CLOCKS_SECONDS:
                return None
            if (there.metadata or {}).get(_MARK) == batch.marker:
                return there.id
            if there.input_file_id == batch.input_file:
                return there.id
        return None

    # Collecting

    def look(self) -> None:
        """Ask for the state of every batch, and bring in those that are over."""
        finished = 0
        for batch in list(self.running):
            try:
                there = self._try(partial(self.client.batches.retrieve, batch.batch_id or ""), gone=_GONE)
                if batch.state == tables.LOST:
                    self.running[self.running.index(batch)] = batch = self._noted(batch, state="running")
                if _status(there) in _OVER:
                    self._collect(batch, there)
                    self.running.remove(batch)
                elif there.request_counts:
                    finished += there.request_counts.completed
            except _Gone as gone:
                if time.monotonic() - self.made.get(batch.marker, -_YOUNG_SECONDS) >= _YOUNG_SECONDS:
                    self._set_aside(batch, gone)
        self.progress.ready = finished
        self.on_progress(self.progress)

    def _set_aside(self, batch: Batch, gone: _Gone) -> None:
        """The server does not know a batch any more, or its results. It may be paid for, so that a person decides."""
        self.running.remove(batch)
        self._noted(batch, state=tables.LOST)
        left = list(self.book.requests(batch.marker))
        before = self.progress.elsewhere
        for request in left:
            self._came_back(request)
        self.progress.count_failure(LOST, before - self.progress.elsewhere)
        self.on_note(
            f"batch {batch.batch_id}: {self.faults.server} does not know it any more ({gone}). Was it deleted, or is "
            f"the key of another project? Its {len(left):,} prompts are set aside. To ask them again, which is charged "
            f"again: kar-aug generate --batch --forget-batch {batch.batch_id}"
        )

    def _collect(self, batch: Batch, there: Any) -> None:
        """Store what a batch answered, whatever its state: one that expired has answers too, and they are charged."""
        before, misfits = self.progress.asked, len(self.misfits)
        self.rejected, self.told, self.nobodys = [], set(), []
        for file_id in (there.output_file_id, there.error_file_id):
            if file_id:
                with tempfile.TemporaryFile() as file:
                    self._try(partial(self._download, file_id, file), gone=_GONE)
                    self._store(batch, file, f"results of {batch.batch_id}")
        if self.nobodys:
            self._keep_nobodys(batch)
        self.on_note(f"batch {batch.batch_id}: {_status(there)}, {self.progress.asked - before:,} answers")
        self._reject(batch, answered=self.progress.asked - before + len(self.misfits) - misfits)
        if _status(there) != "completed":  # what it did not answer is not charged
            self.free.update(request.key for request in self.book.requests(batch.marker))
        if _status(there) == "failed":
            self._close(batch, there)
            errors = there.errors.data if there.errors and there.errors.data else []
            words = "; ".join(sorted({self.faults.words({"message": e.message}).strip(": ") for e in errors}))
            self.refused = GenerationError(
                f"{self.faults.server} refused batch {batch.batch_id}: {words or 'it did not say why'}. "
                "Nothing of it was charged; its prompts will be asked by the next run."
            )
            return
        if _status(there) == "cancelled" or self.intake.hopeless is not None:  # what is asked again would cost, too
            left = list(self.book.requests(batch.marker))
            for request in left:
                self._came_back(request)
            why = "was cancelled" if _status(there) == "cancelled" else "was answered by another model"
            self.on_note(f"batch {batch.batch_id} {why}; {len(left):,} prompts are left for the next run")
        else:
            self._ask_again(batch)
        self._close(batch, there)

    def _reject(self, batch: Batch, *, answered: int) -> None:
        """What a batch was refused is the fault of each prompt; not where it answered nothing, and refused many."""
        fault = self.rejected[0][1] if self.rejected else None
        if fault is not None and not answered and len(self.rejected) >= _IN_A_BATCH:
            for request, _ in self.rejected:
                self._came_back(request)
            self.free.update(request.key for request, _ in self.rejected)
            self.book.drop([request.key for request, _ in self.rejected])
            self.refused = self.faults.refusing(fault, len(self.rejected), self.rejected[0][0].key, proven=False)
            return
        for request, fault in self.rejected:
            self._failed(batch, request, fault)

    def _close(self, batch: Batch, there: Any) -> None:
        """The batch is over. Its files at the provider are deleted last: without them it could not be collected."""
        self.book.close(batch.marker, free=self.free)
        self.free = set()
        if self.model.delete_batch_files:
            for file_id in filter(None, (batch.input_file, there.output_file_id, there.error_file_id)):
                with contextlib.suppress(*client_errors()):  # not every server can
                    self.client.files.delete(file_id)

    def _download(self, file_id: str, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        # Bytes, not the client's lines: those also end at characters that an answer may contain.
        with self.client.files.with_streaming_response.content(file_id) as response:
            for chunk in response.iter_bytes():
                file.write(chunk)

    def _store(self, batch: Batch, file: IO[bytes], name: str) -> None:
        file.seek(0)
        for lines in batched(read_responses(file, name), BATCH):
            responses: dict[str, Response] = {}
            for line in lines:
                if isinstance(line, Nobodys):
                    self.on_note(str(line))
                    if line.may_be_an_answer:  # an error is nobody's, too, and charged to nobody
                        self.nobodys.append(line.line)
                elif line.key not in responses or line.worth >= responses[line.key].worth:
                    responses[line.key] = line
            self.told |= responses.keys()
            self._store_some(batch, responses)

    def _store_some(self, batch: Batch, responses: Mapping[str, Response]) -> None:
        answers: list[tuple[Request, Answer]] = []
        for request in list(self.book.requests(batch.marker, responses.keys())):
            answer = self._read(batch, request, responses[request.key])
            if answer is not None:
                answers.append((request, answer))
        self._take(batch, answers)

    def _take(self, batch: Batch, answers: Sequence[tuple[Request, Answer]]) -> None:
        for request, _ in answers:
            self._came_back(request)
        asked = [(question_of(request), answer) for request, answer in answers]
        self.misfits += self._claim(self.intake.take(asked, owner=batch.marker))
        self.on_progress(self.progress)

    def _keep_nobodys(self, batch: Batch) -> None:
        """Lines that name no question are answers, too, and paid for: to those of which nothing else was said. Where it
        is one line and one question, it is its answer. Else nobody can tell whose is which, and each is kept as an
        answer that cannot be read: none is asked again by itself.
        """
        silent = [request for request in self.book.requests(batch.marker) if request.key not in self.told]
        if len(silent) == len(self.nobodys) == 1:
            self._store_some(batch, {silent[0].key: response_to(silent[0].key, self.nobodys[0])})
            return
        pairs = list(zip(silent, self.nobodys, strict=False))
        self._take(batch, [(r, self.intake.nobodys(question_of(r), line, tier=_TIER)) for r, line in pairs])
        if pairs:
            self.on_note(
                f"batch {batch.batch_id}: {len(self.nobodys):,} lines of its results name no question, and nothing was "
                f"said of {len(silent):,} prompts. These may be paid for: {len(pairs):,} of them are kept as answers "
                "that cannot be read. To ask them again, which is charged again: kar-aug generate --retry-failed"
            )

    def _read(self, batch: Batch, request: Request, response: Response) -> Answer | None:
        try:
            return answer_of(response, question_of(request), self.intake, tier=_TIER)
        except Fault as fault:
            said = type(fault)(self.faults.clean(fault.reason))
            if isinstance(fault, Rejected) and not fault.of_prompt:
                self.rejected.append((request, Rejected(said.reason)))
            elif fault.permanent or isinstance(fault, Barred) or request.rounds >= _ROUNDS:
                self._failed(batch, request, said)
            elif fault.free:
                self.free.add(request.key)
            return None

    def _failed(self, batch: Batch, request: Request, fault: Fault) -> None:
        self.intake.failed(question_of(request), fault, request.rounds, owner=batch.marker)
        self.book.drop([request.key])
        self._came_back(request)

    def _came_back(self, request: Request) -> None:
        """Its prompts are in no batch any more; those that an earlier run asked for may not be among this run's."""
        self.progress.elsewhere = max(0, self.progress.elsewhere - len(request.links))

    def _ask_again(self, batch: Batch) -> None:
        """Put what a batch left unanswered (expired, lost, a passing fault) into a new one."""
        left = []
        for request in list(self.book.requests(batch.marker)):
            if request.rounds >= _ROUNDS:
                self._failed(batch, request, self._unanswered(request))
            else:
                self._came_back(request)
                left.append(replace(request, rounds=request.rounds + 1))
        if left:
            self.on_note(f"batch {batch.batch_id}: {len(left):,} prompts have no answer and are asked again")
        if self.misfits:
            self.on_note(f"batch {batch.batch_id}: {len(self.misfits):,} answers do not fit their schema: asked again")
        misfits, self.misfits = self.misfits, []
        self._prepare(self._within_limit([*left, *map(request_of, misfits)]))
        self.claims.release({question.key for question in misfits})  # those that a limit kept out

    def _unanswered(self, request: Request) -> Fault:
        why = "the batch gave no response"
        return Expired(why) if request.key in self.free else Passing(why)

    def _within_limit(self, requests: list[Request]) -> list[Request]:
        """As many as this run may still send."""
        if self.model.max_requests is None:
            return requests
        allowed = max(0, self.model.max_requests - self.progress.requests)
        if len(requests) > allowed:
            self.limit = self.limit or requests_reached(self.model.max_requests, self.progress.requests + allowed)
        return requests[:allowed]

    def _try(self, action: Callable[[], T], *, gone: Collection[int] = ()) -> T:
        """Do it until it works, or cannot; a server that answers nothing is waited for as long as online.

        Args:
            gone: statuses that say that what is asked for is not there.

        Raises:
            _Gone: The server says so.
        """
        since = said = time.monotonic()
        for attempt in itertools.count(1):
            try:
                done = action()
                self.reached = True
                return done
            except client_errors() as error:
                fault = self._fault(error, gone)
            wait = fault.wait if isinstance(fault, Unavailable) else None
            seconds = pause(attempt) if wait is None else wait
            if isinstance(fault, Unreachable) and not self.reached and attempt >= _TRIES_UNREACHED:
                raise GenerationError(f"{self.faults.server} cannot be reached. Is the server running?")
            if time.monotonic() + seconds - since > self.model.give_up_after:
                asks = f" and asks to wait {seconds:,.0f} seconds" if wait is not None else ""
                raise GenerationError(
                    f"{self.faults.server}: {fault}{asks}. Batches that run go on; run the same command to collect "
                    "them."
                )
            if time.monotonic() + seconds - said > SAY_SECONDS:
                said = time.monotonic()
                self.on_note(f"{self.faults.server}: {fault}; waiting for {said - since:,.0f} s, batches go on")
            time.sleep(seconds)
        raise AssertionError("unreachable")

    def _fault(self, error: Exception, gone: Collection[int]) -> Passing:
        """What heals by waiting; everything else is raised."""
        status = getattr(error, "status_code", None)
        self.reached |= status is not None
        fault = self.faults.of(error)
        if status in gone:
            raise _Gone(str(self.faults.said(error))) from None
        if isinstance(fault, Hopeless):
            raise fault from None
        if not isinstance(fault, Passing):
            raise GenerationError(
                f"{self.faults.server}: {fault.reason}. Does it have the Batch API? Nothing stored is lost."
            ) from None
        return fault


def _status(there: Any) -> str:
    return str(there.status).lower()  # of some servers COMPLETED


def _line(question: Question) -> bytes:
    return request_line(question.key, question.model, question.messages, question.parameters)
