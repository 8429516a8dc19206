"""A candidate against the user's past: planted data where it decides, in plain Keras, on both of its APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3, table
from support.training import ready

from kar_aug import KnowledgeAugmentation, augment, export, load_model, prestore, refresh
from kar_aug._helpers.keras import keras, tf
from kar_aug.backbones import Settings, embed
from kar_aug.backbones.injections.similarity import Similarity
from kar_aug.backbones.injections.user_similarity import UserSimilarity
from kar_aug.backbones.protocol import Injection, nothing
from kar_aug.compare.metrics import auc
from kar_aug.data.features import Feature
from kar_aug.layers import KnowledgeSimilarity
from kar_aug.registry import INJECTIONS

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
USERS, ITEMS, GENRES, LENGTH, WIDTH = 20, 400, 8, 10, 4
CODES = (Feature("user_id", USERS), Feature("item_id", ITEMS), Feature("hist_item_id", ITEMS, length=LENGTH))
KEYS = (
    Feature("user", USERS, is_key=True),
    Feature("item", ITEMS, is_key=True),
    Feature("past_item", ITEMS, length=LENGTH, sequence="past", is_key=True),
    Feature("past_value", length=LENGTH, sequence="past", is_key=True),
)
random = np.random.default_rng(0)
GENRE = random.integers(0, GENRES, ITEMS)
TEXTS = (random.normal(size=(GENRES, 16))[GENRE] + 0.3 * random.normal(size=(ITEMS, 16)) + 3).astype("float16")


def log(rows: int, items: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Users who like half of all genres, rate what they saw by that alone, and click likewise."""
    random = np.random.default_rng(seed)
    liked = random.random((rows, GENRES)) < 0.5
    candidate, past = random.choice(items, (rows, 1)), random.integers(1, ITEMS, (rows, LENGTH))
    past *= np.arange(LENGTH) < random.integers(0, LENGTH + 1, (rows, 1))
    likes = np.take_along_axis(liked, GENRE[past], axis=1)
    inputs = {"user": random.integers(0, USERS, (rows, 1)), "item": candidate, "past_item": past}
    inputs |= {"user_id": inputs["user"], "item_id": candidate, "hist_item_id": past}
    inputs = {name: values.astype("int32") for name, values in inputs.items()}
    label = np.take_along_axis(liked, GENRE[candidate], axis=1)[:, 0]
    return inputs | {"past_value": np.where(past > 0, 1 + 4.0 * likes, 0).astype("float32")}, label.astype("float32")


def tables() -> dict[str, Any]:
    return {"user": np.random.default_rng(1).normal(size=(USERS, 16)).astype("float32"), "item": TEXTS}


def knowledge() -> KnowledgeAugmentation:
    return KnowledgeAugmentation(tables(), expert_units=(8, WIDTH))


def model_of(augmentation: Any, injection: Injection) -> Any:
    embedded = embed((*CODES, *KEYS), Settings(embedding_dim=WIDTH))
    known = injection(augmentation, embedded.inputs)
    hidden = keras.layers.Concatenate()([*embedded.fields, *embedded.dense, *known.vectors(), *known.dense])
    hidden = keras.layers.Dense(16, "relu")(hidden)
    return ready(keras.Model(embedded.inputs, keras.layers.Dense(1, "sigmoid", name="click")(hidden)), 0.02)


def trained(injection: Injection, augmentation: Any) -> tuple[Any, float]:
    """A model that never saw the items it is tested on, and its AUC."""
    keras.utils.set_random_seed(0)
    model = model_of(augmentation, injection)
    model.fit(*log(3000, np.arange(1, 300), 0), epochs=4, batch_size=250, verbose=0)
    rows, label = log(1000, np.arange(300, ITEMS), 1)
    return model, auc(label, predicted(model, rows)[:, 0])


def predicted(model: Any, rows: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(model({name: tf.constant(rows[name]) for name in named_inputs(model)}, training=False))


def named_inputs(model: Any) -> list[str]:
    return [tensor.name.split(":")[0] for tensor in model.inputs]


@pytest.fixture(scope="module")
def plain() -> float:
    return trained(nothing, None)[1]


@pytest.mark.parametrize("name", table(["similarity+user-similarity", "state", "attention", "retrieval"], "attention"))
def test_the_past_tells_of_items_that_nobody_saw_and_is_saved_and_served(
    name: str, plain: float, tmp_path: Path
) -> None:
    augmentation = knowledge()
    model, found = trained(INJECTIONS.load(name)(), augmentation)
    bar = 0.65 if name == "state" else 0.75  # sums keep less: one number of theirs has 0.74 here, of the kernel 0.79
    assert found > bar and plain < 0.6
    has_experts = name == "retrieval"
    assert (augmentation in model.layers) == has_experts
    rows, _ = log(50, np.arange(1, ITEMS), 2)
    rows["past_item"][:5], rows["past_value"][:5], rows["item"][5:10] = 0, 0, ITEMS + 7  # no history, no knowledge
    expected = predicted(model, rows)
    assert np.isfinite(expected).all()
    keras.Model(model.inputs, model.outputs).save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(loaded, rows), expected, atol=1e-6)
    np.testing.assert_allclose(predicted(refresh(model, tables()), rows), expected, atol=1e-5)
    served = tf.saved_model.load(str(export(loaded, tmp_path / "served"))).signatures["serving_default"]
    answer = served(**{name: tf.constant(rows[name]) for name in named_inputs(model)})["ctr"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    if not has_experts:
        with pytest.raises(ValueError, match=r"nothing to prestore\..*export it, as it is"):
            prestore(model)


@pytest.mark.parametrize("injection", ["similarity", "state", "fields+attention"])
def test_a_model_that_exists_is_given_the_past_and_predicts_as_before(injection: str, tmp_path: Path) -> None:
    embedded = embed(CODES[1:], Settings(embedding_dim=WIDTH))
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(embedded.fields))
    base = keras.Model(list(embedded.inputs.values()), keras.layers.Dense(1, "sigmoid")(hidden))
    rows, label = log(1000, np.arange(1, ITEMS), 0)
    rows["hist_rating"] = rows["past_value"]
    ratings = keras.Input((LENGTH,), name="hist_rating")
    inputs = {"item": "item_id", "past_item": "hist_item_id", "past_value": ratings}
    items = KnowledgeAugmentation({"item": TEXTS}, expert_units=(8, WIDTH))
    model = augment(base, items, injection=injection, inputs=inputs)
    assert named_inputs(model) == ["item_id", "hist_item_id", "hist_rating"]
    np.testing.assert_allclose(predicted(model, rows), predicted(base, rows), atol=1e-6)
    ready(model, 0.02).fit([rows[name] for name in named_inputs(model)], label, epochs=5, batch_size=100, verbose=0)
    expected = predicted(model, rows)
    assert auc(label, expected[:, 0]) > 0.8
    keras.Model(model.inputs, model.outputs).save(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(load_model(tmp_path / "model.keras"), rows), expected, atol=1e-6)


def test_injections_share_the_table_of_their_similarities() -> None:
    model = model_of(knowledge(), INJECTIONS.load("similarity+retrieval")())
    assert sum(isinstance(layer, KnowledgeSimilarity) for layer in model.layers) == 1


def test_what_an_injection_lacks_is_said() -> None:
    inputs = {key.name: keras.Input((key.length or 1,), dtype="int32", name=key.name) for key in KEYS}
    users, fewer = (
        KnowledgeAugmentation({"user": TEXTS}),
        {name: inputs[name] for name in ("user", "item", "past_item")},
    )
    with pytest.raises(ValueError, match=r"by knowledge of 'item'\. There is knowledge of: user\. Say which: Simila"):
        Similarity()(users, inputs)
    with pytest.raises(ValueError, match=r"an input 'past_value', of what they were worth\. It has: user, item, past"):
        Similarity()(knowledge(), fewer)
    with pytest.raises(ValueError, match=r"'item' must have a value for each of 'past_item'\. Received shapes: \(No"):
        Similarity(values="item")(knowledge(), inputs)
    with pytest.raises(ValueError, match=r"knowledge of both\. There is none of 'item', but of: user"):
        UserSimilarity()(users, inputs)
