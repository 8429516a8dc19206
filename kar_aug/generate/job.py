"""The job: many requests in flight, every answer kept, faults retried in one place.

A reader looks prompts up in the cache and hands out those without an answer; as many slots as `concurrency` ask, each
one question at a time; a writer commits answers, several at once where several came. An answer is committed before its
slot asks the next question, so that a process killed at any moment loses at most the requests then in flight.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from kar_aug._batched import batched
from kar_aug._loops import run
from kar_aug.cache import Answer, Claims, Link, TextCache
from kar_aug.cache.texts.spilt import Spill
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, Hopeless, LimitReached, StoreError
from kar_aug.generate.cost import Prices, estimated_tokens, most_tokens
from kar_aug.generate.faults import Fault, Passing, Rejected, Unavailable, Unreachable
from kar_aug.generate.intake import BATCH, Intake
from kar_aug.generate.limits import Budget, Gate, pause
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import Question
from kar_aug.generate.server import Server, api_key
from kar_aug.prompts import Prompt

_MOST_DEFERRED = 10_000  # questions that another process is asking, kept in memory to look after them later
_LOOK_SECONDS = 0.5  # between two looks whether another process has answered
_REJECTED_IN_A_ROW = 5  # with no answer in between: it is the request's form that is wrong, not one prompt


def generate(
    prompts: Iterable[Prompt],
    cache: TextCache,
    model: LanguageModel,
    *,
    key: str | None = None,
    prices: Prices | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Ask every prompt that has no answer yet, and record whose knowledge each answer is.

    Args:
        prompts: read as a stream, never listed; equal prompts are asked once.
        key: the API key; by the model's `api_key_file` or `api_key_env` if None.
        prices: to know what answers cost; kar-aug's own table if None.
        retry_failed: ask again what was rejected, refused, or answered with nothing.
        on_progress: called after every prompt.

    Returns:
        What was done. Prompts that failed for themselves are counted and listed in the cache, not raised.

    Raises:
        LimitReached: The next request would cross max_cost or max_requests; what was answered is stored.
        GenerationError: The server cannot be reached, or refuses every request (wrong key, unknown model).
        StoreError: The cache took nothing for `give_up_after` seconds; answers that came meanwhile are in a file that
            the message names.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the requests in flight were finished and stored first.
    """
    prices = prices or Prices()
    if model.max_cost is not None:
        prices.needed(model.model)
    job = _Job(cache, model, api_key(model) if key is None else key, prices, retry_failed, on_progress)
    return run(job.run(prompts), stop=lambda: job._stop(KeyboardInterrupt()))


class _Job:
    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        key: str,
        prices: Prices,
        retry_failed: bool,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.cache, self.model, self.on_progress = cache, model, on_progress
        self.price = prices.of(model.model)
        self.progress = Progress(concurrency=model.concurrency)
        self.server = Server(model, key)
        self.claims = Claims(cache)
        self.intake = Intake(cache, model, self.progress, prices, claims=self.claims, retry_failed=retry_failed)
        self.waiting = _Waiting()
        self.deferred: list[Question] = []
        self.sending: set[asyncio.Task[None] | None] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.stopped: BaseException | None = None
        self.rejected_in_a_row = 0

    async def run(self, prompts: Iterable[Prompt]) -> Progress:
        # Made here, inside the event loop that they belong to.
        self.queue: asyncio.Queue[Question | None] = asyncio.Queue(self.model.concurrency)
        self.gate = Gate(self.model.concurrency, self.model.rpm, self.model.tpm)
        spent = self.cache.spent(self.model.model) if self.model.max_cost is not None else 0.0
        self.budget = Budget(self.model.max_cost, self.model.max_requests, spent)
        self.writer = _Writer(self.intake, self.waiting, Spill(self.cache.database.file))
        self.cache.database.patience = self.model.give_up_after
        with ExitStack() as stack:
            stack.enter_context(self.claims)
            stack.enter_context(self._drain_on_signals())
            self.tasks = [self._start(self._slot()) for _ in range(self.model.concurrency)]
            self.tasks.append(self._start(self._read(prompts)))
            try:
                await asyncio.gather(*self.tasks)
            finally:
                self.cache.database.patience = 0.0
                await self.server.close()
        if isinstance(self.stopped, KeyboardInterrupt):
            raise KeyboardInterrupt(". ".join(filter(None, [str(self.progress), str(self.writer.spill)])))
        if (refused := self.writer.refused) is not None:
            raise StoreError(f"{refused} {self.writer.spill}", path=refused.path)
        if self.stopped is not None:
            raise self.stopped
        return self.progress

    # Reading

    async def _read(self, prompts: Iterable[Prompt]) -> None:
        """Look prompts up and queue what is to be asked; in a thread, so that requests go on meanwhile."""
        batches = batched(prompts, BATCH)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            for question in await asyncio.to_thread(self._take_in, batch):
                await self.queue.put(question)
            self._report()
            while len(self.deferred) > _MOST_DEFERRED:
                await self._look_again()
        self.intake.end()
        while self.deferred:
            await self._look_again()
        for _ in range(self.model.concurrency):
            await self.queue.put(None)

    def _take_in(self, prompts: Sequence[Prompt]) -> list[Question]:
        """The questions that nobody asks yet, and that are now ours."""
        return self._claim(self.intake.open(prompts))

    def _claim(self, questions: Iterable[Question]) -> list[Question]:
        """Those that are ours to ask. Entities of questions that are on their way wait with the others; questions that
        another process is asking are kept for later.
        """
        new = [question for question in questions if not self.waiting.join(question)]
        return self._claim_again(new)

    def _claim_again(self, questions: Sequence[Question]) -> list[Question]:
        mine = self.cache.database.patiently(partial(self.intake.claim, questions))
        keys = {question.key for question in mine}
        self.deferred += [question for question in questions if question.key not in keys]
        return mine

    async def _look_again(self) -> None:
        """See what became of questions that other processes, or batches, were asking."""
        await asyncio.sleep(_LOOK_SECONDS)
        deferred, self.deferred = self.deferred, []
        for questions in batched(deferred, BATCH):
            for question in await asyncio.to_thread(self._settle, {q.key: q for q in questions}):
                await self.queue.put(question)
        self._report()

    def _settle(self, questions: dict[str, Question]) -> list[Question]:
        found = self.cache.database.patiently(partial(self.intake.elsewhere, questions))
        followed = [
            self.intake.answered_elsewhere(questions[key].for_all(self.waiting.pop(key)), status)
            for key, status in found.items()
        ]
        mine = self._claim(question for question in followed if question is not None)
        return [*mine, *self._claim_again([question for key, question in questions.items() if key not in found])]

    # Asking

    async def _slot(self) -> None:
        while (question := await self.queue.get()) is not None:
            open_questions = [question]
            while open_questions and not self.stopped:
                question = open_questions.pop()
                try:
                    answer = await self._ask(question)
                except Fault as fault:
                    await self._failed(question, fault)
                else:
                    open_questions += await self._answered(question, answer)
                self._report()

    async def _ask(self, question: Question) -> Answer:
        """Try until there is an answer or no hope. What is not this question's fault does not count as a try."""
        tries = 0
        tokens = estimated_tokens(question.messages) + self.model.max_tokens
        while True:
            try:
                return await self._request(question, tokens)
            except Unavailable as fault:
                self._unavailable(question, fault, tries)
                failure: Passing = fault
            except Passing as fault:
                tries, failure = tries + 1, fault
                if tries >= self.model.tries or self.stopped:
                    raise
                self._check_patience(question, fault, tries)
                await asyncio.sleep(pause(tries))
            if self.stopped:
                raise failure

    async def _request(self, question: Question, tokens: int) -> Answer:
        """One request, as the limits allow."""
        most = self._most_cost(question)
        await self.gate.enter(tokens)
        used: int | None = 0
        reserved = cost = 0.0
        try:
            await self.budget.reserve(most)
            reserved = most
            self.progress.requests += 1
            cost = most  # until the server says otherwise: a lost request may have been charged
            # While it waits for the server a slot is not cancelled, whatever happens: its answer is paid for.
            self.sending.add(asyncio.current_task())
            body, seconds = await self.server.ask(question)
            answer = self.intake.read(question, body, seconds=seconds)
            used = answer.prompt_tokens + answer.completion_tokens or None
            cost = most if answer.cost is None else answer.cost
            await self.gate.succeeded()
            return answer
        except BaseException as error:
            self.sending.discard(asyncio.current_task())
            if isinstance(error, (Unavailable, Rejected, Hopeless)):
                cost = 0.0
            raise
        finally:
            await self.budget.settle(reserved, cost)
            await self.gate.leave(tokens, used)
            self.progress.concurrency = self.gate.concurrency

    def _most_cost(self, question: Question) -> float:
        """In US dollars. At the full price: a server need not answer in the tier that it was asked for."""
        if self.price is None:
            return 0.0
        return self.price.of(most_tokens(question.messages), self.model.max_tokens)

    def _unavailable(self, question: Question, fault: Unavailable, tries: int) -> None:
        server = self.server.faults.server
        self.progress.limited += 1
        if fault.wait is not None and fault.wait > self.model.give_up_after:
            raise GenerationError(
                f"{server} asks to wait {fault.wait:,.0f} seconds. Run the same command then, or set a longer "
                "give_up_after. Nothing is lost.",
                key=question.key,
                attempts=tries,
            )
        if isinstance(fault, Unreachable) and self.progress.limited >= 3 and not self.progress.asked:
            raise GenerationError(
                f"{server} cannot be reached. Is the server running?", key=question.key, attempts=tries
            )
        self._check_patience(question, fault, tries)
        self.gate.hold(fault.wait)

    def _check_patience(self, question: Question, fault: Passing, tries: int) -> None:
        if self.gate.failing_seconds() > self.model.give_up_after:
            raise GenerationError(
                f"{self.server.faults.server} answered nothing for {self.model.give_up_after:g} s ({fault.reason}). "
                "Run the same command when it does: what is answered stays.",
                key=question.key,
                attempts=tries,
            )

    async def _answered(self, question: Question, answer: Answer) -> list[Question]:
        """Keep the answer. Returns what is to be asked because of it."""
        followed = await self.writer.put(question, answer)
        self.rejected_in_a_row = 0
        if self.intake.hopeless is not None:
            raise self.intake.hopeless
        return [] if followed is None else await asyncio.to_thread(self._claim, [followed])

    async def _failed(self, question: Question, fault: Fault) -> None:
        if self.stopped:  # it was not tried to the end
            return
        self.rejected_in_a_row = self.rejected_in_a_row + 1 if fault.permanent else 0
        if self.rejected_in_a_row >= _REJECTED_IN_A_ROW and not self.progress.asked:
            raise self.server.faults.hopeless(f"rejects every request ({fault.reason})", question.key)
        await asyncio.to_thread(self._record_failure, question, fault)

    def _record_failure(self, question: Question, fault: Fault) -> None:
        question = question.for_all(self.waiting.of(question.key))
        self.intake.failed(question, fault, 1 if fault.permanent else self.model.tries)
        # Until here the question was on its way, so that it was not asked again: some more may have waited for it.
        late = self.waiting.pop(question.key)[len(question.links) :]
        self.intake.postponed(question.for_all(late), fault.reason)

    # Starting and stopping

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                if self.stopped is None:
                    raise
            except Exception as error:
                self._stop(error)

        return asyncio.create_task(guarded())

    def _stop(self, why: BaseException) -> None:
        """No new requests; those in flight are finished and stored."""
        if self.stopped is None or isinstance(self.stopped, LimitReached):
            self.stopped = why
        self.progress.stopping = True
        self.cache.database.patience = 0.0  # whoever waits for the cache does so no longer
        self.on_progress(self.progress)
        for task in self.tasks:
            if task not in self.sending and task is not asyncio.current_task():
                task.cancel()

    def _report(self) -> None:
        """A slot, or the reader, is between two pieces of work: the place to end if the job stops."""
        self.sending.discard(asyncio.current_task())
        self.on_progress(self.progress)
        if self.stopped is not None:
            raise asyncio.CancelledError

    @contextmanager
    def _drain_on_signals(self) -> Iterator[None]:
        """The first Ctrl-C, or SIGTERM, stops new requests and lets those in flight finish; a second acts as usual."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)

        def restore() -> None:
            for number in signals:
                loop.remove_signal_handler(number)

        def stop() -> None:
            restore()
            self._stop(KeyboardInterrupt())

        try:
            for number in signals:
                loop.add_signal_handler(number, stop)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
            yield
            return
        try:
            yield
        finally:
            restore()


class _Waiting:
    """Entities that wait for answers that this job is asking; the reader's thread adds, the writer's takes."""

    def __init__(self) -> None:
        self._links: dict[str, list[Link]] = {}
        self._lock = threading.Lock()

    def join(self, question: Question) -> bool:
        """Let a question's entities wait for its answer; whether it is on its way already."""
        with self._lock:
            before = question.key in self._links
            self._links.setdefault(question.key, []).extend(question.links)
            return before

    def of(self, key: str) -> list[Link]:
        """Those that wait just now."""
        with self._lock:
            return list(self._links[key])

    def pop(self, key: str) -> list[Link]:
        """Those that waited; from now on, the question is new again."""
        with self._lock:
            return self._links.pop(key)


class _Writer:
    """Commits answers for all slots, in a thread: what comes while one commit runs goes into the next.

    Args:
        spill: where answers go that the cache does not take.

    Attributes:
        refused: why the cache takes no more; None while it does.
    """

    def __init__(self, intake: Intake, waiting: _Waiting, spill: Spill) -> None:
        self._intake, self._waiting, self.spill = intake, waiting, spill
        self.refused: StoreError | None = None
        self._loop = asyncio.get_running_loop()
        self._pending: list[tuple[Question, Answer, asyncio.Future[Question | None]]] = []
        self._busy = False

    async def put(self, question: Question, answer: Answer) -> Question | None:
        """Returns when the answer is committed: the question that is to be asked because of it, if any."""
        done = self._loop.create_future()
        self._pending.append((question, answer, done))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start)  # after the other slots whose answers came at the same moment
        return await done

    def _start(self) -> None:
        batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
        self._loop.run_in_executor(None, self._commit, batch)

    def _commit(self, batch: list[tuple[Question, Answer, asyncio.Future[Question | None]]]) -> None:
        followed: list[Question | None] = []
        error: Exception | None = None
        try:
            followed = self._take([(question, answer) for question, answer, _ in batch])
        except Exception as caught:  # the slots raise it: the job stops
            error = caught
        self._loop.call_soon_threadsafe(self._end, [done for *_, done in batch], followed, error)

    def _take(self, answers: list[tuple[Question, Answer]]) -> list[Question | None]:
        answers = [(question.for_all(self._waiting.of(question.key)), answer) for question, answer in answers]
        self._store(answers)
        followed = []
        for question, answer in answers:
            # Until here the question was on its way, so that it was not asked again: some more may wait for it.
            everybody = self._waiting.pop(question.key)
            late = everybody[len(question.links) :]
            followed.append(self._intake.answered(question.for_all(everybody), answer, late))
        return followed

    def _store(self, answers: list[tuple[Question, Answer]]) -> None:
        """Into the cache; once that was waited for in vain, these and all that come are spilt."""
        if self.refused is None:
            try:
                self._intake.store(answers)
                return
            except StoreError as error:
                self.refused = error
        self.spill.add([(answer, question.links) for question, answer in answers])
        raise self.refused

    def _end(
        self, batch: list[asyncio.Future[Question | None]], followed: list[Question | None], error: Exception | None
    ) -> None:
        for row, done in enumerate(batch):
            if not done.done():
                done.set_result(followed[row]) if error is None else done.set_exception(error)
        self._busy = bool(self._pending)
        if self._busy:
            self._start()
