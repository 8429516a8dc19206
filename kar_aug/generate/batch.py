"""The Batch API: the same questions at half the price, answered within a day.

Everything is on disk before it is waited for, so that a job which is killed, or simply stopped, finds its batches
again. A batch carries our name for it in its metadata: where the answer to `batches.create` was lost, it is looked for
before another is made, because a batch is charged whether or not anybody knows of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import IO, Any, TypeVar

from kar_aug._addresses import client_address, without_login
from kar_aug._batched import batched
from kar_aug.cache import Answer, Batch, BatchBook, Claims, Request, TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, Hopeless, LimitReached
from kar_aug.generate.cost import Prices, most_tokens
from kar_aug.generate.faults import Fault, Faults, Passing, Unavailable, client_errors
from kar_aug.generate.intake import BATCH, Intake
from kar_aug.generate.jsonl import MOST_BYTES, MOST_REQUESTS, Response, answer_of, read_responses, request_line
from kar_aug.generate.limits import pause, requests_reached
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import Question
from kar_aug.generate.server import api_key, import_openai
from kar_aug.prompts import Prompt

_MARK = "kar_aug"  # the name of our marker in a batch's metadata
_ROUNDS = 3  # batches that one question is put into before it is listed as failed
_CLOCKS_SECONDS = 86_400  # by which the server's clock and ours surely do not differ
_OVER = ("completed", "expired", "cancelled", "failed")
T = TypeVar("T")


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
        GenerationError: The server cannot be reached, refuses the key, or refuses a batch; or, when all is stored, some
            answers are another model's.
        KeyboardInterrupt: Ctrl-C came; batches go on running at the server.
    """
    prices = prices or Prices()
    if model.max_cost is not None:
        prices.needed(model.model)
    with Claims(cache) as claims:
        progress = Progress()
        intake = Intake(cache, model, progress, prices, claims=claims, retry_failed=retry_failed)
        key = api_key(model) if key is None else key
        job = _Batches(cache, model, key, prices, claims, intake, progress, on_progress, on_note)
        try:
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
    if (why := intake.hopeless or job.limit) is not None:
        raise why
    return progress


class _Batches:
    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        key: str,
        prices: Prices,
        claims: Claims,
        intake: Intake,
        progress: Progress,
        on_progress: Callable[[Progress], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.cache, self.model, self.prices, self.claims = cache, model, prices, claims
        self.intake, self.progress = intake, progress
        self.on_progress, self.on_note = on_progress, on_note
        self.book = BatchBook(cache)
        self.running: list[Batch] = []
        self.claimed: set[str] = set()
        self.misfits: list[Question] = []
        self.limit: LimitReached | None = None
        self.faults = Faults(model, key)
        cache.database.patience = model.give_up_after
        self.client = import_openai().OpenAI(
            **client_address(model.base_url), api_key=key, timeout=model.timeout, max_retries=0
        )

    def close(self) -> None:
        self.cache.database.patience = 0.0
        self.client.close()

    # Submitting

    def go_on(self) -> None:
        """Take up the batches of earlier runs, those of this server; one that another process watches is left to it."""
        for batch in self.book.batches():
            if _place(batch.base_url) == _place(self.model.base_url) and self._is_ours(batch):
                self._start(batch)

    def submit(self, prompts: Iterable[Prompt], most_requests: int) -> None:
        """Put every prompt without an answer into a batch."""
        questions: dict[str, Question] = {}
        size = 0
        cost = self._committed()
        for question in self._open(prompts):
            if question.key in questions:
                links = (*questions[question.key].links, *question.links)
                questions[question.key] = question.for_all(links)
                continue
            most = self._most_cost(question)
            if self._crosses_limit(len(questions), cost, cost + most):
                break
            cost += most
            length = len(_line(question))
            if len(questions) == most_requests or size + length > MOST_BYTES:
                self._prepare(map(_request, questions.values()))
                questions, size = {}, 0
            questions[question.key] = question
            size += length
        self._prepare(map(_request, questions.values()))
        self.claims.release(self.claimed)  # what a limit kept out, another process may ask

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

    def _crosses_limit(self, chosen: int, committed: float, cost: float) -> bool:
        model = self.model
        if model.max_requests is not None and self.progress.requests + chosen >= model.max_requests:
            self.limit = requests_reached(model.max_requests, self.progress.requests + chosen)
        elif model.max_cost is not None and cost > model.max_cost:
            self.limit = LimitReached(
                f"Stopped at --max-cost {model.max_cost:g}: the batches so far can cost up to that. Raise it to go on.",
                setting="max_cost",
                limit=model.max_cost,
                spent=committed,
            )
        return self.limit is not None

    def _committed(self) -> float:
        """US dollars that are spent, or that batches on their way can cost."""
        if self.model.max_cost is None:
            return 0.0
        spent = self.cache.spent(self.model.model)
        for batch in self.book.batches():
            spent += sum(self._most_cost(_question(request)) for request in self.book.requests(batch.marker))
        return spent

    def _most_cost(self, question: Question) -> float:
        price = self.prices.of(question.model)
        return price.of(most_tokens(question.messages), self.model.max_tokens, tier="batch") if price else 0.0

    def _prepare(self, requests: Iterable[Request]) -> None:
        requests = list(requests)
        if requests:
            batch = self.book.prepare(requests, _place(self.model.base_url))
            self.progress.requests += len(requests)
            self.progress.elsewhere += sum(len(request.links) for request in requests)
            if self._is_ours(batch):  # another process may have come upon it first
                self._start(batch)

    def _is_ours(self, batch: Batch) -> bool:
        """Whether this process watches the batch: of several on one cache, one does."""
        name = f"batch:{batch.marker}"
        return name in self.claims.claim({name})

    def _start(self, batch: Batch) -> None:
        """Bring a batch from wherever it stands to running."""
        if batch.state == "prepared":
            batch = self._noted(batch, state="uploaded", input_file=self._upload(batch))
        if batch.state == "uploaded":
            batch = self._noted(batch, state="running", batch_id=self._create(batch))
            self.on_note(f"batch {batch.batch_id}: {batch.requests:,} requests")
        self.running.append(batch)

    def _noted(self, batch: Batch, **changes: Any) -> Batch:
        self.book.note(batch.marker, **changes)
        return replace(batch, **changes)

    def _upload(self, batch: Batch) -> str:
        with tempfile.TemporaryFile() as file:
            for request in self.book.requests(batch.marker):
                file.write(_line(_question(request)))

            def upload() -> str:
                file.seek(0)
                name = f"kar-aug-{batch.marker}.jsonl"
                return self.client.files.create(file=(name, file, "application/jsonl"), purpose="batch").id

            return self._try(upload)

    def _create(self, batch: Batch) -> str:
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

        return self._try(create)

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
            there = self._try(partial(self.client.batches.retrieve, batch.batch_id or ""))
            if there.status in _OVER:
                self._collect(batch, there)
                self.running.remove(batch)
            elif there.request_counts:
                finished += there.request_counts.completed
        self.progress.ready = finished
        self.on_progress(self.progress)

    def _collect(self, batch: Batch, there: Any) -> None:
        """Store what a batch answered, whatever its state: one that expired has answers too, and they are charged."""
        before = self.progress.asked
        for file_id in (there.output_file_id, there.error_file_id):
            if file_id is not None:
                with tempfile.TemporaryFile() as file:
                    self._try(partial(self._download, file_id, file))
                    self._store(batch, file, f"results of {batch.batch_id}")
        self.on_note(f"batch {batch.batch_id}: {there.status}, {self.progress.asked - before:,} answers")
        if there.status == "failed":
            self.book.close(batch.marker)
            errors = there.errors.data if there.errors and there.errors.data else []
            words = "; ".join(sorted({self.faults.words({"message": e.message}).strip(": ") for e in errors}))
            raise GenerationError(
                f"{self.faults.server} refused batch {batch.batch_id}: {words or 'it did not say why'}. "
                "Nothing of it was charged; its prompts will be asked by the next run."
            )
        if there.status == "cancelled" or self.intake.hopeless is not None:  # what is asked again would cost, too
            left = list(self.book.requests(batch.marker))
            for request in left:
                self._came_back(request)
            why = "was cancelled" if there.status == "cancelled" else "was answered by another model"
            self.on_note(f"batch {batch.batch_id} {why}; {len(left):,} prompts are left for the next run")
        else:
            self._ask_again(batch)
        self.book.close(batch.marker)

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
            responses = {}
            for line in lines:
                if isinstance(line, str):
                    self.on_note(line)
                else:
                    responses[line.key] = line
            requests = {request.key: request for request in self.book.requests(batch.marker, responses.keys())}
            answers: list[tuple[Question, Answer]] = []
            for request in requests.values():
                answer = self._read(request, responses[request.key])
                if answer is not None:
                    answers.append((_question(request), answer))
                    self._came_back(request)
            self.misfits += self._claim(self.intake.take(answers))
            self.on_progress(self.progress)

    def _read(self, request: Request, response: Response) -> Answer | None:
        try:
            return answer_of(response, _question(request), self.intake, tier="batch")
        except Fault as fault:
            if fault.permanent or request.rounds >= _ROUNDS:
                self._failed(request, type(fault)(self.faults.clean(fault.reason)))
            return None

    def _failed(self, request: Request, fault: Fault) -> None:
        self.intake.failed(_question(request), fault, request.rounds)
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
                self._failed(request, Passing("the batch gave no response"))
            else:
                self._came_back(request)
                left.append(replace(request, rounds=request.rounds + 1))
        if left:
            self.on_note(f"batch {batch.batch_id}: {len(left):,} prompts have no answer and are asked again")
        if self.misfits:
            self.on_note(f"batch {batch.batch_id}: {len(self.misfits):,} answers do not fit their schema: asked again")
        misfits, self.misfits = self.misfits, []
        self._prepare([*left, *map(_request, misfits)])

    def _try(self, action: Callable[[], T]) -> T:
        """Do it until it works, or cannot."""
        for attempt in range(1, self.model.tries + 1):
            try:
                return action()
            except client_errors() as error:
                fault = self.faults.of(error)
                if isinstance(fault, Hopeless):
                    raise fault from None
                if fault.permanent:
                    raise GenerationError(
                        f"{self.faults.server}: {fault.reason}. Does it have the Batch API? Nothing stored is lost."
                    ) from None
                if attempt == self.model.tries:
                    raise GenerationError(
                        f"{self.faults.server}: {fault}. Batches that run go on; run the same command to collect them."
                    ) from None
                wait = fault.wait if isinstance(fault, Unavailable) else None
                time.sleep(pause(attempt) if wait is None else wait)
        raise AssertionError("unreachable")


def _place(base_url: str | None) -> str | None:
    """The server of a batch: whoever's password it is."""
    return None if base_url is None else without_login(base_url)


def _question(request: Request) -> Question:
    return Question(request.key, **request.question, links=request.links)


def _request(question: Question) -> Request:
    asked = {"model": question.model, "messages": question.messages, "parameters": question.parameters}
    return Request(question.key, asked, question.links)


def _line(question: Question) -> bytes:
    return request_line(question.key, question.model, question.messages, question.parameters)
