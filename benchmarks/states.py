"""How near a state a user, of constant size, comes to comparing a candidate with each event: for long histories.

    python benchmarks/states.py --interactions .kar/ml-1m/interactions.parquet --vectors .kar/ml-1m/model/vectors/item

Of some users every event from the 21st on is a candidate, compared with all before it in frozen vectors of 64 numbers;
what each was worth is less the user's mean of then. `exact` is the kernel regression of `SimilarityFeatures` at two
temperatures. All others are sums to which an event adds its own, once, so that they can be kept for a user:

    random m        sums of positive random features (Performer, arXiv:2009.14794) of the same kernel: 2 m numbers
    linear          sum v k, sum k: the candidate times the one less the mean times the other, by events: 130 numbers
    linear + cube   the same, and the cubes of similarities: monomials of three, too many numbers to keep; a bound
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from kar_aug import VectorStore
from kar_aug.cache.vectors.preparation import Preparation

TEMPERATURES, LEVEL, FIRST = (0.05, 0.15), 0.3, 20


def auc(clicked: Any, score: Any) -> float:
    ranks = pd.Series(score).rank().to_numpy()
    count = clicked.sum()
    return float((ranks[clicked].sum() - count * (count + 1) / 2) / (count * (len(clicked) - count)))


def kernel_regression(weights: Any, values: Any, mean: Any) -> Any:
    """Of (events, events) what earlier ones weigh; sums that random features make may be tiny or negative."""
    total = weights.sum(1)
    return (weights @ values - mean * total) / np.maximum(1 + total, 0.2)


def scores(vectors: Any, features: dict[tuple[float, int], Any], values: Any) -> dict[str, Any]:
    count = len(values)
    before = np.tril(np.ones((count, count)), -1)
    number = np.maximum(np.arange(count), 1)
    mean = np.concatenate([[0], np.cumsum(values)[:-1] / np.arange(1, count)])
    similarity = vectors @ vectors.T
    found = {}
    for temperature in TEMPERATURES:
        exact = np.exp((similarity - LEVEL) / temperature) * before
        found[f"exact, {temperature}"] = kernel_regression(exact, values, mean)
        for (of, size), some in features.items():
            if of == temperature:
                weights = some @ some.T * np.exp(-LEVEL / temperature) * before
                found[f"random {size}, {temperature}"] = kernel_regression(weights, values, mean)
    linear, cube = ((power * before) @ values - mean * (power * before).sum(1) for power in (similarity, similarity**3))
    return {**found, "linear": linear / number, "linear + cube": (linear + 4 * cube) / number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", required=True)
    parser.add_argument("--vectors", required=True, help="a VectorStore of the items")
    parser.add_argument("--users", type=int, default=150)
    options = parser.parse_args()
    log = pd.read_parquet(options.interactions)
    items = sorted(log.item_id.unique())
    table = VectorStore.open(options.vectors).align(items)
    ready = Preparation.fitted(table, 64, centre=True, whiten=False, unit=True)
    known = table.rows >= 0
    vectors = np.zeros((len(items), ready.width), "float32")
    vectors[known] = ready(np.asarray(table.vectors, "float32")[table.rows[known]])
    random = np.random.default_rng(0)
    features = {}
    for temperature in TEMPERATURES:
        for size in (256, 1024):
            projected = vectors @ random.normal(size=(ready.width, size)) / np.sqrt(temperature)
            features[temperature, size] = np.exp(projected - 1 / (2 * temperature)) / np.sqrt(size)
    log = log[log.user_id.isin(random.choice(log.user_id.unique(), options.users, replace=False))]
    clicked, found = [], []
    for _, events in log.sort_values(["user_id", "timestamp"], kind="stable").groupby("user_id"):
        places = np.searchsorted(items, events.item_id)
        values = events.rating.to_numpy(float)
        if len(values) > FIRST:
            of_events = {key: some[places] for key, some in features.items()}
            clicked.append((values >= 4)[FIRST:])
            found.append({n: s[FIRST:] for n, s in scores(vectors[places], of_events, values).items()})
    label = np.concatenate(clicked)
    all_scores = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    exact = all_scores[f"exact, {TEMPERATURES[-1]}"]
    print(f"{len(label):,} candidates of {len(clicked)} users\n\n| score | AUC | correlation with exact, 0.15 |")
    print("| --- | --- | --- |")
    for name, score in all_scores.items():
        print(f"| {name} | {auc(label, score):.4f} | {np.corrcoef(score, exact)[0, 1]:.2f} |")


if __name__ == "__main__":
    main()
