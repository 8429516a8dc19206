"""MovieLens-1M with knowledge that exists already: the model's text about each movie, and human plots as the control.

    python benchmarks/ml1m.py --data FOLDER

FOLDER holds ratings.parquet (user_id, item_id, rating, timestamp, order), movies.parquet, users.parquet, and texts:
item_knowledge_*.parquet (item_id, text) and item_plot_*.parquet (item_id, plot). None of them is part of this project,
and what is written holds their rows: keep the output out of version control. Written are the three tables and one
Parquet file of texts for each of benchmarks/ml-1m.toml and ml-1m-plots.toml, the first of which says how to go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from kar_aug.cli.progress import table
from kar_aug.data import Tables
from kar_aug.datasets.movielens import AGES, OCCUPATIONS

ROWS = {"ratings": 1_000_209, "movies": 3_883, "users": 6_040}


def read(data: Path) -> Tables:
    """The tables, with ages and occupations in words. Ratings whose place in their user's order is unknown are left
    out."""
    frames = {name: pd.read_parquet(data / f"{name}.parquet") for name in ROWS}
    counts = {name: len(frame) for name, frame in frames.items()}
    if counts != ROWS:
        raise SystemExit(f"{data} has {counts} rows, not {ROWS}.")
    ratings, movies, users = frames.values()
    year = pd.to_numeric(movies["title"].str.extract(r"\((\d{4})\)\s*$")[0]).astype("Int64")
    age, occupation = users["age"].map(AGES), users["occupation"].map(dict(enumerate(OCCUPATIONS)))
    columns = ["user_id", "item_id", "rating", "timestamp", "order"]
    return Tables(
        ratings.loc[ratings["order"] >= 0, columns].reset_index(drop=True),
        items=movies.assign(year=year)[["item_id", "title", "genres", "year"]],
        users=users.assign(age=age, occupation=occupation)[["user_id", "gender", "age", "occupation"]],
    )


def texts(data: Path) -> dict[str, pd.DataFrame]:
    """(item_id, text) by the name of the kar.toml that imports them."""
    found = {
        "ml-1m": pd.read_parquet(next(iter(sorted(data.glob("item_knowledge_*.parquet"))))),
        "ml-1m-plots": pd.read_parquet(next(iter(sorted(data.glob("item_plot_*.parquet"))))).rename(
            columns={"plot": "text"}
        ),
    }
    return {name: frame[["item_id", "text"]] for name, frame in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(".kar/ml-1m"))
    options = parser.parse_args()
    tables = read(options.data)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in ("interactions", "items", "users"):
        getattr(tables, name).to_parquet(options.output / f"{name}.parquet", index=False)
    rows: list[tuple[str, ...]] = []
    known = set(tables.items["item_id"])
    for name, frame in texts(options.data).items():
        frame.to_parquet(options.output / f"{name}.parquet", index=False)
        share = frame["item_id"].isin(known).sum() / len(known)
        rows.append((name, f"{len(frame):,}", f"{share:.1%}", f"{frame['text'].str.len().mean():,.0f}"))
    table("Texts about movies", ("for", "texts", "of all movies", "characters"), rows)
    count = len(tables.interactions)
    print(f"{count:,} ratings in order, {ROWS['ratings'] - count:,} of unknown order left out.")
    print("How to go on stands at the top of benchmarks/ml-1m.toml.")


if __name__ == "__main__":
    main()
