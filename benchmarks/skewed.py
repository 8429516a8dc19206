"""Models of three sizes, and rows for them with the skew of MovieLens-1M: what other benchmarks measure.

"light" has 4 fields and no history; "heavy" 6 fields and 20 events, mean-pooled; "heaviest" 8 fields, 50 events and
three layers of 400.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kar_aug.backbones import Settings
from kar_aug.data.features import Feature

USERS, ITEMS, EVENTS = 6040, 3706, 50
SIZES = {"user_id": USERS, "item_id": ITEMS, "gender": 3, "age": 8}
MORE = {"occupation": 22, "genre": 19, "year": 81, "zip": 3439}
Model = tuple[list[Feature], Settings]


def _model(more: int, events: int, hidden_units: tuple[int, ...]) -> Model:
    sizes = SIZES | dict(list(MORE.items())[:more])
    features = [Feature(name, size) for name, size in sizes.items()]
    if events:
        features.append(Feature("hist_item_id", ITEMS, length=events, embedding="item_id", sequence="hist"))
    return features, Settings(32, hidden_units)


LIGHT, HEAVY = _model(0, 0, (256, 128)), _model(2, 20, (256, 128))
HEAVIEST = _model(4, EVENTS, (400, 400, 400))
# Two more ordinary embeddings of the same ids; the ids that knowledge is looked up by; and what is compared with it.
FURTHER = [Feature("further_user", USERS), Feature("further_item", ITEMS)]
KEYS = [Feature("user", USERS, is_key=True), Feature("item", ITEMS, is_key=True)]
PAST = [
    Feature("past_item", ITEMS, length=EVENTS, is_key=True),
    Feature("past_value", 0, length=EVENTS, is_key=True),
]


def rows(random: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Rows whose users' activity is log-normal and whose items' popularity follows Zipf, as MovieLens's are."""
    activity, popularity = random.lognormal(0, 1.1, USERS), 1 / (np.arange(ITEMS) + 30)
    activity, popularity = activity / activity.sum(), popularity / popularity.sum()
    found = {name: random.integers(0, size, (count, 1)) for name, size in (SIZES | MORE).items()}
    found["user_id"] = random.choice(USERS, (count, 1), p=activity)
    found["item_id"] = random.choice(ITEMS, (count, 1), p=popularity)
    there = np.arange(EVENTS) < random.geometric(1 / EVENTS, (count, 1))
    for name in ("hist_item_id", "past_item"):
        found[name] = random.choice(ITEMS, (count, EVENTS), p=popularity) * there
    found = {name: values.astype("int32") for name, values in found.items()}
    found["past_value"] = (found["past_item"] > 0) * random.integers(1, 6, (count, EVENTS)).astype("float32")
    for name in ("user", "item"):
        found[name] = found[f"further_{name}"] = found[f"{name}_id"]
    return found


def take_turns(
    steps: Mapping[str, Callable[[], Any]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each step; they alternate, so that whatever else the machine does meets all alike.

    Args:
        seconds: of measurement for each.
        clock: `time.process_time` for the seconds of all threads, which other work hardly changes.
    """
    for step in steps.values():
        step(), step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds * len(steps) or len(next(iter(taken.values()))) < 3:
        for name, step in steps.items():
            before = clock()
            step()
            taken[name].append(clock() - before)
    return {name: float(np.median(times)) for name, times in taken.items()}
