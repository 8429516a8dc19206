"""Responses within bounds. Of size, however much they inflate: half a megabyte of gzip may be gigabytes. And of place:
what is asked holds users' data, and goes to no other host than the one that it was meant for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urljoin, urlsplit

_MOST = 64_000_000
_LEAST, _A_TOKEN = 4_000_000, 16_000  # bytes: of any response; of a token with the likeliest others beside it


class TooLarge(ValueError):
    """A response went on beyond any honest one."""


class Elsewhere(ValueError):
    """A server sends requests on to another host."""


def most_bytes(tokens: int) -> int:
    """What a response of so many tokens can have in any form, generously."""
    return min(_MOST, _LEAST + tokens * _A_TOKEN)


def bounded(client: Any, most: float = _MOST) -> Any:
    """An HTTP client, httpx's or one like it, that stays at a host and reads so many bytes of a response at most."""

    def read(response: Any) -> None:
        _stay(response)
        whole = response.iter_bytes

        def parts(chunk_size: int | None = None) -> Iterator[bytes]:
            size = 0
            for part in whole(chunk_size):
                size = _grown(size, part, most)
                yield part

        response.iter_bytes = parts

    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], read]}
    return client


def bounded_async(client: Any, most: float = _MOST) -> Any:
    """The same for a client of an event loop."""

    async def read(response: Any) -> None:
        _stay(response)
        whole = response.aiter_bytes

        async def parts(chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
            size = 0
            async with aclosing(whole(chunk_size)) as all_parts:
                async for part in all_parts:
                    size = _grown(size, part, most)
                    yield part

        response.aiter_bytes = parts

    client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], read]}
    return client


def _stay(response: Any) -> None:
    """What is sent is sent on within its host only: to https, or to a path with a slash more. What is fetched, the
    files of a batch say, may lie elsewhere.
    """
    if not response.has_redirect_location or response.request.method == "GET":
        return
    asked = str(response.url)
    there = urlsplit(urljoin(asked, response.headers["location"])).hostname
    if there != urlsplit(asked).hostname:
        raise Elsewhere(f"sends requests on to another host, {there}")


def _grown(size: int, part: bytes, most: float) -> int:
    if size + len(part) > most:
        raise TooLarge(f"a response of more than {most:,} bytes")
    return size + len(part)
