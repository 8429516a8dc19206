"""Addresses with a user and a password in them: sent as the server wants them, shown without the password."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

# What stands between the user and the @ of an address; one with a "/" in it is no valid address, and a password still.
_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/?#@:]*:)(?:(?!\d+[/?#])[^\s'\"<>]*|[^\s/?#]*)@", re.IGNORECASE)
_SECRET = re.compile(r"([?&](?:ssl)?(?:password|passfile|api[-_]?key|token|secret|sig)=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """A text without the passwords of the addresses in it."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def masked_in(tree: Any) -> Any:
    """Lists and mappings of any depth, without the passwords in their texts."""
    if isinstance(tree, str):
        return masked(tree)
    if isinstance(tree, Mapping):
        return {name: masked_in(value) for name, value in tree.items()}
    return [masked_in(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def checked(url: str) -> SplitResult:
    """The parts of an http:// or https:// address.

    Raises:
        ValueError: It is none; in words, without its password.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{masked(url)!r} must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is read here, where it can be refused
    except ValueError:
        hint = " In a password, write / as %2F, # as %23 and ? as %3F." if "@" in url else ""
        raise ValueError(f"{masked(url)!r} is no address.{hint}") from None
    return parts


def without_login(url: str) -> str:
    """The address without user and password: to show, and to store."""
    parts = checked(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def client_address(url: str | None) -> dict[str, Any]:
    """The arguments that lead OpenAI's client to an address. A user and a password in it are sent as HTTP's basic
    authentication (RFC 7617), in place of the API key: a request has one such header.
    """
    if url is None or "@" not in checked(url).netloc:
        return {"base_url": url}
    user, _, password = checked(url).netloc.rpartition("@")[0].partition(":")
    login = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return {"base_url": without_login(url), "default_headers": {"Authorization": f"Basic {login}"}}
