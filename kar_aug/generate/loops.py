"""asyncio.run, also where an event loop runs already: in Jupyter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], stop: Callable[[], None]) -> T:
    """The result of `work`. Where this thread runs a loop, another thread does it, while this one waits.

    Args:
        stop: what Ctrl-C does then, called in the loop of the work: signals reach the waiting thread only.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    its_loop: Future[asyncio.AbstractEventLoop] = Future()

    async def announced() -> T:
        its_loop.set_result(asyncio.get_running_loop())
        return await work

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, announced())
        try:
            return done.result()
        except KeyboardInterrupt:
            its_loop.result().call_soon_threadsafe(stop)
            return done.result()
