"""Models of lists, and what they are trained for, on both of Keras's interfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, load_model, prestore
from kar_aug.backbones.injections.fields import Fields
from kar_aug.backbones.injections.similarity import Similarity
from kar_aug.backbones.injections.together import Together
from kar_aug.backbones.protocol import Settings, nothing
from kar_aug.backbones.reranking import LOSSES, ListFeatures
from kar_aug.data.features import Feature
from kar_aug.registry import RERANKERS

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
SIZE, ITEMS, EVENTS, WIDTH = 4, 9, 3, 4
FEATURES = ListFeatures(
    items=[Feature("item_id", ITEMS), Feature("genres", 5, 2), Feature("price"), Feature("item", ITEMS, is_key=True)],
    around=[
        Feature("gender", 4),
        Feature("hist_item_id", ITEMS, EVENTS, "item_id", "hist"),
        Feature("user", 6, is_key=True),
        Feature("past_item", ITEMS, EVENTS, sequence="past", is_key=True),
        Feature("past_value", 0, EVENTS, sequence="past", is_key=True),
    ],
    size=SIZE,
)
SETTINGS = Settings(embedding_dim=WIDTH, hidden_units=(8, 6))


def knowledge() -> KnowledgeAugmentation:
    random = np.random.default_rng(0)
    vectors = {"user": random.normal(size=(6, 5)), "item": random.normal(size=(ITEMS, 5))}
    return KnowledgeAugmentation({n: v.astype("float32") for n, v in vectors.items()}, expert_units=(8, WIDTH))


def built(name: str, augmentation: Any = None, injection: Any = nothing) -> Any:
    return RERANKERS.load(name)(FEATURES, SETTINGS, augmentation, injection)


def batch(rows: int = 16) -> dict[str, np.ndarray]:
    """The last item of each list is padding."""
    random = np.random.default_rng(1)
    found = {
        "item_id": random.integers(1, ITEMS, (rows, SIZE)),
        "genres": random.integers(0, 5, (rows, SIZE, 2)),
        "price": random.normal(size=(rows, SIZE)),
        "gender": random.integers(0, 4, (rows, 1)),
        "hist_item_id": random.integers(0, ITEMS, (rows, EVENTS)),
        "user": random.integers(0, 6, (rows, 1)),
        "past_value": random.normal(size=(rows, EVENTS)),
    }
    found["item_id"][:, -1] = 0
    found |= {"item": found["item_id"], "past_item": found["hist_item_id"]}
    return {name: v.astype("float32" if v.dtype.kind == "f" else "int32") for name, v in found.items()}


def other_padding() -> dict[str, np.ndarray]:
    """The same lists, but for what stands where no item is."""
    found = batch()
    for name in ("genres", "price"):
        found[name][:, -1] = 3
    return found


def scores(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return predicted(model, {tensor.name.split(":")[0]: inputs[tensor.name.split(":")[0]] for tensor in model.inputs})


@pytest.mark.parametrize("name", ["DLCM", "MIR"])
def test_a_model_with_knowledge_learns_is_prestored_and_saved(name: str, tmp_path: Path) -> None:
    model = ready(built(name, knowledge(), Fields()), 0.05, LOSSES["softmax"], eagerly=True)
    label = np.asarray([[1, 0, 1, -1]] * 16, "float32")
    losses = [model.train_on_batch(batch(), label) for _ in range(8)]  # at the third it may still be above the first
    assert losses[-1] < losses[0]
    before = scores(model, batch())
    np.testing.assert_allclose(scores(model, other_padding()), before, atol=1e-5)
    np.testing.assert_allclose(scores(prestore(model), batch()), before, atol=1e-5)
    if name == "MIR":
        model.save(tmp_path / "model.keras")
        np.testing.assert_allclose(scores(load_model(tmp_path / "model.keras"), batch()), before, atol=1e-6)


def test_setrank_does_not_see_places_prm_does_and_padding_is_nothing_to_both() -> None:
    order = [2, 0, 1, 3]
    moved = {n: v[:, order] if n in ("item_id", "genres", "price", "item") else v for n, v in batch().items()}
    setrank, prm = built("kar:SetRank"), built("PRM")
    np.testing.assert_allclose(scores(setrank, moved), scores(setrank, batch())[:, order], atol=1e-5)
    assert not np.allclose(scores(prm, moved), scores(prm, batch())[:, order], atol=1e-3)
    for model in (setrank, prm):
        found = scores(model, batch())
        assert found.shape == (16, SIZE) and (found[:, -1] < found[:, :-1].min()).all()
        np.testing.assert_allclose(scores(model, other_padding()), found, atol=1e-5)


def test_kars_base_reads_nothing_of_who_asks_and_the_fair_one_does() -> None:
    plain, fair = built("kar:MIR"), built("MIR")
    other = batch() | {name: batch()[name] * 0 for name in ("gender", "hist_item_id")}
    np.testing.assert_array_equal(scores(plain, other), scores(plain, batch()))
    assert not np.allclose(scores(fair, other), scores(fair, batch()))


def test_an_injection_of_click_models_compares_each_item_of_a_list() -> None:
    model = built("kar:DLCM", knowledge(), Together(Fields, Similarity))
    inputs, swapped = batch(), batch()
    for name in ("item_id", "genres", "price", "item"):
        swapped[name] = inputs[name][:, [1, 0, 2, 3]]
    (layer,) = (layer for layer in model.layers if type(layer).__name__ == "SimilarityFeatures")
    similar = type(model)(model.inputs, layer.output)
    found = {n: scores(similar, each).reshape(16, SIZE, -1) for n, each in (("as", inputs), ("moved", swapped))}
    np.testing.assert_allclose(found["moved"], found["as"][:, [1, 0, 2, 3]], atol=1e-5)
    assert found["as"][:, :-1].std() > 0


def test_losses_are_those_of_loops() -> None:
    random = np.random.default_rng(3)
    label, score = random.integers(0, 2, (12, 5)).astype("float32"), random.normal(size=(12, 5)).astype("float32")
    label[0, :], label[:, -1], label[1:4, 2:] = 0, -1, -1
    score[:, -1] = 50
    for name, loss in LOSSES.items():
        found = np.asarray(loss(label, score))
        expected = [LOOPS[name](y[y >= 0].tolist(), s[y >= 0].tolist()) for y, s in zip(label, score, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    assert all(np.asarray(LOSSES[name](label, score))[0] == 0 for name in LOSSES if name != "bce")


def _bce(y: list[float], s: list[float]) -> float:
    chances = [1 / (1 + np.exp(-value)) for value in s]
    return float(np.mean([-np.log(p if clicked else 1 - p) for clicked, p in zip(y, chances, strict=True)]))


def _softmax(y: list[float], s: list[float]) -> float:
    total = sum(np.exp(value) for value in s)
    clicked = [value for value, label in zip(s, y, strict=True) if label]
    return float(np.mean([np.log(total) - value for value in clicked])) if clicked else 0.0


def _listmle(y: list[float], s: list[float]) -> float:
    best = sorted(range(len(y)), key=lambda place: -y[place])
    clicks, total = int(sum(y)), 0.0
    for place in range(clicks):
        total += np.log(sum(np.exp(s[i]) for i in best[place:])) - s[best[place]]
    return total / clicks if clicks else 0.0


def _attention(y: list[float], s: list[float]) -> float:
    if not sum(y):
        return 0.0
    given = np.exp(s) / np.exp(s).sum()
    best = np.asarray(y) / sum(y)
    whole = 1 - given if len(y) > 1 else np.asarray([1e-7])
    return float(-(best * np.log(given) + (1 - best) * np.log(whole)).sum())


LOOPS = {"bce": _bce, "softmax": _softmax, "listmle": _listmle, "attention-rank": _attention}
