"""The job: many requests in flight, every answer kept, faults retried in one place.

A reader looks prompts up in the cache and hands out those without an answer; slots ask, each one question at a time; a
writer commits answers, several at once where several came. An answer is committed before its slot asks the next
question, and with it goes the reservation of what that can cost. A gate lets `concurrency` requests go at a time; of
the few slots that there are besides, one takes a place as soon as it is free, while the one before waits for its
commit. So a process killed at any moment loses at most one request a slot: those at the server, and answers that came
in the last milliseconds. What they cost is in the ledger.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from kar_aug._helpers.batched import batched
from kar_aug._helpers.servers.waits import SAY_SECONDS, pause
from kar_aug.cache import Answer, Claims, Link, Order, Reservation, Status, TextCache
from kar_aug.cache.texts.claims import awake
from kar_aug.cache.texts.ledger import RELEASED, UNKNOWN
from kar_aug.cache.texts.spilt import Spill
from kar_aug.config import LanguageModel, longest_answer
from kar_aug.errors import GenerationError, Hopeless, LimitReached, StoreError
from kar_aug.generate.cost import Prices, estimated_tokens
from kar_aug.generate.faults import Barred, Fault, NoCompletion, NotReady, Passing, Unavailable, Unreachable
from kar_aug.generate.intake import BATCH, Intake
from kar_aug.generate.limits import Gate, cost_reached, requests_reached, slots_for
from kar_aug.generate.loops import run
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import Question
from kar_aug.generate.remarks import why_unfinished
from kar_aug.generate.server import Server, api_key
from kar_aug.generate.streak import Refusal, Streak
from kar_aug.prompts import Prompt

_MOST_DEFERRED = 10_000  # questions that another process is asking, kept in memory to look after them later
_LOOK_SECONDS = 0.5  # between two looks whether another process has answered, or spent less than it could
_LISTEN_SECONDS = 0.5  # between two looks whether somebody else has stopped this job
_NO_ANSWERS = (Status.MALFORMED, Status.UNFINISHED)  # one after the other, they are a fault of the server


def generate(
    prompts: Iterable[Prompt],
    cache: TextCache,
    model: LanguageModel,
    *,
    key: str | None = None,
    prices: Prices | None = None,
    retry_failed: bool = False,
    retry_before: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda sentence: None,
    costs_nothing: bool = False,
    whole: bool = True,
    is_stopped: Callable[[], bool] | None = None,
) -> Progress:
    """Ask every prompt that has no answer yet, and record whose knowledge each answer is.

    Args:
        prompts: read as a stream, never listed; equal prompts are asked once.
        key: the API key; by the model's `api_key_file` or `api_key_env` if None.
        prices: to know what answers cost; kar-aug's own table if None.
        retry_failed: ask again what was rejected, refused, or answered with nothing.
        retry_before: of such answers, only those that are older than this moment (ISO 8601, UTC, seconds): what others
            have asked again since then they have asked for this job, too.
        on_progress: called after every prompt.
        costs_nothing: whether requests are not worth finishing when Ctrl-C comes: of a model on this machine.
        on_note: called with a sentence for what a person should know: what is waited for, an answer that is cut off.
        whole: whether these are all prompts there are; of a part of them, nothing is counted as gone.
        is_stopped: looked at twice a second, in a thread: once it is true, the job ends as by Ctrl-C. For jobs that no
            signal reaches.

    Returns:
        What was done. Prompts that failed for themselves are counted and listed in the cache, not raised; `complete`
        says whether there are none.

    Raises:
        LimitReached: The next request would cross max_cost or max_requests; what was answered is stored.
        GenerationError: The server cannot be reached, or refuses one request after the other (wrong key, unknown model,
            a parameter that it does not take), at any time; none of these questions counts as failed.
        StoreError: The cache took nothing for `give_up_after` seconds; answers that came meanwhile are in a file that
            the message names.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the requests in flight were finished and stored first.
    """
    prices = prices or Prices()
    if model.max_cost is not None:
        prices.needed(model.model)
    key = api_key(model) if key is None else key
    job = _Job(
        cache, model, key, prices, retry_failed, on_progress, on_note, retry_before=retry_before,
        costs_nothing=costs_nothing, whole=whole, is_stopped=is_stopped,
    )  # fmt: skip
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
        on_note: Callable[[str], None],
        *,
        retry_before: str | None,
        costs_nothing: bool,
        whole: bool,
        is_stopped: Callable[[], bool] | None,
    ) -> None:
        self.costs_nothing, self.is_stopped = costs_nothing, is_stopped
        self.cache, self.model, self.on_progress, self.on_note = cache, model, on_progress, on_note
        self.progress = Progress(concurrency=model.concurrency)
        self.slots = slots_for(model.concurrency)
        self.server = Server(model, key)
        self.claims = Claims(cache)
        self.intake = Intake(
            cache, model, self.progress, prices, claims=self.claims, retry_failed=retry_failed,
            retry_before=retry_before, whole=whole, on_note=on_note,
        )  # fmt: skip
        self.waiting = _Waiting()
        self.deferred: list[Question] = []
        self.sending: set[asyncio.Task[None] | None] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.stopped: BaseException | None = None
        self.streak = Streak()
        self.sent_at: dict[str, float] = {}  # by key, of the latest request
        self.proven = False  # whether the server has answered anything in this job
        self.waited_for = ""

    async def run(self, prompts: Iterable[Prompt]) -> Progress:
        # Made here, inside the event loop that they belong to.
        self.queue: asyncio.Queue[Question | None] = asyncio.Queue(self.slots)
        self.gate = Gate(self.model.concurrency, self.model.rpm, self.model.tpm)
        self.cache.database.patience = self.model.give_up_after
        self.cache.database.patiently(self.intake.reserve_for_batches)
        spill = Spill(self.cache, self.claims.owner)
        self.writer = _Writer(self.intake, self.waiting, self.model.max_cost, spill)
        with ExitStack() as stack:
            stack.enter_context(self.claims)
            stack.enter_context(self._drain_on_signals())
            beside = [asyncio.create_task(self._tell_of_waiting())]
            if self.is_stopped is not None:
                beside.append(asyncio.create_task(self._listen(self.is_stopped)))
            try:
                await self._work(prompts)
                while self.deferred and self.stopped is None:  # taken from a slot, when all prompts were read
                    await self._work(())
                if self.stopped is None:
                    await self._record(self._unresolved())
            finally:
                for task in beside:
                    task.cancel()
                self.cache.database.patience = 0.0
                await self.server.close()
                await self.writer.close()
        if isinstance(self.stopped, KeyboardInterrupt):
            raise KeyboardInterrupt(". ".join(filter(None, [str(self.progress), str(self.writer.spill)])))
        if (refused := self.writer.refused) is not None:
            raise StoreError(f"{refused} {self.writer.spill}", path=refused.path)
        if self.stopped is not None:
            raise self.stopped
        return self.progress

    async def _work(self, prompts: Iterable[Prompt]) -> None:
        self.tasks = [self._start(self._slot()) for _ in range(self.slots)]
        self.tasks.append(self._start(self._read(prompts)))
        await asyncio.gather(*self.tasks)

    # Reading

    async def _read(self, prompts: Iterable[Prompt]) -> None:
        """Look prompts up and queue what is to be asked; in a thread, so that requests go on meanwhile."""
        batches = batched(prompts, BATCH)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            questions = await asyncio.to_thread(self._take_in, batch)
            self._report()  # of what is there already, before the first answer
            for question in questions:
                await self.queue.put(question)
            self._report()
            while len(self.deferred) > _MOST_DEFERRED:
                await self._look_again()
        self.intake.end()
        while self.deferred:
            await self._look_again()
        for _ in range(self.slots):
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
            sendings = [self.writer.reserve(question)]
            while sendings and not self.stopped:
                sending = await _next_ready(sendings)
                try:
                    answer = await self._ask(sending)
                except _Taken:
                    self.deferred.append(sending.question)
                except Fault as fault:
                    await self._failed(sending.question, fault)
                else:
                    sendings += [] if sendings else self._next()
                    sendings += map(self.writer.reserve, await self._answered(sending.question, answer))
                self._report()

    def _next(self) -> list[_Sending]:
        """The next question, if there is one already: it is reserved in the commit that is about to come."""
        if self.queue.empty():
            return []
        question = self.queue.get_nowait()
        if question is not None:
            return [self.writer.reserve(question)]
        self.queue.put_nowait(None)
        return []

    async def _ask(self, sending: _Sending) -> Answer:
        """Try until there is an answer or no hope. What is not this question's fault does not count as a try."""
        tries = 0
        question = sending.question
        tokens = estimated_tokens(question.messages) + (longest_answer(question.parameters) or self.model.max_tokens)
        while True:
            asked = self.progress.asked
            try:
                return await self._request(sending, tokens)
            except Unavailable as fault:
                self._unavailable(question, fault, tries)
                # A server that is not ready answers nobody. If it answers others, it may be this question's fault.
                tries += isinstance(fault, NotReady) and self.progress.asked > asked
                if tries >= self.model.tries:
                    raise
                failure: Passing = fault
            except Passing as fault:
                tries, failure = tries + 1, fault
                if isinstance(fault, NoCompletion):
                    fault.reason = self.server.faults.clean(fault.reason)
                    self._refused(question, fault)
                if tries >= self.model.tries or self.stopped:
                    raise
                self._check_patience(question, fault, tries)
                await asyncio.sleep(pause(tries))
            except _Doubtful:
                sending = self.writer.reserve(question, RELEASED)
                continue
            if self.stopped:
                raise failure
            if not failure.free:
                sending = self.writer.reserve(question, UNKNOWN)

    async def _request(self, sending: _Sending, tokens: int) -> Answer:
        """One request, as the limits allow.

        Raises:
            _Taken: Others ask this question by now.
            _Doubtful: The process may have slept since it was looked at last, or answers cost more than was reserved.
            Fault, Hopeless: There is no answer.
        """
        reserved = await sending.reserved
        if isinstance(reserved, Exception):
            raise reserved
        await self.gate.enter(tokens)
        used: int | None = 0
        try:
            if self.claims.doubtful(reserved.since) or reserved.surplus < self.writer.surplus:
                raise _Doubtful
            self._count_request()
            # While it waits for the server a slot is not cancelled, whatever happens: its answer is paid for.
            self.sending.add(asyncio.current_task())
            self.writer.unsent.discard(sending.question.key)
            self.sent_at[sending.question.key] = time.monotonic()
            body, seconds = await self.server.ask(sending.question)
            answer = self.intake.read(sending.question, body, seconds=seconds)
            if self.intake.hopeless is not None:  # said before it is stored: others would be sent meanwhile
                self._stop(self.intake.hopeless)
            used = answer.prompt_tokens + answer.completion_tokens or None
            self.writer.surplus = max(self.writer.surplus, self.intake.surplus(sending.question, answer))
            if answer.status not in _NO_ANSWERS:
                await self.gate.succeeded()
            return answer
        except BaseException as error:
            self.sending.discard(asyncio.current_task())
            if self.costs_nothing or isinstance(error, Hopeless) or (isinstance(error, Fault) and error.free):
                self.writer.unsent.add(sending.question.key)
            raise
        finally:
            await self.gate.leave(tokens, used)
            self.progress.concurrency = self.gate.concurrency

    def _count_request(self) -> None:
        most = self.model.max_requests
        if most is not None and self.progress.requests >= most:
            raise requests_reached(most, self.progress.requests)
        self.progress.requests += 1

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
        self.waited_for = fault.reason
        if self.gate.failing_seconds() > self.model.give_up_after:
            raise GenerationError(
                f"{self.server.faults.server} answered nothing for {self.model.give_up_after:g} s ({fault.reason}). "
                "Run the same command when it does: what is answered stays.",
                key=question.key,
                attempts=tries,
            )

    async def _answered(self, question: Question, answer: Answer) -> list[Question]:
        """Keep the answer. Returns what is to be asked because of it."""
        useless = answer.status in _NO_ANSWERS
        self.proven |= not useless
        sent = self.sent_at.pop(question.key)
        rejected = [] if useless else self.streak.end(sent)
        if useless:
            try:
                self._refused(question, Fault(why_unfinished(answer)))
            except Hopeless as error:  # likewise, before it is stored
                self._stop(error)
        followed = await self.writer.put(question, answer)
        await self._record(rejected)
        return [] if followed is None else await asyncio.to_thread(self._claim, [followed])

    async def _failed(self, question: Question, fault: Fault) -> None:
        self.sent_at.pop(question.key, None)
        if self.stopped:  # it was not tried to the end
            return
        if fault.permanent:
            self._refused(question, fault)  # which holds it back, but not the money
            await asyncio.to_thread(self.intake.give_back, [question.key])
        else:
            await asyncio.to_thread(self._record_failure, question, fault)

    def _refused(self, question: Question, fault: Fault) -> None:
        """Stop the job if the server refuses one request after the other."""
        if self.streak.goes_on(question, fault, proven=self.proven, in_flight=self.gate.concurrency):
            raise self.server.faults.refusing(fault, len(self.streak), question.key, proven=self.proven)

    def _unresolved(self) -> list[Refusal]:
        """The refusals that no answer came after, when all was asked. One is that question's own fault; of several it
        may be the server that answers nobody any more: they are asked again by the next run, which costs nothing.
        """
        rest = self.streak.end()
        return rest if len(rest) == 1 else [refusal._replace(fault=Barred(refusal.fault.reason)) for refusal in rest]

    async def _record(self, rejected: Iterable[Refusal]) -> None:
        for question, fault, _ in rejected:
            await asyncio.to_thread(self._record_failure, question, fault)

    def _record_failure(self, question: Question, fault: Fault) -> None:
        question = question.for_all(self.waiting.of(question.key))
        once = fault.permanent or isinstance(fault, Barred)
        self.intake.failed(question, fault, 1 if once else self.model.tries)
        # Until here the question was on its way, so that it was not asked again: some more may have waited for it.
        late = self.waiting.pop(question.key)[len(question.links) :]
        self.intake.postponed(question.for_all(late), fault.reason)

    async def _tell_of_waiting(self) -> None:
        """A line now and then while the server answers nobody: a terminal would show a bar that stands still."""
        while True:
            await asyncio.sleep(SAY_SECONDS)
            if seconds := self.gate.silent_seconds():
                self.on_note(
                    f"{self.server.faults.server}: no answer for {seconds:,.0f} s ({self.waited_for}); waiting for up "
                    f"to {self.model.give_up_after:g} s (give_up_after)"
                )

    # Starting and stopping

    async def _listen(self, is_stopped: Callable[[], bool]) -> None:
        while not await asyncio.to_thread(is_stopped):
            await asyncio.sleep(_LISTEN_SECONDS)
        if self.stopped is None:
            self._stop(KeyboardInterrupt())

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
        kept = self.sending
        if isinstance(why, KeyboardInterrupt):
            kept = set() if self.costs_nothing else self.sending
            waited = f" when the {len(kept)} requests in flight are answered; Ctrl-C again leaves them" if kept else ""
            self.on_note(f"Stopping{waited} ...")
        for task in self.tasks:
            if task not in kept and task is not asyncio.current_task():
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


class _Taken(Exception):
    """A question is not this process's to ask any more."""


class _Doubtful(Exception):
    """What is reserved for a question has to be looked at again before it is sent."""


@dataclass(frozen=True)
class _Sending:
    """A question that a slot is to send.

    Args:
        before: what became of its request before, as in `Order`.
        reserved: ends when what it can cost is on disk, or with the reason why it is not to be sent: `_Taken` or
            LimitReached.
    """

    question: Question
    before: str
    reserved: asyncio.Future[_Reserved | Exception]


class _Reserved(NamedTuple):
    """Since when (by `awake`) it is sure that a question is ours to send, and the surplus that was reserved for it."""

    since: float
    surplus: int


async def _next_ready(sendings: list[_Sending]) -> _Sending:
    """Take out the one to send, the latest that may be. What is reserved never waits for one short of money, which
    would wait for it, too.
    """
    if len(sendings) > 1:
        await asyncio.wait([each.reserved for each in sendings], return_when=asyncio.FIRST_COMPLETED)
    return sendings.pop(max((row for row, each in enumerate(sendings) if each.reserved.done()), default=-1))


class _Writer:
    """Commits for all slots, in a thread: answers, and with them the reservations of what is asked next. What comes
    while one commit runs goes into the next.

    Args:
        max_cost: as in `Ledger.reserve`.
        spill: where answers go that the cache does not take.

    Attributes:
        refused: why the cache takes no more; None while it does.
        unsent: keys of questions that are reserved, and were not sent, or refused without charge.
        surplus: that reservations have, or will have when the answers so far are committed.
    """

    def __init__(self, intake: Intake, waiting: _Waiting, max_cost: float | None, spill: Spill) -> None:
        self._intake, self._waiting, self._max_cost, self.spill = intake, waiting, max_cost, spill
        self.refused: StoreError | None = None
        self._loop = asyncio.get_running_loop()
        self._pending: list[tuple[Question, Answer, asyncio.Future[Question | None]]] = []
        self._orders: list[_Sending] = []
        self._short: list[_Sending] = []  # of money, which others may give back
        self._look: asyncio.TimerHandle | None = None
        self._busy = False
        self._looked = 0.0  # when the last commit began
        self.unsent: set[str] = set()
        self.surplus = 0

    async def put(self, question: Question, answer: Answer) -> Question | None:
        """Returns when the answer is committed: the question that is to be asked because of it, if any."""
        done = self._loop.create_future()
        self._pending.append((question, answer, done))
        self._wake()
        return await done

    def reserve(self, question: Question, before: str = "") -> _Sending:
        """Reserve what a question can cost, with the next commit; where money is short, as soon as others turn out
        cheaper.
        """
        sending = _Sending(question, before, self._loop.create_future())
        self._orders.append(sending)
        self._wake()
        return sending

    async def close(self) -> None:
        """Wait for the last commit, and give back what was reserved and not sent."""
        if self._look is not None:
            self._look.cancel()
        while self._busy:
            await asyncio.sleep(0.01)
        if self.unsent:
            with suppress(StoreError):  # then it counts as unknown
                await asyncio.to_thread(self._intake.give_back, self.unsent)

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start)  # after the other slots whose answers came at the same moment

    def _start(self) -> None:
        batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
        orders = [each for each in (*self._short, *self._orders) if not each.reserved.done()]
        self._short, self._orders = [], []
        if batch or orders:
            self._loop.run_in_executor(None, self._commit, batch, orders)
        else:
            self._busy = False

    def _commit(
        self, batch: list[tuple[Question, Answer, asyncio.Future[Question | None]]], orders: list[_Sending]
    ) -> None:
        followed: list[Question | None] = []
        reserved = Reservation()
        error: Exception | None = None
        try:
            followed, reserved = self._take([(question, answer) for question, answer, _ in batch], orders)
        except Exception as caught:  # the slots raise it: the job stops
            error = caught
        self._loop.call_soon_threadsafe(self._end, [done for *_, done in batch], followed, orders, reserved, error)

    def _take(
        self, answers: list[tuple[Question, Answer]], orders: list[_Sending]
    ) -> tuple[list[Question | None], Reservation]:
        answers = [(question.for_all(self._waiting.of(question.key)), answer) for question, answer in answers]
        wanted = [self._intake.order(each.question, before=each.before) for each in orders]
        self._looked = awake()
        reserved = self._store(answers, wanted)
        followed = []
        for question, answer in answers:
            # Until here the question was on its way, so that it was not asked again: some more may wait for it.
            everybody = self._waiting.pop(question.key)
            late = everybody[len(question.links) :]
            followed.append(self._intake.answered(question.for_all(everybody), answer, late))
        return followed, reserved

    def _store(self, answers: list[tuple[Question, Answer]], orders: Sequence[Order]) -> Reservation:
        """Into the cache; once that was waited for in vain, these and all that come are spilt, and nothing is asked."""
        if self.refused is None:
            try:
                return self._intake.store(answers, orders)
            except StoreError as error:
                self.refused = error
        if answers:
            nobodys = Status.INVALID
            self.spill.add([(answer, () if answer.status == nobodys else q.links) for q, answer in answers])
        raise self.refused

    def _end(
        self,
        batch: list[asyncio.Future[Question | None]],
        followed: list[Question | None],
        orders: list[_Sending],
        reserved: Reservation,
        error: Exception | None,
    ) -> None:
        for row, done in enumerate(batch):
            if not done.done():
                done.set_result(followed[row]) if error is None else done.set_exception(error)
        self.unsent |= reserved.keys
        self.surplus = max(self.surplus, reserved.surplus)
        for sending in orders:
            self._answer(sending, reserved, error)
        self._busy = False
        if self._pending or self._orders:
            self._wake()
        elif self._short:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._wake)

    def _answer(self, sending: _Sending, reserved: Reservation, error: Exception | None) -> None:
        """Say what became of an order, or keep it for the next commit."""
        key, short, verdict = sending.question.key, reserved.shortage, sending.reserved
        if verdict.done():  # its slot was stopped
            return
        if error is not None:
            verdict.set_result(error)
        elif key in reserved.keys:
            verdict.set_result(_Reserved(self._looked, reserved.surplus))
        elif key in reserved.taken:
            verdict.set_result(_Taken())
        elif short is not None and short.waiting:
            self._short.append(sending)
        elif short is not None and self._max_cost is not None:
            verdict.set_result(cost_reached(self._max_cost, short))
