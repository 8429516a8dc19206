"""Times, however they were written, as seconds since 1970 or as datetimes in UTC without a zone.

| written as                                  | kept as                                                               |
|---------------------------------------------|-----------------------------------------------------------------------|
| seconds since 1970, whole or not            | the same numbers                                                      |
| milli-, micro- or nanoseconds since 1970    | datetimes; told apart by their size, which is said                    |
| 202401, 20240131, 2024013118, 202401311800, | datetimes, where every value of the column is such a date; this too   |
| 20240131180000                              |                                                                       |
| 240131                                      | datetimes, where every value is such a date, of more than 31 days     |
| datetimes of any unit                       | the same                                                              |
| datetimes with a zone                       | the same moments in UTC, so that equal moments are equal              |
| text: ISO 8601, with a zone, Z, UTC or none | datetimes in UTC                                                      |
| 31.12.2024 18:00, 12/31/2024 6:00 PM        | datetimes, in one form a column; which is the month, its rows tell    |
| text of any of the numbers                  | as these numbers                                                      |
"""

from __future__ import annotations

import logging
import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.data.place import Place, first, spread
from kar_aug.data.room import MEMORY, Room
from kar_aug.data.types import numbers_of_text
from kar_aug.errors import DataError

_log = logging.getLogger("kar_aug")
# Seconds: the year 2261, after which no nanosecond timestamp exists. What is larger is counted in a smaller unit.
_LATEST = 9_200_000_000
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_LARGEST = {unit: _LATEST * 1000**power for power, unit in enumerate(_UNITS)}
# Dates written as numbers. Of ten digits, which are seconds, too, those from 2000 on: as seconds they lie after 2033.
_DATES = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_YEARS = (1900, 2100)
_OLD_YEARS = (1000, 1900)
_YEARS_OF_HOURS = (2000, 2100)
# What small numbers may count, and are not read as: days of spreadsheets, and of Arrow; hours and minutes since 1970.
_COUNTS = {
    "a spreadsheet's days": (-25_569, 86_400),
    "days since 1970": (0, 86_400),
    "hours since 1970": (0, 3_600),
    "minutes since 1970": (0, 60),
}
_OF_A_LOG = tuple(pd.Timestamp(year, 1, 1).timestamp() for year in (1990, 2050))
_SHORT_DATES = (10_101, 991_231)  # 240131: as a date of two digits a year
_MOST = 0.6  # of a column that are dates: then those that are none are mistakes
_IN_USE = 1_000_000_000  # seconds, in 2001: beside such times 0, 1 or -1 stands for none
_UTC = re.compile(r"\s*(UTC|GMT|Z)\s*$", re.IGNORECASE)
# Days and months before years; both words of the clock.
_YEAR_LAST = re.compile(
    r"\s*(\d{1,2})([./-])(\d{1,2})\2(?:19|20)\d\d(?:(,? |T)\d{1,2}:\d\d(:\d\d)?(\.\d+)?( ?)([ap]m)?)?\s*", re.I
)
_YEAR_FIRST = re.compile(r"\s*(19|20)\d\d-\d\d-\d\d")
_REMEDY = "Write ISO 8601, 2024-01-31 18:00:00, or seconds."


def times(column: pd.Series, place: Place, room: Room = MEMORY) -> pd.Series:
    """A column of plain type (see `kar_aug.data.types.plain`) as times; what is missing stays so.

    Args:
        room: where they are put.

    Raises:
        DataError: A value is no time, or values are in different units.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    there = column.dropna()
    if pd.api.types.is_bool_dtype(column):
        raise _no_time(column, there.notna(), place)
    if pd.api.types.is_numeric_dtype(column):
        return _of_numbers(column, place, room)
    kind = pd.api.types.infer_dtype(there)
    if kind == "string":
        return _of_text(column, there, place, room)
    if kind in ("date", "datetime"):
        return pd.to_datetime(column, utc=True).dt.tz_localize(None)
    if kind in ("decimal", "integer", "floating", "mixed-integer-float"):
        return _of_numbers(pd.to_numeric(column), place, room)
    if kind == "empty":
        return column
    raise _no_time(column, ~there.map(lambda value: isinstance(value, (int, float))), place)


def is_written(texts: pd.Series) -> bool:
    """Whether all of these texts look like times, in a form that `times` reads."""
    return bool(texts.map(lambda text: bool(_YEAR_FIRST.match(text) or _YEAR_LAST.fullmatch(text))).all())


def say_what_else(column: pd.Series, place: Place) -> None:
    """Of times, as `times` gives them and none missing, that are seconds of 1970: what they may be, too, if that
    is when logs are written.
    """
    if not pd.api.types.is_numeric_dtype(column):
        return
    low, high, one = float(column.min()), float(column.max()), float(column.iloc[0])
    early, late = _OF_A_LOG
    for what, (first_one, size) in _COUNTS.items():
        if early <= (low + first_one) * size and (high + first_one) * size < late:
            other = pd.Timestamp((one + first_one) * size, unit="s").round("s")
            _log.warning(
                "%s holds %s to %s, which are read as seconds since 1970: %s is %s. If they are %s, that is %s. %s",
                place, f"{low:.10g}", f"{high:.10g}", f"{one:.10g}",
                pd.Timestamp(one, unit="s").round("s"), what, other, _REMEDY,
            )  # fmt: skip
            return
    if _OLD_YEARS[0] <= low and high < _OLD_YEARS[1]:
        _log.warning("%s holds %d to %d: years? They are read as seconds since 1970. %s", place, low, high, _REMEDY)


def seconds(timestamp: pd.Series) -> npt.NDArray[np.float64]:
    """Times, of either kind that is kept, in seconds since 1970; NaN where they are missing."""
    if not pd.api.types.is_datetime64_any_dtype(timestamp):
        return timestamp.to_numpy(np.float64, na_value=np.nan)
    utc = timestamp.dt.tz_convert("UTC").dt.tz_localize(None) if timestamp.dt.tz is not None else timestamp
    since = (utc.astype("datetime64[us]") - pd.Timestamp(0)) / pd.Timedelta(seconds=1)
    return np.asarray(since, np.float64)


def _of_numbers(column: pd.Series, place: Place, room: Room) -> pd.Series:
    there = column if column.notna().all() else column.dropna()
    if pd.api.types.is_float_dtype(there) and not np.isfinite(there.to_numpy(float)).all():
        raise place.error("holds infinity.")
    sizes = there if there.min() >= 0 else there.abs()
    if len(there) and _YEARS[0] <= there.min() and there.max() < _YEARS[1]:
        raise place.error(f"holds years, or seconds? {first(column, there.notna())} {_REMEDY}")
    if not len(there):
        return column
    dates = _as_short_dates(there, room)
    if dates is not None:
        _log.warning("%s holds dates written as numbers: %d is %s.", place, there.iloc[0], dates.iloc[0])
        return spread(dates, column)
    digits = len(str(int(sizes.max())))
    if digits in _DATES:
        dates = _as_dates(there, digits, place, room)
        if dates is not None:
            _log.warning("%s holds dates written as numbers: %d is %s.", place, there.iloc[0], dates.iloc[0])
            return spread(dates, column)
    return _in_unit(column, sizes, place, room)


def _as_dates(numbers: pd.Series, digits: int, place: Place, room: Room) -> pd.Series | None:
    """The numbers as dates of so many digits; None where most are none, or some and the others may be seconds.

    Raises:
        DataError: Most are dates, and some are not.
    """
    years = _YEARS_OF_HOURS if digits == 10 else _YEARS
    least, most = (year * 10 ** (digits - 4) for year in years)
    if numbers.max() < least:
        return None  # seconds, as most logs have them

    def may_be(part: pd.Series) -> pd.Series:
        return (part >= least) & (part < most) & (part % 1 == 0)

    if sum(int(may_be(numbers.iloc[block]).sum()) for block in room.blocks(len(numbers))) < _MOST * len(numbers):
        return None

    def read(part: pd.Series) -> pd.Series:
        texts = part.where(may_be(part), 0).astype("int64").astype(str)
        return pd.to_datetime(texts, format=_DATES[digits], errors="coerce")

    dates = room.made(numbers, read)
    wrong = dates.isna()
    if not wrong.any():
        return dates
    if wrong.mean() >= 1 - _MOST:
        return None
    raise place.error(
        f"holds dates written as numbers, such as {numbers[~wrong].iloc[0]:.0f}, but not in each row. "
        f"{first(numbers, wrong)} {_REMEDY}"
    )


def _as_short_dates(numbers: pd.Series, room: Room) -> pd.Series | None:
    """The numbers as dates of two digits a year; None where they may be seconds: one is no such date, or all are of
    fewer days than a month has, as a few seconds may happen to be.
    """
    least, most = _SHORT_DATES
    if not (numbers.min() >= least and numbers.max() <= most):
        return None
    days: set[float] = set()
    for block in room.blocks(len(numbers)):
        days |= set(numbers.iloc[block].unique().tolist())
    if len(days) <= 31 or not all(day % 1 == 0 for day in days):
        return None
    texts = pd.Series([f"{int(day):06d}" for day in days])
    if pd.to_datetime(texts, format="%y%m%d", errors="coerce").isna().any():
        return None

    def read(part: pd.Series) -> pd.Series:
        return pd.to_datetime(part.astype("int64").astype(str).str.zfill(6), format="%y%m%d")

    return room.made(numbers, read)


def _in_unit(column: pd.Series, sizes: pd.Series, place: Place, room: Room) -> pd.Series:
    unit = next((unit for unit, largest in _LARGEST.items() if sizes.max() <= largest), None)
    if unit is None:
        raise place.error(f"holds {sizes.max()}, which is no time even in nanoseconds. {_REMEDY}")
    if unit == "s":
        if sizes.max() >= _IN_USE and sizes.min() <= 1:
            raise place.error(
                f"holds seconds since 1970 up to {sizes.max()}, and in some rows none. {first(column, sizes <= 1)} "
                "Leave such rows out, or say when they were."
            )
        return column
    smaller = list(_UNITS)[list(_UNITS).index(unit) - 1]
    if sizes.min() <= _LARGEST[smaller]:
        raise place.error(
            f"holds {sizes.max()}, {_UNITS[unit]} since 1970 by its size, but not in each row. "
            f"{first(column, sizes == sizes.min())} Bring all into one unit."
        )
    there = column if column.notna().all() else column.dropna()
    whole = all((there.iloc[block] % 1 == 0).all() for block in room.blocks(len(there)))

    def moments(part: pd.Series) -> pd.Series:
        return pd.to_datetime(part.astype("int64") if whole else part, unit=unit)  # type: ignore[call-overload]

    read = room.made(there, moments)
    _log.warning("%s holds %s since 1970, by their size: %s is %s.", place, _UNITS[unit], there.iloc[0], read.iloc[0])
    return spread(read, column)


def _of_text(column: pd.Series, there: pd.Series, place: Place, room: Room) -> pd.Series:
    if all(numbers_of_text(there.iloc[block]).notna().all() for block in room.blocks(len(there))):
        return spread(_of_numbers(room.made(there, numbers_of_text), place, room), column)
    form = _year_last(there, place, room)
    moments = _dates if form is None else lambda part: pd.to_datetime(part.str.strip(), format=form, errors="coerce")
    read = room.made(there, moments)
    wrong = read.isna()
    if wrong.any():  # of what is neither, or of the numbers among dates
        neither = room.made(there, lambda part: moments(part).isna() & numbers_of_text(part).isna())
        raise _no_time(column, neither if neither.any() else wrong, place)
    if form is not None:
        _log.warning("%s holds times of the form %s: %s is %s.", place, form, there.iloc[0], read.iloc[0])
    return spread(read, column)


def _dates(texts: pd.Series) -> pd.Series:
    """Texts as datetimes in UTC; missing where one is none."""
    try:
        read = pd.to_datetime(texts, format="ISO8601", utc=True)
    except ValueError:
        texts = texts.str.replace(_UTC, "+00:00", regex=True)
        read = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    return read.dt.tz_localize(None)


def _year_last(there: pd.Series, place: Place, room: Room) -> str | None:
    """The form of dates with the year last, by the first of them; None if it is no such date.

    Raises:
        DataError: No row tells whether the day or the month is first. With dots the day is.
    """
    found = _YEAR_LAST.fullmatch(there.iloc[0])
    if found is None:
        return None
    _, mark, _, gap, clock_seconds, fraction, space, half = found.groups()
    if mark == ".":
        order = "%d.%m.%Y"
    else:
        largest = np.zeros(2)
        for block in room.blocks(len(there)):
            numbers = there.iloc[block].str.extract(r"^\s*(\d{1,2})[/-](\d{1,2})[/-]").to_numpy(float, na_value=np.nan)
            largest = np.fmax(largest, np.nanmax(numbers, axis=0, initial=0))
        if largest.max() <= 12:
            raise place.error(f"holds dates that begin with a day, or with a month? {there.iloc[0]!r}. {_REMEDY}")
        order = mark.join(("%d", "%m", "%Y") if largest[0] > 12 else ("%m", "%d", "%Y"))
    if gap is None:
        return order
    clock = f"{'%I' if half else '%H'}:%M{':%S' if clock_seconds else ''}{'.%f' if fraction else ''}"
    return f"{order}{gap}{clock}{f'{space}%p' if half else ''}"


def _no_time(column: pd.Series, wrong: pd.Series, place: Place) -> DataError:
    return DataError(f"{place} must hold seconds since 1970, or datetimes. {first(column, wrong)} {_REMEDY}")
