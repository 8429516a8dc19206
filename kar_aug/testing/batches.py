"""A scripted server of files and batches, which counts what it charges."""

from __future__ import annotations

import email
import email.policy
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from kar_aug.testing.chat import completion, counted
from kar_aug.testing.http_server import HttpServer, Reply, Request, as_json, nowhere, wrong

Line = dict[str, Any]


def answered(request: Line, text: str | None = None) -> Line:
    """The line of an output file that answers a request; says back its last message if no text is given."""
    body = request["body"]
    text = "About: " + body["messages"][-1]["content"] if text is None else text
    response = {
        "status_code": 200,
        "request_id": "r",
        "body": json.loads(counted(completion(text, model=body["model"]), body["messages"])),
    }
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
    """Takes files and batches, and ends each batch as `outcome` says; without one, it answers everything.

    Args:
        outcome: the lines that a batch asks -> its status, the lines of its output file and of its error file.
        polls: how many looks at a batch find it still in progress.
        page: most batches in one answer of the list.

    Attributes:
        files: name -> content.
        batches: name -> the batch as the API shows it.
        charged: custom_id -> how often it was answered.
        before, after: called with the route of every request ("POST /files"), before it is done and before its reply
            is sent. One that raises ConnectionError drops the connection, one that returns (status, body) replies so.
        lost: names of batches that the server does not know any more, or for this key.
        deleted: names of files that were deleted, by a client or by time: the server does not give them any more.
        invalid: what validation says against every batch; "" if nothing.
    """

    def __init__(self, outcome: Callable[[list[Line]], Outcome] = completed, polls: int = 0, page: int = 100) -> None:
        super().__init__()
        self.outcome, self.polls, self.page = outcome, polls, page
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.charged: Counter[str] = Counter()
        self.lost: set[str] = set()
        self.deleted: set[str] = set()
        self.before: Callable[[str], Any] = lambda route: None
        self.after: Callable[[str], Any] = lambda route: None
        self.invalid = ""

    def requests(self, batch: dict[str, Any]) -> list[Line]:
        """What a batch asks."""
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def reply(self, request: Request) -> Reply:
        """The files and batches endpoints, one request at a time."""
        with self.lock:
            if (instead := self.before(request.route)) is not None:
                return as_json(*instead)
            done = self._reply(request)
            instead = self.after(request.route)
            return done if instead is None else as_json(*instead)

    def _reply(self, request: Request) -> Reply:
        method, path = request.route.split()
        parts = path.strip("/").split("/")
        if request.route == "POST /files":
            return self._upload(request.headers["content-type"], request.body)
        if request.route == "POST /batches":
            return self._create(json.loads(request.body))
        if request.route == "GET /batches":
            return as_json(200, self._list(request.query))
        if method == "GET" and parts[0] == "batches" and parts[1] in self.batches.keys() - self.lost:
            return as_json(200, self._look(self.batches[parts[1]]))
        if parts[0] == "files" and parts[1] in self.files and parts[1] not in self.deleted:
            if method == "GET" and parts[2:] == ["content"]:
                return Reply(200, {}, self.files[parts[1]])
            if method == "DELETE":
                self.deleted.add(parts[1])
                return as_json(200, {"id": parts[1], "object": "file", "deleted": True})
        return nowhere(request)

    def _upload(self, kind: str, body: bytes) -> Reply:
        message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP)
        parts: dict[Any, Any] = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in message.iter_parts()
        }
        if parts["purpose"] != b"batch":
            return wrong(f"purpose {parts['purpose']!r}")
        return as_json(200, self._file("file", parts["file"]))

    def _file(self, kind: str, content: bytes) -> dict[str, Any]:
        name = f"{kind}-{len(self.files)}"
        self.files[name] = content
        return {
            "id": name, "object": "file", "bytes": len(content), "created_at": 0, "filename": name, "purpose": "batch",
            "status": "processed",
        }  # fmt: skip

    def _create(self, order: dict[str, Any]) -> Reply:
        files = self.files.keys() - self.deleted
        if order["endpoint"] != "/v1/chat/completions" or order["input_file_id"] not in files:
            return wrong(f"order {order}")
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name, "object": "batch", "created_at": int(time.time()), "status": "validating", "looks": 0,
            "output_file_id": None, "error_file_id": None, "errors": None, "request_counts": None, **order,
        }  # fmt: skip
        return as_json(200, self.batches[name])

    def _list(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
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
            self._finish(batch, *self.outcome(requests))
        return batch

    def _finish(self, batch: dict[str, Any], status: str, output: list[Line | str], errors: list[Line | str]) -> None:
        batch["status"] = status
        for name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
                batch[name] = self._file("result", ("\n".join(texts) + "\n").encode("utf-8", "surrogatepass"))["id"]
        self.charged.update(line["custom_id"] for line in output if isinstance(line, dict))
