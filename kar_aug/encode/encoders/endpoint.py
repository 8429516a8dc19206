"""An OpenAI-compatible embeddings endpoint. The key is read from OPENAI_API_KEY and kept nowhere.

Servers differ in how many texts they take at once, and in what they send back where something is wrong: the number is
found out, and what is no vector of a text is said, with the text that it should have been of.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.servers.addresses import client_options, without_login
from kar_aug._helpers.servers.clients import trusted
from kar_aug._helpers.servers.responses import Elsewhere, TooLarge, bounded
from kar_aug._helpers.servers.statuses import BUSY, without_credit
from kar_aug._helpers.servers.waits import SAY_SECONDS, pause, retry_after
from kar_aug._helpers.servers.words import without_keys, words_of
from kar_aug.encode.encoders import Bill, Entry, Options
from kar_aug.encode.encoders.long_texts import encode_in_pieces, words_as_tokens
from kar_aug.errors import EncodingError, MissingDependencyError

_BATCH = 64
_WINDOW = 8000
_CHARACTERS = 3  # that count as a token: fewer than any token has on the mean
_TOO_MUCH = (400, 413, 422)  # what servers say to more texts, or longer ones, than they take
_TURNED_AWAY = (429, 503, 529)  # surely without charge, as all is that is refused for good
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # httpx's names for: there was no connection
_TRIES_AT_FIRST = 3  # to make a connection where there never was one: is the server running?
_SHOWN = 300  # characters of a server's own words
_log = logging.getLogger("kar_aug")


class EndpointEncoder:
    """Embeddings from a server. Requests that fail for a while are tried again with growing pauses; where a server
    takes fewer texts at once than it is sent, it is sent half as many from then on.

    Args:
        model: its name at the server.
        base_url: of the server; OpenAI's own if None.
        long_texts: "average" splits texts beyond 8,000 tokens (counted as three characters each), "cut" leaves it to
            the server what it does with them.
        rpm, tpm: most requests and tokens a minute; None for as many as the server takes.
        give_up_after: seconds without any answer after which it is given up.
        bill: where each request is written down before it is sent, and what it came to after; None for nowhere.

    Raises:
        LimitReached: The bill may not grow by the next request.
        EncodingError: The server refuses or cannot be reached, or OPENAI_API_KEY is not set; or it sent what is no
            vector of a text, which is at `position`.
        MissingDependencyError: openai is not installed.
    """

    pooling, normalized = "the server's", False

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        long_texts: str = "average",
        rpm: float | None = None,
        tpm: float | None = None,
        give_up_after: float = 600.0,
        bill: Bill | None = None,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingDependencyError("openai", "offline") from None
        self._key = os.environ.get("OPENAI_API_KEY")
        if not self._key and base_url is None:
            raise EncodingError("There is no key for the embeddings endpoint. Set OPENAI_API_KEY.")
        self._client = openai.OpenAI(
            **client_options(base_url, self._key or "none"),
            max_retries=0,  # which would know nothing of `give_up_after`
            http_client=bounded(openai.DefaultHttpxClient(verify=trusted())),
        )
        self._errors = openai
        self._model = model
        self._where = without_login(str(self._client.base_url)).rstrip("/")
        self._pace = _Pace(rpm, tpm)
        self._give_up_after = give_up_after
        self._bill: Bill = _NoBill() if bill is None else bill
        self._most = _BATCH
        self.name = f"{model}@{self._where}"
        self.long_texts = "averaged" if long_texts == "average" else "cut"
        self.split = 0
        self.dimension = 0  # which the first answer says
        self.dimension = self._encode(["dimension"]).shape[1]

    @property
    def at_once(self) -> int:
        """Texts of one request."""
        return self._most

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Vectors of shape (len(texts), dimension), float32."""
        if self.long_texts == "cut":
            return self._encode(list(texts))
        vectors, split = encode_in_pieces(texts, words_as_tokens(_CHARACTERS), _WINDOW, self._encode, normalized=False)
        self.split += split
        return vectors

    def _encode(self, texts: list[str]) -> npt.NDArray[Any]:
        vectors: list[npt.NDArray[Any]] = []
        while len(vectors) < len(texts):
            start = len(vectors)
            vectors += self._of_batch(texts[start : start + self._most], start)
        return np.asarray(vectors, np.float32).reshape(len(texts), self.dimension or -1)

    def _of_batch(self, texts: list[str], start: int) -> list[npt.NDArray[Any]]:
        """Vectors of the first of some texts: of as many as the server takes."""
        while True:
            try:
                return self._read(self._ask(texts), len(texts), start)
            except _Refused as refused:
                if len(texts) == 1:
                    raise self._error(str(refused), start) from None
                self._most = len(texts) // 2
                texts = texts[: self._most]

    # Asking

    def _ask(self, texts: list[str]) -> Any:
        """The document that the server answers with.

        Raises:
            _Refused: These are too many texts for it, or one is too long.
            EncodingError: It refuses any, answered nothing for too long, or what is no JSON.
            LimitReached: The bill may not grow so much.
        """
        # A server refuses an empty text; not every one knows the packed form that the client would ask for.
        request = [text if text.strip() else "-" for text in texts]
        since = said = time.monotonic()
        tries = 0
        while True:
            self._pace.wait(sum(len(text) // _CHARACTERS + 1 for text in request))
            try:
                return self._send(request)
            except self._errors.OpenAIError as error:
                reason = self._reason(error)
                status = getattr(error, "status_code", None)
                poor = status is not None and without_credit(status, getattr(error, "body", None), reason)
                if status in _TOO_MUCH and not poor:
                    raise _Refused(reason) from None
                for_good = poor or (status is not None and status < 500 and status not in BUSY)
                nobody = status is None and not self.dimension and tries >= _TRIES_AT_FIRST
                if for_good or nobody or isinstance(error.__cause__, (Elsewhere, TooLarge)):
                    raise self._error(reason) from None
                wait = retry_after(error.response.headers) if isinstance(error, self._errors.APIStatusError) else None
            now, tries = time.monotonic(), tries + 1
            wait, left = pause(tries) if wait is None else wait, self._give_up_after - (now - since)
            if wait > left:
                raise self._error(f"{reason}, and so on beyond [encode] give_up_after = {self._give_up_after:g}")
            if now - said >= SAY_SECONDS:
                said = now
                _log.warning("%s: %s. Trying again for %.0f s.", self._where, reason, left)
            time.sleep(wait)

    def _send(self, texts: list[str]) -> Any:
        """Send one request, once, and write it down; see `_ask`."""
        with self._bill.entry(texts) as entry:
            try:
                create = self._client.embeddings.with_raw_response.create
                body = create(model=self._model, input=texts, encoding_format="float").content
            except self._errors.OpenAIError as error:
                if _is_free(error):
                    entry.release()
                raise
            try:
                document = json.loads(body)
            except (ValueError, RecursionError):
                raise self._error(f"it answered what is no JSON: {_beginning(body)}") from None
            entry.settle(document)
        return document

    def _reason(self, error: Exception) -> str:
        """The error in one line, without the key."""
        if not isinstance(error, self._errors.APIStatusError):
            cause = error.__cause__ if isinstance(error.__cause__, Elsewhere) else error
            return without_keys(str(cause), self._key or "")[:_SHOWN]
        words = without_keys(words_of(error.body) or words_of(error.response.text), self._key or "")
        return ": ".join(filter(None, [f"it answered {error.status_code}", words[:_SHOWN]]))

    def _error(self, reason: str, position: int | None = None) -> EncodingError:
        return EncodingError(
            f"{self._where} gave no embeddings by {self._model!r}: {reason}", encoder=self._model, position=position
        )

    # Reading

    def _read(self, document: Any, count: int, start: int) -> list[npt.NDArray[Any]]:
        """A vector for each of `count` texts, of which the first is at `start`.

        Raises:
            EncodingError: One has none, or another has two.
        """
        data = document.get("data") if isinstance(document, dict) else None
        if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
            raise self._error(f"it answered what holds no vectors: {_said(document)}")
        if len(data) != count:
            raise EncodingError(
                f"{self._where} gave {len(data)} embeddings of {count} texts.",
                encoder=self._model, left=count, right=len(data),
            )  # fmt: skip
        vectors: list[npt.NDArray[Any] | None] = [None] * count
        for place, each in enumerate(data):
            index = each.get("index", place) if any("index" in other for other in data) else place
            if type(index) is not int or not 0 <= index < count:
                raise self._error(f"there is no text number {index!r} among {count}", start + place)
            if vectors[index] is not None:
                raise self._error(f"it gave two vectors of one text (index {index})", start + index)
            vectors[index] = self._vector(each.get("embedding"), start + index)
        return [vector for vector in vectors if vector is not None]

    def _vector(self, given: Any, position: int) -> npt.NDArray[Any]:
        """The numbers of a vector, given as such or, packed, in base64."""
        try:
            if isinstance(given, str):
                vector = np.frombuffer(base64.b64decode(given, validate=True), "<f4")
            else:
                vector = np.asarray(given, np.float32)
        except (TypeError, ValueError, binascii.Error):
            vector = np.empty(0)
        if vector.ndim != 1 or not len(vector):
            raise self._error(f"its vector is {_said(given)[:40]}", position)
        if self.dimension and len(vector) != self.dimension:
            raise self._error(f"its vector has {len(vector)} numbers, others have {self.dimension}", position)
        return vector


class _Refused(Exception):
    """A request that asks too much at once; in the server's words."""


class _NoBill:
    """The bill of whoever counts no money; each of its entries is itself."""

    @contextmanager
    def entry(self, texts: Sequence[str]) -> Iterator[Entry]:
        yield self

    def settle(self, document: Any) -> None:
        pass

    def release(self) -> None:
        pass


class _Pace:
    """Requests evenly spaced, so that no more are sent, and no more tokens, than a minute may have."""

    def __init__(self, rpm: float | None, tpm: float | None) -> None:
        self._request_seconds, self._token_seconds = 60.0 / rpm if rpm else 0.0, 60.0 / tpm if tpm else 0.0
        self._next = 0.0

    def wait(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be sent."""
        now = time.monotonic()
        time.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + max(self._request_seconds, tokens * self._token_seconds)


def _is_free(error: Exception) -> bool:
    """Whether a request that ended so was surely not charged."""
    status = getattr(error, "status_code", None)
    if status is None:
        return type(error.__cause__).__name__ in _NOT_SENT
    return status in _TURNED_AWAY or (400 <= status < 500 and status not in BUSY)


def _said(document: Any) -> str:
    """What a server says in place of vectors: its words, or else all of it."""
    return (words_of(document) or json.dumps(document, default=str))[:_SHOWN]


def _beginning(body: bytes) -> str:
    text = " ".join(body[:_SHOWN].decode("utf-8", "replace").split())
    return repr(text[:80]) if text else "nothing"


def load(name: str, options: Options) -> EndpointEncoder:
    """For the registry."""
    return EndpointEncoder(
        name,
        options.base_url,
        long_texts=options.long_texts,
        rpm=options.rpm,
        tpm=options.tpm,
        give_up_after=options.give_up_after,
        bill=options.bill,
    )
