"""The command line in processes of its own, forked from one that has imported what commands need: a start takes
milliseconds, not ten seconds. Run as a module, this file is that process."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from support.jobs import KEY, Nursery, import_clients, serve


def kar_aug(folder: Path, *arguments: str, key: str | None = KEY, one_core: bool = False) -> CompletedProcess[str]:
    """`kar-aug ARGUMENTS` in a folder, to its end.

    Args:
        one_core: as if there were one. What it computes on several it would share with the tests beside it.
    """
    environment = {**os.environ, "OPENAI_API_KEY": key or ""}
    if key is None:
        del environment["OPENAI_API_KEY"]
    with tempfile.TemporaryDirectory() as written:
        files = [Path(written, name) for name in ("output", "errors")]
        order = {
            "arguments": arguments, "folder": str(folder), "environment": environment, "files": [*map(str, files)],
            "one_core": one_core,
        }  # fmt: skip
        pid = int(_nursery().order(**order))
        code = int(_nursery().order(wait=pid))
        output, errors = (file.read_text() for file in files)
    return CompletedProcess(["kar-aug", *arguments], code, output, errors)


def refused(done: CompletedProcess[str]) -> str:
    """The one line of a refusal; nothing else may have been printed."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("kar-aug: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr and KEY not in done.stderr
    return lines[0]


@cache
def _nursery() -> Nursery:
    """Ends when this process does, with its standard input."""
    return Nursery("support.commands", COLUMNS="200")


def use_one_core() -> None:
    """Let this process, and those that it starts, run on one core only."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _import_all() -> None:
    from kar_aug._tensorflow import prepare_tensorflow

    import_clients()
    prepare_tensorflow()
    import sentence_transformers  # noqa: F401

    import kar_aug.backbones
    import kar_aug.cli
    import kar_aug.compare
    import kar_aug.models
    import kar_aug.report  # noqa: F401


def _child(order: dict[str, Any]) -> int:
    for number, name in enumerate(order["files"], start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    if order["one_core"]:
        use_one_core()
    sys.argv = ["kar-aug", *order["arguments"]]
    sys.path[0] = order["folder"]  # as `python -m kar_aug` has it
    try:
        runpy.run_module("kar_aug", run_name="__main__", alter_sys=True)
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


if __name__ == "__main__":
    _import_all()
    serve(_child)
