"""As-of times as text, compared as the moments that they stand for: "01:30-04:00" is before "01:10-05:00"; and a
table's times as dates.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def latest(times: Iterable[str | None]) -> str | None:
    """The latest of some times in ISO 8601, as it is written; None if there is none.

    A time without a zone is in UTC. What is no time counts as later than all others: of it nobody knows.
    """
    return max((time for time in times if time is not None), key=_moment, default=None)


def dates(timestamp: pd.Series) -> pd.Series:
    """Times as a table keeps them, dates or seconds since 1970, as dates."""
    import pandas as pd  # a vector store does without

    return timestamp if pd.api.types.is_datetime64_any_dtype(timestamp) else pd.to_datetime(timestamp, unit="s")


def _moment(time: str) -> tuple[bool, datetime]:
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return True, datetime.min.replace(tzinfo=UTC)
    return False, moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
