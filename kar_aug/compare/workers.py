"""Doing tasks: in this process, or side by side in processes that live as long as this one.

Each process computes on one core, so that a result does not depend on how many there are. A process writes to the book
itself, when a unit is finished: whoever is killed, and whenever, the book holds whole units.

A process has one Keras, chosen before TensorFlow is imported. A task is given to one with the Keras of the settings;
where its model is written for the other, which only its own module knows, it comes back and goes to a process that has
that.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from kar_aug._helpers.processes import without_main
from kar_aug._helpers.tensorflow import prepare_tensorflow
from kar_aug.compare.book import Book
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.tasks import OnEvent, Task
from kar_aug.config import Config
from kar_aug.errors import KarError
from kar_aug.pipeline.workspace import Workspace

_LEGACY = "TF_USE_LEGACY_KERAS"


@dataclass(frozen=True)
class _Elsewhere:
    """A process's answer to a task whose model is written for the other Keras."""

    keras: str


def do(tasks: Sequence[Task], experiment: Experiment, book: Book, jobs: int, on_event: OnEvent) -> None:
    """Do all tasks, first come first served.

    Raises:
        KarError: A task met something that a user can mend, or a process was killed from outside (for its memory, say).
    """
    jobs = min(jobs, len(tasks))
    waiting = {experiment.config.keras: deque(tasks)} if jobs > 1 else _do_here(tasks, experiment, book, on_event)
    _do_side_by_side(waiting, experiment.workspace.config, book, jobs, on_event)


def _do_here(tasks: Sequence[Task], experiment: Experiment, book: Book, on_event: OnEvent) -> dict[str, deque[Task]]:
    """Do the tasks for the Keras of this process; the others are left, by theirs."""
    left: dict[str, deque[Task]] = {}
    if tasks:
        prepare_tensorflow(threads=1)
    for task in tasks:
        if (wanted := task.wanted_keras()) == _keras():
            task.work(experiment, book, on_event)
        else:
            left.setdefault(wanted, deque()).append(task)
    return left


def _do_side_by_side(waiting: dict[str, deque[Task]], config: Config, book: Book, jobs: int, on_event: OnEvent) -> None:
    """Do waiting tasks, by the Keras of the process that they wait for, in so many processes at a time."""
    workers: dict[Connection, _Worker] = {}
    try:
        while workers or any(waiting.values()):
            for keras, tasks in waiting.items():
                while tasks and len(workers) < jobs:
                    worker = _Worker(keras, config, book)
                    workers[worker.connection] = worker
                    worker.give(tasks.popleft())
            for ready in wait(list(workers)):
                worker = workers[cast("Connection[Any, Any]", ready)]
                message = worker.receive()
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, _Elsewhere):
                    waiting.setdefault(message.keras, deque()).append(worker.task)
                elif message is not None:
                    on_event(message)
                    continue
                if waiting[worker.keras]:
                    worker.give(waiting[worker.keras].popleft())
                else:
                    del workers[worker.connection]
                    worker.end()
    finally:
        for worker in workers.values():  # after an error or Ctrl-C: what is in the book stays there
            worker.kill()


class _Worker:
    """A process of ours, seen from here."""

    def __init__(self, keras: str, config: Config, book: Book) -> None:
        self.keras = keras
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self.connection, theirs = context.Pipe()
        self.process: Any = context.Process(target=_serve, args=(theirs, config, book, keras), daemon=True)
        with _environment(**{_LEGACY: "1" if keras == "2" else "0"}), without_main():
            self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        """Let it do a task."""
        self.task = task
        with suppress(ConnectionError):  # it has ended: `receive` says how
            self.connection.send(task)

    def receive(self) -> Any:
        """What it says: an event, an error, None for a task that is done; an error too if it has ended."""
        return _receive(self.connection, self.process)

    def end(self) -> None:
        """It ends when nobody is there to give it tasks."""
        self.connection.close()
        self.process.join()

    def kill(self) -> None:
        """It ends now."""
        self.process.kill()
        self.process.join()


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


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that a process started in the block has."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection, config: Config, book: Book, keras: str) -> None:
    """A process's life: a task, its events, None when it is done; and the next, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the first process decides
    prepare_tensorflow(threads=1)
    experiment = Experiment(Workspace(config))
    with suppress(EOFError, ConnectionError):  # the process that gives the tasks has ended: so does this one
        while True:
            task: Task = connection.recv()
            try:
                connection.send(_done(task, experiment, book, keras, connection.send))
            except KarError as error:
                connection.send(KarError(str(error)))


def _done(task: Task, experiment: Experiment, book: Book, keras: str, on_event: OnEvent) -> _Elsewhere | None:
    if _keras() != keras:
        raise KarError(
            f"This needs a process with Keras {keras}, and your script sets {_LEGACY} for all: take that out of it."
        )
    if (wanted := task.wanted_keras()) != keras:
        return _Elsewhere(wanted)
    task.work(experiment, book, on_event)
    return None


def _keras() -> str:
    """Which Keras this process runs."""
    from kar_aug._helpers.keras import IS_KERAS_3

    return "3" if IS_KERAS_3 else "2"
