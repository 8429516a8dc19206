"""How many cores this process may use, and starting processes of our own from a caller's script."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of all cores together, and in how many; of a container


def cores() -> int:
    """Cores that this process may use: those it may run on, or as many as a container's share of the time is worth."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # elsewhere than in a container, or "max"
        share, period = map(int, _QUOTA.read_text(encoding="ascii").split())
        return max(1, min(allowed, share // period))
    return allowed


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
