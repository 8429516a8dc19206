"""One request to an OpenAI-compatible server, and the body that comes back, unread."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from kar_aug._helpers.servers.addresses import client_options
from kar_aug._helpers.servers.clients import httpx, trusted
from kar_aug._helpers.servers.responses import bounded_async, most_bytes
from kar_aug.config import LanguageModel
from kar_aug.errors import GenerationError, MissingDependencyError
from kar_aug.generate.faults import Faults, client_errors
from kar_aug.generate.questions import Question
from kar_aug.generate.structured import sent


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


class Server:
    """Asks questions, one request each; retrying is the job's affair.

    Args:
        key: the API key. It is sent, and taken out of whatever the server says.
    """

    def __init__(self, model: LanguageModel, key: str) -> None:
        openai = import_openai()
        self._model = model
        self.faults = Faults(model, key)
        # The client's own retries would count neither tries nor money.
        self._client = openai.AsyncOpenAI(
            timeout=model.timeout,
            max_retries=0,
            http_client=bounded_async(_transport(model.concurrency), most_bytes(model.max_tokens)),
            **client_options(model.base_url, key),
        )
        self._tier: dict[str, Any] = {"service_tier": model.service_tier} if model.service_tier else {}

    async def ask(self, question: Question) -> tuple[bytes, float]:
        """Send one request: the body of the response, as it came, and the seconds that it took.

        Raises:
            Passing, Unavailable, Rejected, Hopeless: There is no such response; see `kar_aug.generate.faults`.
        """
        started = time.monotonic()
        body = {
            "model": question.model, "messages": question.messages, **sent(question.parameters), **self._tier
        }  # fmt: skip
        try:
            # The client's time-out starts again with every byte; a server that drips would hold a slot for ever.
            async with asyncio.timeout(self._model.timeout):
                # `chat.completions.create` would look through every part of the messages for files to upload, which
                # takes longer than all the rest, and through all parameters for names to change.
                response = await self._client.post("/chat/completions", cast_to=httpx().Response, body=body)
                return response.content, time.monotonic() - started
        except client_errors() as error:
            raise self.faults.of(error, question.key) from None

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


def _transport(concurrency: int) -> Any:
    """Aiohttp where it is installed: the client's default looks at all its connections for every request."""
    import openai

    most = concurrency + 8  # one a slot, and kept open
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=most, max_keepalive_connections=most)
    try:
        return openai.DefaultAioHttpClient(limits=limits, verify=trusted())
    except (AttributeError, RuntimeError):  # an older client, or no aiohttp
        return openai.DefaultAsyncHttpxClient(limits=limits, verify=trusted())
