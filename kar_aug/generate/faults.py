"""Why a question has no answer, and what that means for it and for all others.

Passing      this request failed, the next may not: 5xx, a time-out
NoCompletion the server said 200, and something else than an answer: a web page, an error
Unavailable  nobody's request gets through just now: 429, 503, no connection. All slots wait
Rejected     this question will always be refused: 400, 413, 422
Barred       likewise, as a line of a batch says it: 401, 402, 403, 404. The next run asks the question again
Hopeless     no question will ever be answered: a wrong key, an unknown model, no credit left (`kar_aug.errors`)
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from kar_aug._helpers.servers.addresses import effective, masked, shown
from kar_aug._helpers.servers.clients import httpx
from kar_aug._helpers.servers.responses import Elsewhere
from kar_aug._helpers.servers.statuses import BUSY, without_credit
from kar_aug._helpers.servers.waits import retry_after
from kar_aug._helpers.servers.words import without_keys, words_of
from kar_aug.config import LanguageModel
from kar_aug.errors import Hopeless

if TYPE_CHECKING:
    import openai

_HOPELESS = {
    401: "the API key was refused",
    402: "there is no credit left",
    404: "there is no such model or address",
}
# Words of a refusal that are about one prompt, and say nothing of others.
_OF_PROMPT = re.compile(
    r"context.{0,3}(length|window|size)|too (long|large|many tokens)|maximum .{0,30}(length|tokens)"
    r"|exceeds? .{0,40}tokens|token limit|moderat|flagged|safety|content.{0,3}(filter|policy|management)"
    r"|prohibited|inappropriate",
    re.IGNORECASE,
)
_VERSION = re.compile(r"api.?version", re.IGNORECASE)
_SET_VERSION = 'Set the version in base_url: "https://.../deployments/NAME?api-version=...".'
# Errors of httpx and aiohttp: no connection could be made at all; one was, and ended early.
_UNREACHABLE = ("ConnectError", "ClientConnectorError", "ClientConnectorDNSError")
_BROKEN = ("ServerDisconnectedError", "ClientOSError", "ClientPayloadError")
_SHOWN = 200  # characters of a server's own words


class Fault(Exception):
    """A question has no answer. `permanent` says whether to ask it again is no use, `free` whether the server surely
    charged nothing.
    """

    permanent = free = False

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Passing(Fault):
    """This request failed; another try may not."""


class NoCompletion(Passing):
    """The server said 200, and its body is something else than a chat completion."""

    free = True


class Unavailable(Passing):
    """The server takes no requests just now. `wait` is in seconds, None if it did not say how long."""

    free = True

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Unreachable(Unavailable):
    """No connection can be made."""


class NotReady(Unavailable):
    """The server is starting, or loads its model."""


class Expired(Passing):
    """A batch ended before the server came to it."""

    free = True


class Barred(Passing):
    """Not the question was refused, but whoever asks: the key, the account, the model. Asked again by another run."""

    free = True


class Rejected(Fault):
    """The question itself is refused, or the form of every request; `of_prompt` says that the words are of this one."""

    permanent = free = True

    def __init__(self, reason: str, of_prompt: bool = False) -> None:
        super().__init__(reason)
        self.of_prompt = of_prompt


def of_status(status: int, reason: str) -> Fault:
    """What an HTTP status other than 200 means for the question, where nothing else is known of it."""
    of_prompt = bool(_OF_PROMPT.search(reason))
    if (status in (*_HOPELESS, 403) or without_credit(status, None, reason)) and not of_prompt:
        return Barred(reason)
    return Passing(reason) if status >= 500 or status in BUSY else Rejected(reason, of_prompt)


def server_name(model: LanguageModel) -> str:
    """The server, as errors call it."""
    url = effective(None)
    if model.base_url or url is None:
        return shown(model.base_url) or "The OpenAI API"
    return f"The server at OPENAI_BASE_URL ({masked(url)})"


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
        behind = _causes(error)
        causes = {type(each).__name__ for each in behind}  # with aiohttp, the client calls every fault a time-out
        if elsewhere := next((each for each in behind if isinstance(each, Elsewhere)), None):
            return self.hopeless(str(elsewhere), key, advice="If it is yours, name it: --base-url.")
        if not causes.isdisjoint(_UNREACHABLE):
            return Unreachable("the server cannot be reached")
        if "TooLarge" in causes:
            return Passing("the answer was larger than any of max_tokens can be")
        if isinstance(error, (openai.APITimeoutError, TimeoutError)) and causes.isdisjoint(_BROKEN):
            return Passing("no answer in time")
        if isinstance(error, (openai.APIConnectionError, *transport_errors())):
            return Passing("the connection broke")
        return Passing("the answer was malformed")

    def hopeless(self, what: str, key: str | None = None, *, advice: str = "") -> Hopeless:
        """The error that stops the job."""
        advice = advice or "Check --model and --base-url."
        return Hopeless(
            f"{self.server} {what} (model {self._model.model!r}). {advice} Nothing stored before is lost.", key=key
        )

    def refusing(self, fault: Fault, requests: int, key: str, *, proven: bool) -> Hopeless:
        """The error for a server that refuses one request after the other.

        Args:
            proven: whether it has answered before.
        """
        if isinstance(fault, (Rejected, NoCompletion)):
            often = f"refused {requests} requests in a row" if proven else "rejects every request"
        else:
            often = f"gave {requests} answers in a row that are none"
        return self.hopeless(f"{often} ({self.clean(fault.reason)})", key, advice=self._advice(fault))

    def _advice(self, fault: Fault) -> str:
        if isinstance(fault, NoCompletion) and "web page" in fault.reason:
            return "Check --base-url: the address of an OpenAI-compatible API mostly ends in /v1."
        if isinstance(fault, NoCompletion):
            return "Check --model and --base-url."
        if not isinstance(fault, Rejected):
            return "What came is kept; run the same command when it is mended."
        if fault.of_prompt:
            return "Ask for less: [prompts] max_events, or another model."
        if "max_completion_tokens" in fault.reason:
            extra = f"{{ max_completion_tokens = {self._model.max_tokens} }}"
            return f'Set [generate] omit = ["max_tokens"] and extra = {extra}, then run the same command.'
        if _VERSION.search(fault.reason):
            return _SET_VERSION
        for name in (*self._model.parameters, "response_format", "service_tier"):
            if re.search(rf"\b{re.escape(name)}\b", fault.reason):
                other = "leave it out of extra" if name in self._model.extra else f'set [generate] omit = ["{name}"]'
                return f"If the server does not take {name}, {other}, then run the same command."
        return "Mend what it says in [generate] (extra adds parameters, omit leaves them out), --model or --base-url."

    def _of_response(self, error: openai.APIStatusError, key: str | None) -> Fault | Hopeless:
        status, words = error.status_code, self.words(error.body) or self.words(error.response.text)
        wait = retry_after(error.response.headers)
        reason = f"the server answered {status}"
        of_prompt = bool(_OF_PROMPT.search(words))
        if without_credit(status, error.body, words):
            advice = "Add credit at the provider, then run the same command."
            return self.hopeless(f"answered {status}: there is no credit left{words}", key, advice=advice)
        if status in (401, 403) and not of_prompt:
            why = f": {_HOPELESS[401]}{words}" if status == 401 else words or ": access was refused"
            return self.hopeless(f"answered {status}{why}", key, advice=f"Check {self._model.api_key_env}.")
        if status == 404:
            advice = _SET_VERSION if _VERSION.search(words) else ""
            return self.hopeless(f"answered 404: {_HOPELESS[404]}{words}", key, advice=advice)
        if status == 429:
            return Unavailable(reason, wait)
        if status in (503, 529):
            return NotReady(reason + words, wait) if wait is None else Unavailable(reason, wait)
        fault = of_status(status, reason + words)
        return Rejected(reason + words, of_prompt or status == 413) if fault.permanent else type(fault)(reason)

    def said(self, error: Any) -> str:
        """The status of an error response, and the server's words."""
        return f"{error.status_code}{self.words(error.body) or self.words(error.response.text)}"

    def words(self, body: Any) -> str:
        """What the server says of an error, without anything that could be the key."""
        message = words_of(body)
        return f": {self.clean(message)[:_SHOWN]}" if message else ""

    def clean(self, text: str) -> str:
        """A server's words in one line, without anything that could be the key."""
        return without_keys(text, self._key)


@functools.cache
def client_errors() -> tuple[type[Exception], ...]:
    """What the client raises, and what comes through it from below."""
    import openai

    return (openai.APIError, *transport_errors(), TimeoutError, ValueError)


@functools.cache
def transport_errors() -> tuple[type[Exception], ...]:
    """What the client lets through from the libraries that it sends with."""
    try:
        import aiohttp
    except ImportError:
        return (httpx().HTTPError,)
    return (httpx().HTTPError, aiohttp.ClientError)


def _causes(error: BaseException) -> list[BaseException]:
    """An error, and all that caused it."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None:
        found.append(cause)
    return found
