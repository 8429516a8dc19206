"""Times however they were written: equal moments are equal, and what is no time is named."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples
from support.small_tables import EVENTS, ITEMS, prompts

from kar_aug._helpers.times import latest
from kar_aug.cache import Knowledge, StoreSpec, VectorStore
from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.data.place import Place, Table
from kar_aug.data.room import MEMORY, Room
from kar_aug.data.times import times
from kar_aug.data.types import plain
from kar_aug.encode import encode
from kar_aug.errors import DataError

PLACE = Place("events.csv", "ts", "timestamp")
MOMENTS = st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2099, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)
WRITTEN: dict[str, Any] = {
    "seconds": lambda at: at.astype("datetime64[s]").astype("int64"),
    "decimal seconds": lambda at: at.astype("datetime64[s]").astype("int64").astype(float),
    "milliseconds": lambda at: at.astype("datetime64[ms]").astype("int64"),
    "decimal milliseconds": lambda at: at.astype("datetime64[ms]").astype("int64").astype(float),
    "microseconds": lambda at: at.astype("datetime64[us]").astype("int64"),
    "nanoseconds": lambda at: at.astype("datetime64[ns]").astype("int64"),
    "text of seconds": lambda at: at.astype("datetime64[s]").astype("int64").astype(str),
    "text of nanoseconds": lambda at: at.astype("datetime64[ns]").astype("int64").astype(str),
    "Decimal": lambda at: at.astype("datetime64[s]").astype("int64").map(Decimal),
    "datetimes in s": lambda at: at.astype("datetime64[s]"),
    "datetimes in ns": lambda at: at.astype("datetime64[ns]"),
    "Python": lambda at: pd.Series([moment.to_pydatetime() for moment in at], dtype=object),
    "Berlin": lambda at: at.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
    "Berlin as objects": lambda at: at.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin").astype(object),
    "arrow": lambda at: at.dt.tz_localize("UTC").astype(pd.ArrowDtype(pa.timestamp("us", tz="America/New_York"))),
    "ISO 8601": lambda at: at.dt.strftime("%Y-%m-%dT%H:%M:%S"),
    "with UTC": lambda at: at.dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
    "with Z": lambda at: at.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "with an offset": lambda at: (at + pd.Timedelta(hours=5, minutes=30)).dt.strftime("%Y-%m-%dT%H:%M:%S+05:30"),
    "digits": lambda at: at.dt.strftime("%Y%m%d%H%M%S").astype("int64"),
    "day.month.year": lambda at: at.dt.strftime("%d.%m.%Y %H:%M:%S"),
    "text of digits": lambda at: at.dt.strftime("%Y%m%d%H%M%S"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", WRITTEN)
@settings(max_examples=examples(25), deadline=None)
@given(given=st.lists(MOMENTS, min_size=1, max_size=5))
def test_a_moment_is_the_same_however_it_was_written(form: str, given: list[datetime.datetime]) -> None:
    at = pd.Series(pd.to_datetime(given).astype("datetime64[us]"))
    column = plain(pd.DataFrame({"timestamp": WRITTEN[form](at)}), Table("events"))["timestamp"]
    found = times(column, PLACE)
    moments = pd.to_datetime(found, unit="s") if pd.api.types.is_numeric_dtype(found) else found
    assert moments.astype("datetime64[us]").tolist() == at.tolist()
    gappy = times(pd.concat([column.iloc[:1].where(pd.Series([False])), column], ignore_index=True), PLACE)
    assert gappy.isna().tolist() == [True] + [False] * len(at), "what is missing stays so"


DAYS = {
    "date32": lambda at: pd.Series([day.date() for day in at], dtype=object),
    "arrow date": lambda at: pd.Series([day.date() for day in at]).astype(pd.ArrowDtype(pa.date32())),
    "digits": lambda at: at.dt.strftime("%Y%m%d").astype("int64"),
    "decimal digits": lambda at: at.dt.strftime("%Y%m%d").astype("float64"),
    "digits and minutes": lambda at: at.dt.strftime("%Y%m%d%H%M").astype("int64"),
    "day.month.year": lambda at: at.dt.strftime("%d.%m.%Y %H:%M:%S"),
    "text of digits": lambda at: at.dt.strftime("%Y%m%d"),
    "ISO 8601": lambda at: at.dt.strftime("%Y-%m-%d"),
}


@pytest.mark.parametrize("form", DAYS)
def test_a_day_is_the_same_however_it_was_written(form: str, caplog: pytest.LogCaptureFixture) -> None:
    at = pd.Series(pd.to_datetime(["2023-01-01", "2024-02-29", "1999-12-31"]))
    column = plain(pd.DataFrame({"timestamp": DAYS[form](at)}), Table("events"))["timestamp"]
    assert times(column, PLACE).tolist() == at.tolist()
    assert ("events.csv: 'ts' holds dates written as numbers: " in caplog.text) == ("digits" in form)


@pytest.mark.parametrize(
    ("numbers", "dates"),
    [
        ([2024013118, 2024022900], ["2024-01-31 18:00", "2024-02-29 00:00"]),
        ([202401, 199912], ["2024-01-01", "1999-12-01"]),
        ([2013013118.0, None], ["2013-01-31 18:00", None]),
    ],
)
def test_hours_and_months_written_as_numbers_are_dates_and_not_seconds(
    numbers: list[Any], dates: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As seconds they would lie after 2033, or in the first days of 1970."""
    found = times(pd.Series(numbers), PLACE)
    pd.testing.assert_series_equal(found, pd.Series(pd.to_datetime(dates)), check_dtype=False)
    assert "holds dates written as numbers" in caplog.text


def test_the_unit_of_numbers_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tables = Tables(EVENTS.assign(timestamp=EVENTS["timestamp"] * 1000))
    assert caplog.messages == [
        "interactions: 'timestamp' holds milliseconds since 1970, by their size: 1500000000000 is 2017-07-14 02:40:00."
    ]
    split_interactions(tables.interactions)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "numbers",
    [
        [0, 0], [1, 2], [*range(60_000)], [*range(110_101, 110_200)], [1_500_000.5, 2_000_000],
        [874_724_710, 893_286_638], [9_000_000_000],
    ],
)  # fmt: skip
def test_seconds_stay_the_numbers_that_they_are(numbers: list[int], caplog: pytest.LogCaptureFixture) -> None:
    column = pd.Series(numbers)
    assert times(column, PLACE) is column and not caplog.text


@pytest.mark.parametrize("kind", [int, float, str])
def test_dates_of_two_digits_a_year_are_dates_where_no_seconds_would_be_such(
    kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    """Of so many numbers in which no day is the 32nd and no month the 13th, none are seconds."""
    days = pd.Series(pd.date_range("2008-12-20", periods=60)).sample(frac=1, random_state=0, ignore_index=True)
    column = days.dt.strftime("%y%m%d").astype(int).map(kind)
    assert times(column, PLACE).tolist() == days.tolist()
    assert f"holds dates written as numbers: {int(column[0])} is {days[0]}." in caplog.text
    assert times(column[:20], PLACE).map(int).tolist() == column[:20].map(int).tolist(), "may be seconds"


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (
            [45_000, 45_321.75],
            "holds 45000 to 45321.75, which are read as seconds since 1970: 45000 is 1970-01-01 12:30:00. If they are "
            "a spreadsheet's days, that is 2023-03-15 00:00:00. Write ISO 8601",
        ),
        (
            [19_700],
            "holds 19700 to 19700, which are read as seconds since 1970: "
            "19700 is 1970-01-01 05:28:20. If they are days since 1970, that is 2023-12-09 00:00:00.",
        ),
        (
            [473_000, 473_999],
            "holds 473000 to 473999, which are read as seconds since 1970: "
            "473000 is 1970-01-06 11:23:20. If they are hours since 1970, that is 2023-12-17 08:00:00.",
        ),
        (
            [20_230_132, 20_230_101],
            "holds 20230101 to 20230132, which are read as seconds since 1970: "
            "20230132 is 1970-08-23 03:28:52. If they are minutes since 1970, that is 2008-06-18 16:52:00.",
        ),
        ([1600, 1725], "holds 1600 to 1725: years? They are read as seconds since 1970."),
    ],
)
def test_small_numbers_that_may_count_something_else_are_seconds_and_that_is_said(
    numbers: list[float], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    column = pd.Series(numbers)
    assert times(column, PLACE) is column
    EVENTS.head(len(numbers)).assign(timestamp=numbers).to_csv(tmp_path / "log.csv", index=False)
    load_tables(tmp_path / "log.csv")
    assert len(caplog.messages) == 1 and f"interactions: 'timestamp' {said}" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [1_500_000_000_000, 0],
            "milliseconds since 1970 by its size, but not in each row. Row 1 holds 0.",
        ),
        ([10**19, 10**19], "which is no time even in nanoseconds"),
        ([True, False], "must hold seconds since 1970, or datetimes. Row 0 holds True."),
        (["2024-01-31", "31.01.2024"], "must hold seconds since 1970, or datetimes. Row 1 holds '31.01.2024'."),
        (["1500000000", "soon", "later"], "Row 1 holds 'soon'."),
        (["1500000000", "2024-01-31"], "Row 0 holds '1500000000'."),
        (["1999", "2001"], "holds years, or seconds? Row 0 holds 1999."),
        ([2016, 2017], "holds years, or seconds? Row 0 holds 2016."),
        (
            [20240131] * 3 + [20240231],
            "dates written as numbers, such as 20240131, but not in each row. Row 3 holds 20240231",
        ),
        ([0, *[20240131] * 3], "dates written as numbers, such as 20240131, but not in each row. Row 0 holds 0."),
        ([1_500_000_000, -1], "up to 1500000000, and in some rows none. Row 1 holds -1. Leave such rows out"),
        (["1500000000", "0"], "up to 1500000000, and in some rows none. Row 1 holds 0."),
        ([None, "x" * 99], f"Row 1 holds '{'x' * 59}...."),
        ([[1], [2]], "Row 0 holds [1]."),
    ],
)
def test_what_is_no_time_is_shown_with_its_row(values: list[Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        times(pd.Series(values), PLACE)
    assert str(raised.value).startswith("events.csv: 'ts' ") and message in str(raised.value)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(1_600_000_000_123 + np.arange(40) * 7),
        pd.Series([20240131, None] * 20),
        pd.Series([f"{i}" for i in range(1_600_000_000, 1_600_000_040)]),
        pd.Series(
            [*(f"2024-01-{day:02}T00:00:00Z" for day in range(1, 31)), None, "2024-02-01 00:00:00.123456789 UTC"]
        ),
        pd.Series(["2024-01-01"] * 30 + ["1600000000", "yesterday"]),
        pd.Series([1.5e18] * 20 + [1.5e9]),
    ],
    ids=["milliseconds", "dates as numbers", "text of seconds", "text of dates", "no date", "two units"],
)
def test_a_column_that_is_not_held_in_memory_holds_the_same_times(column: pd.Series, tmp_path: Path) -> None:
    found: list[Any] = []
    for room in (MEMORY, Room(tmp_path, memory=7 << 10)):
        try:
            found.append(times(column, PLACE, room))
        except DataError as error:
            found.append(str(error))
    if isinstance(found[0], str):
        assert found[0] == found[1] and "Row" in found[0]
    else:
        pd.testing.assert_series_equal(*found)


def test_equal_moments_give_equal_prompts_wherever_they_were_stored() -> None:
    """A day is that of UTC, not that of whoever exported the table."""
    utc = pd.to_datetime(EVENTS["timestamp"], unit="s")
    local = utc.dt.tz_localize("UTC").dt.tz_convert("America/Los_Angeles")
    expected = prompts(EVENTS)
    for stored in (utc, local, local.map(lambda moment: moment.isoformat()), local.astype(object)):
        assert prompts(EVENTS.assign(timestamp=stored)) == expected
    items = ITEMS.assign(year=pd.Timestamp("1995-01-01 03:00", tz="Europe/Berlin"))
    assert "Year: 1995-01-01 02:00:00" in prompts(EVENTS, items)[-1].text


def test_the_as_of_time_of_a_store_is_that_of_the_latest_moment(tmp_path: Path) -> None:
    """Clocks were put back: 01:10-05:00 is later than 01:30-04:00."""
    early, late = "2023-11-05T01:30:00-04:00", "2023-11-05T01:10:00-05:00"
    assert latest([early, None, late]) == latest([late, early]) == late and latest([]) is latest([None]) is None
    assert latest(["2023-11-05T06:09:00", late]) == late, "without a zone it is UTC"
    assert latest([late, "who knows", early]) == "who knows", "nobody can say that it is earlier"

    class Encoder:
        name, dimension = "lengths", 2

        def encode(self, texts: Any) -> np.ndarray:
            return np.array([[len(text), 1.0] for text in texts])

    def known(id: int, text: str, when: str) -> Knowledge:
        return Knowledge("user", id, text, "", "m", "v", when)

    store = encode([known(1, "a", early), known(2, "bb", late), known(3, "ccc", early)], tmp_path / "s", Encoder())
    assert store.manifest.as_of == late
    with VectorStore.writer(tmp_path / "t", StoreSpec("e", 2)) as writer:
        for id, when in ((1, late), (2, early)):
            writer.append([id], ["k"], np.ones((1, 2)), as_of=when)
    assert VectorStore.open(tmp_path / "t").manifest.as_of == late


@pytest.mark.parametrize(
    ("texts", "day"),
    [
        (["31.01.2024", "2.2.2024"], "2024-01-31"),
        (["2.1.2024 18:00", "3.1.2024 7:05"], "2024-01-02 18:00"),
        (["01/02/2024 6:00:00 PM", "01/31/2024 12:00:00 AM"], "2024-01-02 18:00"),
        (["01/02/2024, 18:00:01.5", None, "31/01/2024, 00:00:00.0"], "2024-02-01 18:00:01.5"),
        (["01-02-2024 06:00 pm", "31-01-2024 06:00 am"], "2024-02-01 18:00"),
    ],
)
@pytest.mark.parametrize("room", [MEMORY, Room(memory=1)], ids=["memory", "blocks"])
def test_dates_with_the_year_last_are_read_in_the_form_that_all_rows_fit(
    texts: list[str | None], day: str, room: Room
) -> None:
    read = times(pd.Series(texts, dtype="str"), PLACE, room)
    assert read.iloc[0] == pd.Timestamp(day)
    assert read.isna().tolist() == [text is None for text in texts]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["01/02/2024", "03/04/2024"], "begin with a day, or with a month\\? '01/02/2024'"),
        (["31.01.2024", "2024-01-31"], "Row 1 holds '2024-01-31'"),
        (["31.01.2024", "31.02.2024"], "Row 1 holds '31.02.2024'"),
        (["31/01/2024", "01/31/2024"], "Row 1 holds '01/31/2024'"),
    ],
)
def test_dates_that_can_be_two_are_an_error(texts: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        times(pd.Series(texts), PLACE)
