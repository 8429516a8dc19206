"""Are the defaults of [compare] those that hold? One backbone on several logs, plain, over a grid of settings.

    python benchmarks/defaults.py --make FOLDER          # four unlike logs: news, a shop, reviews, MovieLens-100K
    python benchmarks/defaults.py LOG/kar.toml... [--learning-rates 0.0005,0.001,0.002,0.005] [--batch-sizes 1024]
    python benchmarks/defaults.py LOG/kar.toml... --unknown-shares 0,0.05,0.2 --protocol temporal

Each setting trains for `--epochs` epochs, so that the curve shows what every patience would have come to. Told per log
are validation and test AUC at the best epoch; and over all logs by how much each setting, and each patience, stays
behind the best of the grid, on validation: what is lost on average, and where it loses most.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.tensorflow import choose_keras, prepare_tensorflow
from kar_aug.cli.progress import table
from kar_aug.config import Config

_PATIENCES = (1, 2, 3, 4)
_USERS = {"news": 1500, "shop": 2000, "ratings": 800}
_SETTINGS = {
    "shop": """
[data]
interactions = "events.parquet"
items = "products.parquet"
label = "event == 'purchase'"
protocol = "temporal"
item_features = ["category", "brand"]
numeric = { price = "log" }
event_features = ["event", "category", "brand", "since"]
""",
    "ratings": """
[data]
interactions = "ratings.parquet"
items = "products.parquet"
item_features = ["category", "brand"]
numeric = { price = "log" }
""",
    "ml-100k": """
[data]
dataset = "movielens-100k"
user_features = ["gender", "age", "occupation"]
item_features = ["genres", "year"]
""",
}


@dataclass(frozen=True)
class Tried:
    """A setting on a log: validation AUC by epoch, and test AUC at the best of them."""

    log: str
    setting: str
    curve: tuple[float, ...]
    test: float

    def validation(self, patience: int | None = None) -> float:
        """Of the epoch that is chosen, if training ends after so many without a better one."""
        best, at = -1.0, 0
        for epoch, auc in enumerate(self.curve):
            if auc > best:
                best, at = auc, epoch
            elif patience is not None and epoch - at >= patience:
                break
        return best


def tried(path: Path, options: argparse.Namespace) -> Iterator[Tried]:
    """Every setting of the grid on a log."""
    from kar_aug.compare.arms import Arm
    from kar_aug.compare.metrics import auc
    from kar_aug.compare.sanity import rivals
    from kar_aug.compare.training import predict, train
    from kar_aug.pipeline.workspace import Workspace

    changes: dict[str, Any] = {"data": {"protocol": options.protocol}} if options.protocol else {}
    workspace = Workspace(Config.load(path, changes))
    samples, config = workspace.samples, workspace.config
    log, test = path.resolve().parent.name if path.stem == "kar" else path.stem, samples.of("test")
    told = [f"{rival.name} {rival.auc:.4f}" for rival in rivals(samples, config.work, workspace.data_fingerprint)]
    print(f"{log}: {len(samples.of('train')):,} rows to train on, {len(test):,} to test; {', '.join(told)}", flush=True)
    grid = product(options.learning_rates, options.batch_sizes, options.unknown_shares)
    for rate, size, share in grid:
        settings = replace(
            config.compare.training,
            learning_rate=rate,
            batch_size=size,
            unknown_share=share,
            epochs=options.epochs,
            patience=options.epochs,
        )
        trained = train(Arm(options.backbone), options.seed, samples, {}, settings)
        found = auc(samples.label[test], predict(trained.model, samples, test), samples.weight[test])
        yield Tried(log, f"{rate:g}, {size}, {share:g}", trained.curve, found)


def make(folder: Path) -> None:
    """The news of the tests, as `kar-aug init --data` reads them; a shop and ratings, in which a user's past says what
    comes; and MovieLens-100K.
    """
    from kar_aug.pipeline.starting import start

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.logs import news

    (folder / "news").mkdir(parents=True)
    start([news(folder / "news", users=_USERS["news"], articles=400)], folder / "news" / "kar.toml")
    for name, settings in _SETTINGS.items():
        (folder / name).mkdir()
        (folder / name / "kar.toml").write_text(settings)
    _shop(folder / "shop", _USERS["shop"])
    _ratings(folder / "ratings", _USERS["ratings"])


def _shop(folder: Path, users: int) -> None:
    """Views and purchases: who likes a category looks at it more, and buys of it what costs about as much as always."""
    random = np.random.default_rng(4)
    products = _products(random)
    products.to_parquet(folder / "products.parquet")
    likes, level = random.integers(0, 12, (users, 2)), random.normal(3, 0.7, users)
    user = np.repeat(np.arange(users), 40)
    item = random.integers(0, len(products), len(user))
    category, price = products["category"].to_numpy(), np.log(products["price"].to_numpy())
    dull = (likes[user] != category[item][:, np.newaxis]).all(axis=1) & (random.random(len(user)) < 0.6)
    item[dull] = random.integers(0, len(products), int(dull.sum()))
    liked = (likes[user] == category[item][:, np.newaxis]).any(axis=1)
    buys = _happens(random, -3 + 2 * liked - np.abs(price[item] - level[user]) + products["quality"].to_numpy()[item])
    time = 1_600_000_000 + random.integers(0, 90 * 86_400, len(user))
    events = {"user_id": user, "item_id": item, "timestamp": time, "event": np.where(buys, "purchase", "view")}
    pd.DataFrame(events).to_parquet(folder / "events.parquet")


def _ratings(folder: Path, users: int) -> None:
    """Stars: of the user's mood, of what a product is worth, and of the categories that the user likes."""
    random = np.random.default_rng(5)
    products = _products(random)
    products.to_parquet(folder / "products.parquet")
    likes, mood = random.normal(0, 0.6, (users, 12)), random.normal(0, 0.6, users)
    user = np.repeat(np.arange(users), 50)
    item = random.integers(0, len(products), len(user))
    worth = mood[user] + 0.5 * products["quality"].to_numpy()[item] + likes[user, products["category"].to_numpy()[item]]
    stars = np.clip(np.rint(3.5 + worth + random.normal(0, 0.8, len(user))), 1, 5)
    time = 1_600_000_000 + random.integers(0, 900 * 86_400, len(user))
    ratings = {"user_id": user, "item_id": item, "timestamp": time, "rating": stars}
    pd.DataFrame(ratings).to_parquet(folder / "ratings.parquet")


def _products(random: np.random.Generator) -> pd.DataFrame:
    count = 500
    return pd.DataFrame(
        {
            "item_id": np.arange(count),
            "category": random.integers(0, 12, count),
            "brand": random.integers(0, 30, count),
            "price": random.lognormal(3, 0.8, count).round(2),
            "quality": random.normal(0, 0.7, count),
        }
    )


def _happens(random: np.random.Generator, worth: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return random.random(len(worth)) < 1 / (1 + np.exp(-worth))


def behind(rows: list[Tried]) -> list[tuple[str, ...]]:
    """Per setting: how far it stays behind the best on validation, on average and at most; by the last, best first."""
    logs = dict.fromkeys(row.log for row in rows)
    best = {log: max(row.validation() for row in rows if row.log == log) for log in logs}
    found = []
    for setting in dict.fromkeys(row.setting for row in rows):
        of_setting = [row for row in rows if row.setting == setting]
        for patience in (*_PATIENCES, None):
            lost = [best[row.log] - row.validation(patience) for row in of_setting]
            worst = of_setting[int(np.argmax(lost))].log
            found.append(
                (max(lost), (setting, str(patience or "all"), f"{np.mean(lost):.4f}", f"{max(lost):.4f}", worst))
            )
    return [cells for _, cells in sorted(found, key=lambda each: each[0])]


def numbers(text: str) -> list[float]:
    """A list as options have it."""
    return [float(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="*", metavar="kar.toml")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="write four logs there, and do no more")
    parser.add_argument("--backbone", default="DeepFM")
    parser.add_argument("--learning-rates", type=numbers, default=[0.0005, 0.001, 0.002, 0.005])
    parser.add_argument("--batch-sizes", type=lambda text: [int(each) for each in text.split(",")], default=[1024])
    parser.add_argument("--unknown-shares", type=numbers, default=[0.05])
    parser.add_argument("--protocol", choices=["user", "temporal"], help="in place of the logs' own")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return
    choose_keras()
    prepare_tensorflow(threads=1)
    rows: list[Tried] = []
    for path in options.logs:
        for row in tried(path, options):
            rows.append(row)
            curve = " ".join(f"{auc:.4f}" for auc in row.curve)
            print(f"  {row.setting}: validation {row.validation():.4f}, test {row.test:.4f}; {curve}", flush=True)
    columns = ("log", "learning rate, batch, unknown", "best epoch", "validation", "test")
    cells = [
        (r.log, r.setting, str(int(np.argmax(r.curve)) + 1), f"{r.validation():.4f}", f"{r.test:.4f}") for r in rows
    ]
    table("Settings on each log", columns, cells)
    table("Behind the best on validation", ("setting", "patience", "mean", "most", "on"), behind(rows))


if __name__ == "__main__":
    main()
