"""A real HTTP server on this machine: what the scripted servers have in common."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client sent.

    Args:
        route: method and path below the base URL: "POST /chat/completions".
        query: of the address: name -> values.
        headers: by their names in lower case.
    """

    route: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    """What is sent back. A `Content-Length` among the headers is sent as it is; the connection ends after it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpServer(ABC):
    """Answers each request in a thread of its own; a context manager, listening while it is entered.

    Attributes:
        base_url: where it listens: a free port of the loopback, with OpenAI's "/v1".
        calls: route -> how often it was called.
        headers: of every request, in order.
        lock: held by whoever changes what the threads share.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.calls: Counter[str] = Counter()
        self.headers: list[Mapping[str, str]] = []
        self.lock = threading.RLock()

    @abstractmethod
    def reply(self, request: Request) -> Reply:
        """The answer to a request.

        Raises:
            ConnectionError: The connection is to be dropped, unanswered.
        """

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _handler(self._noted))
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _noted(self, request: Request) -> Reply:
        self.note(request)
        return self.reply(request)

    def note(self, request: Request) -> None:
        """Count a request and keep its headers."""
        with self.lock:
            self.calls[request.route] += 1
            self.headers.append(request.headers)


def as_json(status: int, content: Any) -> Reply:
    """A reply whose body is JSON."""
    return Reply(status, {}, json.dumps(content).encode())


def nowhere(request: Request) -> Reply:
    """The reply to a route that there is not."""
    return as_json(404, {"error": {"message": f"no {request.route.partition(' ')[2]}"}})


def wrong(what: str) -> Reply:
    """The reply to a request that a client must not send."""
    return as_json(400, {"error": {"message": f"wrong {what}"}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        """A client that is gone is no news."""


def _handler(reply: Callable[[Request], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._do(b"")

        def do_DELETE(self) -> None:
            self._do(b"")

        def do_POST(self) -> None:
            self._do(self.rfile.read(int(self.headers["Content-Length"])))

        def _do(self, body: bytes) -> None:
            address = urlsplit(self.path)
            route = f"{self.command} {address.path.removeprefix('/v1')}"
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                status, more, content = reply(Request(route, parse_qs(address.query), headers, body))
                length = {"Content-Length": str(len(content))}
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json"} | length | dict(more)).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection |= "Content-Length" in more
            except OSError:
                self.close_connection = True
                self.connection.close()

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    return Handler
