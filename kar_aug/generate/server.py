"""One request to an OpenAI-compatible server: the answer that comes back, and what its errors mean for the job.

Passing      this request failed, the next may not: 5xx, a time-out, a body that is no answer
Unavailable  nobody's request gets through just now: 429, no connection. All slots wait
Rejected     this question will always be refused: 400, 413, 422
Hopeless     no question will ever be answered: a wrong key, an unknown model, no credit left
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import importlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kar_aug.cache import Answer
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, MissingDependencyError
from kar_aug.generate.cost import Price
from kar_aug.generate.structured import INVALID, schema_of, sent
from kar_aug.prompts.schema import answer_fault

if TYPE_CHECKING:
    import openai

_HOPELESS = {
    401: "the API key was refused",
    402: "there is no credit left",
    404: "there is no such model or address",
}
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_SECRET = re.compile(r"\b(sk|key|pk)-[\w*-]{6,}")
# What servers add to a model's name in their answers: the date of a snapshot, a tag.
_SUFFIX = re.compile(r"([-@:](\d{4}-\d{2}-\d{2}|\d{4,8}|latest|free))+$")
# Errors of httpx and aiohttp: no connection could be made at all; one was, and ended early.
_UNREACHABLE = ("ConnectError", "ClientConnectorError", "ClientConnectorDNSError")
_BROKEN = ("ServerDisconnectedError", "ClientOSError", "ClientPayloadError")
_SHOWN = 200  # characters of a server's own words


@dataclass(frozen=True)
class Asked:
    """A question as the server gets it."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any]


class Passing(Exception):
    """This request failed; another try may not."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unavailable(Passing):
    """The server takes no requests just now. `wait` is in seconds, None if it did not say how long."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Unreachable(Unavailable):
    """No connection can be made."""


class Rejected(Exception):
    """The server will not answer this question."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Hopeless(GenerationError):
    """No question will be answered until the user mends something."""


def api_key(model: LanguageModel) -> str:
    """The key from the file that the config names, or from the environment.

    Raises:
        GenerationError: There is none.
    """
    if model.api_key_file is not None:
        path = Path(model.api_key_file).expanduser()
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise GenerationError(f"The API key's file {path} cannot be read: {type(error).__name__}.") from None
        if not key or len(key.split()) != 1:
            raise GenerationError(f"{path} must hold the API key in one line, and nothing else.")
        place = str(path)
    else:
        key, place = os.environ.get(model.api_key_env, "").strip(), model.api_key_env
        if not key:
            raise GenerationError(f"There is no API key. Set {place} (any value, if the server needs none).")
    if not (key.isascii() and key.isprintable()):
        raise GenerationError(f"{place} holds characters that no API key has. Was it copied whole?")
    return key


class Faults:
    """What the client's errors mean, in words that do not hold the key."""

    def __init__(self, model: LanguageModel, key: str) -> None:
        self._model, self._key = model, key
        self.server = model.base_url or "The OpenAI API"

    def of(self, error: Exception) -> Exception:
        """Passing, Unavailable, Unreachable, Rejected or Hopeless."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._of_status(error)
        causes = _causes(error)  # with aiohttp, the client calls every fault of a connection a time-out
        if not causes.isdisjoint(_UNREACHABLE):
            return Unreachable("the server cannot be reached")
        if isinstance(error, (openai.APITimeoutError, TimeoutError)) and causes.isdisjoint(_BROKEN):
            return Passing("no answer in time")
        if isinstance(error, (openai.APIConnectionError, *transport_errors())):
            return Passing("the connection broke")
        return Passing("the answer was malformed")

    def hopeless(self, what: str) -> Hopeless:
        """The error that stops the job."""
        return Hopeless(
            f"{self.server} {what} (model {self._model.model!r}). "
            f"Check {self._model.api_key_env}, --model and --base-url. Nothing stored before is lost."
        )

    def _of_status(self, error: openai.APIStatusError) -> Exception:
        status, words = error.status_code, self.words(error.body)
        wait = _retry_after(error.response.headers)
        reason = f"the server answered {status}"
        if status in _HOPELESS:
            return self.hopeless(f"answered {status}: {_HOPELESS[status]}{words}")
        if status == 429:
            body = error.body if isinstance(error.body, dict) else {}
            if body.get("code") in _NO_CREDIT or body.get("type") in _NO_CREDIT:
                return self.hopeless(f"answered 429: there is no credit left{words}")
            return Unavailable(reason, wait)
        if status in (503, 529) and wait is not None:
            return Unavailable(reason, wait)
        if status >= 500 or status in (408, 409, 425):
            return Passing(reason)
        return Rejected(reason + words)

    def words(self, body: Any) -> str:
        """What the server says of an error, without anything that could be the key."""
        if isinstance(body, dict) and isinstance(body.get("error"), dict):
            body = body["error"]
        message = body.get("message") if isinstance(body, dict) else None
        if not isinstance(message, str) or not message.strip():
            return ""
        return f": {self.clean(message)[:_SHOWN]}"

    def clean(self, text: str) -> str:
        """A server's words in one line, without anything that could be the key."""
        return without_keys(text.replace(self._key, "[key]"))


def without_keys(text: str) -> str:
    """In one line, without what looks like an API key."""
    return " ".join(_SECRET.sub("[key]", text).split())


class Server:
    """Asks questions, one request each; retrying is the job's affair.

    Args:
        key: the API key. It is sent, and taken out of whatever the server says.
        price: of the model, None if not known.
    """

    def __init__(self, model: LanguageModel, key: str, price: Price | None) -> None:
        openai = import_openai()
        self._model, self._price = model, price
        self.faults = Faults(model, key)
        # The client's own retries would count neither tries nor money.
        self._client = openai.AsyncOpenAI(
            base_url=model.base_url, api_key=key, timeout=model.timeout, max_retries=0, **_transport(model.concurrency)
        )
        # The library imports this half of itself on first use: now, not while requests queue behind it and then burst.
        self._create = self._client.chat.completions.with_raw_response.create
        self._tier: dict[str, Any] = {"service_tier": model.service_tier} if model.service_tier else {}

    async def ask(self, key: str, messages: Any, parameters: Mapping[str, Any]) -> Answer:
        """Send one request.

        Raises:
            Passing, Unavailable, Rejected, Hopeless: There is no answer; see the module's text.
        """
        model = self._model
        started = time.monotonic()
        try:
            # The client's time-out starts again with every byte; a server that drips would hold a slot for ever.
            async with asyncio.timeout(model.timeout):
                # As `extra_body` the client sends the messages as they are; as `messages` it would look through
                # every part of them for files to upload, which takes longer than all the rest.
                response = await self._create(
                    model=model.model, messages=[], extra_body={"messages": messages, **sent(parameters), **self._tier}
                )
                body = response.content
        except client_errors() as error:
            raise self.faults.of(error) from None
        asked = Asked(model.model, messages, parameters)
        seconds = time.monotonic() - started
        return read_answer(body, key, asked, self._price, served_model=model.served_model, seconds=seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def import_openai() -> Any:
    """The client's package.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import openai
    except ImportError:
        raise MissingDependencyError("openai", "offline") from None
    return openai


@functools.cache
def client_errors() -> tuple[type[Exception], ...]:
    """What the client raises, and what comes through it from below."""
    import openai

    return (openai.APIError, *transport_errors(), TimeoutError, ValueError)


@functools.cache
def transport_errors() -> tuple[type[Exception], ...]:
    """What the client lets through from the libraries that it sends with."""
    import openai

    httpx = importlib.import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])
    try:
        import aiohttp
    except ImportError:
        return (httpx.HTTPError,)
    return (httpx.HTTPError, aiohttp.ClientError)


def read_answer(
    body: bytes,
    key: str,
    asked: Asked,
    price: Price | None,
    *,
    served_model: str | None = None,
    seconds: float = 0.0,
    tier: str = "",
) -> Answer:
    """The answer in a response body, which is kept as it came.

    Args:
        served_model: the name by which the server is to answer, that of `asked` if None.

    Raises:
        Passing: It has not the form of a chat completion.
    """
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = (message.get("content") or "").strip()
        refusal = str(message.get("refusal") or "")
        served = str(document.get("model") or "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Passing("the answer was malformed") from None
    status = "ok" if text else "empty"
    if refusal or finish == "content_filter":
        status, text = "refused", text or refusal
    elif text and finish == "length":
        status = "truncated"
    schema = schema_of(asked.parameters)
    if status == "ok" and schema is not None and answer_fault(text, schema):
        status = INVALID
    if served and not same_model(served, served_model or asked.model):
        status = "wrong_model"
    if not tier and document.get("service_tier") == "flex":
        tier = "flex"
    usage = document.get("usage") if isinstance(document.get("usage"), dict) else {}
    prompt_tokens, completion_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    details = usage.get("prompt_tokens_details")
    cached = min(prompt_tokens, _count(details, "cached_tokens")) if isinstance(details, dict) else 0
    cost = None
    if price is not None and usage:
        cost = price.of(prompt_tokens, completion_tokens, cached_tokens=cached, tier=tier)
    return Answer(
        key,
        status,
        text,
        asked.model,
        asked.messages,
        prompt_tokens,
        completion_tokens,
        seconds,
        parameters=asked.parameters,
        served_model=served,
        tier=tier,
        cost=cost,
        raw=body,
    )


def same_model(served: str, asked: str) -> bool:
    """Whether the name in an answer is the model that was asked, be it with a snapshot's date, a tag or a path."""

    def plain(name: str) -> str:
        name = name.replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gguf")
        return _SUFFIX.sub("", name)

    return plain(served) == plain(asked)


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `Retry-After`, which is a number or a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None


def _causes(error: BaseException) -> set[str]:
    """The names of an error's type, and of the types of all that caused it."""
    names: set[str] = set()
    seen: BaseException | None = error
    while seen is not None:
        names.add(type(seen).__name__)
        seen = seen.__cause__ or seen.__context__
    return names


def _transport(concurrency: int) -> dict[str, Any]:
    """aiohttp where it is installed: the client's default looks at all its connections for every request."""
    import openai

    most = concurrency + 8  # one a slot, and kept open
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=most, max_keepalive_connections=most)
    try:
        return {"http_client": openai.DefaultAioHttpClient(limits=limits)}
    except (AttributeError, RuntimeError):  # an older client, or no aiohttp
        return {}
