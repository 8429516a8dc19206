"""Looking at vectors: which entities are near, what a person may call them, and the picture in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kar_aug import Project
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.errors import ConfigError, StoreError
from kar_aug.inspect.nearest import find, nearest, norms, titles
from kar_aug.inspect.vector_map import vector_map
from kar_aug.pipeline.comparing import _example

NAMED = {1: "Fargo (1996)", 2: "Heat (1995)", 3: "Heathers (1989)", "x": "1"}


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    with VectorStore.writer(tmp_path, StoreSpec("e", 3)) as writer:
        angles = np.asarray([0, 0.2, 3, 1.5, 3.3])
        vectors = 10 + np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
        writer.append([1, 2, 3, 4, 5], ["k"] * 5, vectors)
    return VectorStore.open(tmp_path)


def test_the_nearest_come_first_and_what_all_have_in_common_does_not_count(store: VectorStore) -> None:
    found = nearest(store, 1, 4)
    assert [id for id, _ in found][:2] == [2, 4] and found[0][1] > 0.9 and found[-1][1] < 0
    assert norms(store).tolist() == pytest.approx(np.linalg.norm(store.gather(store.ids).astype(float), axis=1))
    with pytest.raises(StoreError, match="has no vector of 9"):
        nearest(store, 9)


def test_an_item_is_found_by_id_title_or_a_part_that_only_it_has() -> None:
    assert [find(NAMED, name) for name in ("2", "Heat (1995)", "fargo", "heathers")] == [2, 2, 1, 3]
    with pytest.raises(ConfigError, match=r"Several items are called 'heat'. Did you mean 'Heat \(1995\)' or"):
        find(NAMED, "heat")
    with pytest.raises(ConfigError, match=r"There is no item called 'Fergo \(1996\)'. Did you mean 'Fargo \(1996\)'"):
        find(NAMED, "Fergo (1996)")
    podcasts = {"a": "Hour no. 3 (a)", "b": "Hour no. 33 (b)", "c": "Hour no. 33 (c)"}  # without a title: see `titles`
    assert [find(podcasts, name) for name in ("Hour no. 3", "Hour no. 33 (c)")] == ["a", "c"], "a title, part of others"
    with pytest.raises(ConfigError, match=r"Did you mean 'Hour no. 33 \(b\)' or 'Hour no. 33 \(c\)'\?"):
        find(podcasts, "Hour no. 33")
    with pytest.raises(ConfigError, match=r"Did you mean 'Heat \(1\)' or 'Heat \(2\)'\?"):
        find({1: "Heat", 2: "Heat", 3: "Heathers"}, "Heat")
    assert find({1: "Heat", 2: "Heat"}, "Heat (2)") == 2
    assert titles(pd.DataFrame({"item_id": [1], "title": ["Fargo"]}), "item_id") == {1: "Fargo"}
    assert titles(pd.DataFrame({"item_id": [1]}), "item_id") == {1: "1"}


def test_the_map_shows_every_vector_once_in_its_colour(store: VectorStore) -> None:
    axes = vector_map(store, {1: "Crime", 2: "Crime", 3: "Drama"}).axes[0]
    shown = {part.get_label(): len(part.get_offsets()) for part in axes.collections}
    assert shown == {"other": 2, "Crime": 2, "Drama": 1}


def test_items_that_stand_in_no_table_have_neighbours_too(tmp_path: Path) -> None:
    events = pd.DataFrame({"user_id": np.repeat(range(30), 8), "item_id": [7, 8, 9, 10] * 60, "rating": [1, 5, 5] * 80})
    events["timestamp"] = np.tile(range(8), 30)
    settings = {"workdir": str(tmp_path), "data": {"history": 2, "validation": 0.3, "test": 0.3}}
    project = Project(settings, interactions=events, items=pd.DataFrame({"item_id": [7], "title": ["Seven"]}))
    with VectorStore.writer(project.workspace.store_path("item"), StoreSpec("brought", 2)) as writer:
        writer.append([7, 8, 9], ["k"] * 3, np.array([[1, 0], [0.9, 0.1], [-1, 0]]))
    found = project.inspect.nearest("8")
    assert found.title == "8" and [title for _, title, _ in found.rows] == ["Seven", "9"]
    with pytest.raises(StoreError, match="has no vector of 10"):
        project.inspect.nearest(10)
    assert _example(project.workspace) is None, "a report of vectors that were brought has no prompt to show"
