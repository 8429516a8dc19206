"""What one entity's question is: the messages, and what our books need to know of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict


class Message(TypedDict):
    """One message of a chat, as the OpenAI API takes it."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One question about one entity. The entity's id is for our books; the model never sees it.

    Args:
        knowledge: the kind of knowledge that the answer is: "user", "item"; by another recipe than "kar", "item:tags".
        version: changes with all that could change what the model sees, but for the data themselves.
        as_of: the time of the last event that the prompt shows.
        cut: names of what was shortened to fit: fields, and "history" where events had to be left out.
        schema: the JSON schema that the answer must fit; None where it is free text.
        data: the block of the messages that shows the entity, marks included; "" where none is told apart.
    """

    knowledge: str
    entity_id: int | str
    messages: tuple[Message, ...]
    version: str
    as_of: str | None = None
    cut: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    data: str = ""

    @property
    def text(self) -> str:
        """The messages as a person reads them."""
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in self.messages)


def version_of(*content: Any) -> str:
    """12 hex digits over plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def version_with(version: str, more: Mapping[str, Any]) -> str:
    """The version, if nothing more decides what the model sees; else another."""
    return version_of(version, dict(more)) if more else version
