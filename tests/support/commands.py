"""The command line, and scripts, in processes of their own. Run as a module, this file is the nursery that has imported
TensorFlow alone, which takes longest, and from which that is forked which has imported all."""

from __future__ import annotations

import os
import runpy
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

from support.jobs import KEY, import_clients
from support.nurseries import Nursery, asked, given, serve

# A variable: trainings of a process that has it run without a graph (`support.training.step_by_step`).
STEP_BY_STEP = "STEP_BY_STEP"


def kar_aug(folder: Path, *arguments: str, key: str | None = KEY, one_core: bool = False) -> CompletedProcess[str]:
    """`kar-aug ARGUMENTS` in a folder, to its end.

    Args:
        one_core: as if there were one. What it computes on several it would share with the tests beside it.
    """
    return _done(folder, ["-m", "kar_aug", *arguments], {"OPENAI_API_KEY": key}, one_core=one_core)


def script(folder: Path, path: Path, *arguments: str) -> CompletedProcess[str]:
    """`python PATH ARGUMENTS` in a folder, to its end."""
    return _done(folder, [str(path), *arguments], {})


def fresh(folder: Path, *arguments: str, **changes: str) -> CompletedProcess[str]:
    """`python ARGUMENTS` in a folder, to its end, with some variables changed: new but for TensorFlow, which is there,
    of the Keras that this process has.
    """
    return _done(folder, list(arguments), changes, imported="tensorflow")


def without(*packages: str) -> str:
    """Code for a process's first lines: these packages are not there."""
    return f"""
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Guard())
for name in [name for name in sys.modules if name.split(".")[0] in {packages}]:
    del sys.modules[name]
"""


def _done(
    folder: Path, arguments: list[str], changes: Mapping[str, str | None], *, imported: str = "all",
    one_core: bool = False,
) -> CompletedProcess[str]:  # fmt: skip
    """`python ARGUMENTS` with some variables changed, or taken away."""
    environment = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    with tempfile.TemporaryDirectory() as written:
        files = [Path(written, name) for name in ("output", "errors")]
        order = {
            "arguments": arguments, "folder": str(folder), "environment": environment, "files": [*map(str, files)],
            "one_core": one_core,
        }  # fmt: skip
        pid = int(_nursery(imported).order(**order))
        code = int(_nursery(imported).order(wait=pid))
        output, errors = (file.read_text() for file in files)
    return CompletedProcess(["python", *arguments], code, output, errors)


def refused(done: CompletedProcess[str]) -> str:
    """The one line of a refusal; nothing else may have been printed."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("kar-aug: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr and KEY not in done.stderr
    return lines[0]


_nursery = cache(Nursery)


def use_one_core() -> None:
    """Let this process, and those that it starts, run on one core only."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _import_all() -> None:
    import_clients()
    import sentence_transformers  # noqa: F401

    import kar_aug.backbones
    import kar_aug.cli
    import kar_aug.compare
    import kar_aug.models
    import kar_aug.pipeline.project
    import kar_aug.report  # noqa: F401


def _child(order: dict[str, Any]) -> int:
    for number, name in enumerate(order["files"], start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.chdir(order["folder"])
    if order["one_core"]:
        use_one_core()
    if STEP_BY_STEP in os.environ:
        import tensorflow

        tensorflow.config.run_functions_eagerly(True)
        warnings.filterwarnings("ignore", "Even though the .tf.config.experimental_run_functions_eagerly")
    try:
        _run(*order["arguments"])
    except SystemExit as end:
        code = end.code
        return code if isinstance(code, int) else int(code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _run(first: str, *further: str) -> None:
    """As Python does, with its arguments: `-m MODULE ...`, `-c CODE ...` or `SCRIPT ...`."""
    if first == "-m":
        sys.argv = list(further)
        sys.path[0] = os.getcwd()
        runpy.run_module(further[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *further[1:]]
        sys.path[0] = os.getcwd()
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(further[0], "<string>", "exec"), vars(main))
    else:
        sys.argv = [first, *further]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


def _with_all(listener: socket.socket) -> None:
    _import_all()
    serve(listener, _child)


if __name__ == "__main__":
    os.environ["COLUMNS"] = "200"
    _with_tensorflow, _all = given()
    if asked(_with_tensorflow, _all):
        import tensorflow  # noqa: F401

        serve(_with_tensorflow, _child, {_all: partial(_with_all, _all)})
