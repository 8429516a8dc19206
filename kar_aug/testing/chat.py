"""A scripted server of chat completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kar_aug.testing.scripted import Behaviour, ScriptedServer


def completion(
    text: Any, finish_reason: str | None = "stop", refusal: str | None = None, model: str = "test-model",
    *, request: Mapping[str, Any] | None = None, **more: Any,
) -> bytes:  # fmt: skip
    """The body of a chat completion: 7 tokens asked, or more if it answers a long request, and 3 answered.

    Args:
        text: the content, whatever its form.
        more: fields of the message, such as reasoning_content.
    """
    message = {"role": "assistant", "content": text, "refusal": refusal, **more}
    size = sum(len(str(message.get("content"))) for message in request["messages"]) if request else 0
    asked = max(7, size // 4)
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {"prompt_tokens": asked, "completion_tokens": 3, "total_tokens": asked + 3},
    }  # fmt: skip
    return json.dumps(body).encode()


def echo(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, Mapping[str, str], bytes]:
    """The well-behaved answer: says back the last message."""
    said = "About: " + request["messages"][-1]["content"]
    return 200, {}, completion(said, model=request["model"], request=request)


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
