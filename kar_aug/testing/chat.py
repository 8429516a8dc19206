"""A scripted server of chat completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kar_aug.testing.scripted import Behaviour, ScriptedServer


def completion(
    text: Any, finish_reason: Any = "stop", refusal: str | None = None, model: str = "test-model",
    tokens: tuple[int, int] = (7, 3), **more: Any,
) -> bytes:  # fmt: skip
    """The body of a chat completion.

    Args:
        text: the content, whatever its form.
        tokens: how many were asked, and answered.
        more: fields of the message, such as reasoning_content.
    """
    message = {"role": "assistant", "content": text, "refusal": refusal, **more}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }  # fmt: skip
    return json.dumps(body).encode()


def echo(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, Mapping[str, str], bytes]:
    """The well-behaved answer: says back the last message."""
    return 200, {}, completion("About: " + request["messages"][-1]["content"], model=request["model"])


class ChatServer(ScriptedServer):
    """Answers chat completions as `behaviour` says; without one, it says back the last message.

    Args:
        behaviour: (server, body of the request, its number from 0) -> (status, headers, body of the reply);
            `completion` makes such a body.
        latency: seconds that an answer takes.

    Example:
        >>> from urllib.request import Request, urlopen
        >>> with ChatServer(lambda server, request, number: (200, {}, completion("A dark comedy."))) as server:
        ...     asked = Request(server.base_url + "/chat/completions", b'{"model": "any", "messages": []}')
        ...     b"A dark comedy." in urlopen(asked).read(), server.requests
        (True, [{'model': 'any', 'messages': []}])
    """

    def __init__(self, behaviour: Behaviour = echo, latency: float = 0.0) -> None:
        super().__init__("POST /chat/completions", behaviour, latency)
