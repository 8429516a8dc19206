"""The data block of a prompt: what is shown of an entity, between marks that no value of a table can close.

A block is a value of its own, made before the question about it: a recipe asks another question about it, summaries
stand at its head, a group has one of its own. Values cannot close it, because `text.clean` takes their brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

OPEN, CLOSE = "<data>", "</data>"
_BLOCK = re.compile(f"{OPEN}.*?{CLOSE}", re.DOTALL)


def marked(lines: Iterable[str]) -> str:
    """A block of these lines."""
    return "\n".join([OPEN, *lines, CLOSE])


def headed(head: str, block: str) -> str:
    """The block with more at its head: whole lines, or nothing."""
    return f"{OPEN}\n{head}{block.removeprefix(OPEN).removeprefix(chr(10))}" if head else block


def is_block(text: str) -> bool:
    """Whether a text is one block, and nothing beside it."""
    return _BLOCK.fullmatch(text) is not None and has_one(text)


def has_one(text: str) -> bool:
    """Whether a text holds one block, and no mark beside it."""
    return text.count(OPEN) == text.count(CLOSE) == 1 and _BLOCK.search(text) is not None


def outside(text: str) -> str:
    """A text without its blocks."""
    return _BLOCK.sub("", text)


def within(text: str) -> str:
    """The first block of a text, "" if there is none."""
    found = _BLOCK.search(text)
    return found[0] if found else ""
