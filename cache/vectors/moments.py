"""Times as a store of versions keeps and compares them: whole microseconds since 1970, in UTC.

A version may only be given to what is strictly later than the last event that its text knew. So what stands between
two microseconds is taken for the later of them where it says until when a text knows, and for the earlier where it says
when something is asked for: rounding never lets anybody look ahead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

Moments = npt.NDArray[np.int64]
BEFORE_ALL = np.iinfo(np.int64).min  # of what has no time: nothing is known before it
SINCE_1995 = 788_918_400  # seconds
LATEST_SECONDS = 9_200_000_000  # the year 2261: larger numbers are no seconds
_FINER = re.compile(r"[.,]\d{6}\d*[1-9]")  # than a microsecond
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def as_of_moment(text: str) -> int:
    """Until when a text knows, from ISO 8601: of a day alone, until its end; without a zone, in UTC.

    Raises:
        ValueError: It is no time.
    """
    moment = _since(text)
    if not set(text) & {"T", " "}:
        return moment + timedelta(days=1) // _MICROSECOND - 1
    return moment + bool(_FINER.search(text))


def as_of_moments(texts: Sequence[str]) -> Moments:
    """The same of each."""
    return np.array([as_of_moment(text) for text in texts], np.int64)


def moments(times: Any) -> Moments:
    """When something is asked for, from NumPy's or Python's datetimes, a column of a data frame, texts in ISO 8601, or
    seconds since 1970. What has no time (NaN, NaT, None) is before everything.

    Raises:
        ValueError: Seconds are in single precision, which is a minute too coarse, or are no seconds by their size.
    """
    if hasattr(times, "dt"):  # a column of pandas, with a zone perhaps
        times = (times if times.dt.tz is None else times.dt.tz_convert("UTC").dt.tz_localize(None)).to_numpy()
    array = np.asarray(times)
    if array.dtype.kind == "M":
        whole = array.astype("datetime64[us]")
        return np.where(np.isnat(whole), BEFORE_ALL, whole.astype(np.int64))
    if array.dtype.kind in "OUS":
        given = [_moment_of(time) for time in array.ravel().tolist()]
        return np.asarray(given, np.int64).reshape(array.shape)
    return _of_seconds(array)


def datetimes(moments: Moments) -> list[datetime]:
    """The opposite."""
    return [_EPOCH + timedelta(microseconds=moment) for moment in moments.tolist()]


def _of_seconds(array: npt.NDArray[Any]) -> Moments:
    if array.dtype.kind not in "iuf" or array.dtype.itemsize < 4:
        raise ValueError(f"`times` must be datetimes, ISO 8601, or seconds since 1970. Received: {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        raise ValueError(f"`times` in {array.dtype} are a minute off, which may look ahead. Give float64 or int64.")
    if array.size and not np.nanmax(np.abs(array.astype(np.float64)), initial=0) <= LATEST_SECONDS:
        first = array[np.abs(array) > LATEST_SECONDS].flat[0]
        raise ValueError(
            f"`times` must be seconds since 1970. Received: {first}, which are milliseconds or less by their size."
        )
    if array.dtype.kind in "iu":
        return array.astype(np.int64) * 1_000_000
    none = np.isnan(array)
    return np.where(none, BEFORE_ALL, np.floor(np.where(none, 0, array) * 1e6).astype(np.int64))


def _moment_of(time: Any) -> int:
    if time is None or time != time:  # NaN and NaT equal nothing
        return int(BEFORE_ALL)
    if isinstance(time, (str, bytes)):
        return _since(time if isinstance(time, str) else time.decode())
    if isinstance(time, datetime):
        return _of(time)
    raise ValueError(f"`times` must be datetimes, ISO 8601, or seconds since 1970. Received: {time!r}")


def _since(text: str) -> int:
    try:
        return _of(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        raise ValueError(f"A time as text must be ISO 8601, '2026-01-31T18:00:00'. Received: {text!r}") from None


def _of(time: datetime) -> int:
    return int(((time if time.tzinfo is not None else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND)
