"""Amazon's book reviews, as UCSD publishes them: to 2014 (McAuley et al., SIGIR 2015) and to 2018 (Ni et al., EMNLP
2019).

| file                         | what a row is                                                              |
|------------------------------|----------------------------------------------------------------------------|
| reviews_Books*.json, Books*.json | JSON: reviewerID, asin, overall, unixReviewTime, and more              |
| ratings_Books.csv            | user, item, rating, time; no header (2014)                                 |
| Books.csv                    | item, user, rating, time; no header (2018)                                 |
| meta_Books.json              | asin, title, categories or category, brand; JSON, or to 2014 Python literals |

Each may be compressed (.gz). No checksums are published; files that have the published names are known by their counts.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.json

from kar_aug.data import Tables
from kar_aug.datasets._archive import DEFAULT_FOLDER, kept
from kar_aug.errors import DataError

# By published name; the first that a folder holds is read.
ROWS = {
    "reviews_Books_5.json": 8_898_041,
    "Books_5.json": 27_164_983,
    "reviews_Books.json": 22_507_155,
    "ratings_Books.csv": 22_507_155,
    "Books.json": 51_311_621,
    "Books.csv": 51_311_621,
}
METADATA = "meta_Books.json"
_FIELDS = {"reviewerID": pa.string(), "asin": pa.string(), "overall": pa.float64(), "unixReviewTime": pa.int64()}
_NAMES = {"reviewerID": "user_id", "asin": "item_id", "overall": "rating", "unixReviewTime": "timestamp"}
_ASIN_LENGTH = 10


def amazon_books(folder: Path | str = DEFAULT_FOLDER, *, path: Path | str | None = None) -> Tables:
    """Book reviews of either year as two frames. What was read is kept in `folder` as Parquet, until the files change.

    Args:
        path: one of the files above, or a folder that holds one; metadata is read if it lies beside it. A file of
            another name is read by its ending, and its rows are not counted.

    Returns:
        interactions: user_id, item_id (the ASIN), rating (1..5), timestamp (seconds since 1970, of a day's midnight:
            what a user wrote in one day are ties); the same review given twice counts once.
        items: item_id, title, categories ("Books|Mystery"), brand (the author, to 2018). Of what metadata tells,
            sales rank and "also bought" are left out: they count what was bought later.

    Raises:
        DataError: No path was given, there is no such file, a row of it cannot be read, or a file of a published name
            has other than its published number of rows.
    """
    if path is None:
        raise DataError(
            "amazon-books is not downloaded: its files are many gigabytes and their addresses change. Fetch reviews "
            '(and metadata) from the UCSD pages, and say where they are: [data] path = "..."'
        )
    reviews = _reviews_in(Path(path))
    metadata = _variant(reviews.parent / METADATA)
    return kept(_kept_in(Path(folder), reviews, metadata), lambda: _read(reviews, metadata))


def _reviews_in(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder.", path=path)
    for name in ROWS:
        found = _variant(path / name)
        if found is not None:
            return found
    raise DataError(f"{path}: there is none of {', '.join(ROWS)} in it, compressed or not. Or name a file.", path=path)


def _variant(path: Path) -> Path | None:
    """The file, or the file compressed; None if there is neither."""
    return next((each for each in (path, path.with_name(f"{path.name}.gz")) if each.is_file()), None)


def _kept_in(folder: Path, *files: Path | None) -> Path:
    """A folder for what these files hold, as they are now."""
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f is not None]
    return folder / f"amazon-books-{hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:12]}"


def _read(reviews: Path, metadata: Path | None) -> Tables:
    name = reviews.name.removesuffix(".gz")
    if not name.endswith((".json", ".csv")):
        raise DataError(f"{reviews}: only .json and .csv files are read, compressed (.gz) or not.", path=reviews)
    interactions = _read_json(reviews) if name.endswith(".json") else _read_csv(reviews)
    if len(interactions) != ROWS.get(name, len(interactions)):
        raise DataError(
            f"{reviews} has {len(interactions):,} rows, but the published {name} has {ROWS[name]:,}. "
            "Fetch it again; if it is a part on purpose, give it another name.",
            path=reviews, left=ROWS[name], right=len(interactions),
        )  # fmt: skip
    interactions = interactions.drop_duplicates(["user_id", "item_id", "timestamp"], ignore_index=True)
    if metadata is None:
        return Tables(interactions)
    items = pd.DataFrame(_items(metadata), columns=pd.Index(["item_id", "title", "categories", "brand"]))
    reviewed = items["item_id"].isin(interactions["item_id"].unique())
    return Tables(interactions, items=items[reviewed].drop_duplicates("item_id", ignore_index=True))


def _read_json(path: Path) -> pd.DataFrame:
    options = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema(list(_FIELDS.items())), unexpected_field_behavior="ignore"
    )
    try:
        # A block must hold the longest review.
        with pa.input_stream(str(path), compression="detect") as stream:
            read = pyarrow.json.read_json(stream, pyarrow.json.ReadOptions(block_size=1 << 24), options)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}", path=path) from None
    return read.to_pandas().rename(columns=_NAMES)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, header=None, dtype={0: "string", 1: "string"}, keep_default_na=False)
        frame.columns = pd.Index(["user_id", "item_id", "rating", "timestamp"])
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}", path=path) from None
    lengths = {column: frame[column].str.len() for column in ("user_id", "item_id")}
    if (lengths["user_id"] == _ASIN_LENGTH).all() and not (lengths["item_id"] == _ASIN_LENGTH).all():
        frame = frame.rename(columns={"user_id": "item_id", "item_id": "user_id"})
    elif not (lengths["item_id"] == _ASIN_LENGTH).all():
        raise DataError(
            f"{path}: neither of the first two columns holds ASINs, of {_ASIN_LENGTH} characters each.", path=path
        )
    return frame[list(_NAMES.values())].astype({"user_id": object, "item_id": object})


def _items(path: Path) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                product = _product(line)
                yield str(product["asin"]), _title(product), _categories(product), _text(product.get("brand"))
            except (KeyError, SyntaxError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {number}: this is no product ({error}).", path=path, row=number
                ) from None


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _product(line: str) -> dict[str, Any]:
    """A line of metadata: JSON, or a Python literal as in 2014, which no JSON parser reads."""
    try:
        product = json.loads(line)
    except ValueError:
        product = ast.literal_eval(line)
    if not isinstance(product, dict):
        raise ValueError("not a table of names and values")
    return product


def _title(product: dict[str, Any]) -> str | None:
    title = _text(product.get("title"))
    return None if title is None or "getTime" in title else title  # a script of the page, in some rows of 2018


def _categories(product: dict[str, Any]) -> str | None:
    """`categories` holds lists (2014), of which the first is taken; `category` is one (2018)."""
    lists = product.get("categories") or [product.get("category") or []]
    names = [_text(name) for name in lists[0]]
    return "|".join(name.replace("|", "/") for name in names if name) or None


def _text(value: Any) -> str | None:
    return html.unescape(str(value)).strip() or None if value else None
