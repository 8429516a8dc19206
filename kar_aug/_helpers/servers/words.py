"""What a server says of an error, whatever the form: one line, in which no key is."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

_SAYING = ("message", "detail", "msg", "error_description", "description", "title", "reason", "errors", "error")
_SHORT = ("code", "type", "status")
_MOST = 2_000  # characters that are looked at; far fewer are shown
_DEEPEST = 5
_SECRET = re.compile(r"\b(sk|key|pk)-[\w*-]{6,}")
_PAGE = re.compile(r"\s*(<!doctype|<html|<head|<body|<\?xml|<!--)", re.IGNORECASE)
_TITLES = tuple(re.compile(rf"<{tag}\b[^>]*>(.*?)</{tag}", re.IGNORECASE | re.DOTALL) for tag in ("title", "h1", "h2"))


def words_of(body: Any) -> str:
    """The words in an error's body, "" if none: OpenAI's, a list of these, FastAPI's details, a text, a web page."""
    return " ".join(_words(body, 0)[:_MOST].split())


def without_keys(text: str, key: str = "") -> str:
    """In one line, without a key and what looks like one."""
    return " ".join(_SECRET.sub("[key]", text.replace(key, "[key]") if key else text).split())


def page_title(text: str) -> str:
    """What a web page is called; "" if it has no title."""
    for pattern in _TITLES:
        if (found := pattern.search(text)) and (title := _plain(found.group(1))):
            return title
    return ""


def _words(body: Any, depth: int) -> str:
    if depth > _DEEPEST or body is None or isinstance(body, bool):
        return ""
    if isinstance(body, bytes):
        body = body[: _MOST * 4].decode("utf-8", "replace")
    if isinstance(body, str):
        return _of_text(body, depth)
    if isinstance(body, list):
        return "; ".join(filter(None, (_words(each, depth + 1) for each in body[:5])))
    if isinstance(body, Mapping):
        return _of_mapping(body, depth)
    return ""


def _of_text(text: str, depth: int) -> str:
    if _PAGE.match(text):
        return page_title(text)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return _words(json.loads(text), depth + 1)
        except (ValueError, RecursionError):
            return text
    return text


def _of_mapping(body: Mapping[str, Any], depth: int) -> str:
    if isinstance(body.get("error"), (Mapping, list)):
        return _words(body["error"], depth + 1) or _short(body)
    words = next(filter(None, (_words(body.get(name), depth + 1) for name in _SAYING)), "")
    if words and isinstance(place := body.get("loc"), list):  # FastAPI: where, and what
        words = f"{'.'.join(map(str, place))}: {words}"
    metadata = body.get("metadata")  # of a gateway: what the provider behind it said
    if isinstance(metadata, Mapping) and (behind := _words(metadata.get("raw"), depth + 1)):
        words = f"{words}: {behind}" if words else behind
    return words or _short(body)


def _short(body: Mapping[str, Any]) -> str:
    return next((str(body[name]) for name in _SHORT if isinstance(body.get(name), (str, int)) and body[name]), "")


def _plain(marked: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", marked)).split())
