"""MIND, the news of MSN with what each page showed (Wu et al., ACL 2020): https://msnews.github.io.

| file          | a row, tab-separated, without a head                                                            |
|---------------|-------------------------------------------------------------------------------------------------|
| behaviors.tsv | impression, user, time ("11/15/2019 9:55:12 AM"), clicked before ("N1 N2"), shown ("N3-1 N4-0")  |
| news.tsv      | news, category, subcategory, title, abstract, address, entities of title and of abstract        |

Its licence lets nobody pass it on: it is fetched by hand, and read from a path.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kar_aug.data import Tables
from kar_aug.datasets._archive import DEFAULT_FOLDER, Files
from kar_aug.errors import DataError

_BEHAVIORS = ("impression_id", "user_id", "timestamp", "clicked_before", "shown")
_NEWS = ("item_id", "category", "subcategory", "title", "abstract")
_TIME = "%m/%d/%Y %I:%M:%S %p"


def mind(folder: Path | str = DEFAULT_FOLDER, *, path: Path | str | None = None) -> Tables:
    """What was shown and clicked, as lists, and what the news say.

    Args:
        folder: not used: nothing is kept.
        path: a folder or zip archive with behaviors.tsv and news.tsv: MINDsmall_train.zip, say.

    Returns:
        interactions: user_id, item_id, timestamp, label, impression_id, position (1, 2, ...; the publishers shuffled
            what was shown, so that it says nothing). What a user had clicked before the log begins are clicks without
            an impression: they are no list, and have the minutes before the user's first page for times, which the
            files do not say.
        items: item_id, category, subcategory, title, abstract.

    Raises:
        DataError: No path was given, a file is missing, or a row is not as above. The test part of the large MIND says
            of nothing whether it was clicked.
    """
    if path is None:
        raise DataError(
            'mind is not downloaded: its licence asks you to. Say where its zip archive is: [data] path = "..."'
        )
    files = Files(Path(path))
    behaviors = _read(files, "behaviors.tsv", _BEHAVIORS)
    news = _read(files, "news.tsv", _NEWS).drop_duplicates("item_id", ignore_index=True)
    if news["category"].iloc[:1].str.lower().eq("category").any():
        raise DataError(f"{path}: news.tsv: line 1 names columns. The files have no head: delete that line.", path=path)
    try:
        behaviors["timestamp"] = pd.to_datetime(behaviors["timestamp"], format=_TIME)
    except ValueError as error:
        reason = str(error).splitlines()[0].partition(". You might")[0]
        raise DataError(
            f"{path}: behaviors.tsv: {reason}. The files have no head: if line 1 names columns, delete it.", path=path
        ) from None
    return Tables(pd.concat([_before(behaviors), _shown(behaviors, path)], ignore_index=True), news)


def _read(files: Files, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    with files.open(name) as file:
        cells = pd.read_csv(
            file,
            sep="\t",
            names=list(columns),
            usecols=range(len(columns)),
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,
            lineterminator="\n",  # a return alone is a character of a title, as a quote is
        )
    return cells.assign(**{columns[-1]: cells[columns[-1]].str.removesuffix("\r")})


def _shown(behaviors: pd.DataFrame, path: Any) -> pd.DataFrame:
    listed = [cell.split() for cell in behaviors["shown"]]
    lengths = np.fromiter(map(len, listed), np.int64, len(listed))
    if not lengths.all():
        where = behaviors["impression_id"].iloc[lengths.argmin()]
        raise DataError(
            f"{path}: behaviors.tsv, impression {where}: nothing was shown. A row has five columns between tabs; "
            "of a user who had clicked nothing before, the fourth is empty.",
            path=path,
        )
    rows = np.repeat(np.arange(len(behaviors)), lengths)
    each = pd.Series([shown for of_one in listed for shown in of_one], dtype=str)
    said = each.str.extract(r"^(.+)-([01])$")
    wrong = said[1].isna().to_numpy()
    if wrong.any():
        where = behaviors["impression_id"].iloc[rows[wrong.argmax()]]
        raise DataError(
            f"{path}: behaviors.tsv, impression {where}: {each[wrong].iloc[0]!r} does not say whether it was clicked, "
            "as in N1-1 or N1-0. The test part of the large MIND does not: split its training part instead.",
            path=path,
        )
    first = np.cumsum(lengths) - lengths
    found = behaviors[["user_id", "timestamp", "impression_id"]].iloc[rows].reset_index(drop=True)
    position = np.arange(len(rows)) - first[rows] + 1
    return found.assign(item_id=said[0], label=said[1].astype("float32"), position=position)


def _before(behaviors: pd.DataFrame) -> pd.DataFrame:
    """The clicks before each user's first impression, oldest first, a minute apart."""
    first = behaviors.sort_values("timestamp", kind="stable").drop_duplicates("user_id")
    listed = [cell.split() for cell in first["clicked_before"]]
    lengths = np.fromiter(map(len, listed), np.int64, len(listed))
    rows = np.repeat(np.arange(len(first)), lengths)
    ends = np.cumsum(lengths)
    minutes = pd.to_timedelta(ends[rows] - np.arange(len(rows)), unit="min")
    found = first[["user_id", "timestamp"]].iloc[rows].reset_index(drop=True)
    items = pd.Series([item for of_one in listed for item in of_one], dtype=str)
    return found.assign(timestamp=found["timestamp"] - pd.Series(minutes), item_id=items, label=np.float32(1))
