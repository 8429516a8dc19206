"""Ask the language model, offline: concurrent requests to any OpenAI-compatible server, every answer kept.

The same job started again asks only what has no answer yet. An answer is committed to the text cache before its slot
sends the next request, so that a process killed at any moment loses at most the requests then in flight.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kar_aug.batches import batched
from kar_aug.cache import Answer, TextCache, answer_key
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, MissingDependencyError
from kar_aug.prompts import Prompt

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

_LINK_BATCH = 256
# Errors that no retry heals: one of them means all requests will fail.
_HOPELESS = {
    401: "the API key was refused",
    403: "the API key may not use this model",
    404: "there is no such model or address",
}
_WAIT_SECONDS = (0.5, 60.0)  # first and longest pause between tries


@dataclass
class Progress:
    """Where a job stands. `total` grows while prompts are read."""

    total: int = 0
    cached: int = 0
    asked: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Prompts that need nothing more in this run."""
        return self.cached + self.asked + self.failed

    def __str__(self) -> str:
        text = f"{self.asked} asked, {self.cached} already cached, {self.failed} failed of {self.total}"
        return text + "".join(f"; {count} x {reason}" for reason, count in self.reasons.items())


def generate(
    prompts: Iterable[Prompt],
    cache: TextCache,
    model: LanguageModel,
    *,
    api_key: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Ask every prompt that has no answer yet, and record whose knowledge each answer is.

    Args:
        prompts: read as a stream; equal prompts are asked once.
        api_key: OPENAI_API_KEY if None.
        on_progress: called after every prompt.

    Returns:
        What was done. Prompts that failed for themselves are counted and listed in the cache, not raised.

    Raises:
        GenerationError: The server cannot be reached, or refuses every request (wrong key, unknown model).
        KeyboardInterrupt: Ctrl-C came; the requests in flight were finished and stored first.
    """
    return asyncio.run(_Job(cache, model, api_key, on_progress).run(prompts))


def question_key(model: LanguageModel, prompt: Prompt) -> str:
    """The key under which `model`'s answer to `prompt` is stored."""
    return answer_key(model.model, prompt.messages, model.parameters)


class _Job:
    def __init__(
        self,
        cache: TextCache,
        model: LanguageModel,
        api_key: str | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.cache, self.model, self.on_progress = cache, model, on_progress
        self.client = _client(model, api_key)
        self.progress = Progress()
        self.stopped = False
        self.interrupted = False
        self.in_flight: set[str] = set()

    async def run(self, prompts: Iterable[Prompt]) -> Progress:
        todo = self._unanswered(prompts)
        with self._drain_on_interrupt():
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.model.concurrency):
                        group.create_task(self._slot(todo))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                await self.client.close()
        if self.interrupted:
            raise KeyboardInterrupt(str(self.progress))
        return self.progress

    def _unanswered(self, prompts: Iterable[Prompt]) -> Iterator[tuple[str, Prompt]]:
        """Prompts to ask, each key once; on the way, every prompt is linked to its entity."""
        for batch in batched(prompts, _LINK_BATCH):
            keyed = [(question_key(self.model, prompt), prompt) for prompt in batch]
            self.cache.link((p.source, p.entity_id, key, p.version, p.as_of) for key, p in keyed)
            self.progress.total += len(batch)
            for key, prompt in keyed:
                if key in self.cache or key in self.in_flight:
                    self.progress.cached += 1
                    self.on_progress(self.progress)
                else:
                    self.in_flight.add(key)
                    yield key, prompt

    async def _slot(self, todo: Iterator[tuple[str, Prompt]]) -> None:
        for key, prompt in todo:
            if self.stopped:
                return
            try:
                answer = await self._ask(key, prompt)
            except _Failure as failure:
                self.cache.fail(key, failure.reason, failure.attempts)
                self.progress.failed += 1
                self.progress.reasons[failure.reason] = self.progress.reasons.get(failure.reason, 0) + 1
            except GenerationError:
                self.stopped = True
                raise
            else:
                self.cache.put(answer)
                self.progress.asked += 1
                self.progress.prompt_tokens += answer.prompt_tokens
                self.progress.completion_tokens += answer.completion_tokens
            self.in_flight.discard(key)
            self.on_progress(self.progress)

    async def _ask(self, key: str, prompt: Prompt) -> Answer:
        import openai

        for attempt in range(1, self.model.tries + 1):
            started = time.monotonic()
            try:
                response = await self._request(prompt)
                return _read(response, key, prompt, self.model.model, time.monotonic() - started)
            except openai.APIStatusError as error:
                if error.status_code in _HOPELESS:
                    raise GenerationError(self._hopeless(error)) from None
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    raise _Failure(f"the server answered {error.status_code}", attempt) from None
                reason, wait = f"the server answered {error.status_code}", _retry_after(error)
            except openai.APIConnectionError as error:  # timeouts among them
                reason, wait = _connection_reason(error), None
                if not self.progress.asked and attempt >= 3 and not isinstance(error, openai.APITimeoutError):
                    raise GenerationError(f"{self._server} cannot be reached. Is the server running?") from None
            except (_Malformed, openai.APIError, ValueError):  # a body that is no chat completion
                reason, wait = "the answer was malformed", None
            if attempt < self.model.tries and not self.stopped:
                await asyncio.sleep(_pause(attempt) if wait is None else wait)
        raise _Failure(reason, self.model.tries)

    async def _request(self, prompt: Prompt) -> ChatCompletion:
        messages: Any = prompt.messages
        return await self.client.chat.completions.create(
            model=self.model.model, messages=messages, **self.model.parameters
        )

    def _hopeless(self, error: openai.APIStatusError) -> str:
        return (
            f"{self._server} answered {error.status_code} for {self.model.model!r}: {_HOPELESS[error.status_code]}. "
            "Check OPENAI_API_KEY, --model and --base-url. Nothing stored before is lost."
        )

    @property
    def _server(self) -> str:
        return self.model.base_url or "The OpenAI API"

    @contextmanager
    def _drain_on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C stops new requests and lets those in flight finish; a second one acts as usual."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.stopped = self.interrupted = True
            loop.remove_signal_handler(signal.SIGINT)

        try:
            loop.add_signal_handler(signal.SIGINT, stop)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


class _Failure(Exception):
    """This prompt failed; others may still work."""

    def __init__(self, reason: str, attempts: int) -> None:
        super().__init__(reason)
        self.reason, self.attempts = reason, attempts


class _Malformed(Exception):
    """The server's answer has not the form of a chat completion."""


def _client(model: LanguageModel, api_key: str | None) -> openai.AsyncOpenAI:
    try:
        import openai
    except ImportError:
        raise MissingDependencyError("openai", "offline") from None
    try:
        # Retries happen in one place, ours: the client's own would count neither tries nor money.
        return openai.AsyncOpenAI(base_url=model.base_url, api_key=api_key, timeout=model.timeout, max_retries=0)
    except openai.OpenAIError:
        raise GenerationError(
            "There is no API key. Set OPENAI_API_KEY (any value, if the server needs none)."
        ) from None


def _read(response: ChatCompletion, key: str, prompt: Prompt, model: str, seconds: float) -> Answer:
    try:
        choice = response.choices[0]
        text = (choice.message.content or "").strip()
        status = "ok" if text else "empty"
        if choice.message.refusal or choice.finish_reason == "content_filter":
            status, text = "refused", text or choice.message.refusal or ""
        elif text and choice.finish_reason == "length":
            status = "truncated"
        usage: Mapping[str, int] = response.usage.model_dump() if response.usage else {}
        return Answer(
            key, status, text, model, prompt.messages,
            usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), seconds,
        )  # fmt: skip
    except (AttributeError, IndexError, TypeError):
        raise _Malformed from None


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _connection_reason(error: openai.APIConnectionError) -> str:
    import openai

    return "no answer in time" if isinstance(error, openai.APITimeoutError) else "the connection broke"


def _pause(attempt: int) -> float:
    """Exponential back-off with full jitter, in seconds."""
    first, longest = _WAIT_SECONDS
    return random.uniform(0.5, 1.0) * min(longest, first * 2**attempt)
