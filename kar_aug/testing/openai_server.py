"""All of OpenAI's API that kar-aug uses, scripted, at one address."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kar_aug.testing.batches import BatchServer, Line, answered
from kar_aug.testing.chat import ChatServer, completion, tokens_of
from kar_aug.testing.embeddings import EmbeddingServer
from kar_aug.testing.http_server import HttpServer, Reply, Request


class OpenAIServer(HttpServer):
    """Chat completions, embeddings, files and batches; a context manager, listening at `base_url` while it is entered.

    Each part is scripted, and remembers what it was asked, by itself; it can be a server of its own, too.

    Args:
        chat: echoes the last message, if not given.
        embeddings: gives the vectors of `HashEncoder`, if not given.
        batches: answers whatever a batch asks at the first look, if not given.
        says: in place of chat and batches: what it answers to a prompt, the last message. Tokens are counted as a real
            server would, about four characters each.

    Example:
        >>> from kar_aug.encode import load_encoder
        >>> with OpenAIServer() as server:
        ...     load_encoder("openai:any", base_url=server.base_url).encode(["a film"]).shape
        (1, 8)
    """

    def __init__(
        self,
        *,
        chat: ChatServer | None = None,
        embeddings: EmbeddingServer | None = None,
        batches: BatchServer | None = None,
        says: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__()
        if says is not None:
            answer = partial(_said, says)
            chat = ChatServer(lambda server, request, number: (200, {}, answer(request)))
            batches = BatchServer(lambda requests: ("completed", [_line(each, answer) for each in requests], []))
        self.chat = ChatServer() if chat is None else chat
        self.embeddings = EmbeddingServer() if embeddings is None else embeddings
        self.batches = BatchServer() if batches is None else batches

    def reply(self, request: Request) -> Reply:
        """What the part says that has the route."""
        parts: dict[str, HttpServer] = {"chat": self.chat, "embeddings": self.embeddings}
        part = parts.get(request.route.split("/")[1], self.batches)
        part.note(request)
        return part.reply(request)


def _said(says: Callable[[str], str], request: Mapping[str, Any]) -> bytes:
    asked = "".join(str(message["content"]) for message in request["messages"])
    text = says(request["messages"][-1]["content"])
    return completion(text, model=request["model"], tokens=tokens_of(asked, text))


def _line(request: Line, answer: Callable[[Mapping[str, Any]], bytes]) -> Line:
    return {**answered(request), "response": {"status_code": 200, "body": json.loads(answer(request["body"]))}}
