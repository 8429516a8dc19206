"""Processes to fork others from: they have imported what these need; a start takes milliseconds, not ten seconds.

The first process of a run of tests starts them, asleep: `Nurseries`. All processes of the run share them: who asks one
first, with a `Nursery`, has it import. What is run as a module to be one of them calls `serve`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

# Variables that NumPy, TensorFlow and PyTorch read when they are imported.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
ONE_THREAD |= {f"TF_NUM_{name}_THREADS": "1" for name in ("INTRAOP", "INTEROP")}
_FOLDER = "NURSERIES"  # a variable: where their sockets are
# module -> the nurseries that it becomes.
_MODULES = {"support.jobs": ("jobs",), "support.commands": ("tensorflow", "all")}


class Nurseries:
    """They live until `end`, or until this process does."""

    def __init__(self, *, on_one_thread: bool) -> None:
        self._folder = Path(tempfile.mkdtemp())  # not below pytest's own: the path of a socket must be short
        os.environ[_FOLDER] = str(self._folder)
        self._processes = [self._started(*become, ONE_THREAD if on_one_thread else {}) for become in _MODULES.items()]

    def _started(self, module: str, names: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        listeners = [socket.socket(socket.AF_UNIX) for _ in names]
        for name, listener in zip(names, listeners, strict=True):
            listener.bind(str(self._folder / name))
            listener.listen()
        files = [listener.fileno() for listener in listeners]
        try:
            return subprocess.Popen(
                [sys.executable, "-m", module, *map(str, files)],
                stdin=subprocess.PIPE,
                pass_fds=files,
                cwd=Path(__file__).parents[1],
                env=os.environ | environment,
            )
        finally:
            for listener in listeners:
                listener.close()

    def end(self) -> None:
        """Let them end, and wait until they are gone; those that a process forked from them holds up are killed."""
        for process in self._processes:
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self._folder)


class Nursery:
    """One of them, as this process sees it."""

    def __init__(self, name: str) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(Path(os.environ[_FOLDER], name)))
        self._file = self._connection.makefile("rw")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._connection.close()

    def order(self, **order: Any) -> str:
        """Tell it what to do; its answer."""
        self._file.write(json.dumps(order) + "\n")
        self._file.flush()
        return self._file.readline()


def given() -> list[socket.socket]:
    """Where the nurseries that this process is to be are asked."""
    listeners = [socket.socket(fileno=int(file)) for file in sys.argv[1:]]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners


def asked(*places: socket.socket) -> list[socket.socket]:
    """Those of some places where somebody asks; sleeps until then. None of them when the run of tests is over."""
    ready, _, _ = select.select([0, *places], [], [])
    return [] if 0 in ready else ready


def serve(
    listener: socket.socket,
    child: Callable[[dict[str, Any]], int],
    further: Mapping[socket.socket, Callable[[], None]] = MappingProxyType({}),
) -> None:
    """Give whoever asks a process forked from this one, which takes orders: start a process that does `child(order)`,
    or wait for one.

    Args:
        further: where further nurseries are asked, and what a process forked from this one does to be one.
    """
    left = dict(further)
    while ready := asked(listener, *left):
        for place in ready:
            if place is listener:
                connection, _ = listener.accept()
                _fork(partial(_take_orders, connection, child))
                connection.close()
            else:
                _fork(left.pop(place))
                place.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _fork(life: Callable[[], None]) -> None:
    if not os.fork():
        life()
        os._exit(0)


def _take_orders(connection: socket.socket, child: Callable[[dict[str, Any]], int]) -> None:
    orders = connection.makefile()
    while asked(connection) and (line := orders.readline()):
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            reply = os.waitstatus_to_exitcode(status)
        else:
            reply = os.fork()
            if not reply:
                os._exit(child(order))
        connection.sendall(f"{reply}\n".encode())
