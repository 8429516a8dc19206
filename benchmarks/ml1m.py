"""MovieLens-1M with knowledge that exists already: the model's text about each movie, and human plots as the control.

    python benchmarks/ml1m.py --data FOLDER --output .kar/ml1m

FOLDER holds ratings.parquet (user_id, item_id, rating, timestamp, order), movies.parquet, users.parquet, and texts:
item_knowledge_*.parquet (item_id, text) and item_plot_*.parquet (item_id, plot). None of them is part of this project,
and what is written holds their rows: keep the output out of version control. Written are the three tables, one Parquet
file of texts an arm, and one kar.toml an arm and protocol, whose stages are then the usual ones, as printed:

    kar-aug -c .kar/ml1m/model-user.toml cache import .kar/ml1m/model.parquet
    kar-aug -c .kar/ml1m/model-user.toml encode
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from kar_aug.cli.progress import table
from kar_aug.data import Tables
from kar_aug.datasets.movielens import AGES, OCCUPATIONS

ROWS = {"ratings": 1_000_209, "movies": 3_883, "users": 6_040}
PROTOCOLS = ("user", "temporal")
SETTINGS = """workdir = "{arm}-{protocol}"
[data]
interactions = "interactions.parquet"
items = "items.parquet"
users = "users.parquet"
user_features = ["gender", "age", "occupation"]
item_features = ["genres", "year"]
protocol = "{protocol}"
"""


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


def texts(data: Path, tables: Tables) -> dict[str, pd.DataFrame]:
    """(item_id, text) of each arm; `metadata` is what the tables themselves say, in a sentence."""
    items = tables.items
    written = {
        "model": pd.read_parquet(next(iter(sorted(data.glob("item_knowledge_*.parquet"))))),
        "plots": pd.read_parquet(next(iter(sorted(data.glob("item_plot_*.parquet"))))).rename(columns={"plot": "text"}),
        "metadata": pd.DataFrame(
            {"item_id": items["item_id"], "text": items["title"] + ". " + items["genres"].str.replace("|", ", ") + "."}
        ),
    }
    return {arm: frame[["item_id", "text"]] for arm, frame in written.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(".kar/ml1m"))
    options = parser.parse_args()
    tables = read(options.data)
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    for name in ("interactions", "items", "users"):
        getattr(tables, name).to_parquet(output / f"{name}.parquet", index=False)
    rows: list[tuple[str, ...]] = []
    known = set(tables.items["item_id"])
    for arm, frame in texts(options.data, tables).items():
        frame.to_parquet(output / f"{arm}.parquet", index=False)
        for protocol in PROTOCOLS:
            (output / f"{arm}-{protocol}.toml").write_text(SETTINGS.format(arm=arm, protocol=protocol))
        share = frame["item_id"].isin(known).sum() / len(known)
        rows.append((arm, f"{len(frame):,}", f"{share:.1%}", f"{frame['text'].str.len().mean():,.0f}"))
    table("Texts about movies", ("arm", "texts", "of all movies", "characters"), rows)
    count = len(tables.interactions)
    print(f"{count:,} ratings in order, {ROWS['ratings'] - count:,} of unknown order left out. For each arm, such as:")
    print(f"  kar-aug -c {output}/model-user.toml cache import {output}/model.parquet")
    print(f"  kar-aug -c {output}/model-user.toml encode")
    print(f"  kar-aug -c {output}/model-user.toml audit")


if __name__ == "__main__":
    main()
