"""What openai's client sends with: httpx or what it has in its place, and the certificates that connections trust."""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def httpx() -> Any:
    """The library below the client of openai that is installed, by whatever name it has there."""
    import openai

    return importlib.import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])


@functools.cache
def trusted() -> Any:
    """The certificates that are trusted, once a process: to read them takes 50 ms, and each client would do it."""
    return httpx().create_ssl_context()
