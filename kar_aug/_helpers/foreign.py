"""Text of others (answers, titles, what servers say), made harmless before a person looks at it."""

from __future__ import annotations

import re

# Control characters but tab and line feed, which can drive a terminal; those that turn the direction of writing, which
# make a line read as another; halves of characters, which no stream can encode.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_END = re.compile("\r\n?")


def harmless(text: str) -> str:
    """The text with such characters as escapes, `\\x1b`, so that one sees that they are there."""
    return _HARMFUL.sub(_escaped, _LINE_END.sub("\n", text))


def _escaped(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
