"""Why a question has no answer, and what that means for it and for all others.

Passing      this request failed, the next may not: 5xx, a time-out, a body that is no answer
Unavailable  nobody's request gets through just now: 429, no connection. All slots wait
Rejected     this question will always be refused: 400, 413, 422
Hopeless     no question will ever be answered: a wrong key, an unknown model, no credit left (`kar_aug.errors`)
"""

from __future__ import annotations

import email.utils
import functools
import importlib
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kar_aug._addresses import without_login
from kar_aug.config import LanguageModel
from kar_aug.errors import Hopeless

if TYPE_CHECKING:
    import openai

_HOPELESS = {
    401: "the API key was refused",
    402: "there is no credit left",
    404: "there is no such model or address",
}
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_BUSY = (408, 409, 425, 429)  # of the client's errors (4xx), those that are not the question's
_SECRET = re.compile(r"\b(sk|key|pk)-[\w*-]{6,}")
# Errors of httpx and aiohttp: no connection could be made at all; one was, and ended early.
_UNREACHABLE = ("ConnectError", "ClientConnectorError", "ClientConnectorDNSError")
_BROKEN = ("ServerDisconnectedError", "ClientOSError", "ClientPayloadError")
_SHOWN = 200  # characters of a server's own words


class Fault(Exception):
    """A question has no answer. `permanent` says whether to ask it again is no use."""

    permanent = False

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Passing(Fault):
    """This request failed; another try may not."""


class Unavailable(Passing):
    """The server takes no requests just now. `wait` is in seconds, None if it did not say how long."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Unreachable(Unavailable):
    """No connection can be made."""


class Rejected(Fault):
    """The question itself is refused."""

    permanent = True


def of_status(status: int, reason: str) -> Fault:
    """What an HTTP status other than 200 means for the question, where nothing else is known of it."""
    return Passing(reason) if status >= 500 or status in _BUSY else Rejected(reason)


def server_name(model: LanguageModel) -> str:
    """The server, as errors call it."""
    return without_login(model.base_url) if model.base_url else "The OpenAI API"


class Faults:
    """What the client's errors mean, in words that do not hold the key."""

    def __init__(self, model: LanguageModel, key: str) -> None:
        self._model, self._key = model, key
        self.server = server_name(model)

    def of(self, error: Exception, key: str | None = None) -> Fault | Hopeless:
        """The fault that an error of the client is; `key` is that of the question that met it."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._of_response(error, key)
        causes = _causes(error)  # with aiohttp, the client calls every fault of a connection a time-out
        if not causes.isdisjoint(_UNREACHABLE):
            return Unreachable("the server cannot be reached")
        if "TooLarge" in causes:
            return Passing("the answer was larger than any of max_tokens can be")
        if isinstance(error, (openai.APITimeoutError, TimeoutError)) and causes.isdisjoint(_BROKEN):
            return Passing("no answer in time")
        if isinstance(error, (openai.APIConnectionError, *transport_errors())):
            return Passing("the connection broke")
        return Passing("the answer was malformed")

    def hopeless(self, what: str, key: str | None = None) -> Hopeless:
        """The error that stops the job."""
        return Hopeless(
            f"{self.server} {what} (model {self._model.model!r}). "
            f"Check {self._model.api_key_env}, --model and --base-url. Nothing stored before is lost.",
            key=key,
        )

    def _of_response(self, error: openai.APIStatusError, key: str | None) -> Fault | Hopeless:
        status, words = error.status_code, self.words(error.body)
        wait = _retry_after(error.response.headers)
        reason = f"the server answered {status}"
        if status in _HOPELESS:
            return self.hopeless(f"answered {status}: {_HOPELESS[status]}{words}", key)
        if status == 429:
            body = error.body if isinstance(error.body, dict) else {}
            if body.get("code") in _NO_CREDIT or body.get("type") in _NO_CREDIT:
                return self.hopeless(f"answered 429: there is no credit left{words}", key)
            return Unavailable(reason, wait)
        if status in (503, 529) and wait is not None:
            return Unavailable(reason, wait)
        fault = of_status(status, reason)
        return Rejected(reason + words) if fault.permanent else fault

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
