"""Public data sets by name: read from a path, or fetched from where they may be fetched from, and never shipped.

| name                   | what                                            | where from                          |
|------------------------|-------------------------------------------------|-------------------------------------|
| movielens-100k         | 100,000 ratings of 1,682 movies by 943 users    | downloaded, or a path               |
| movielens-1m           | 1,000,209 ratings of 3,883 movies by 6,040      | downloaded, or a path               |
| movielens-latest-small | 100,836 ratings of 9,742 movies by 610          | downloaded, or a path               |
| amazon-books           | reviews of books on Amazon, to 2014 or to 2018  | a path: the files are asked for     |
| mind                   | what MSN showed of its news, and what of it was clicked | a path: fetched by hand     |
"""

from __future__ import annotations

from pathlib import Path

from kar_aug.data import Tables
from kar_aug.datasets._archive import DEFAULT_FOLDER
from kar_aug.datasets.amazon import amazon_books
from kar_aug.datasets.mind import mind
from kar_aug.datasets.movielens import movielens_1m, movielens_100k, movielens_latest_small
from kar_aug.errors import DataError
from kar_aug.registry import DATASETS

__all__ = ["amazon_books", "load", "mind", "movielens_1m", "movielens_100k", "movielens_latest_small"]


def load(name: str, path: Path | str | None = None, folder: Path | str = DEFAULT_FOLDER) -> Tables:
    """The tables of a public data set.

    Args:
        name: as in the table above, or another of the registry's: a function of `folder` and `path`.
        path: an archive, folder or file that is there already; downloaded if None.
        folder: what is downloaded or takes long to read is kept here as Parquet.

    Raises:
        DataError: There is no such data set, it cannot be had, or it does not have the rows that it should.
    """
    if name not in DATASETS:
        raise DataError(f"There is no data set {name!r}. Known: {', '.join(DATASETS)}")
    tables: Tables = DATASETS.load(name)(folder, path=path)
    return tables
