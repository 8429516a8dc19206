"""Files as people have them: every kind is read as what it holds, or refused in one line that says where."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.cli import main
from kar_aug.data import load_tables
from kar_aug.data.cells import values_of
from kar_aug.data.delimited import SEPARATORS, TextFormat, separator_of
from kar_aug.data.place import Place
from kar_aug.data.reading import is_table, read_batches, read_head, read_table
from kar_aug.data.room import Room, is_arrow_text
from kar_aug.data.types import plain_column
from kar_aug.errors import DataError

FRAME = pd.DataFrame(
    {
        "item_id": [1, 2, 3],
        "title": ["Amélie; or, «one»", "None", None],
        "price": [3.5, None, 4.0],
        "year": [2001, 2, 3],
    }
)


def write_lines(frame: pd.DataFrame) -> bytes:
    """JSON lines; a missing cell is left out or null."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zipped(content: bytes, name: str = "table.csv") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("__MACOSX/._table.csv", b"\0\1")
    return file.getvalue()


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
    ".zip": zipped,
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("ending", [".csv", ".TSV", ".txt", ".tab"])
def test_a_text_table_is_read_however_it_is_called_and_packed(tmp_path: Path, ending: str, packed: str) -> None:
    content = FRAME.to_csv(index=False, sep="\t" if ending != ".csv" else ",").encode()
    path = tmp_path / f"items{ending}{packed.upper() if ending == '.TSV' else packed}"
    path.write_bytes(zipped(content, f"items{ending}") if packed == ".zip" else PACKED[packed](content))
    pd.testing.assert_frame_equal(read_table(path), FRAME)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "::"])
def test_a_separator_is_told_from_the_content_or_given(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "items.txt"
    rows = [["item_id", "title"], ["1", "Alien"], ["2", "Heat"]]
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    given = separator if len(separator) > 1 else None
    frame = read_table(path, written=TextFormat(separator=given))
    assert frame.to_dict("list") == {"item_id": [1, 2], "title": ["Alien", "Heat"]}


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(",;\t|"), st.lists(st.tuples(CELL, CELL), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_whatever_stands_in_the_cells_the_separator_is_found(sep: str, rows: list[tuple[str, str]], end: str) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=sep, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("item_id", "title"), *rows])
    for candidates in SEPARATORS.values():
        assert separator_of(file.getvalue(), candidates) == sep


def test_several_values_of_a_cell_are_not_taken_for_cells(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,title,genres\n1,Alien,Horror|Sci-Fi\n2,Heat,Crime|Drama\n")
    assert list(read_table(path)) == ["item_id", "title", "genres"]
    path.write_text("item_id;title;price\n1;Alien, the film;3,50\n2;Heat, the film;4,00\n")
    assert list(read_table(path)) == ["item_id", "title", "price"]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("utf-32", ""), ("latin-1", "Latin-1"), ("cp1252", "Latin-1")],
)
def test_an_encoding_is_told_from_the_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, encoding: str, said: str
) -> None:
    title = "Amélie «2»" if encoding == "latin-1" else "Amélie … “2”"
    path = tmp_path / "items.csv"
    path.write_bytes(f"item_id,title\n1,{title}\n".encode(encoding))
    assert read_table(path).to_dict("list") == {"item_id": [1], "title": [title]}
    assert said in caplog.text and bool(said) == bool(caplog.text)
    (tmp_path / "items.jsonl").write_bytes(json.dumps({"title": title}, ensure_ascii=False).encode(encoding))
    assert read_table(tmp_path / "items.jsonl")["title"].tolist() == [title]


def test_an_encoding_that_is_given_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("item_id,title\n1,千と千尋\n".encode("shift-jis"))
    assert read_table(path, written=TextFormat(encoding="shift-jis"))["title"].tolist() == ["千と千尋"]
    with pytest.raises(DataError, match=r"items\.csv cannot be read: 'ascii' codec"):
        read_table(path, written=TextFormat(encoding="ascii"))


def test_only_the_last_line_may_be_in_another_encoding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes(b"item_id,title\n" + b"1,plain\n" * 100_000 + b"2,caf\xe9\n")
    assert read_table(path)["title"].iloc[-1] == "café"
    assert "items.csv is not UTF-8" in caplog.text


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["3,5", "-12,75", ""], [3.5, -12.75, None]),
        (["3.5", "1,2", "2,0"], ["3.5", "1,2", "2,0"]),
        (["31.12.2024", "1,5", "2,5"], ["31.12.2024", "1,5", "2,5"]),
    ],
)
def test_decimals_behind_a_comma_are_numbers(tmp_path: Path, cells: list[str], read: list[object]) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("".join(f"{row}\n" for row in ["id;price;day", *(f"1;{cell};31.12.2024" for cell in cells)]))
    batches = pa.Table.from_batches(read_batches(path, 1)).to_pandas()
    for frame in (read_table(path), read_head(path, 10), batches):
        assert frame["price"].astype(object).where(frame["price"].notna(), None).tolist() == read
        assert frame["day"].tolist() == ["31.12.2024"] * 3


@pytest.mark.parametrize(
    ("separator", "thousands", "cells", "read"),
    [
        (";", ",", ["38,150", "7", ""], [38150.0, 7.0, None]),
        (";", ",", ["7", "1,234.5", "-1,234,567"], [7.0, 1234.5, -1234567.0]),
        (",", ",", ["7", "950", "1,234.5"], [7.0, 950.0, 1234.5]),
        (";", ".", ["1.234,50", "7,5", "38.150"], [1234.5, 7.5, 38150.0]),
        ("\t", "'", ["1'234.5", "7", "8"], [1234.5, 7.0, 8.0]),
        (";", ",", ["38,15", "1,234", "7"], ["38,15", "1,234", "7"]),
        (";", ",", ["1,2,3", "1,234", "7"], ["1,2,3", "1,234", "7"]),
        (";", ",", ["7", "8", ""], [7, 8, None]),
    ],
)
def test_thousands_stand_apart_where_a_person_says_so(
    separator: str, thousands: str, cells: list[str], read: list[object], tmp_path: Path
) -> None:
    """A column of which a cell is written otherwise stays text: none is read as another number."""
    path = tmp_path / "prices.csv"
    rows = [("id", "price", "name"), *((f"1,00{i}", cell, f"{i},000 leagues") for i, cell in enumerate(cells))]
    path.write_text("".join(separator.join(f'"{cell}"' if cell else "" for cell in row) + "\n" for row in rows))
    written = TextFormat(thousands=thousands)
    how: dict[str, Any] = {"ids": ["id"], "id_type": "string", "written": written}
    batches = pa.Table.from_batches(read_batches(path, 1, **how)).to_pandas()
    for frame in (read_table(path, **how), read_head(path, 10, written), batches):
        assert frame["price"].astype(object).where(frame["price"].notna(), None).tolist() == read
        assert frame["name"].tolist() == ["0,000 leagues", "1,000 leagues", "2,000 leagues"]
    assert read_table(path, **how)["id"].tolist() == ["1,000", "1,001", "1,002"]


@pytest.mark.parametrize(("cells", "either"), [(["38,150", "7"], True), (["38,150", "7,5"], False)])
def test_a_comma_that_may_be_either_is_said(
    cells: list[str], either: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("".join(f"{row}\n" for row in ["id;price", *(f"1;{cell}" for cell in cells)]))
    assert read_table(path)["price"][0] == 38.15 and len(list(read_batches(path, 1))) == 2
    said = '38,150 is read as 38.150. If the comma is for thousands: [data] thousands = ","'
    assert sum(said in message for message in caplog.messages) == 2 * either
    assert read_table(path, written=TextFormat(thousands=","))["price"][0] == (38150 if either else "38,150")


def test_a_separator_at_the_end_of_each_line_is_no_cell(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,year\n1,1995,\n4,1996,\n")
    assert read_table(tmp_path / "items.csv").to_dict("list") == {"item_id": [1, 4], "year": [1995, 1996]}


def test_a_column_has_one_type_in_all_of_a_file(tmp_path: Path) -> None:
    """Digits but for the last lines: they are not read as numbers first, and as text then."""
    path = tmp_path / "items.csv"
    path.write_text("item_id,title\n" + "".join(f"{i},{'t' * 20}\n" for i in range(200_000)) + "B000,x\n")
    ids = read_table(path)["item_id"]
    assert {type(id) for id in ids} == {str} and ids.iloc[0] == "0"


LINES = b"""{"item_id": 1, "title": "Fun \\ud83d", "genres": ["Drama", "A|B"], "price": 3}
{"item_id": 2, "title": NaN, "genres": [], "price": "n/a", "more": {"a": 1}}

{"item_id": 3, "genres": null, "price": 2.5, "title": "Pair \\ud83d\\ude00"}
"""


def test_json_lines_are_read_with_gaps_lists_and_halves_of_characters(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(LINES)
    (tmp_path / "items.ndjson.gz").write_bytes(gzip.compress(LINES))
    (tmp_path / "items.json").write_text("[" + ",\n".join(LINES.decode().split("\n")[i] for i in (0, 1, 3)) + "]")
    for name in ("items.jsonl", "items.ndjson.gz", "items.json"):
        frame = read_table(tmp_path / name)
        assert frame["item_id"].tolist() == [1, 2, 3]
        assert frame["title"].fillna("-").tolist() == ["Fun \ufffd", "-", "Pair \U0001f600"]
        assert [None if g is None else list(g) for g in frame["genres"]] == [["Drama", "A|B"], [], None]
        assert frame["price"].tolist() == ["3", "n/a", "2.5"], "of different types: text"


def test_a_list_beside_single_values_is_a_list_everywhere(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"t": "one"}\n{"t": ["two", 3]}\n{}\n')
    assert [None if t is None else list(t) for t in read_table(tmp_path / "items.jsonl")["t"]] == [
        ["one"], ["two", "3"], None,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [".parquet", ".PARQUET", ".feather", ".arrow", ".parquet.zip", ".feather.gz"])
def test_arrow_and_parquet_files_keep_their_types(tmp_path: Path, kind: str) -> None:
    frame = FRAME.assign(when=pd.to_datetime(["2024-01-31", "2024-02-01", "2024-02-02"]), ok=[True, False, True])
    path, file = tmp_path / f"items{kind}", io.BytesIO()
    if kind == ".arrow":  # a stream, as `datasets` of Hugging Face writes them
        table = pa.Table.from_pandas(frame)
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    else:
        (frame.to_feather if "feather" in kind else frame.to_parquet)(file)
    content = file.getvalue()
    if kind.endswith(".zip"):
        content = zipped(content, "items.parquet")
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    pd.testing.assert_frame_equal(read_table(path), frame)


def test_an_index_with_a_name_is_a_column(tmp_path: Path) -> None:
    FRAME.set_index("item_id").to_parquet(tmp_path / "items.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "items.parquet"), FRAME)


def test_a_folder_of_parquet_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    for user, rows in (("001", [1, 2]), ("1", [3])):
        (folder / f"user_id={user}").mkdir(parents=True)
        pd.DataFrame({"item_id": rows}).to_parquet(folder / f"user_id={user}" / "part-0.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "user_id=1" / ".part-0.parquet.crc").write_bytes(b"crc")
    with pytest.raises(DataError, match=r"'user_id' holds '001' and '1', which as integers are one id.*id_type"):
        read_table(folder, ids=["user_id"])
    frame = read_table(folder, ids=["user_id"], id_type="string")
    assert frame.to_dict("list") == {"item_id": [1, 2, 3], "user_id": ["001", "001", "1"]}
    assert read_table(folder)["user_id"].tolist() == [1, 1, 1]
    pd.testing.assert_frame_equal(by_column(folder, ids=["user_id"], id_type="string"), frame)


@pytest.mark.parametrize("below", ["", "2024", "day=1"])
def test_ids_of_parts_are_what_the_files_say_that_they_are(tmp_path: Path, below: str) -> None:
    folder = tmp_path / "events" / below
    folder.mkdir(parents=True)
    for first in (1, 3):
        part = pd.DataFrame({"user_id": [first, first + 1], "item_id": ["a", "b"]})
        part.to_parquet(folder / f"part-{first}.parquet")
    frame = read_table(tmp_path / "events", ids=["user_id", "item_id"])
    assert frame["user_id"].tolist() == [1, 2, 3, 4] and frame["item_id"].tolist() == ["a", "b", "a", "b"]
    pd.testing.assert_frame_equal(by_column(tmp_path / "events", ids=["user_id", "item_id"]), frame)


def test_parts_may_differ_in_what_types_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "items.parquet"
    folder.mkdir()
    parts = [
        pd.DataFrame({"item_id": [1], "price": [3]}),
        pd.DataFrame({"item_id": [2], "price": [2.5], "title": ["x"]}),
        pd.DataFrame({"item_id": [3], "price": [None], "title": [None]}),
    ]
    for i, part in enumerate(parts):
        part.to_parquet(folder / f"part-{i}")  # Hadoop writes parts without an ending
    frame = read_table(folder)
    assert frame["price"].tolist()[:2] == [3.0, 2.5] and np.isnan(frame["price"][2])
    assert frame["title"].isna().tolist() == [True, False, True]
    pd.testing.assert_frame_equal(by_column(folder), frame)
    pd.DataFrame({"item_id": ["B"]}).to_parquet(folder / "part-9")
    with pytest.raises(DataError, match=r"items\.parquet cannot be read: .*item_id"):
        read_table(folder)


def same_however_it_is_read(path: Path, **chosen: Any) -> pd.DataFrame:
    """What all three ways of reading a table agree on."""
    frame = read_table(path, **chosen)
    pd.testing.assert_frame_equal(by_column(path, **chosen), frame)
    batches = list(read_batches(path, 2, **chosen))
    assert max(map(len, batches)) <= 2 and sum(map(len, batches)) == len(frame)
    assert list(read_head(path, 3).columns) == list(frame.columns) and len(read_head(path, 3)) == min(3, len(frame))
    return frame


def test_a_folder_of_csv_parts_is_read_as_one_file_of_them_would_be(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "part-0.csv").write_text("user_id,price,note\n1,2,1.50\n2,,\n")
    (folder / "part-1.csv.gz").write_bytes(gzip.compress(b"note;user_id;price\nlong;7;2,5\n"))  # as its writer had it
    (folder / "part-2.csv").write_text("user_id,price,note\n")
    (folder / "part-3.csv").touch()  # as Spark leaves a part without rows
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.csv.crc").write_bytes(b"crc")
    frame = same_however_it_is_read(folder, ids=["user_id"])
    assert frame["user_id"].tolist() == [1, 2, 7] and frame["price"].fillna(-1).tolist() == [2.0, -1.0, 2.5]
    assert frame["note"].fillna("-").tolist() == ["1.50", "-", "long"]  # text in one part is text in all
    (folder / "part-4.csv").write_text("user_id,price,note\n007,1,x\n")
    with pytest.raises(DataError, match=r"'user_id' holds '7' and '007', which as integers are one id"):
        read_table(folder, ids=["user_id"])
    frame = same_however_it_is_read(folder, ids=["user_id"], id_type="string")
    assert frame["user_id"].tolist() == ["1", "2", "7", "007"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_folders_of_text_that_are_called_by_a_value_are_columns(tmp_path: Path, ending: str) -> None:
    for day, hour, line in (("2024-01-31", "7", "a%b"), ("2024-02-01", "__HIVE_DEFAULT_PARTITION__", "c")):
        below = tmp_path / "log" / f"day={day}" / f"hour={hour}"
        below.mkdir(parents=True)
        text = f"item_id\n{line}\n" if ending == "csv" else f'{{"item_id": "{line}"}}\n'
        (below / f"x.{ending}").write_text(text)
    frame = same_however_it_is_read(tmp_path / "log", ids=["item_id"])
    assert frame["item_id"].tolist() == ["a%b", "c"] and frame["day"].tolist() == ["2024-01-31", "2024-02-01"]
    assert frame["hour"].fillna(-1).tolist() == [7, -1]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_ids_of_folders_of_text_keep_their_zeros(tmp_path: Path, ending: str) -> None:
    for user in ("001", "2"):
        (tmp_path / "log" / f"user_id={user}").mkdir(parents=True)
        text = "item_id\n5\n" if ending == "csv" else '{"item_id": 5}\n'
        (tmp_path / "log" / f"user_id={user}" / f"x.{ending}").write_text(text)
    assert same_however_it_is_read(tmp_path / "log", ids=["user_id"])["user_id"].tolist() == [1, 2]
    kept = same_however_it_is_read(tmp_path / "log", ids=["user_id"], id_type="string")
    assert kept["user_id"].tolist() == ["001", "2"]


def test_a_folder_of_json_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "0.jsonl").write_text('{"user_id": 1, "tags": ["a"]}\n')
    (folder / "1.json").write_text('[{"user_id": "B", "more": true}, {"user_id": 3}]')
    (folder / "2.jsonl.gz").write_bytes(gzip.compress(b""))
    frame = same_however_it_is_read(folder, ids=["user_id"])
    assert frame["user_id"].tolist() == ["1", "B", "3"] and frame["more"].isna().tolist() == [True, False, True]


def test_what_is_no_folder_of_parts_is_named(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        for read in (read_table, lambda path: list(read_batches(path)), lambda path: read_head(path, 10)):
            with pytest.raises(DataError, match=message):
                read(tmp_path)

    refused("it holds no file of these kinds")
    with pytest.raises(DataError, match=r"gone: there is no such file or folder"):
        read_table(tmp_path / "gone")
    (tmp_path / "a.csv").touch()
    refused("all of its files are empty")
    (tmp_path / "a.csv").write_text("user_id,item_id\n1,2\n")
    (tmp_path / "b.csv").write_text("5,6\n7,8\n")  # parts without a head
    refused(r"b\.csv has the columns 5, 6, and a\.csv beside it has user_id, item_id\. Parts of one table")
    (tmp_path / "c.jsonl").write_text("{}")
    refused(r"it holds files of several kinds \(CSV, JSON lines\)")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv.gz", b"no gzip", r"a\.csv\.gz cannot be read"),
        ("a.csv.gz", gzip.compress(b"x" * 999, mtime=0)[:-9], r"a\.csv\.gz cannot be read"),
        ("a.csv.bz2", b"no bzip", r"a\.csv\.bz2 cannot be read"),
        ("a.csv.xz", b"no xz", r"a\.csv\.xz cannot be read"),
        ("a.csv.zst", b"no zstd", r"a\.csv\.zst cannot be read"),
        ("a.zip", b"no zip", r"a\.zip cannot be read"),
        ("a.zip", b"PK\x05\x06" + bytes(18), r"a\.zip holds 0 files"),
        ("a.csv", b"PAR1\0\0\0\0", r"a\.csv is no text"),
        ("a.csv", b"user_id,item_id\n1,2,3\n4,5,6\n", r"a\.csv cannot be read: its rows have more cells than"),
        ("a.jsonl", b'{"a": 1}\n{"a": 2\n', r"a\.jsonl, line 2: this is no JSON object"),
        ("a.jsonl", b'{"a": 1}\n\n"x"\n', r"a\.jsonl, line 3: this is no JSON object"),
        ("a.json", b"[1, 2]", r"a\.json, row 0: this is no JSON object"),
        ("a.json", b"[{]", r"a\.json, line 1: this is neither a JSON object nor an array"),
        ("a.arrow", b"garbage" * 9, r"a\.arrow cannot be read"),
        ("a.feather", b"ARROW1\0\0" + b"garbage" * 9, r"a\.feather cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_table(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError):
        list(read_batches(path))


def test_an_archive_of_two_tables_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.csv", "a\n1\n")
        archive.writestr("two.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"a\.zip holds 2 files"):
        read_table(tmp_path / "a.zip")


def test_what_is_a_table_is_told_by_its_ending() -> None:
    assert all(map(is_table, ["a.CSV", "a.csv.gz", "a.jsonl.zst", "b/c.parquet", "a.tsv.ZIP"]))
    assert not any(map(is_table, ["answers.sqlite", "postgresql://host/name", "a.gz", "csv"]))


VALUE = st.one_of(
    st.none(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False, width=32), st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=5), st.lists(st.text(max_size=3), max_size=3),
)  # fmt: skip


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.fixed_dictionaries({}, optional={"a": VALUE, "b": VALUE}), min_size=1, max_size=9), st.integers(1, 4)
)
def test_batches_of_json_lines_hold_what_the_frame_holds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], size: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    batches = list(read_batches(path, size))
    assert len({batch.schema for batch in batches}) == 1 and max(map(len, batches)) <= size
    pd.testing.assert_frame_equal(pa.Table.from_batches(batches).to_pandas(), read_table(path))
    if any(rows):
        frame = read_table(path)
        pd.testing.assert_frame_equal(by_column(path, as_lists=list(frame)), frame)


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from(["", "1", "-7", "2.5", "x", "True", "001"])] * 3), min_size=1, max_size=9),
    st.integers(1, 4),
    st.sampled_from(
        [{}, {"ids": ["a", "b"]}, {"ids": ["a"], "id_type": "integer"}, {"ids": ["b"], "id_type": "string"}]
    ),
)
def test_batches_of_cells_hold_what_the_frame_holds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], size: int, chosen: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text("a,b,c\n" + "".join(",".join(row) + "\n" for row in rows if any(row)) + "1,1,1\n")
    whole = read_table(path)
    batches = list(read_batches(path, size))
    assert len({batch.schema for batch in batches}) == 1 and max(map(len, batches)) <= size
    found = pa.Table.from_batches(batches).to_pandas()
    pd.testing.assert_frame_equal(found.astype(object).fillna("-"), whole.astype(object).fillna("-"), check_dtype=False)
    one, other = (outcome(read, path, **chosen) for read in (read_table, by_column))
    assert one == other


def by_column(path: Path, **chosen: Any) -> pd.DataFrame:
    """As a file is read whose columns are not all held in memory."""
    return read_table(path, room=Room(path.parent / "room", memory=7 << 10), **chosen)


def outcome(read: Callable[..., pd.DataFrame], path: Path, **chosen: Any) -> Any:
    """What is read, or what is said against it."""
    try:
        frame = read(path, **chosen)
    except DataError as error:
        return str(error)
    return frame.astype(object).fillna("-").to_dict("list"), [str(each) for each in frame.dtypes]


@pytest.mark.parametrize("kind", ["file", "folder", "feather"])
def test_batches_of_parquet_and_arrow_hold_what_the_frame_holds(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"item_id": range(10), "title": [f"Movie {i}" for i in range(10)]})
    path = tmp_path / {"file": "a.parquet", "folder": "parts", "feather": "a.feather"}[kind]
    if kind == "folder":
        path.mkdir()
        frame[:5].to_parquet(path / "0.parquet")
        frame[5:].reset_index(drop=True).to_parquet(path / "1.parquet")
    else:
        (frame.to_feather if kind == "feather" else frame.to_parquet)(path)
    pd.testing.assert_frame_equal(by_column(path), read_table(path))
    batches = list(read_batches(path, 3))
    assert max(map(len, batches)) == 3
    pd.testing.assert_frame_equal(pa.Table.from_batches(batches).to_pandas(), frame)


def test_columns_of_any_type_that_are_not_held_in_memory_are_the_same(tmp_path: Path) -> None:
    columns: dict[str, pa.Array] = {
        "whole": pa.array(range(40)),
        "gaps": pa.array([None, 2**53 + 1, 3, 4] * 10),
        "late gap": pa.array([*range(39), None]),
        "decimals": pa.array([1.5, None, float("nan"), 2.0] * 10),
        "short": pa.array([1, 2] * 20, pa.uint8()),
        "text": pa.array(["a", None, "", "é"] * 10),
        "long text": pa.array(["b"] * 40, pa.large_string()),
        "coded": pa.array(["x", "y"] * 20).dictionary_encode(),
        "moment": pa.array([1, None] * 20, pa.timestamp("ms")),
        "zoned": pa.array([1, None] * 20, pa.timestamp("us", "Europe/Berlin")),
        "day": pa.array([1, None] * 20, pa.date32()),
        "true": pa.array([True, False] * 20),
        "perhaps": pa.array([True, None] * 20),
        "lists of structs": pa.array([[{"key": 1.5}], None] * 20),
        "lists of odd texts": pa.array([["a|b"], None, ["[c"], [""]] * 10),
    }
    pq.write_table(pa.table(columns), tmp_path / "arrow.parquet", row_group_size=16)
    frame = pd.DataFrame({"nullable": [1, None] * 20, "text": ["a", None] * 20}).convert_dtypes()
    frame.to_parquet(tmp_path / "pandas.parquet")
    for name in ("arrow", "pandas"):
        path = tmp_path / f"{name}.parquet"
        pd.testing.assert_frame_equal(by_column(path), read_table(path))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(
        [
            (pa.string(), st.none() | st.text("a|[ é", max_size=2)),
            (pa.int64(), st.none() | st.integers(-(2**62), 2**62)),
            (pa.float64(), st.none() | st.floats()),
            (pa.float32(), st.none() | st.floats(width=32)),
        ]
    ).flatmap(
        lambda kind: st.tuples(
            st.just(kind[0]), st.lists(st.none() | st.lists(kind[1], max_size=3), min_size=1, max_size=9)
        )
    )
)
def test_whatever_stands_in_lists_of_words_is_the_same_on_the_disk(
    tmp_path_factory: pytest.TempPathFactory, held: tuple[pa.DataType, list[list[Any] | None]]
) -> None:
    path, (kind, cells) = tmp_path_factory.mktemp("lists") / "a.parquet", held
    pq.write_table(pa.table({"tags": pa.array(cells, pa.list_(kind))}), path)
    found = read_table(path, room=Room(path.parent / "room", memory=0))["tags"]
    expected = plain_column(read_table(path)["tags"], Place("a", "tags"))
    assert list(map(values_of, plain_column(found, Place("a", "tags")))) == list(map(values_of, expected))


MOMENT = datetime(2024, 2, 29, 12, 30)


@pytest.mark.parametrize(
    ("some", "kind"),
    [
        (["a", "b", "ü"], pa.list_(pa.string())),
        ([7, -(2**60), 0], pa.list_(pa.int64())),
        ([7, None, 2**53], pa.list_(pa.int64())),
        (["a", None, ""], pa.large_list(pa.large_string())),
        ([0.5, 3.0, None], pa.list_(pa.float64())),
        ([4.1, float("nan"), -1e-9], pa.large_list(pa.float32())),
        ([True, None, False], pa.list_(pa.bool_())),
        ([Decimal("4.50"), None, Decimal("0.10")], pa.list_(pa.decimal128(5, 2))),
        ([MOMENT, None, MOMENT.replace(year=1960)], pa.list_(pa.timestamp("ms"))),
        ([MOMENT.date(), None], pa.list_(pa.date32())),
        (["a", "b", "a"], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        ([b"a", None, b"\xff"], pa.list_(pa.binary())),
        ([None, None], pa.list_(pa.null())),
    ],
)
def test_lists_that_are_not_held_in_memory_are_text_with_the_same_values(
    tmp_path: Path, some: list[Any], kind: pa.DataType
) -> None:
    """Whatever is in them, and whatever is missing in them."""
    path, lists = tmp_path / "lists.parquet", pa.array([some[:2], some[2:], [], None] * 10, kind)
    pq.write_table(pa.table({"tags": lists, "shown": lists}), path, row_group_size=16)
    read = read_table(path, as_lists=["shown"], room=Room(tmp_path / "room", memory=0))
    assert is_arrow_text(read["tags"]) and read["shown"].dtype == object
    expected = [values_of(cell) for cell in read_table(path)["tags"]]
    assert [values_of(cell) for cell in read["tags"]] == expected
    assert [values_of(cell) for cell in read["shown"]] == expected


def test_lists_of_coded_text_are_read_across_groups_of_rows(tmp_path: Path) -> None:
    path, lists = tmp_path / "lists.parquet", [["a", "b"], ["a"], []] * 10
    pq.write_table(pa.table({"tags": pa.array(lists, pa.list_(pa.dictionary(pa.int32(), pa.string())))}), path, 16)
    assert list(map(values_of, read_head(path, 20)["tags"])) == list(map(tuple, lists[:20]))
    assert sum(map(len, read_batches(path))) == 30


def test_lists_of_one_length_are_text_with_the_same_values(tmp_path: Path) -> None:
    path, lists = tmp_path / "lists.parquet", pa.array([[1.5, None], None, [2.0, -3.0]] * 20, pa.list_(pa.float64(), 2))
    pq.write_table(pa.table({"tags": lists}), path)
    read = read_table(path, room=Room(tmp_path / "room", memory=0))["tags"]
    assert is_arrow_text(read) and [*read.iloc[[0, 2]]] == ["1.5", "2|-3"] and read.isna().sum() == 20


@pytest.mark.parametrize("cells", [[["a|b"]], [["[c"]], [[2**60 + 1, None]], [[{"key": 1}]], [[[1], [2]]]], ids=str)
def test_lists_that_text_would_change_stay_lists(tmp_path: Path, cells: list[Any]) -> None:
    path = tmp_path / "lists.parquet"
    pq.write_table(pa.table({"tags": pa.array(cells * 20)}), path)
    read = read_table(path, room=Room(tmp_path / "room", memory=0))
    pd.testing.assert_frame_equal(read, read_table(path))


EVENTS = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [10, 20, 30], "rating": [1, 5, 3]})


def test_each_table_may_call_its_columns_otherwise(tmp_path: Path) -> None:
    EVENTS.rename(columns={"item_id": "item"}).to_csv(tmp_path / "events.csv", index=False)
    items = pd.DataFrame(
        {"article_id": [1, 2], "title": ["A", "B"], "category": [7, 8], "category_str": ["x", "y"], "item": [5, 6]}
    )
    items.to_csv(tmp_path / "items.csv", index=False)
    columns = {
        "interactions": {"item_id": "item"},
        "items": {"item_id": "article_id"},
        "category": "category_str",
    }
    tables = load_tables(tmp_path / "events.csv", tmp_path / "items.csv", columns=columns)
    assert tables.items.to_dict("list") == {
        "item_id": [1, 2],
        "title": ["A", "B"],
        "category": ["x", "y"],
        "item": [5, 6],
    }
    with pytest.raises(
        DataError, match=r"no table has a column 'sku', which 'item_id' is.*from\. items has article_id"
    ):
        load_tables(tmp_path / "events.csv", tmp_path / "items.csv", columns={"items": {"item_id": "sku"}})


@pytest.mark.parametrize("as_text", [False, True])
def test_a_key_of_structs_is_taken_where_a_person_says_so(tmp_path: Path, as_text: bool) -> None:
    genres = [[{"id": 1, "name": "Drama"}, {"id": 2, "name": "A|B"}], [], None]
    told = [{"name": {"en": "One"}}, {"name": {"en": "Two"}}, None]
    items = pd.DataFrame({"item_id": [1, 2, 3], "genres": genres, "told": told})
    if as_text:
        items.assign(genres=[repr(g) if g is not None else None for g in genres]).astype({"told": "str"}).to_csv(
            tmp_path / "items.csv", index=False
        )
    else:
        items.to_parquet(tmp_path / "items.parquet")
    path = tmp_path / ("items.csv" if as_text else "items.parquet")
    EVENTS.to_csv(tmp_path / "events.csv", index=False)
    tables = load_tables(tmp_path / "events.csv", path, columns={"genres": "genres.name", "title": "told.name.en"})
    assert tables.items["genres"].tolist() == [["Drama", "A|B"], [], None]
    assert tables.items["title"].tolist()[:2] == ["One", "Two"]


@pytest.mark.parametrize("cell", ["12E4", "12e4", '"12E4"'])
def test_an_id_with_an_e_between_digits_is_no_number(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(f"title,item_id\nA,120000\nB,{cell}")
    read = [
        read_table(path, ids=["item_id"]),
        pa.Table.from_batches(read_batches(path, 1, ids=["item_id"])).to_pandas(),
    ]
    for frame in read:
        assert frame["item_id"].tolist() == ["120000", cell.strip('"')]
    path.write_text("item_id,price\n1.2E+05,1\n7,1")
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,rating\n1,7,1500000000,4\n")
    read = load_tables(tmp_path / "log.csv", path).items["item_id"]
    assert read.tolist() == [120000, 7], "as spreadsheets shorten numbers"


def test_zeros_of_ids_are_kept_where_a_person_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.csv"
    path.write_text("uid,item_id,timestamp,rating\n7,001,1,5\n7,1,2,5\n8,010,3,5\n")
    with pytest.raises(DataError, match=r"events\.csv: 'item_id' holds '001' and '1', which as integers are one id"):
        load_tables(path, columns={"user_id": "uid"})
    columns = {"user_id": "uid"}
    assert load_tables(path, columns=columns, id_type="string").ids("item") == ["001", "010", "1"]
    assert load_tables(path, columns=columns, id_type="integer").ids("item") == [1, 10]
    path.write_text("uid,item_id,timestamp,rating\n7,001,1,5\n7,002,2,5\n")
    caplog.clear()
    assert load_tables(path, columns=columns).ids("item") == [1, 2]
    assert "'item_id' is read as integers. Row 0 holds '001'. To keep the zeros: [data] id_type" in caplog.text


def test_ids_of_both_files_are_what_a_person_says(tmp_path: Path) -> None:
    EVENTS.to_parquet(tmp_path / "events.parquet")
    (tmp_path / "items.csv").write_text("item_id,title\n1,One\nB2,Two\n")
    with pytest.raises(
        DataError, match=r'items: item_id holds strings but interactions hold integers.*id_type = "string"'
    ):
        load_tables(tmp_path / "events.parquet", tmp_path / "items.csv")
    tables = load_tables(tmp_path / "events.parquet", tmp_path / "items.csv", id_type="string")
    assert tables.ids("item") == ["1", "2", "B2"] and tables.ids("user") == ["1", "2"]
    with pytest.raises(DataError, match=r"items\.csv: 'item_id' must hold integers\. Row 1 holds 'B2'"):
        load_tables(tmp_path / "events.parquet", tmp_path / "items.csv", id_type="integer")


@pytest.mark.parametrize(
    ("settings", "row", "message"),
    [
        (
            "",
            "2,1,yesterday,5",
            "events.csv: 'ts' must hold seconds since 1970, or datetimes. Row 3 holds 'yesterday'.",
        ),
        ("", "2,1,4,five", "events.csv: 'stars' must hold numbers, not text. Row 3 holds 'five'."),
        ("", ",1,4,5", "events.csv: 'uid' is empty in row 3. Fill it, or leave such rows out."),
        ("", "2,1,4,", "events.csv: 'stars' is empty in row 3. Fill it, or leave such rows out."),
        ("", "2,1,4,5,6", "events.csv cannot be read: Error tokenizing data. C error: Expected 4 fields in line 5"),
        ('id_type = "integer"', "x,1,4,5", "events.csv: 'uid' must hold integers. Row 3 holds 'x'."),
        ('id_type = "number"', "2,1,4,5", "[data] id_type 'number' is unknown. Known: integer, string"),
        ('encoding = "utf-9"', "2,1,4,5", "[data] encoding 'utf-9' is unknown"),
        ('separator = ""', "2,1,4,5", "[data] separator must be what stands between two cells"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_by_file_column_and_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, row: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text("uid,item_id,ts,stars\n1,1,1,1\n1,2,2,1\n2,2,3,1\n" + row + "\n")
    Path("kar.toml").write_text(
        '[data]\ninteractions = "events.csv"\n'
        f'columns = {{ user_id = "uid", timestamp = "ts", rating = "stars" }}\n{settings}\n'
    )
    done = CliRunner().invoke(main, ["prompts"])
    lines = [line for line in done.output.splitlines() if line.strip()]
    assert done.exit_code == 2 and len(lines) == 1 and message in lines[0], done.output


def test_a_big_file_is_read_in_the_memory_of_a_batch(tmp_path: Path) -> None:
    """Both passes over a text file hold one chunk of it."""
    import tracemalloc

    path = tmp_path / "events.csv"
    with path.open("w") as file:
        file.write("user_id,item_id,title\n")
        for i in range(200_000):
            file.write(f"{i},{i % 100},{'t' * 40}{i}\n")
    tracemalloc.start()
    rows = sum(len(batch) for batch in read_batches(path, 2_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 200_000 and peak < 6_000_000 < path.stat().st_size


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.jsonl", "t.feather", "parts"])
def test_the_first_rows_of_a_file_are_read_alone(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"item_id": ["007", "8", "9"], "price": [1.5, None, 2.0], "new": [True, False, True]})
    path = tmp_path / name
    if name == "parts":
        path.mkdir()
        frame.to_parquet(path / "one.parquet")
    elif name == "t.jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        getattr(frame, {".parquet": "to_parquet", ".feather": "to_feather"}.get(path.suffix, "to_csv"))(
            path, **({"index": False} if ".csv" in name else {})
        )
    head = read_head(path, 2)
    assert head["item_id"].tolist() == ["007", "8"] and head["new"].tolist() == [True, False]
    assert head["price"].iloc[0] == 1.5 and len(head) == 2 and len(read_head(path, 100)) == 3


def test_the_head_of_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    (tmp_path / "t.jsonl").write_text("")
    assert [*read_head(tmp_path / "t.csv", 5)] == ["a", "b"] and read_head(tmp_path / "t.jsonl", 5).empty


def test_a_head_ends_before_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' * 3 + "no JSON\n")
    assert len(read_head(tmp_path / "t.jsonl", 3)) == 3
    with pytest.raises(DataError, match="line 4"):
        read_head(tmp_path / "t.jsonl", 4)
