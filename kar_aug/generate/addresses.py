"""Where a server is: its address apart from the query that goes with each request, and whether two are one.

Azure's deployments and many gateways have a query: https://name.openai.azure.com/openai/deployments/gpt?api-version=...
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit


def effective(base_url: str | None) -> str | None:
    """The address that requests go to; None for OpenAI's own. The client reads OPENAI_BASE_URL, too."""
    return base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None


def normalised(base_url: str | None) -> str | None:
    """The same for all spellings of an address: with more slashes, or another case of the host."""
    url = effective(base_url)
    if url is None:
        return None
    parts = urlsplit(url)
    path = re.sub("/+", "/", parts.path).rstrip("/")
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), path, parts.query, ""))


def client_options(base_url: str | None, key: str) -> dict[str, Any]:
    """What the client of an address is made with: the address, the key, and what goes with every request."""
    url = effective(base_url)
    options: dict[str, Any] = {"api_key": key, "base_url": url}
    if url is None:
        return options
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    options["base_url"] = urlunsplit((parts.scheme, parts.netloc, re.sub("/+", "/", parts.path), "", ""))
    if query:
        options["default_query"] = query
    if "api-version" in query:  # Azure, which looks for the key there
        options["default_headers"] = {"api-key": key}
    return options
