"""Fixtures for all tests. TF_USE_LEGACY_KERAS chooses the Keras that a run tests; legacy unless set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chat_server import ChatServer

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key or address of the developer's reaches a test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KAR_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture(scope="session")
def own_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own data: 60 users, 40 items, 1,800 events whose clicks depend on the item's genre."""
    folder = tmp_path_factory.mktemp("own_tables")
    random = np.random.default_rng(0)
    taste, genre = random.integers(0, 2, 60), random.integers(0, 2, 40)
    events = pd.DataFrame({"user_id": np.repeat(np.arange(60), 30), "item_id": random.integers(0, 40, 1800)})
    like = taste[events["user_id"]] == genre[events["item_id"]]
    events["rating"] = np.where(like ^ (random.random(1800) < 0.1), 5, 1)
    events["timestamp"] = 800_000_000 + np.arange(1800) * 3600
    events.to_parquet(folder / "interactions.parquet")
    titles = [f"Movie {i} ({1950 + i})" for i in range(40)]
    pd.DataFrame({"item_id": np.arange(40), "title": titles, "genres": np.where(genre, "Drama", "Comedy|War")}).to_csv(
        folder / "items.csv", index=False
    )
    pd.DataFrame({"user_id": np.arange(60), "gender": np.where(taste, "F", "M")}).to_csv(
        folder / "users.csv", index=False
    )
    (folder / "kar.toml").write_text(
        """
[data]
interactions = "interactions.parquet"
items = "items.csv"
users = "users.csv"
user_features = ["gender"]
item_features = ["genres"]
[generate]
model = "test-model"
max_tokens = 16
[compare]
backbones = ["DeepFM"]
seeds = 1
epochs = 2
embedding_dim = 8
expert_hidden = 16
hidden_units = [16]
batch_size = 128
"""
    )
    return folder
