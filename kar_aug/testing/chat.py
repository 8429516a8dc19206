"""A scripted server of chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kar_aug.testing.http_server import Reply, Request
from kar_aug.testing.scripted import Behaviour, ScriptedServer


class _Uncounted(bytes):
    """A completion whose tokens are still to be counted, by the server that sends it."""


def completion(
    text: Any, finish_reason: Any = "stop", refusal: str | None = None, model: str = "test-model",
    tokens: tuple[int, int] | None = None, **more: Any,
) -> bytes:  # fmt: skip
    """The body of a chat completion.

    Args:
        text: the content, whatever its form.
        tokens: how many were asked, and answered. If not given, a server of this package counts them; sent by another,
            the body says nothing of them, as some servers' do.
        more: fields of the message, such as reasoning_content.
    """
    message = {"role": "assistant", "content": text, "refusal": refusal, **more}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
    }  # fmt: skip
    if tokens is None:
        return _Uncounted(json.dumps(body).encode())
    return json.dumps({**body, "usage": usage(*tokens)}).encode()


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """What an answer says of what it takes."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def tokens_of(asked: str, said: str) -> tuple[int, int]:
    """As a real server would count them: about four characters each."""
    return len(asked) // 4, len(said) // 4


def counted(body: bytes, messages: Iterable[Mapping[str, Any]]) -> bytes:
    """The body of an answer to these messages; a completion that was given no `tokens` has them now."""
    if not isinstance(body, _Uncounted):
        return body
    answer = json.loads(body)
    asked = "".join(str(message["content"]) for message in messages)
    said = "".join(str(choice["message"]["content"] or "") for choice in answer["choices"])
    return json.dumps({**answer, "usage": usage(*tokens_of(asked, said))}).encode()


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

    def reply(self, request: Request) -> Reply:
        """What `behaviour` says, its tokens counted."""
        said = super().reply(request)
        if not isinstance(said.body, _Uncounted):
            return said
        return said._replace(body=counted(said.body, json.loads(request.body)["messages"]))
