from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.workspaces import opened

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

from kar_aug.cache import VectorStore
from kar_aug.compare import arms, compare, decomposition, leading
from kar_aug.compare.arms import pairs
from kar_aug.config import CompareConfig
from kar_aug.encode.collaborative import collaborative_vectors
from kar_aug.errors import StoreError
from kar_aug.pipeline.encoding import encode
from kar_aug.pipeline.workspace import Workspace

SMALL = {
    "backbones": ["DeepFM"], "seeds": 1, "epochs": 1, "jobs": 1, "embedding_dim": 4, "hidden_units": [8],
    "batch_size": 1024,
}  # fmt: skip


def test_behaviour_is_a_control_and_stands_beside_every_text() -> None:
    config = CompareConfig(
        backbones=("DeepFM",),
        knowledge=("item",),
        injections=("similarity",),
        controls=("shuffled", "bigger", "collaborative"),
    )
    assert [arm.name for arm in arms(config)] == [
        "DeepFM",
        "DeepFM + item knowledge (similarity)",
        "DeepFM + shuffled vectors (similarity)",
        "DeepFM, bigger",
        "DeepFM + collaborative vectors (similarity)",
        "DeepFM + item knowledge and collaborative vectors (similarity)",
        "DeepFM + shuffled vectors and collaborative vectors (similarity)",
    ]
    against = [(ours.name, theirs.name) for ours, theirs in pairs(arms(config))[1]]
    both = "DeepFM + item knowledge and collaborative vectors (similarity)"
    assert (both, "DeepFM + collaborative vectors (similarity)") in against
    assert (both, "DeepFM + shuffled vectors and collaborative vectors (similarity)") in against


def test_behaviour_says_nothing_of_users() -> None:
    config = CompareConfig(backbones=("DeepFM",), knowledge=("user",), controls=("shuffled", "collaborative"))
    names = ["DeepFM", "DeepFM + user knowledge", "DeepFM + shuffled vectors"]
    assert [arm.name for arm in arms(config)] == names


def test_items_that_the_same_users_like_are_alike() -> None:
    random = np.random.default_rng(0)
    user, item = np.repeat(np.arange(60), 20), random.integers(0, 40, 1200)
    worth = 3 + np.where(user % 2 == item % 2, 1.0, -1.0) + random.normal(0, 0.5, 1200) + user % 3
    vectors = collaborative_vectors(user, item, worth, 8)
    assert vectors.shape == (40, 1) and vectors.dtype == np.float32, "one thing tells them apart, the rest is chance"
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    of_a_kind = (np.arange(40)[:, np.newaxis] - np.arange(40)) % 2 == 0
    assert alike[of_a_kind].mean() > 0.3 > -0.3 > alike[~of_a_kind].mean()


def test_of_a_short_log_behaviour_does_not_repeat_what_single_users_said() -> None:
    random = np.random.default_rng(0)
    user, item = np.repeat(np.arange(300), 30), random.integers(0, 200, 9000)
    taste, kind = random.normal(size=(300, 3)), random.normal(size=(200, 3))
    worth = (taste[user] * kind[item]).sum(axis=1) + random.normal(0, 2.0, 9000)
    vectors = collaborative_vectors(user, item, worth, 64)
    assert 3 <= vectors.shape[1] < 12, "three things tell them apart"
    found = vectors @ np.linalg.lstsq(vectors, kind, rcond=None)[0]
    assert np.corrcoef(found.ravel(), kind.ravel())[0, 1] > 0.8
    assert collaborative_vectors(user, item, random.normal(size=9000), 64).shape == (200, 1), "all of it is chance"


@pytest.mark.parametrize("busy", [1, 3])
def test_a_few_users_with_very_many_events_do_not_hide_what_all_others_say(busy: int) -> None:
    random = np.random.default_rng(1)
    genre = random.integers(0, 5, 400)

    def log(users: int, plays: int, likes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        user, item = np.repeat(np.arange(users), plays), random.integers(0, 400, users * plays)
        return user, item, likes[user, genre[item]] + random.normal(0, 0.7, users * plays)

    of_many = log(400, 30, random.integers(0, 2, (400, 5)).astype(float))
    of_few = log(busy, 4000, np.zeros((busy, 5)))  # who plays all, whatever it is
    together = [np.concatenate(pair) for pair in zip(of_many, (of_few[0] + 400, *of_few[1:]), strict=True)]
    alone = collaborative_vectors(*of_many).shape[1]
    assert 4 <= alone < 10
    assert 4 <= collaborative_vectors(*together).shape[1] <= alone + busy
    of_chance = collaborative_vectors(*together[:2], random.normal(size=len(together[2])))
    assert of_chance.shape[1] <= 1 + busy, "what nobody said more than once is none of the others'"


def test_what_all_like_as_much_still_tells_by_who_met_it() -> None:
    user, item = np.asarray([0, 0, 1, 1, 2, 2]), np.asarray([0, 1, 0, 1, 2, 3])
    vectors = collaborative_vectors(user, item, np.ones(6), 8)
    assert vectors.shape[1] <= 3, "no more numbers than there are users"
    assert vectors[0] @ vectors[1] > 0.5 and abs(vectors[0] @ vectors[2]) < 1e-5


@pytest.fixture
def workspace(own_tables: Path, truth: Path, tmp_path: Path) -> Workspace:
    """Vectors, and nothing trained."""
    chosen = {"knowledge": ["item"], "injections": ["similarity"], "controls": ["shuffled", "collaborative"]}
    return opened(own_tables, Path(shutil.copytree(truth, tmp_path / "work")), **SMALL, **chosen)


@pytest.mark.usefixtures("step_by_step")
def test_a_gain_is_taken_apart_rung_by_rung(workspace: Workspace) -> None:
    with pytest.raises(StoreError, match="encode --collaborative"):
        compare(workspace)
    (made,) = encode(workspace, collaborative=True).stores
    store = VectorStore.open(made.path)
    trained = workspace.data.split.query("part == 'train'")["item_id"].unique()
    assert set(trained) <= set(store.ids) and not made.encoder.startswith("sentence")
    comparison = compare(workspace)
    alone, beside = decomposition(comparison)
    assert [rung.what for rung in alone.rungs] == ["the plain backbone", "any vectors", "what the language model adds"]
    assert [rung.arm.beside for rung in beside.rungs] == ["", "", "collaborative", "collaborative"]
    assert [rung.what for rung in beside.rungs][1] == "behaviour"
    for ladder in (alone, beside):
        assert sum(rung.step.mean for rung in ladder.rungs if rung.step) == pytest.approx(ladder.gain)
        assert ladder.rungs[-1].auc.mean == comparison.estimate(ladder.rungs[-1].arm).mean
    assert any("beats DeepFM + collaborative vectors" in verdict.text for verdict in leading(comparison))
    assert comparison.coverage(beside.rungs[-1].arm)["item.collaborative"] > 0.5


def test_other_splits_have_other_collaborative_vectors(workspace: Workspace) -> None:
    varied = Workspace(replace(workspace.config, compare=replace(workspace.config.compare, vary_split=True, seeds=2)))
    encode(varied, collaborative=True)
    assert len(list((workspace.config.work / "vectors").glob("collaborative-item-*"))) == 2
