"""What the generation job costs over the bare client, and whether it stays small.

    python benchmarks/generation.py            # about 9 minutes on 2 cores
    python benchmarks/generation.py --quick    # about 1 minute, up to 10^5 prompts

Three tables. Throughput: a local server answers after a fixed time (language models take longer than either); the
bare `AsyncOpenAI` client, with as many requests in flight and nothing stored, against `kar_aug.generate` with every
answer committed; taken in turns, the median of the rounds. Memory: the highest resident size of a process that asks
more and more prompts. Nothing to do: prompts that are all answered already.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kar_aug._helpers.batched import batched
from kar_aug.cache import Answer, Link, TextCache
from kar_aug.cache.texts.tables import RULES
from kar_aug.config import LanguageModel
from kar_aug.generate import generate, question_key
from kar_aug.prompts import Prompt

LATENCIES = (0.1, 0.5)  # seconds
_LEAST = 16  # answers one after the other: a job sends two requests alone first, which takes as long as one answer
TEXT = "A dry crime comedy about a kidnapping that goes wrong in the snow. " * 20
BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 300, "total_tokens": 550},
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class _Http(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as little of it as a client notices, so that the server costs little beside it."""

    latency = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(rest) >= length:
            self.received = rest[length:]
            asyncio.get_running_loop().call_later(self.latency, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(RESPONSE)


def serve(latency: float, ready: Connection) -> None:
    async def run() -> None:
        _Http.latency = latency
        server = await asyncio.get_running_loop().create_server(_Http, "127.0.0.1", 0)
        ready.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await server.serve_forever()

    asyncio.run(run())


def prompts(count: int, salt: str = "") -> Iterator[Prompt]:
    system = "You know movies well. Describe a movie in facts that help to decide who would like it. " * 4
    for i in range(count):
        asked = ({"role": "system", "content": system}, {"role": "user", "content": f"Movie {salt} {i} (1996)"})
        yield Prompt("item", i, asked, "v1")  # type: ignore[arg-type]


def bare(base_url: str, concurrency: int, count: int) -> float:
    """Requests a second of the client alone."""
    import openai

    async def run() -> None:
        client = openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0)
        stream = prompts(count)

        async def slot() -> None:
            for prompt in stream:
                messages: Any = prompt.messages
                response = await client.chat.completions.create(model="m", messages=messages, max_tokens=512)
                assert response.choices[0].message.content

        await asyncio.gather(*(slot() for _ in range(concurrency)))
        await client.close()

    return count / _seconds(lambda: asyncio.run(run()))


def job(base_url: str, concurrency: int, count: int, folder: Path) -> float:
    """Requests a second of the job, every answer committed."""
    with TextCache(folder / f"{time.monotonic_ns()}.sqlite") as cache:
        model = LanguageModel(model="m", base_url=base_url, concurrency=concurrency)
        seconds = _seconds(lambda: generate(prompts(count), cache, model, key="k"))
        assert cache.counts()["ok"] == count
    return count / seconds


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def throughput(base_urls: dict[float, str], folder: Path, rounds: int, seconds: float) -> Table:
    columns = ("answer after", "in flight", "bare requests/s", "kar-aug requests/s", "ratio")
    table = Table(*columns, title="Throughput")
    for (latency, base_url), concurrency in itertools.product(base_urls.items(), (16, 64, 200)):
        count = int(max(seconds, _LEAST * latency) * min(500, concurrency / latency))
        pairs = [(bare(base_url, concurrency, count), job(base_url, concurrency, count, folder)) for _ in range(rounds)]
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        table.add_row(f"{latency * 1000:.0f} ms", f"{concurrency}", f"{theirs:,.0f}", f"{ours:,.0f}", f"{ratio:.2f}")
    return table


def memory(base_url: str, folder: Path, counts: list[int]) -> Table:
    table = Table("prompts asked", "seconds", "peak resident MB", title="Memory")
    for count in counts:
        rate, size = _in_process(job, base_url, 200, count, folder)
        table.add_row(f"{count:,}", f"{count / rate:,.0f}", f"{size:,.0f}")
    return table


def nothing_to_do(base_url: str, folder: Path, counts: list[int]) -> Table:
    table = Table("prompts, all answered", "seconds", "peak resident MB", title="Nothing to do")
    path, filled = folder / "full.sqlite", 0
    for count in counts:
        fill(path, filled, count)
        filled = count
        seconds, size = _in_process(enumerate_cached, base_url, path, count)
        table.add_row(f"{count:,}", f"{seconds:,.1f}", f"{size:,.0f}")
    return table


def fill(path: Path, start: int, stop: int) -> None:
    model = LanguageModel(model="m")
    with TextCache(path) as cache:
        for batch in batched((p for p in prompts(stop) if int(p.entity_id) >= start), 1000):
            keyed = [(question_key(model, prompt), prompt) for prompt in batch]
            cache.put_many(
                (Answer(key, "ok", TEXT[:200], "m", p.messages, rules=RULES), [Link("item", p.entity_id, key, "v1")])
                for key, p in keyed
            )


def enumerate_cached(base_url: str, path: Path, count: int) -> float:
    with TextCache(path) as cache:
        model = LanguageModel(model="m", base_url=base_url)
        seconds = _seconds(lambda: generate(prompts(count), cache, model, key="k"))
        assert cache.counts()["ok"] >= count
    return seconds


def _in_process(work: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    """What `work` returns in a process of its own, and the megabytes that it used at most."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_report, args=(theirs, work, *arguments))
    process.start()
    result = ours.recv()
    process.join()
    return result


def _report(to: Connection, work: Callable[..., float], *arguments: Any) -> None:
    result = work(*arguments)
    # Not getrusage: what it says starts with the size of the parent.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    to.send((result, int(peak.group(1)) / 1024 if peak else float("nan")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and prompts up to 10^5")
    quick = parser.parse_args().quick
    servers, base_urls = [], {}
    for latency in LATENCIES:
        ours, theirs = multiprocessing.Pipe()
        servers.append(multiprocessing.Process(target=serve, args=(latency, theirs), daemon=True))
        servers[-1].start()
        base_urls[latency] = ours.recv()
    fast = base_urls[LATENCIES[0]]
    console = Console()
    console.print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print(throughput(base_urls, folder, rounds=1 if quick else 3, seconds=4 if quick else 10))
        console.print(memory(fast, folder, [1_000, 4_000] if quick else [1_000, 10_000, 50_000]))
        console.print(nothing_to_do(fast, folder, [10_000, 100_000] + ([] if quick else [1_000_000])))
    for server in servers:
        server.terminate()


if __name__ == "__main__":
    main()
