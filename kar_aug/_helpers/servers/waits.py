"""How long to wait for a server before it is asked again, and how often to say so."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Mapping

SAY_SECONDS = 30.0  # between two lines that say what is waited for
_PAUSES = (0.5, 60.0)  # first and longest pause, in seconds, where the server names none


def pause(attempt: int) -> float:
    """Seconds to wait after the `attempt`-th failure in a row: exponential, with jitter."""
    first, longest = _PAUSES
    return random.uniform(0.5, 1.0) * min(longest, first * 2.0**attempt)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `Retry-After`, which is a number or a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return None if math.isnan(seconds) else max(0.0, seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError, OSError):  # of a day with 20 digits, say
        return None
