"""Public data sets by name: read from a path, or fetched from where they may be fetched from, and never shipped.

| name                   | what                                            | where from                          |
|------------------------|-------------------------------------------------|-------------------------------------|
| movielens-100k         | 100,000 ratings of 1,682 movies by 943 users    | downloaded, or a path               |
| movielens-1m           | 1,000,209 ratings of 3,883 movies by 6,040      | downloaded, or a path               |
| movielens-latest-small | 100,836 ratings of 9,742 movies by 610          | downloaded, or a path               |
| amazon-books           | reviews of books on Amazon, to 2014 or to 2018  | a path: the files are asked for     |
"""

from __future__ import annotations

from pathlib import Path

from kar_aug.data import Tables
from kar_aug.datasets._archive import DEFAULT_FOLDER
from kar_aug.datasets.amazon import amazon_books as amazon_books
from kar_aug.datasets.movielens import movielens_1m as movielens_1m
from kar_aug.datasets.movielens import movielens_100k as movielens_100k
from kar_aug.datasets.movielens import movielens_latest_small as movielens_latest_small
from kar_aug.errors import DataError

_MOVIELENS = {
    "movielens-100k": movielens_100k,
    "movielens-1m": movielens_1m,
    "movielens-latest-small": movielens_latest_small,
}


def load(name: str, path: Path | str | None = None, folder: Path | str = DEFAULT_FOLDER) -> Tables:
    """The tables of a public data set.

    Args:
        name: as in the table above.
        path: an archive, folder or file that is there already; downloaded if None.
        folder: what is downloaded or takes long to read is kept here as Parquet.

    Raises:
        DataError: There is no such data set, it cannot be had, or it does not have the rows that it should.
    """
    if name in _MOVIELENS:
        return _MOVIELENS[name](folder, path=path)
    if name != "amazon-books":
        raise DataError(f"There is no data set {name!r}. Known: {', '.join([*_MOVIELENS, 'amazon-books'])}")
    if path is None:
        raise DataError(
            "amazon-books is not downloaded: its files are many gigabytes and their addresses change. Fetch reviews "
            '(and metadata) from the UCSD pages, and say where they are: [data] path = "..."'
        )
    return amazon_books(path, folder)
