"""Small tables with columns of every kind, and models' inputs made of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kar_aug.data import Tables
from kar_aug.data.inputs import Inputs

READ = Inputs(
    user_features=("country",),
    item_features=("genres", "brand"),
    context=("hour", "weekday", "device", "slot", "tags", "discount", "price", "position", "share", "shipped"),
    numeric={
        "price": "standard", "discount": "log", "share": "minmax", "position": "buckets", "year": "standard",
        "stock": "buckets", "age": "log", "shipped": "minmax",
    },
    event_features=(
        "rating", "label", "genres", "studios", "tags", "maker", "dwell", "hour", "country", "since", "device",
        "position",
    ),
    sequences={"views": "event == 'view'"},
    history_length=4,
    user_ids=True,
)  # fmt: skip


def tables(ids: type, times: str = "seconds") -> Tables:
    """Events whose columns are of every kind, some cells empty; some users and items without a row."""
    random = np.random.default_rng(0)
    count = 300
    user, item = random.integers(0, 12, count), random.integers(0, 15, count)
    stamp = 1_500_000_000 + np.sort(random.integers(0, 10**7, count))

    def gaps(values: Any, share: float = 0.2) -> pd.Series:
        return pd.Series(values, dtype=object if np.asarray(values).dtype.kind in "UO" else None).mask(
            random.random(len(values)) < share
        )

    interactions = pd.DataFrame(
        {
            "user_id": user, "item_id": item, "timestamp": stamp, "rating": random.integers(1, 11, count) / 2,
            "event": random.choice(["view", "buy"], count), "device": gaps(random.choice(["phone", "desk"], count)),
            "slot": random.integers(-1, 3, count), "discount": random.normal(0, 50, count).round(2),
            "price": gaps(random.integers(1, 500, count) / 10), "position": gaps(random.integers(0, 100, count) / 10),
            "share": gaps(random.random(count)), "dwell": gaps(random.exponential(30, count)),
        }
    )  # fmt: skip
    interactions["shipped"] = gaps(pd.to_datetime(stamp + random.integers(0, 10**5, count), unit="s"))
    interactions["tags"] = [list(random.choice(["a", "b", "c"], random.integers(0, 4))) for _ in range(count)]
    items = pd.DataFrame({"item_id": np.arange(13), "genres": ["War|Drama", "Drama", None, "War"] * 3 + ["Comedy"]})
    items["studios"] = [["x", "y", "z"][: 1 + i % 3] if i % 4 else [] for i in range(13)]
    items["brand"], items["maker"] = gaps(items["item_id"] % 5), gaps([f"m{i % 3}" for i in range(13)])
    items["year"], items["stock"] = 1990 + items["item_id"] % 7, gaps(items["item_id"] * 10)
    users = pd.DataFrame({"user_id": np.arange(10), "country": gaps(["DE", "FR"] * 5), "age": np.arange(10) * 7})
    if times == "dates":
        interactions["timestamp"] = pd.to_datetime(interactions["timestamp"], unit="s")
    for frame in (interactions, items, users):
        for name in ("user_id", "item_id"):
            if name in frame:
                frame[name] = frame[name].map(lambda id, name=name: f"{name[0]}{id}" if ids is str else int(id) + 7)
    return Tables(interactions, items, users)
