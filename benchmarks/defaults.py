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

from kar_aug._tensorflow import choose_keras, prepare_tensorflow
from kar_aug.cli.progress import table
from kar_aug.config import Config

_PATIENCES = (1, 2, 3, 4)
_MADE = {
    "news": {"users": 1500, "articles": 400},
    "shop": {"users": 2500, "products": 400},
    "reviews": {"users": 6000, "products": 200},
}
_MOVIES = """
[data]
dataset = "movielens-100k"
user_features = ["gender", "age", "occupation"]
item_features = ["genres", "year"]
"""


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
    """The logs of the tests, larger, each with what `kar-aug init --data` guesses of it; and MovieLens-100K."""
    from kar_aug.pipeline.starting import start

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support import logs

    for name, sizes in _MADE.items():
        (folder / name).mkdir(parents=True)
        getattr(logs, name)(folder / name, **sizes)
        start([folder / name], folder / name / "kar.toml")
    (folder / "ml-100k").mkdir()
    (folder / "ml-100k" / "kar.toml").write_text(_MOVIES)


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
