"""Generation jobs as processes of their own, to be killed. Run as a module, this file is the nursery that they are
forked from."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.nurseries import Nursery, asked, given, serve

if TYPE_CHECKING:  # a process that is to be new imports this file
    from kar_aug.prompts import Prompt

KEY = "sk-planted-key-0123456789"


def prompts(count: int, text: str = "entity {}", source: str = "item") -> Iterator[Prompt]:
    """Prompts about entities 0 .. count - 1."""
    from kar_aug.prompts import Prompt

    return (Prompt(source, i, ({"role": "user", "content": text.format(i)},), "v1") for i in range(count))


class Job:
    """A running process."""

    def __init__(self, jobs: Jobs, pid: int, output: Path) -> None:
        self._jobs, self.pid, self._output = jobs, pid, output
        self._code: int | None = None
        self._lock = threading.Lock()
        self.killed = threading.Event()

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end: the exit code, or the negative number of the signal that ended it."""
        with self._lock:
            if self._code is None:
                self._code = int(self._jobs.order(wait=self.pid))
            return self._code

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.send(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.output
        self.killed.set()

    @property
    def output(self) -> str:
        """All that it printed so far, errors too."""
        return self._output.read_text()


class Jobs(Nursery):
    """Starts jobs; a context manager."""

    def __init__(self) -> None:
        super().__init__("jobs")

    def start(
        self, where: Path | str, base_url: str, count: int, *, batches: dict[str, Any] | None = None,
        most_bytes: int = 0, costs_nothing: bool = False, **model: Any,
    ) -> Job:  # fmt: skip
        """A job that asks `count` prompts; through the Batch API, if `batches` are options of it.

        Args:
            most_bytes: that any file may have: the disk is full then.
            costs_nothing: as of `generate`; the job prints its notes then.
        """
        _, output = tempfile.mkstemp()
        order = {
            "output": output,
            "where": str(where),
            "count": count,
            "batches": batches,
            "most_bytes": most_bytes,
            "costs_nothing": costs_nothing,
            "model": {"model": "test-model", "base_url": base_url, "concurrency": 4, **model},
        }
        return Job(self, int(self.order(**order)), Path(output))


def import_clients() -> None:
    """What asking a language model needs."""
    import aiohttp  # noqa: F401
    import openai

    import kar_aug.generate  # noqa: F401

    openai.AsyncOpenAI(api_key="k")  # it imports what it needs


def _say(note: str) -> None:
    os.write(1, f"{note}\n".encode())


def _child(order: dict[str, Any]) -> int:
    import resource
    import signal
    import traceback

    from kar_aug._helpers.servers import waits
    from kar_aug.cache import TextCache
    from kar_aug.config import LanguageModel
    from kar_aug.errors import KarError
    from kar_aug.generate import generate, generate_batches

    file = os.open(order["output"], os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    waits._PAUSES = (0.02, 0.1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests behind it has it ignored
    if order["most_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["most_bytes"], order["most_bytes"]))
    try:
        with TextCache(order["where"]) as cache:
            model = LanguageModel(**order["model"])
            if order["batches"] is None:
                free: dict[str, Any] = {"costs_nothing": True, "on_note": _say} if order["costs_nothing"] else {}
                done = generate(prompts(order["count"]), cache, model, key=KEY, **free)
            else:
                done = generate_batches(prompts(order["count"]), cache, model, key=KEY, **order["batches"])
        os.write(1, f"{done}\n".encode())
        return 0
    except KeyboardInterrupt as stop:
        os.write(1, f"{stop}\n".encode())
        return 130
    except KarError as error:
        os.write(1, f"{error}\n".encode())
        return 2
    except BaseException:
        os.write(1, traceback.format_exc().encode())
        return 1


if __name__ == "__main__":
    (_listener,) = given()
    if asked(_listener):
        import_clients()
        serve(_listener, _child)
