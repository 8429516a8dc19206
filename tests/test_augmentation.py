"""KnowledgeAugmentation, its prestored form, and `augment` on models that exist. Runs on both Keras APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples
from support.training import predicted, ready

from kar_aug import (
    KnowledgeAugmentation,
    KnowledgeTable,
    StoreError,
    VectorStore,
    attachment_points,
    augment,
    load_model,
    prestore,
)
from kar_aug._helpers.keras import IS_KERAS_3, keras
from kar_aug.cache import StoreSpec

pytestmark = pytest.mark.both_keras
USERS, ITEMS, DIMENSION = 12, 20, 6


def write_store(path: Path, ids: list[Any], seed: int = 0) -> VectorStore:
    with VectorStore.writer(path, StoreSpec("encoder", DIMENSION)) as writer:
        vectors = np.random.default_rng(seed).normal(size=(len(ids), DIMENSION))
        writer.append(ids, ["k"] * len(ids), vectors)
    return VectorStore.open(path)


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, VectorStore]:
    users = write_store(tmp_path / "user", [f"u{i}" for i in range(0, USERS, 2)])
    return {"user_id": users, "item_id": write_store(tmp_path / "item", list(range(ITEMS)))}


def layer(stores: dict[str, VectorStore], **options: Any) -> KnowledgeAugmentation:
    vocabulary = {"user_id": [None, *(f"u{i}" for i in range(USERS))], "item_id": [None, *range(ITEMS)]}
    tables = {name: store.align(vocabulary[name]) for name, store in stores.items()}
    augmentation = KnowledgeAugmentation(tables, expert_units=(8, 4), **options)
    for weight in augmentation.trainable_weights:  # defaults among them: zeros would hide mistakes
        weight.assign(np.random.default_rng(len(weight.shape)).normal(size=weight.shape).astype("float32"))
    return augmentation


def model(augmentation: KnowledgeAugmentation, *, eagerly: bool = True) -> Any:
    inputs = {name: keras.Input((1,), name=name, dtype="int32") for name in ("user_id", "item_id")}
    history = keras.Input((5,), name="history", dtype="int32")
    fields = augmentation(inputs)
    seen = keras.layers.Flatten()(augmentation({"item_id": history})["item_id"])
    joined = keras.layers.Concatenate()([*fields.values(), seen])
    output = keras.layers.Dense(1, activation="sigmoid")(joined)
    built = keras.Model([*inputs.values(), history], output)
    return ready(built, 0.001, eagerly=eagerly)


def batch(rows: int = 64) -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {
        "user_id": random.integers(0, USERS + 1, (rows, 1)).astype("int32"),
        "item_id": random.integers(-3, ITEMS + 9, (rows, 1)).astype("int32"),
        "history": random.integers(0, ITEMS + 1, (rows, 5)).astype("int32"),
    }


def test_known_ids_get_their_adapted_vector_and_others_the_default(stores: dict[str, VectorStore]) -> None:
    augmentation = layer(stores)
    ids = np.asarray([0, 1, 2, 3, -1, USERS + 1, 10**6], "int32")  # None, u0, u1 (unknown), u2, outside x 3
    output = np.asarray(augmentation({"user_id": ids})["user_id"])
    default = augmentation.augmented_vectors("user_id")[-1]
    vectors = stores["user_id"].gather(["u0", "u2"]).astype("float32")
    expected = np.asarray(augmentation.adaptor({"user_id": vectors})["user_id"])
    np.testing.assert_allclose(output[[1, 3]], expected, rtol=1e-5)
    np.testing.assert_array_equal(output[[0, 2, 4, 5, 6]], np.tile(default, (5, 1)))
    assert augmentation.coverage == {"user_id": 6 / 13, "item_id": 20 / 21}


@settings(max_examples=examples(20), deadline=None)
@given(ids=st.lists(st.integers(-2, ITEMS + 3), max_size=30))
def test_the_place_and_number_of_an_id_in_a_batch_change_nothing(ids: list[int]) -> None:
    table = KnowledgeTable.from_array(np.random.default_rng(0).normal(size=(ITEMS, DIMENSION)).astype("float32"))
    augmentation = KnowledgeAugmentation({"item_id": table}, expert_units=(8, 4))
    together = np.asarray(augmentation({"item_id": np.asarray(ids, "int32")})["item_id"])
    assert together.shape == (len(ids), 4)
    for row, id in zip(together, ids, strict=True):
        alone = np.asarray(augmentation({"item_id": np.asarray([id], "int32")})["item_id"])[0]
        np.testing.assert_allclose(row, alone, rtol=1e-5, atol=1e-6)


def test_shapes_of_ids_columns_and_sequences(stores: dict[str, VectorStore]) -> None:
    augmentation = layer(stores)
    for shape, expected in (((3,), (3, 4)), ((3, 1), (3, 4)), ((3, 5), (3, 5, 4))):
        ids = np.ones(shape, "int32")
        assert augmentation({"item_id": ids})["item_id"].shape == expected
        assert augmentation.compute_output_shape({"item_id": shape}) == {"item_id": expected}


def test_training_moves_every_trainable_weight_and_no_knowledge(stores: dict[str, VectorStore]) -> None:
    built = model(layer(stores), eagerly=False)
    before, inputs = built.get_weights(), batch(512)
    built.fit(inputs, np.random.default_rng(0).integers(0, 2, 512), epochs=3, verbose=0)
    frozen = {id(w) for w in built.non_trainable_weights}
    for weight, old, new in zip(built.weights, before, built.get_weights(), strict=True):
        assert np.array_equal(old, new) == (id(weight) in frozen), weight.name


def test_the_knowledge_vectors_are_no_weights_and_not_in_the_file(
    stores: dict[str, VectorStore], tmp_path: Path
) -> None:
    built = model(layer(stores))
    assert not [w for w in built.weights if tuple(w.shape) == (ITEMS, DIMENSION)]
    built.save(tmp_path / "model.keras")
    assert stores["item_id"].vectors.tobytes() not in (tmp_path / "model.keras").read_bytes()


def test_a_saved_model_predicts_the_same_and_trains_on(stores: dict[str, VectorStore], tmp_path: Path) -> None:
    built, inputs = model(layer(stores)), batch()
    built.fit(inputs, np.ones(64), batch_size=64, verbose=0)
    for suffix in (".keras", ".h5"):
        built.save(str(tmp_path / f"model{suffix}"))
        again = load_model(tmp_path / f"model{suffix}")
        np.testing.assert_array_equal(predicted(built, inputs), predicted(again, inputs))
        ready(again, eagerly=True).fit(inputs, np.ones(64), batch_size=64, verbose=0)


def test_a_changed_store_is_refused_and_a_moved_one_can_be_named(
    stores: dict[str, VectorStore], tmp_path: Path
) -> None:
    built, inputs = model(layer(stores)), batch()
    expected = predicted(built, inputs)
    built.save(str(tmp_path / "model.keras"))
    (tmp_path / "item").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="item is not a vector store"):
        load_model(tmp_path / "model.keras")
    moved = load_model(tmp_path / "model.keras", stores={"item_id": tmp_path / "moved"})
    np.testing.assert_array_equal(expected, predicted(moved, inputs))
    write_store(tmp_path / "item", list(range(ITEMS)), seed=1)
    with pytest.raises(StoreError, match=f"item_id.*{stores['item_id'].fingerprint}"):
        load_model(tmp_path / "model.keras")


def test_vectors_given_as_an_array_travel_with_the_model(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype("float16")
    ids = keras.Input((1,), name="item_id", dtype="int32")
    built = keras.Model(
        ids, KnowledgeAugmentation({"item_id": vectors}, expert_units=(4, 2))({"item_id": ids})["item_id"]
    )
    built.save(str(tmp_path / "model.keras"))
    rows = np.arange(5, dtype="int32")[:, None]
    np.testing.assert_array_equal(predicted(built, rows), predicted(load_model(tmp_path / "model.keras"), rows))


def test_bad_vectors_are_refused_with_the_id() -> None:
    vectors = np.ones((4, 3))
    vectors[2, 1] = np.nan
    with pytest.raises(StoreError, match="integer id 2 holds NaN"):
        KnowledgeAugmentation({"item_id": vectors})
    rows = np.asarray([0, 3, 2], "int32")
    with pytest.raises(StoreError, match="item_id: the vector of integer id 2 holds NaN"):
        KnowledgeAugmentation({"item_id": KnowledgeTable(vectors, rows)})
    with pytest.raises(StoreError, match="item_id: integer id 1 points to row 4, but there are 4"):
        KnowledgeAugmentation({"item_id": KnowledgeTable(np.ones((4, 3)), np.asarray([0, 4], "int32"))})
    with pytest.raises(StoreError, match="item_id: a table needs a vocabulary"):
        KnowledgeAugmentation({"item_id": KnowledgeTable(np.ones((0, 3)), np.asarray([], "int32"))})
    KnowledgeAugmentation({"item_id": KnowledgeTable.from_array(vectors, known=[True, True, False, True])})


def test_an_unknown_source_is_named(stores: dict[str, VectorStore]) -> None:
    with pytest.raises(ValueError, match=r"no knowledge source 'query'\. The sources are: user_id, item_id"):
        layer(stores)({"query": np.ones((2, 1), "int32")})


def test_gate_usage_is_the_mean_gate_of_known_ids(stores: dict[str, VectorStore]) -> None:
    augmentation = layer(stores)
    usage = augmentation.gate_usage({"user_id": [0, 1, 3]})["user_id"]
    vectors = stores["user_id"].gather(["u0", "u2"]).astype("float32")
    expected = np.asarray(augmentation.adaptor.gate({"user_id": vectors})["user_id"]).mean(axis=0)
    np.testing.assert_allclose(usage, expected, rtol=1e-5)


def test_prestored_predictions_are_equal_and_hold_no_expert(stores: dict[str, VectorStore], tmp_path: Path) -> None:
    built, inputs = model(layer(stores)), batch()
    serving = prestore(built)
    expected = predicted(built, inputs)
    np.testing.assert_allclose(predicted(serving, inputs), expected, atol=1e-5)
    np.testing.assert_allclose(serving.predict(inputs, verbose=0), expected, atol=1e-5)
    assert not [w for w in serving.weights if "expert" in w.name or "dedicated" in w.name or "gate" in w.name]
    serving.save(str(tmp_path / "serving.keras"))
    np.testing.assert_allclose(predicted(load_model(tmp_path / "serving.keras"), inputs), expected, atol=1e-5)


def plain_model() -> Any:
    user = keras.Input((1,), name="user_id", dtype="int32")
    item = keras.Input((1,), name="item_id", dtype="int32")
    age = keras.Input((2,), name="age")
    embedded = [keras.layers.Embedding(40, 3)(user), keras.layers.Embedding(40, 3)(item)]
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(e) for e in embedded] + [age])
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(joined)
    skip = keras.layers.Concatenate(name="skip")([hidden, age])  # an input that is read behind the knowledge too
    return keras.Model([user, item, age], keras.layers.Dense(1, activation="sigmoid", name="head")(skip))


def plain_batch() -> dict[str, Any]:
    random = np.random.default_rng(7)
    return {
        "user_id": random.integers(0, 13, (64, 1)).astype("int32"),
        "item_id": random.integers(0, 21, (64, 1)).astype("int32"),
        "age": random.normal(size=(64, 2)).astype("float32"),
    }


@pytest.mark.parametrize("at", [None, "head"])
def test_augment_changes_no_prediction_until_trained(
    stores: dict[str, VectorStore], tmp_path: Path, at: str | None
) -> None:
    base, inputs = plain_model(), plain_batch()
    before = predicted(base, inputs)
    augmented = augment(base, layer(stores), at=at)
    np.testing.assert_allclose(predicted(augmented, inputs), before, atol=1e-6)
    label = np.random.default_rng(0).integers(0, 2, 64)
    ready(augmented, eagerly=True).fit(inputs, label, batch_size=64, epochs=3, verbose=0)
    after = predicted(augmented, inputs)
    assert np.abs(after - before).max() > 1e-3
    augmented.save(str(tmp_path / "augmented.keras"))
    np.testing.assert_array_equal(predicted(load_model(tmp_path / "augmented.keras"), inputs), after)
    np.testing.assert_allclose(predicted(prestore(augmented), inputs), after, atol=1e-5)


def test_one_source_alone_can_be_augmented_saved_and_prestored(stores: dict[str, VectorStore], tmp_path: Path) -> None:
    ids = keras.Input((1,), name="item_id", dtype="int32")
    flat = keras.layers.Flatten()(keras.layers.Embedding(40, 3)(ids))
    augmented = augment(keras.Model(ids, keras.layers.Dense(1)(flat)), layer({"item_id": stores["item_id"]}))
    rows = np.arange(30, dtype="int32")[:, None]
    ready(augmented, loss="mse", eagerly=True).fit(rows, np.ones(30), verbose=0)
    expected = predicted(augmented, rows)
    augmented.save(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(predicted(load_model(tmp_path / "model.keras"), rows), expected)
    np.testing.assert_allclose(predicted(prestore(augmented), rows), expected, atol=1e-5)


def test_augment_can_freeze_the_old_weights(stores: dict[str, VectorStore]) -> None:
    base, inputs = plain_model(), plain_batch()
    before = base.get_weights()
    augmented = augment(base, layer(stores), trainable=False)
    ready(augmented, eagerly=True).fit(
        inputs, np.random.default_rng(0).integers(0, 2, 64), batch_size=64, epochs=2, verbose=0
    )
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(augmented.get_layer("knowledge_projection").get_weights()[0]).max() > 0


def test_augment_says_what_it_did_not_find(stores: dict[str, VectorStore]) -> None:
    renamed = keras.Input((1,), name="movie", dtype="int32")
    flat = keras.layers.Flatten()(keras.layers.Embedding(40, 3)(renamed))
    base = keras.Model(renamed, keras.layers.Dense(1)(flat))
    only_items = {"item_id": stores["item_id"]}
    with pytest.raises(ValueError, match=r"no input 'item_id'.*It has: movie"):
        augment(base, layer(only_items))
    augment(base, layer(only_items), inputs={"item_id": "movie"})
    with pytest.raises(ValueError, match="nothing to prestore"):
        prestore(base)
    with pytest.raises(ValueError, match="needs a built functional Keras model"):
        augment(keras.layers.Dense(1), layer(only_items))


@pytest.mark.skipif(not IS_KERAS_3, reason="keras-rs needs Keras 3")
@pytest.mark.parametrize("at", ["cross", "interaction_out"])
def test_augment_on_a_keras_rs_model(stores: dict[str, VectorStore], tmp_path: Path, at: str) -> None:
    import keras_rs

    user = keras.Input((), name="user_id", dtype="int32")
    item = keras.Input((), name="item_id", dtype="int32")
    embedded = [keras.layers.Embedding(40, 4)(user), keras.layers.Embedding(40, 4)(item)]
    crossed = keras_rs.layers.FeatureCross(name="cross")(keras.layers.Concatenate()(embedded))
    deep = keras.layers.Dense(8, activation="relu", name="deep")(crossed)
    interaction = keras_rs.layers.DotInteraction()(embedded)
    both = keras.layers.Concatenate()([deep, keras.layers.Activation("relu", name="interaction_out")(interaction)])
    base = keras.Model([user, item], keras.layers.Dense(1, activation="sigmoid", name="head")(both))
    inputs = {name: values[:, 0] for name, values in plain_batch().items() if name != "age"}
    before = predicted(base, inputs)
    augmented = augment(base, layer(stores), at=at)
    assert augmented.knowledge_attached_to == at and augment(base, layer(stores)).knowledge_attached_to == "deep"
    np.testing.assert_allclose(predicted(augmented, inputs), before, atol=1e-6)
    label = np.random.default_rng(0).integers(0, 2, 64)
    ready(augmented, 0.05, eagerly=True).fit(inputs, label, batch_size=64, epochs=3, verbose=0)
    after = predicted(augmented, inputs)
    assert np.abs(after - before).max() > 1e-3
    augmented.save(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(predicted(load_model(tmp_path / "model.keras"), inputs), after)
    np.testing.assert_allclose(predicted(prestore(augmented), inputs), after, atol=1e-5)


def test_where_knowledge_can_be_attached_is_listed_and_the_choice_reported(
    stores: dict[str, VectorStore], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    base = plain_model()
    points = attachment_points(base)
    assert points[:2] == [("hidden", True), ("head", True)]
    assert augment(base, layer(stores)).knowledge_attached_to == "hidden"
    said = (
        "knowledge of user_id (46.2% of its ids), item_id (95.2% of its ids) was added to the input of layer 'hidden'"
    )
    assert said in capsys.readouterr().err
    caplog.set_level("INFO", "kar_aug")
    augment(base, layer(stores))
    assert said in caplog.text
    assert said not in capsys.readouterr().err
    assert augment(base, layer(stores), at="head").knowledge_attached_to == "head"
    with pytest.raises(ValueError, match=r"cannot be added to the input of 'skip'.*Choose one of: hidden, head"):
        augment(base, layer(stores), at="skip")
