"""A server of chat completions that takes hardly any processor time, so that what is measured is who asks.

    python benchmarks/answering.py --latency 0.05 --faults 0.01

It prints its base URL, answers after the latency, and fails (500) or drops so many of the requests. It refuses one in
100 of those (429), after which a job has fewer in flight for a while: were it more, a measurement would be of that.
When its standard input ends, it prints how often it answered, and how many questions that were.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator

from kar_aug.testing import completion

_TEXT = "Likes dramas. "


class Counts:
    """How often something was answered; what was asked, as hashes."""

    def __init__(self) -> None:
        self.answered = 0
        self.questions: set[int] = set()

    def add(self, question: str) -> None:
        """Count an answer."""
        self.answered += 1
        self.questions.add(hash(question))

    def __str__(self) -> str:
        return json.dumps({"answered": self.answered, "questions": len(self.questions)})


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def __init__(self, respond: Callable[[bytes], bytes | None], latency: float) -> None:
        self._respond, self._latency = respond, latency
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers go to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer after a while, if this completes a request."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= _length(head):
            self._received = b""
            asyncio.get_running_loop().call_later(self._latency, self._answer, body)

    def _answer(self, body: bytes) -> None:
        response = self._respond(body)
        if response is None:
            self._transport.abort()
        else:
            self._transport.write(response)


def _length(head: bytes) -> int:
    (line,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(line.partition(b":")[2])


def responding(faults: float, counts: Counts) -> Callable[[bytes], bytes | None]:
    """What answers a body: a response; None where the connection is dropped."""
    draws = random.Random(0)

    def respond(body: bytes) -> bytes | None:
        draw = draws.random()
        if draw < faults / 2:
            return None
        if draw < 0.51 * faults:
            return _response("429 Too Many Requests", b'{"error": {"message": "slow down"}}', b"Retry-After: 0.2\r\n")
        if draw < faults:
            return _response("500 Internal Server Error", b'{"error": {"message": "try again"}}')
        request = json.loads(body)
        question = request["messages"][-1]["content"]
        counts.add(question)
        # A text of its own for each, as a model would write.
        return _response("200 OK", completion(f"{_TEXT * 20}{hash(question):x}", model=request["model"]))

    return respond


def _response(status: str, body: bytes, headers: bytes = b"") -> bytes:
    lines = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode()
    return lines + headers + b"\r\n" + body


async def _serve(latency: float, faults: float) -> None:
    loop, counts = asyncio.get_running_loop(), Counts()
    respond = responding(faults, counts)
    server = await loop.create_server(lambda: Connection(respond, latency), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(counts, flush=True)


@contextlib.contextmanager
def served(latency: float, faults: float) -> Iterator[tuple[str, dict[str, int]]]:
    """The URL of a server in a process of its own, and what it counted, once the block has ended."""
    server = subprocess.Popen(
        [sys.executable, __file__,
         "--latency", str(latency), "--faults", str(faults)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    counted: dict[str, int] = {}
    yield server.stdout.readline().strip(), counted
    counted.update(json.loads(server.communicate()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--faults", type=float, default=0.01, help="share of requests")
    asked = parser.parse_args()
    asyncio.run(_serve(asked.latency, asked.faults))


if __name__ == "__main__":
    main()
