"""Where a server is: its address apart from the query that goes with each request, and whether two are one.

Azure's deployments and many gateways have a query: https://name.openai.azure.com/openai/deployments/gpt?api-version=...
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from kar_aug._addresses import client_address, without_login


def effective(base_url: str | None) -> str | None:
    """The address that requests go to; None for OpenAI's own. The client reads OPENAI_BASE_URL, too."""
    return base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None


def shown(base_url: str | None) -> str | None:
    """The address that requests go to, as it is kept and shown: whoever's password it is."""
    url = effective(base_url)
    return None if url is None else without_login(url)


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
