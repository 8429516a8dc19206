"""Small tables, and what a model and a language model read of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.samples import Samples
from kar_aug.prompts import Prompt, Scenario, item_prompts, user_prompts

EVENTS = pd.DataFrame(
    [(u, 1 + k % 8, k % 5 + 1, 1_500_000_000 + 86_400 * k + u) for u in range(12) for k in range(10)],
    columns=["user_id", "item_id", "rating", "timestamp"],
)
GENRES = ["Drama|Comedy", "War", "Drama", None, "War|Drama|Sci-Fi", "Comedy", "Drama|War", "War"]
ITEMS = pd.DataFrame(
    {"item_id": range(1, 9), "title": [f"Movie {i}" for i in range(8)], "genres": GENRES, "year": 1995}
)


def samples(interactions: pd.DataFrame, items: pd.DataFrame = ITEMS) -> Samples:
    """What a model reads."""
    tables = Tables(interactions, items)
    return build_samples(tables, split_interactions(interactions), item_features=["genres", "year"])


def prompts(interactions: pd.DataFrame, items: pd.DataFrame = ITEMS, scenario: str = "movies") -> list[Prompt]:
    """What a language model reads: of the users, then of the items."""
    tables, split = Tables(interactions, items), split_interactions(interactions)
    by = Scenario.load(scenario)
    return [*user_prompts(by, tables, split), *item_prompts(by, tables, split)]


def assert_same(found: Samples, expected: Samples) -> None:
    """Equal to the bit."""
    assert found.features == expected.features and found.vocabulary == expected.vocabulary
    read = found.read(np.arange(len(found)))
    for name, values in expected.read(np.arange(len(expected))).items():
        np.testing.assert_array_equal(read[name], values)
    np.testing.assert_array_equal(found.label, expected.label)
