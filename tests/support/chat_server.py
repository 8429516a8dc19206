"""A real HTTP server that speaks enough of the chat-completions API, counts what it answers, and can misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from support.http_server import Handler, HttpServer

Behaviour = Callable[["ChatServer", dict[str, Any], int], tuple[int, dict[str, str], bytes]]


def completion(
    text: str | None, finish_reason: str = "stop", refusal: str | None = None, model: str = "test-model"
) -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }  # fmt: skip
    return json.dumps(body).encode()


def echo(server: ChatServer, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    """The well-behaved answer: says back the last message."""
    return 200, {}, completion("About: " + request["messages"][-1]["content"], model=request["model"])


class ChatServer(HttpServer):
    """Use as a context manager. `behaviour` decides every response; `requests` and `answered` say what happened.

    `latency` is in seconds. A behaviour that raises ConnectionError makes the server drop the connection.
    """

    def __init__(self, behaviour: Behaviour = echo, latency: float = 0.0) -> None:
        self.behaviour, self.latency = behaviour, latency
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = 0
        self.declared_length: int | None = None  # of the next response, if it is to lie
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        chat = self

        class ServerHandler(Handler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with chat.lock:
                    number = len(chat.requests)
                    chat.requests.append(request)
                    chat.headers.append({name.lower(): value for name, value in self.headers.items()})
                    chat.in_flight += 1
                    chat.most_in_flight = max(chat.most_in_flight, chat.in_flight)
                try:
                    time.sleep(chat.latency)
                    status, headers, body = chat.behaviour(chat, request, number)
                    with chat.lock:
                        chat.answered += status == 200
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    declared, chat.declared_length = chat.declared_length, None
                    self.send_header("Content-Length", str(declared or len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    self.close_connection |= declared is not None
                except OSError:
                    self.close_connection = True
                    self.connection.close()
                finally:
                    with chat.lock:
                        chat.in_flight -= 1

        super().__init__(ServerHandler)
