"""How many cores this process may use, and starting processes of our own from a caller's script."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_LOAD = Path("/proc/loadavg")
_LOOKS, _LOOK_SECONDS = 10, 0.05
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of all cores together, and in how many; of a container


def cores() -> int:
    """Cores that this process may use: those it may run on, or as many as a container's share of the time is worth."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # elsewhere than in a container, or "max"
        share, period = map(int, _QUOTA.read_text(encoding="ascii").split())
        return max(1, min(allowed, share // period))
    return allowed


def free_cores() -> int:
    """Those of `cores` that nobody else works on just now, at least one. Threads that wait for each other are slower on
    a busy core than one alone: two on two busy cores wrote 4 tokens a second, one 25.
    """
    others = [runnable - 1 for _ in range(_LOOKS) if (runnable := _runnable()) is not None]
    if not others:
        return cores()
    idle = (os.cpu_count() or 1) - sum(others) / len(others)
    return max(1, min(cores(), round(idle)))


def _runnable() -> int | None:
    """Threads of this machine that run or could, this one included; None where the system does not tell."""
    time.sleep(_LOOK_SECONDS)
    try:
        return int(_LOAD.read_text(encoding="ascii").split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def without_main() -> Iterator[None]:
    """A process that multiprocessing spawns meanwhile does not import the caller's script, which would run again in it:
    `project.compare()` may stand in a script that has no `if __name__ == "__main__"`.
    """
    main: Any = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)
