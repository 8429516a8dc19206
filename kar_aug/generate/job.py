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
from dataclasses import replace
from typing import Any

from kar_aug._batched import batched
from kar_aug.cache import Answer, Claims, Link, TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, LimitReached
from kar_aug.generate.cost import Price, Prices, estimated_tokens, most_tokens
from kar_aug.generate.limits import Budget, Gate, pause
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import BATCH, Question, Survey, question_key
from kar_aug.generate.server import Hopeless, Passing, Rejected, Server, Unavailable, Unreachable, api_key
from kar_aug.generate.structured import INVALID, TWICE, is_repair, parameters_of, repair
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
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the requests in flight were finished and stored first.
    """
    prices = prices or Prices()
    price = prices.of(model.model) if model.max_cost is None else prices.needed(model.model)
    job = _Job(cache, model, api_key(model) if key is None else key, price, retry_failed, on_progress)
    return asyncio.run(job.run(prompts))


class _Job:
    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        key: str,
        price: Price | None,
        retry_failed: bool,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.cache, self.model, self.price, self.on_progress = cache, model, price, on_progress
        self.progress = Progress(concurrency=model.concurrency)
        self.survey = Survey(cache, model, self.progress, retry_failed=retry_failed)
        self.server = Server(model, key, price)
        self.claims = Claims(cache)
        # Entities that wait for an answer that this job is asking; the reader's thread adds, the slots take.
        self.waiting: dict[str, list[Link]] = {}
        self.waiting_lock = threading.Lock()
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
        self.writer = _Writer(self.cache)
        with ExitStack() as stack:
            stack.enter_context(self.claims)
            stack.enter_context(self._drain_on_signals())
            self.tasks = [self._start(self._slot()) for _ in range(self.model.concurrency)]
            self.tasks.append(self._start(self._read(prompts)))
            try:
                await asyncio.gather(*self.tasks)
            finally:
                await self.server.close()
        if isinstance(self.stopped, KeyboardInterrupt):
            raise KeyboardInterrupt(str(self.progress))
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
        self.survey.end()
        while self.deferred:
            await self._look_again()
        for _ in range(self.model.concurrency):
            await self.queue.put(None)

    def _take_in(self, prompts: Sequence[Prompt]) -> list[Question]:
        """Link what is answered, and claim the rest."""
        todo: dict[str, Question] = {}
        answered: list[Link] = []
        for question in self.survey.look(prompts):
            if self.survey.is_open(question):
                if not self._waits(question):
                    todo[question.key] = question
            elif question.status in (None, INVALID):
                self.progress.skipped += 1
            else:
                self.progress.cached += 1
                if question.linked != question.link:
                    answered.append(question.link)
        self.cache.link(answered)
        return self._claim(todo)

    def _waits(self, question: Question) -> bool:
        """Let the entity wait for the answer; whether one is on its way already."""
        with self.waiting_lock:
            links = self.waiting.setdefault(question.key, [])
            links.append(question.link)
            return len(links) > 1

    def _claim(self, todo: dict[str, Question]) -> list[Question]:
        """Those that are ours to ask; the others are kept for later."""
        mine = self.claims.claim(todo, again=[key for key, question in todo.items() if question.status])
        for key, question in todo.items():
            if key not in mine:
                self.deferred.append(question)
        return [question for key, question in todo.items() if key in mine]

    async def _look_again(self) -> None:
        """See what became of questions that other processes, or batches, were asking."""
        await asyncio.sleep(_LOOK_SECONDS)
        deferred, self.deferred = self.deferred, []
        for questions in batched(deferred, BATCH):
            for question in await asyncio.to_thread(self._settle, {q.key: q for q in questions}):
                await self.queue.put(question)
        self._report()

    def _settle(self, questions: dict[str, Question]) -> list[Question]:
        answered = self.cache.answered(questions)
        running = self.claims.in_batches(questions)
        misfits: list[Question] = []
        for key in answered.keys() | running:
            with self.waiting_lock:
                links = self.waiting.pop(key)
            if answered.get(key) == INVALID:
                misfits += self._after_misfit(questions[key], links)
            elif key in answered:
                self.cache.link(links)
                self.progress.cached += len(links)
            else:
                self.progress.elsewhere += len(links)
        rest = {key: q for key, q in questions.items() if key not in answered and key not in running}
        return [*misfits, *self._claim(rest)]

    def _after_misfit(self, question: Question, links: list[Link]) -> list[Question]:
        """An answer does not fit its schema: the question that asks for another, if it is ours to ask; after two, the
        entities have failed."""
        stored = self.cache.get(question.key)
        if is_repair(question.prompt.messages) or stored is None:
            self.cache.fail(question.key, TWICE, 2, permanent=True, link=question.link)
            self.progress.count_failure(TWICE, len(links))
            return []
        prompt = repair(question.prompt, stored.text)
        again = replace(question, key=question_key(self.model, prompt), prompt=prompt, status=None)
        with self.waiting_lock:
            waiting = self.waiting.setdefault(again.key, [])
            waits = bool(waiting)
            waiting += [link._replace(key=again.key) for link in links]
        return [] if waits else self._claim({again.key: again})

    # Asking

    async def _slot(self) -> None:
        while (question := await self.queue.get()) is not None:
            open_questions = [question]
            while open_questions and not self.stopped:
                question = open_questions.pop()
                try:
                    answer = await self._ask(question)
                except (Passing, Rejected) as failure:
                    await self._failed(question, failure)
                else:
                    open_questions += await self._answered(question, answer)
                self._report()

    async def _ask(self, question: Question) -> Answer:
        """Try until there is an answer or no hope. What is not this question's fault does not count as a try."""
        tries = 0
        tokens = estimated_tokens(question.prompt.messages) + self.model.max_tokens
        while True:
            try:
                return await self._request(question, tokens)
            except Unavailable as fault:
                self._unavailable(fault)
                failure: Passing = fault
            except Passing as fault:
                tries, failure = tries + 1, fault
                if tries >= self.model.tries or self.stopped:
                    raise
                self._check_patience(fault)
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
            prompt = question.prompt
            answer = await self.server.ask(question.key, prompt.messages, parameters_of(self.model, prompt))
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
        return self.price.of(most_tokens(question.prompt.messages), self.model.max_tokens)

    def _unavailable(self, fault: Unavailable) -> None:
        self.progress.limited += 1
        if fault.wait is not None and fault.wait > self.model.give_up_after:
            raise GenerationError(
                f"{self.server.faults.server} asks to wait {fault.wait:,.0f} seconds. Run the same command then, "
                "or set a longer give_up_after. Nothing is lost."
            )
        if isinstance(fault, Unreachable) and self.progress.limited >= 3 and not self.progress.asked:
            raise GenerationError(f"{self.server.faults.server} cannot be reached. Is the server running?")
        self._check_patience(fault)
        self.gate.hold(fault.wait)

    def _check_patience(self, fault: Passing) -> None:
        if self.gate.failing_seconds() > self.model.give_up_after:
            raise GenerationError(
                f"{self.server.faults.server} answered nothing for {self.model.give_up_after:g} s ({fault.reason}). "
                "Run the same command when it does: what is answered stays."
            )

    async def _answered(self, question: Question, answer: Answer) -> list[Question]:
        """Keep the answer. Returns what is to be asked because of it."""
        misfit = answer.status == INVALID
        with self.waiting_lock:
            links = [] if misfit else list(self.waiting[question.key])
        await self.writer.put(answer, links)
        with self.waiting_lock:
            waiting = self.waiting.pop(question.key)
        if (late := waiting[len(links) :]) and not misfit:
            await asyncio.to_thread(self.cache.link, late)
        self.rejected_in_a_row = 0
        progress = self.progress
        if not misfit:
            progress.asked += 1
            progress.cached += len(waiting) - 1
        progress.prompt_tokens += answer.prompt_tokens
        progress.completion_tokens += answer.completion_tokens
        progress.cost += answer.cost or 0.0
        if answer.status == "wrong_model":
            raise Hopeless(
                f"{self.server.faults.server} was asked for {self.model.model!r} and answered as "
                f"{answer.served_model!r}. If that is the same model, set [generate] served_model = "
                f'"{answer.served_model}" and run with --retry-failed.'
            )
        return await asyncio.to_thread(self._after_misfit, question, waiting) if misfit else []

    async def _failed(self, question: Question, failure: Passing | Rejected) -> None:
        if self.stopped:  # it was not tried to the end
            return
        rejected = isinstance(failure, Rejected)
        await asyncio.to_thread(
            self.cache.fail,
            question.key,
            failure.reason,
            1 if rejected else self.model.tries,
            permanent=rejected,
            link=question.link,
        )
        with self.waiting_lock:
            waiting = self.waiting.pop(question.key)
        self.progress.count_failure(failure.reason, len(waiting))
        self.rejected_in_a_row = self.rejected_in_a_row + 1 if rejected else 0
        if self.rejected_in_a_row >= _REJECTED_IN_A_ROW and not self.progress.asked:
            raise self.server.faults.hopeless(f"rejects every request ({failure.reason})")

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


class _Writer:
    """Commits answers for all slots, in a thread: what comes while one commit runs goes into the next."""

    def __init__(self, cache: TextCache) -> None:
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self._pending: list[tuple[Answer, list[Link], asyncio.Future[None]]] = []
        self._busy = False

    async def put(self, answer: Answer, links: list[Link]) -> None:
        """Returns when the answer is committed."""
        done = self._loop.create_future()
        self._pending.append((answer, links, done))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start)  # after the other slots whose answers came at the same moment
        await done

    def _start(self) -> None:
        batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
        self._loop.run_in_executor(None, self._commit, batch)

    def _commit(self, batch: list[tuple[Answer, list[Link], asyncio.Future[None]]]) -> None:
        error: Exception | None = None
        try:
            self._cache.put_many((answer, links) for answer, links, _ in batch)
        except Exception as caught:  # the slots raise it: the job stops
            error = caught
        self._loop.call_soon_threadsafe(self._end, [done for *_, done in batch], error)

    def _end(self, batch: list[asyncio.Future[None]], error: Exception | None) -> None:
        for done in batch:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)
        self._busy = bool(self._pending)
        if self._busy:
            self._start()
