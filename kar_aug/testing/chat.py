"""A scripted server of chat completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kar_aug.testing.scripted import Behaviour, ScriptedServer


def completion(
    text: Any, finish_reason: Any = "stop", refusal: str | None = None, model: str = "test-model",
    tokens: tuple[int, int] | None = None, **more: Any,
) -> bytes:  # fmt: skip
    """The body of a chat completion.

    Args:
        text: the content, whatever its form.
        tokens: how many were asked, and answered. A `ChatServer` counts them itself, if not given: see `counted`.
        more: fields of the message, such as reasoning_content.
    """
    message = {"role": "assistant", "content": text, "refusal": refusal, **more}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": None if tokens is None else usage(*tokens),
    }  # fmt: skip
    return json.dumps(body).encode()


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """What an answer says of what it takes."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def counted(request: Mapping[str, Any], body: bytes) -> bytes:
    """An answer with the tokens that a real server would count, about four characters each, where it has no `tokens`."""
    try:
        answer = json.loads(body)
        if answer["usage"] is not None:
            return body
    except (ValueError, TypeError, KeyError):
        return body
    asked = sum(len(str(message["content"])) for message in request["messages"])
    said = sum(len(str(choice["message"]["content"])) for choice in answer["choices"])
    return json.dumps({**answer, "usage": usage(asked // 4, said // 4)}).encode()


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

    def scripted(self, body: dict[str, Any], number: int) -> Reply:
        """What `behaviour` says, with the tokens counted."""
        said = super().scripted(body, number)
        return replace(said, body=counted(body, said.body)) 
