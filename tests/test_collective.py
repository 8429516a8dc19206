"""Collective knowledge: entities that behave alike share a group, a group is one question, and vectors are mixed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import kar_aug

from kar_aug.cache import StoreSpec, TextCache, VectorStore
from kar_aug.config import Config
from kar_aug.errors import EncodingError
from kar_aug.pipeline.workspace import Workspace
from kar_aug.pipeline.workspace.groups import Clusters, cluster, interaction_vectors, mix
from kar_aug.testing import ChatServer


def workspace(folder: Path, text: str) -> Workspace:
    with (folder / "kar.toml").open("a") as file:
        file.write(f"[prompts]\n{text}\n")
    return Workspace(Config.load(folder / "kar.toml"))


def test_items_that_the_same_users_like_are_one_group(own_tables: Path) -> None:
    space = Workspace(Config.load(own_tables / "kar.toml"))
    ids, vectors = interaction_vectors(space.data.split, "item")
    clusters = cluster("item", ids, vectors[:, :2], 2)
    genre = space.tables.items.set_index("item_id")["genres"]
    same = np.mean([(genre[id] == "Drama") == (clusters.of[id] == clusters.of[ids[0]]) for id in ids])
    assert max(same, 1 - same) > 0.85, "the data's clicks depend on the genre"
    again = cluster("item", ids, vectors[:, :2], 2)
    assert again == clusters and again.fingerprint == clusters.fingerprint
    with pytest.raises(EncodingError, match="lower item_clusters"):
        cluster("item", ids, vectors, 10_000)


def test_only_histories_decide_the_groups(own_tables: Path) -> None:
    split = Workspace(Config.load(own_tables / "kar.toml")).data.split
    changed = split.assign(label=split["label"].where(split["part"] == "history", 1 - split["label"]))
    for source in ("user", "item"):
        np.testing.assert_array_equal(interaction_vectors(split, source)[1], interaction_vectors(changed, source)[1])


def test_a_group_is_one_prompt_of_its_members_and_they_stay_together(folder: Path) -> None:
    space = workspace(folder, "max_items = 0\nmax_users = 3\nitem_clusters = 4\nuser_clusters = 5")
    items, users = list(space.asking.prompts("item")), list(space.asking.prompts("user"))
    assert [p.knowledge for p in items] == ["item:kar:collective-4"] * 4 and space.asking.count("item") == 4
    assert [p.knowledge for p in users] == ["user"] * 3 + ["user:kar:collective-5"] * 5
    clusters = space.asking.clusters("item")
    assert clusters is not None
    assert sorted(clusters.of) == sorted(space.data.split.query("part == 'history'").item_id.unique())
    for prompt, members in zip(items, clusters.members, strict=True):
        text = prompt.messages[1]["content"]
        assert text.startswith(f"<data>\nGroup of {len(members)} movies, the most typical: Movie {members[0]} (")
        assert "not one: answer for what they share" in prompt.messages[0]["content"]
        assert "Describe this movie by genre" in text and text.count("<") == 2
        assert "Genres, most often: " in text
    seen = space.data.split.query("part == 'history'")["timestamp"].max()
    assert "Most often liked by them: Movie" in users[-1].text and "Gender, most often: " in users[-1].text
    assert max(p.as_of or "" for p in users) == pd.Timestamp(seen, unit="s").isoformat()
    again = Workspace(space.config)
    assert again.asking.clusters("item") == clusters and list(again.asking.prompts("item")) == items


def store(path: Path, ids: list[int], vectors: list[list[float]]) -> VectorStore:
    with VectorStore.writer(path, StoreSpec("e", 2, ("v",), ("m",), dtype="float32")) as writer:
        writer.append(ids, [f"{id}" for id in ids], np.array(vectors))
    return VectorStore.open(path)


def test_an_entity_has_its_groups_vector_mixed_with_its_own(tmp_path: Path) -> None:
    own, groups = (
        store(tmp_path / "own", [10, 13], [[1, 0], [4, 4]]),
        store(tmp_path / "groups", [0, 1], [[0, 1], [0, 3]]),
    )
    clusters = Clusters("item", ((10, 11), (12,)))
    mixed = mix(own, groups, clusters.of, tmp_path / "mixed", own_share=0.25)
    expected = {10: [0.25, 0.75], 11: [0, 1], 12: [0, 3], 13: [4, 4]}
    assert {id: mixed.gather([id])[0].tolist() for id in mixed.ids} == expected
    assert mix(own, groups, clusters.of, tmp_path / "mixed", own_share=0.25).fingerprint == mixed.fingerprint
    without = mix(None, groups, {11: 0, 12: 1}, tmp_path / "mixed", own_share=0.25)
    assert sorted(without.ids) == [11, 12]


def test_groups_are_asked_encoded_and_mixed_from_the_command_line(folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = kar_aug(folder, *arguments)
        assert done.returncode == 0, done.stderr
        return done

    space = workspace(folder, "max_items = 2\nmax_users = 0\nuser_clusters = 3")
    with ChatServer() as server:
        run("generate", "--item-clusters", "4", "--base-url", server.base_url)
        assert len(server.requests) == 2 + 3 + 4, "not one for each of 100 entities"
    encoded = run("encode", "--item-clusters", "4")
    assert "mixed with those of 4 groups" in encoded.stderr
    config = Config.load(folder / "kar.toml", {"prompts": {"item_clusters": 4}})
    stores = Workspace(config).paths.stores()
    assert stores["item_id"].coverage(space.data.split["item_id"].tolist()) == 1
    assert len(VectorStore.open(Workspace(config).paths.vectors("item"))) == 2
    with TextCache(space.paths.cache) as cache:
        assert cache.count_linked("item:kar:collective-4") == 4
