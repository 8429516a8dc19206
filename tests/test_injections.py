"""What enters a model, and models in plain Keras that find a place for it, on both of Keras's APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, load_model, prestore
from kar_aug._helpers.keras import IS_KERAS_3, keras, tf
from kar_aug.backbones import Injected, Settings, embed
from kar_aug.backbones.injections.events import Events
from kar_aug.backbones.injections.fields import Fields
from kar_aug.backbones.protocol import Injection, nothing
from kar_aug.data.features import Feature
from kar_aug.errors import ConfigError
from kar_aug.layers import CandidateAndEvents, MaskedMean
from kar_aug.registry import INJECTIONS

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
USERS, ITEMS, WIDTH = 6, 9, 4
FEATURES = (
    Feature("user_id", USERS),
    Feature("item_id", ITEMS),
    Feature("genres", 5, length=3),
    Feature("hist_item_id", ITEMS, length=4, embedding="item_id"),
)
EVENTS = np.asarray([[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]], "int32")
ROWS = {
    "user_id": np.asarray([[1], [2], [5]], "int32"),
    "item_id": np.asarray([[7], [1], [0]], "int32"),
    "genres": np.asarray([[1, 2, 0], [4, 0, 0], [0, 0, 0]], "int32"),
    "hist_item_id": EVENTS,
}


def knowledge() -> KnowledgeAugmentation:
    random = np.random.default_rng(0)
    vectors = {"user_id": random.normal(size=(USERS, 6)), "item_id": random.normal(size=(ITEMS, 6))}
    return KnowledgeAugmentation({n: v.astype("float32") for n, v in vectors.items()}, expert_units=(8, WIDTH))


def two_tower(features: Any, settings: Settings, augmentation: Any, injection: Injection) -> Any:
    """As a user writes it: the knowledge joins what else is known, and no line asks whether there is any."""
    embedded = embed(features, settings)
    known = injection(augmentation, embedded.inputs)
    hidden = keras.layers.Concatenate()([*embedded.fields, *known.vectors(), *known.dense])
    for units in settings.hidden_units:
        hidden = keras.layers.Dense(units, "relu")(hidden)
    return keras.Model(embedded.inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def placed(injection: Injection, augmentation: KnowledgeAugmentation) -> tuple[Any, Injected]:
    inputs = {n: keras.Input((ROWS[n].shape[1],), dtype="int32", name=n) for n in ROWS}
    return inputs, injection(augmentation, inputs)


def computed(inputs: dict[str, Any], outputs: list[Any]) -> list[np.ndarray]:
    model = keras.Model(list(inputs.values()), outputs)
    return [np.asarray(value) for value in model([tf.constant(ROWS[name]) for name in inputs], training=False)]


def test_fields_are_the_vectors_of_the_sources() -> None:
    augmentation = knowledge()
    inputs, injected = placed(Fields(), augmentation)
    assert not injected.events and not injected.dense and len(injected.vectors()) == 2
    expected = augmentation({name: ROWS[name] for name in ("user_id", "item_id")})
    for name, found in zip(expected, computed(inputs, injected.vectors()), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=1e-6)


def test_events_bring_each_vector_and_the_mean_of_those_that_are_there() -> None:
    augmentation = knowledge()
    inputs, injected = placed(Events(), augmentation)
    known = injected.events["item_id"]
    found = computed(inputs, [known.candidate, known.vectors, known.mask, *known.pooled, *injected.vectors()])
    candidate, each, mask, mean, *vectors = found
    expected = np.asarray(augmentation({"item_id": EVENTS})["item_id"])
    np.testing.assert_allclose(each, expected, rtol=1e-6)
    np.testing.assert_array_equal(mask, EVENTS > 0)
    np.testing.assert_allclose(mean, [expected[0, :2].mean(axis=0), expected[1, 0], np.zeros(WIDTH)], rtol=1e-5)
    np.testing.assert_allclose(candidate, augmentation({"item_id": ROWS["item_id"]})["item_id"], rtol=1e-6)
    assert len(vectors) == 3 and len(injected.vectors(attended=["item_id"])) == 2
    np.testing.assert_array_equal(vectors[2], mean)


def test_names_joined_by_plus_bring_what_all_of_them_bring() -> None:
    assert "fields+events" in INJECTIONS and "fields+nowhere" not in INJECTIONS
    _, injected = placed(INJECTIONS.load("fields+events")(), knowledge())
    assert len(injected.fields) == 4 and list(injected.events) == ["item_id"]


def test_an_input_that_an_injection_needs_is_named() -> None:
    inputs = {name: keras.Input((1,), dtype="int32", name=name) for name in ("user_id", "item_id")}
    with pytest.raises(ValueError, match=r"of 'item_id', but the model has no such input\. It has: user_id"):
        Fields()(knowledge(), {"user_id": inputs["user_id"]})
    with pytest.raises(ValueError, match="knowledge of 'hist_user_id', but the model has no such input"):
        Events(["user_id"])(knowledge(), inputs)
    with pytest.raises(ValueError, match=r"Events need knowledge of what has some.*'genre'"):
        Events(["genre"])(knowledge(), inputs)
    with pytest.raises(ValueError, match=r"Events need knowledge of what has some.*the inputs are user_id, item_id"):
        Events()(knowledge(), inputs)


@pytest.mark.parametrize("name", ["similarity", "state", "attention", "retrieval"])
def test_who_compares_the_candidate_says_how_to_name_what_is_compared(name: str) -> None:
    bring = INJECTIONS.load(name)()
    with pytest.raises(ValueError, match=rf"knowledge of: song\. Say which: {name.capitalize()}\(source="):
        bring(KnowledgeAugmentation({"song": np.ones((3, 2))}), {})


def test_padding_of_strings_is_told_apart_as_well() -> None:
    ids = np.asarray([["a", "b", ""], ["c", "", ""]])
    vectors = np.arange(12.0, dtype="float32").reshape(2, 3, 2)
    np.testing.assert_allclose(MaskedMean()([ids, vectors]), [[1, 2], [6, 7]])
    _, events, mask = CandidateAndEvents()([ids, vectors])
    np.testing.assert_array_equal(events, vectors[:, 1:])
    np.testing.assert_array_equal(mask, [[1, 0], [0, 0]])


def test_features_that_share_a_table_share_their_embedding() -> None:
    embedded = embed(FEATURES, Settings(embedding_dim=WIDTH))
    assert [tuple(v.shape) for v in embedded.fields] == [(None, WIDTH)] * 4
    assert {n: tuple(v.shape) for n, v in embedded.sequences.items()} == {
        "genres": (None, 3, WIDTH),
        "hist_item_id": (None, 4, WIDTH),
    }
    model = keras.Model(list(embedded.inputs.values()), embedded.fields)
    assert sorted(w.shape[0] for w in model.weights) == [5, USERS, ITEMS]
    _, item, genres, events = model([tf.constant(ROWS[f.name]) for f in FEATURES])
    table = np.asarray(model.get_layer("embedding_item_id").get_weights()[0])
    np.testing.assert_allclose(events[1], table[3], rtol=1e-6)
    np.testing.assert_array_equal(genres[2], np.zeros(WIDTH))
    np.testing.assert_allclose(item[0], table[7], rtol=1e-6)


@pytest.mark.parametrize("injection", [Fields(), Events(), nothing])
def test_a_model_in_plain_keras_learns_with_any_injection_and_survives_saving_and_prestoring(
    injection: Injection, tmp_path: Path
) -> None:
    augmentation = None if injection is nothing else knowledge()
    settings = Settings(embedding_dim=WIDTH, hidden_units=(8,), l2_embedding=1e-4)
    model = two_tower(FEATURES, settings, augmentation, injection)
    ready(model, 0.05, eagerly=not isinstance(injection, Events))
    label = np.asarray([1.0, 0.0, 1.0], "float32")
    losses = model.fit(ROWS, label, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    expected = predicted(model, ROWS)
    keras.Model(model.inputs, model.outputs).save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(loaded, ROWS), expected, rtol=1e-6)
    if augmentation is not None:
        np.testing.assert_allclose(predicted(prestore(loaded), ROWS), expected, atol=1e-5)


@pytest.mark.skipif(not IS_KERAS_3, reason="they work on the other one")
def test_whoever_wants_a_backbone_of_deepctr_on_keras_3_is_told_the_remedy() -> None:
    with pytest.raises(ConfigError) as refused:
        from kar_aug.backbones import DeepFM  # noqa: F401
    assert str(refused.value) == (
        "DeepCTR 0.9.4 does not work on Keras 3: set the environment variable TF_USE_LEGACY_KERAS=1 before "
        "TensorFlow is imported, and install tf-keras."
    )
