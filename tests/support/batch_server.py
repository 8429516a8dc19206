"""A real HTTP server that speaks the files and batches endpoints of OpenAI's API, counts what it charges, and can
misbehave."""

from __future__ import annotations

import email
import email.policy
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.chat_server import completion
from support.http_server import Handler, HttpServer

Line = dict[str, Any]


def answered(request: Line, text: str | None = None) -> Line:
    """The line of an output file that answers a request; says back its last message if no text is given."""
    body = request["body"]
    text = "About: " + body["messages"][-1]["content"] if text is None else text
    response = {"status_code": 200, "request_id": "r", "body": json.loads(completion(text, model=body["model"]))}
    return {"id": "line", "custom_id": request["custom_id"], "response": response, "error": None}


def refused(request: Line, status: int, message: str = "no") -> Line:
    """The line of an error file for a request that the server answered with an error."""
    response = {"status_code": status, "request_id": "r", "body": {"error": {"message": message}}}
    return {"id": "line", "custom_id": request["custom_id"], "response": response, "error": None}


def expired(request: Line) -> Line:
    """The line of an error file for a request that the time did not suffice for."""
    error = {"code": "batch_expired", "message": "This request could not be executed before the end of the window."}
    return {"id": "line", "custom_id": request["custom_id"], "response": None, "error": error}


# status, lines of the output file, lines of the error file; a string is written as it is
Outcome = tuple[str, list[Line | str], list[Line | str]]


def completed(requests: list[Line]) -> Outcome:
    """Every request is answered, in another order than asked."""
    return "completed", [answered(request) for request in reversed(requests)], []


class BatchServer(HttpServer):
    """Use as a context manager.

    `outcome` decides how a batch ends, after `polls` looks at it. `charged` counts how often each custom_id was
    answered. `before` and `after` are called with "METHOD /path" of every request, before it is done and before its
    response is sent; one that raises ConnectionError drops the connection, one that returns (status, body) answers so.
    """

    def __init__(self, outcome: Callable[[list[Line]], Outcome] = completed, polls: int = 0, page: int = 100) -> None:
        self.outcome, self.polls, self.page = outcome, polls, page
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.charged: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.headers: list[str] = []
        self.before: Callable[[str], Any] = lambda route: None
        self.after: Callable[[str], Any] = lambda route: None
        self.invalid = ""  # what validation says of every batch
        self._lock = threading.RLock()
        server = self

        class ServerHandler(Handler):
            def do_GET(self) -> None:
                self._do(b"")

            def do_POST(self) -> None:
                self._do(self.rfile.read(int(self.headers["Content-Length"])))

            def _do(self, body: bytes) -> None:
                address = urlsplit(self.path)
                route = f"{self.command} {address.path.removeprefix('/v1')}"
                try:
                    with server._lock:
                        server.calls[route] += 1
                        server.headers.append(self.headers["Authorization"])
                        reply = server.before(route)
                        if reply is None:
                            reply = server._answer(route, parse_qs(address.query), self.headers["Content-Type"], body)
                            reply = server.after(route) or reply
                    status, content = reply
                    content = content if isinstance(content, bytes) else json.dumps(content).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True
                    self.connection.close()

        super().__init__(ServerHandler)

    def requests(self, batch: dict[str, Any]) -> list[Line]:
        """What a batch asks."""
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def _answer(self, route: str, query: dict[str, list[str]], kind: str, body: bytes) -> tuple[int, Any]:
        method, path = route.split()
        parts = path.strip("/").split("/")
        if route == "POST /files":
            return 200, self._upload(kind, body)
        if route == "POST /batches":
            return 200, self._create(json.loads(body))
        if route == "GET /batches":
            return 200, self._list(query)
        if method == "GET" and parts[0] == "batches" and parts[1] in self.batches:
            return 200, self._look(self.batches[parts[1]])
        if method == "GET" and parts[0] == "files" and parts[1] in self.files and parts[2:] == ["content"]:
            return 200, self.files[parts[1]]
        return 404, {"error": {"message": f"no {path}"}}

    def _upload(self, kind: str, body: bytes) -> dict[str, Any]:
        message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        content = parts["file"].get_payload(decode=True)
        assert parts["purpose"].get_payload(decode=True) == b"batch"
        return self._file("file", content)

    def _file(self, kind: str, content: bytes) -> dict[str, Any]:
        name = f"{kind}-{len(self.files)}"
        self.files[name] = content
        return {
            "id": name, "object": "file", "bytes": len(content), "created_at": 0, "filename": name, "purpose": "batch",
            "status": "processed",
        }  # fmt: skip

    def _create(self, order: dict[str, Any]) -> dict[str, Any]:
        assert order["endpoint"] == "/v1/chat/completions" and order["input_file_id"] in self.files
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name, "object": "batch", "created_at": int(time.time()), "status": "validating", "looks": 0,
            "output_file_id": None, "error_file_id": None, "errors": None, "request_counts": None, **order,
        }  # fmt: skip
        return self.batches[name]

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        newest = list(reversed(self.batches.values()))
        start = 1 + [batch["id"] for batch in newest].index(query["after"][0]) if "after" in query else 0
        end = start + min(self.page, int(query["limit"][0]))
        return {"object": "list", "data": newest[start:end], "has_more": end < len(newest)}

    def _look(self, batch: dict[str, Any]) -> dict[str, Any]:
        requests = self.requests(batch)
        batch["looks"] += 1
        if batch["status"] not in ("validating", "in_progress"):
            return batch
        if self.invalid:
            batch["status"] = "failed"
            error = {"code": "invalid", "message": self.invalid, "line": 1, "param": None}
            batch["errors"] = {"object": "list", "data": [error]}
        elif batch["looks"] <= self.polls:
            batch["status"] = "in_progress"
            counts = {"total": len(requests), "completed": len(requests) // 2, "failed": 0}
            batch["request_counts"] = counts
        else:
            status, output, errors = self.outcome(requests)
            batch["status"] = status
            for name, lines in (("output_file_id", output), ("error_file_id", errors)):
                if lines:
                    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
                    batch[name] = self._file("result", ("\n".join(texts) + "\n").encode("utf-8", "surrogatepass"))["id"]
            self.charged.update(line["custom_id"] for line in output if isinstance(line, dict))
        return batch
