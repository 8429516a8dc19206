"""Amazon's book reviews, as UCSD publishes them: to 2014 (McAuley et al., SIGIR 2015), to 2018 (Ni et al., EMNLP 2019)
and to 2023 (Hou et al., arXiv:2403.03952).

| file                         | what a row is                                                              |
|------------------------------|----------------------------------------------------------------------------|
| reviews_Books*.json, Books*.json | JSON: reviewerID, asin, overall, unixReviewTime, and more              |
| Books.jsonl                  | JSON: user_id, parent_asin, rating, timestamp in ms, and more (2023)       |
| ratings_Books.csv            | user, item, rating, time; no header (2014)                                 |
| Books.csv                    | item, user, rating, time; no header (2018)                                 |
| meta_Books.json, .jsonl      | asin, title, categories or category, brand; JSON, or to 2014 Python literals |

Each may be compressed (.gz). No checksums are published; files that have the published names are known by their counts.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.json

from kar_aug.data import Tables
from kar_aug.data.cells import mended
from kar_aug.data.json_lines import JsonLines, JsonParts
from kar_aug.data.opening import faults, opened, text
from kar_aug.datasets._archive import DEFAULT_FOLDER, kept
from kar_aug.errors import DataError

# By published name; the first that a folder holds is read.
ROWS: dict[str, int | None] = {
    "reviews_Books_5.json": 8_898_041,
    "Books_5.json": 27_164_983,
    "reviews_Books.json": 22_507_155,
    "ratings_Books.csv": 22_507_155,
    "Books.json": 51_311_621,
    "Books.csv": 51_311_621,
    "Books.jsonl": None,  # whose count is published in millions only
}
METADATA = ("meta_Books.json", "meta_Books.jsonl")
_COLUMNS = {"user_id": pa.string(), "item_id": pa.string(), "rating": pa.float64(), "timestamp": pa.int64()}
# What the columns are called to 2018, and in 2023.
_NAMES = dict(zip(("reviewerID", "asin", "overall", "unixReviewTime"), _COLUMNS, strict=True))
_NAMES_2023 = dict(zip(("user_id", "parent_asin", "rating", "timestamp"), _COLUMNS, strict=True))
_ASIN_LENGTH = 10
_ROWS = 1 << 16


def amazon_books(folder: Path | str = DEFAULT_FOLDER, *, path: Path | str | None = None) -> Tables:
    """Book reviews of either year as two frames. What was read is kept in `folder` as Parquet, until the files change.

    Args:
        path: one of the files above, or a folder that holds one; metadata is read if it lies beside it. A file of
            another name (Toys.jsonl, beside meta_Toys.jsonl) is read by its ending, and its rows are not counted.

    Returns:
        interactions: user_id, item_id (the ASIN; in 2023 that of all editions), rating (1..5), timestamp (seconds since
            1970, of a day's midnight: what a user wrote in one day are ties; in 2023 datetimes, to the millisecond);
            the same review given twice counts once.
        items: item_id, title, categories ("Books|Mystery"), brand (the author, to 2018; in 2023 the store). Of what
            metadata tells, sales rank and "also bought" are left out: they count what was bought later.

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
    beside = (_variant(reviews.parent / name) for name in (*_called_after(reviews), *METADATA))
    metadata = next((found for found in beside if found is not None), None)
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


def _called_after(reviews: Path) -> list[str]:
    """What metadata is called beside reviews of another category: that of reviews_Toys_5.json.gz meta_Toys.json."""
    category = re.sub(r"^(reviews|ratings)_|(_5)?\.(jsonl?|csv)(\.gz)?$", "", reviews.name)
    return [f"meta_{category}{ending}" for ending in (".json", ".jsonl")]


def _variant(path: Path) -> Path | None:
    """The file, or the file compressed; None if there is neither."""
    return next((each for each in (path, path.with_name(f"{path.name}.gz")) if each.is_file()), None)


def _kept_in(folder: Path, *files: Path | None) -> Path:
    """A folder for what these files hold, as they are now."""
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f is not None]
    return folder / f"amazon-books-{hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:12]}"


def _read(reviews: Path, metadata: Path | None) -> Tables:
    name = reviews.name.removesuffix(".gz")
    if not name.endswith((".json", ".jsonl", ".csv")):
        raise DataError(f"{reviews}: only .json and .csv files are read, compressed (.gz) or not.")
    interactions = _read_csv(reviews) if name.endswith(".csv") else _read_json(reviews)
    published = ROWS.get(name)
    if published is not None and len(interactions) != published:
        raise DataError(
            f"{reviews} has {len(interactions):,} rows, but the published {name} has {published:,}. "
            "Fetch it again; if it is a part on purpose, give it another name."
        )
    interactions = interactions.drop_duplicates(["user_id", "item_id", "timestamp"], ignore_index=True)
    if metadata is None:
        return Tables(interactions)
    items = pd.DataFrame(_items(metadata), columns=pd.Index(["item_id", "title", "categories", "brand"]))
    reviewed = items["item_id"].isin(interactions["item_id"].unique())
    return Tables(interactions, items=items[reviewed].drop_duplicates("item_id", ignore_index=True))


def _read_json(path: Path) -> pd.DataFrame:
    names = _names_in(path)
    fields = pa.schema([(name, _COLUMNS[ours]) for name, ours in names.items()])
    with faults(path):
        try:
            read = _parsed(path, fields)
        except pa.ArrowInvalid as error:
            if "surrogate" not in str(error):
                raise
            batches = JsonParts([JsonLines(path)], path).batches(_ROWS)
            read = pa.Table.from_batches([batch.select(fields.names) for batch in batches]).cast(fields)
    frame = read.to_pandas().rename(columns=names)
    if names is _NAMES_2023:
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="ms")
    return frame


def _parsed(path: Path, fields: pa.Schema) -> pa.Table:
    """Some fields of each line, by Arrow: fast, but it refuses a file with half a character (\\ud83d) in any other."""
    options = pyarrow.json.ParseOptions(explicit_schema=fields, unexpected_field_behavior="ignore")
    with pa.input_stream(str(path), compression="detect") as stream:
        # A block must hold the longest review.
        return pyarrow.json.read_json(stream, pyarrow.json.ReadOptions(block_size=1 << 24), options)


def _names_in(path: Path) -> dict[str, str]:
    """The names of the columns, by the first line."""
    with faults(path), opened(path) as lines:
        return _NAMES_2023 if b'"user_id"' in lines.readline() else _NAMES


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
        raise DataError(f"{path}: neither of the first two columns holds ASINs, of {_ASIN_LENGTH} characters each.")
    return frame[list(_COLUMNS)].astype({"user_id": object, "item_id": object})


def _items(path: Path) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    with faults(path), text(path, "utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                product = _product(line)
                asin = product["asin"] if "asin" in product else product["parent_asin"]
                brand = product.get("brand") or product.get("store")
                yield str(asin), _title(product), _categories(product), _text(brand)
            except (KeyError, SyntaxError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {number}: this is no product ({error}).", path=path, row=number
                ) from None


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
    """`categories` holds lists (2014), of which the first is taken, or is one (2023), as `category` is (2018)."""
    given = product.get("categories") or product.get("category") or []
    given = given if isinstance(given, list) else [given]
    names = [_text(name) for name in (given[0] if given and isinstance(given[0], list) else given)]
    return "|".join(name.replace("|", "/") for name in names if name) or None


def _text(value: Any) -> str | None:
    if not value or value != value:  # NaN, where a table was written as JSON
        return None
    return html.unescape(mended(str(value))).strip() or None
