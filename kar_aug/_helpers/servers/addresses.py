"""Where a server is: its address apart from the login and the query that go with each request, and whether two are one.

Azure's deployments and many gateways have a query: https://name.openai.azure.com/openai/deployments/gpt?api-version=...
A user and a password in an address are sent as the server wants them; it is shown without the password.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

# What stands between the user and the @ of an address; one with a "/" in it is no valid address, and a password still.
_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/?#@:]*:)(?:(?!\d+[/?#])[^\s'\"<>]*|[^\s/?#]*)@", re.IGNORECASE)
# Whatever is called a key, a token, a signature: ?key=, ?api-key=, ?X-Amz-Signature=, ?client_secret=, ?sslpassword=.
_SECRET = re.compile(
    r"([?&](?:[\w.%-]*[-_.])?(?:ssl|api|access|private|account)?"
    r"(?:password|passwd|passfile|pass|pwd|key|token|jwt|secret|signature|sig|credentials?|auth)=)[^&#\s'\"]+",
    re.IGNORECASE,
)


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
    """The address without user and password."""
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


def effective(base_url: str | None) -> str | None:
    """The address that requests go to; None for OpenAI's own. The client reads OPENAI_BASE_URL, too."""
    return base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None


def shown(base_url: str | None) -> str | None:
    """The address that requests go to, as it is kept and shown: without a login, or a key in its query."""
    url = effective(base_url)
    return None if url is None else masked(without_login(url))


def normalised(base_url: str | None) -> str | None:
    """The same for all spellings of an address: with more slashes, or another case of the host."""
    url = shown(base_url)
    if url is None:
        return None
    parts = urlsplit(url)
    path = re.sub("/+", "/", parts.path).rstrip("/")
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), path, parts.query, ""))


def client_options(base_url: str | None, key: str) -> dict[str, Any]:
    """What the client of an address is made with: the address, the key, and what goes with every request."""
    options: dict[str, Any] = {"api_key": key, **client_address(effective(base_url))}
    if options["base_url"] is None:
        return options
    parts = urlsplit(options["base_url"])
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    options["base_url"] = urlunsplit((parts.scheme, parts.netloc, re.sub("/+", "/", parts.path), "", ""))
    if query:
        options["default_query"] = query
    if "api-version" in query:  # Azure, which looks for the key there
        options["default_headers"] = {"api-key": key, **options.get("default_headers", {})}
    return options
