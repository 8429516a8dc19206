"""Doing tasks: in this process, or side by side in processes that live as long as this one.

Each process computes on one core, so that a result does not depend on how many there are. A process writes to the book
itself, when a unit is finished: whoever is killed, and whenever, the book holds whole units.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from kar_aug._processes import without_main
from kar_aug._tensorflow import prepare_tensorflow
from kar_aug.compare.book import Book
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.tasks import OnEvent, Task
from kar_aug.config import Config
from kar_aug.errors import KarError
from kar_aug.pipeline.workspace import Workspace


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def do(tasks: Sequence[Task], experiment: Experiment, book: Book, jobs: int, on_event: OnEvent) -> None:
    """Do all tasks, first come first served.

    Raises:
        KarError: A task met something that a user can mend, or a process was killed from outside (for its memory, say).
    """
    jobs = min(jobs, len(tasks))
    if jobs > 1:
        _do_side_by_side(tasks, experiment.workspace.config, book, jobs, on_event)
        return
    if tasks:
        prepare_tensorflow(threads=1)
    for task in tasks:
        task.work(experiment, book, on_event)


def _do_side_by_side(tasks: Sequence[Task], config: Config, book: Book, jobs: int, on_event: OnEvent) -> None:
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    waiting = deque(tasks)
    workers: dict[Connection, Any] = {}
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, config, book), daemon=True)
            with without_main():
                process.start()
            theirs.close()
            workers[ours] = process
            ours.send(waiting.popleft())
        while workers:
            for ready in wait(list(workers)):
                connection = cast("Connection[Any, Any]", ready)
                message = _receive(connection, workers[connection])
                if isinstance(message, BaseException):
                    raise message
                if message is not None:
                    on_event(message)
                elif waiting:
                    connection.send(waiting.popleft())
                else:
                    connection.close()
                    workers.pop(connection).join()
    finally:
        for process in workers.values():  # after an error or Ctrl-C: what is in the book stays there
            process.kill()
            process.join()


def _receive(connection: Connection, process: Any) -> Any:
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        return KarError(
            f"A training process ended with {_ending(process.exitcode)}. Finished runs are kept: run the same command "
            "to go on, with fewer --jobs if memory was short."
        )


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, config: Config, book: Book) -> None:
    """A process's life: a task, its events, None when it is done; and the next, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the first process decides
    prepare_tensorflow(threads=1)
    experiment = Experiment(Workspace(config))
    with suppress(EOFError, ConnectionError):  # the process that gives the tasks has ended: so does this one
        while True:
            task: Task = connection.recv()
            try:
                task.work(experiment, book, connection.send)
                connection.send(None)
            except KarError as error:
                connection.send(KarError(str(error)))
