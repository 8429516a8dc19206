"""What holds requests back: the server's rate limits, which all slots of a job share, and the user's limits."""

from __future__ import annotations

import asyncio
import random
import time

from kar_aug._helpers.servers.waits import pause
from kar_aug.cache import Shortage
from kar_aug.errors import LimitReached

_MOST_SPARE = 8


def requests_reached(most: int, sent: int) -> LimitReached:
    """The error that ends a job which may send no more requests."""
    return LimitReached(
        f"Stopped at --max-requests {most:,}: run the same command to go on.",
        setting="max_requests",
        limit=most,
        spent=sent,
    )


def cost_reached(most: float, short: Shortage, limit: str = "--max-cost") -> LimitReached:
    """The error that ends a job whose next request could cost more than is left of a `limit`, by the name that its user
    gives it.
    """
    reserved = f" and ${short.reserved:.4f} reserved (see kar-aug cost)" if short.reserved else ""
    return LimitReached(
        f"Stopped at {limit} {most:g}: ${short.spent:.4f} are spent{reserved}, and the next request "
        f"can cost up to ${short.most:.4f}. Raise it to go on; what is answered stays.",
        setting="max_cost",
        limit=most,
        spent=short.spent + short.reserved,
    )


def slots_for(concurrency: int) -> int:
    """How many slots a job needs so that `concurrency` requests are at the server all the time, the gate letting no
    more through: a few besides wait for the commits of their answers. A commit takes some milliseconds, in which a
    request or two of every sixteen end.
    """
    return concurrency + max(1, min(concurrency // 8, _MOST_SPARE))


class Gate:
    """Lets requests through as fast as the server takes them.

    Requests and tokens a minute are evenly spaced: each request moves the time of the next. One cool-down holds all
    slots when the server asks to slow down; the number in flight is halved then, and rises by one for every round of
    successes (additive increase, multiplicative decrease). Until the first success two requests at most are in flight,
    so that an error which no retry heals costs a handful of requests and not thousands.

    Args:
        concurrency: most requests in flight.
        rpm, tpm: requests and tokens a minute; None for as many as the server takes.
    """

    def __init__(self, concurrency: int, rpm: float | None = None, tpm: float | None = None) -> None:
        self._most = concurrency
        self._limit = float(min(2, concurrency))
        self._proven = False
        self._in_flight = 0
        self._changed = asyncio.Condition()
        self._request_seconds = 60.0 / rpm if rpm else 0.0
        self._token_seconds = 60.0 / tpm if tpm else 0.0
        self._next_request = self._next_token = self._cool_until = 0.0
        self._strikes = 0
        self._failing_since: float | None = None

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight just now."""
        return int(self._limit)

    async def enter(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be sent, and take its place."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_flight < int(self._limit))
            self._in_flight += 1
        try:
            await self._cool_down()
            await self._take_turn(tokens)
            while time.monotonic() < self._cool_until:  # it began while we waited for our turn, which is lost
                self._give_back(tokens, requests=1)
                await self._cool_down()
                await self._take_turn(tokens)
        except BaseException:
            self._in_flight -= 1
            raise

    async def _cool_down(self) -> None:
        """Wait until the server may be asked again."""
        while (wait := self._cool_until - time.monotonic()) > 0:
            await asyncio.sleep(wait * random.uniform(1.0, 1.1))  # not all slots at the same moment

    async def _take_turn(self, tokens: int) -> None:
        """Wait for the next free moment by the limits of requests and tokens a minute, and take it."""
        now = time.monotonic()
        at = max(now, self._next_request, self._next_token)
        self._next_request = max(now, self._next_request) + self._request_seconds
        self._next_token = max(now, self._next_token) + tokens * self._token_seconds
        if at > now:
            await asyncio.sleep(at - now)

    def _give_back(self, tokens: int, requests: int = 0) -> None:
        self._next_request -= requests * self._request_seconds
        self._next_token -= tokens * self._token_seconds

    async def leave(self, tokens: int, used: int | None) -> None:
        """The request is over. Tokens that it was let in with and did not use are given back."""
        if used is not None:
            self._give_back(max(0, tokens - used))
        self._in_flight -= 1
        async with self._changed:
            self._changed.notify()

    async def succeeded(self) -> None:
        """The server answered: a little more may be in flight."""
        self._failing_since = None
        self._strikes = 0
        before = int(self._limit)
        self._limit = min(self._most, self._limit + 1 / self._limit) if self._proven else float(self._most)
        self._proven = True
        if int(self._limit) > before:
            async with self._changed:
                self._changed.notify(int(self._limit) - before)

    def failing_seconds(self) -> float:
        """Since the first of the failures that no success came between; call at every failure."""
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        return now - self._failing_since

    def silent_seconds(self) -> float:
        """Likewise; 0 where the last request succeeded."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def hold(self, seconds: float | None) -> None:
        """The server asked to slow down, for so many seconds if it said so: all slots wait, and fewer go on."""
        now = time.monotonic()
        first = now >= self._cool_until  # of those that were in flight together; the others say the same
        if first:
            self._strikes += 1
            self._limit = max(1.0, self._limit / 2)
        if first or seconds:
            self._cool_until = max(self._cool_until, now + (seconds or pause(self._strikes)))
