"""Models that vectors come to with each row, from disk or a feature store, are those with tables. Both Keras APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted

from kar_aug import KnowledgeAugmentation, VectorStore, augment, load_model
from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.layers import GivenVectors, VectorAugmentation
from kar_aug.models import join, split, vectors_as_inputs
from kar_aug.models.export import export

pytestmark = pytest.mark.both_keras
layers = keras.layers
IDS = [f"i{n}" for n in range(12)]
VOCABULARY = [None, *IDS, "new"]  # the last has no knowledge
RANDOM = np.random.default_rng(0)
ROWS = {
    "item_id": RANDOM.integers(0, 14, (40, 1)).astype("int32"),
    "hist_item_id": RANDOM.integers(0, 14, (40, 3)).astype("int32"),
}
LABEL = RANDOM.integers(0, 2, (40, 1)).astype("float32")


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    with VectorStore.writer(tmp_path / "store", StoreSpec("encoder", 6)) as writer:
        writer.append(IDS, ["k"] * 12, np.random.default_rng(1).normal(size=(12, 6)))
    return VectorStore.open(tmp_path / "store")


def base() -> Any:
    keras.utils.set_random_seed(3)
    inputs = {name: keras.Input(values.shape[1:], name=name, dtype="int32") for name, values in ROWS.items()}
    embedded = [layers.Flatten()(layers.Embedding(14, 3)(tensor)) for tensor in inputs.values()]
    hidden = layers.Dense(5, "relu", name="deep")(layers.Concatenate()(embedded))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(hidden))


def knowledge(store: VectorStore) -> KnowledgeAugmentation:
    keras.utils.set_random_seed(4)
    layer = KnowledgeAugmentation({"item_id": store.align(VOCABULARY)}, expert_units=(8, 4))
    layer._sources["item_id"].default.assign(np.random.default_rng(2).normal(size=4).astype("float32"))
    return layer


def trained(model: Any, data: Any) -> Any:
    for place, weight in enumerate(model.trainable_weights):
        if "knowledge_projection" in getattr(weight, "path", weight.name):
            weight.assign(np.random.default_rng(place).normal(size=weight.shape).astype("float32"))
    model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy())
    model.fit(data, epochs=2, verbose=0)
    return model


def batches(store: VectorStore | None = None) -> Any:
    """The rows as a dataset; with the vectors of all ids from disk."""
    data = tf.data.Dataset.from_tensor_slices((ROWS, LABEL)).batch(20)
    return data if store is None else join(data, dict.fromkeys(ROWS, (store, VOCABULARY)))


def said(model: Any, data: Any) -> np.ndarray:
    """What a model predicts of all batches: `predict` would trace a graph for two."""
    return np.concatenate([predicted(model, inputs) for inputs, _ in data])


BOTH = {"item_id": ["item_id", "hist_item_id"]}


@same_on_keras_3
def test_training_from_disk_is_training_with_a_table(store: VectorStore, tmp_path: Path) -> None:
    of_table = augment(base(), knowledge(store), inputs=BOTH)
    of_disk = augment(base(), knowledge(store), inputs=BOTH, vectors="input")
    new = {tensor.name.split(":")[0]: tuple(tensor.shape)[1:] for tensor in of_disk.inputs}
    assert new == {
        **{name: values.shape[1:] for name, values in ROWS.items()},
        "item_id_vectors": (1, 6), "item_id_known": (1,), "hist_item_id_vectors": (3, 6), "hist_item_id_known": (3,),
    }  # fmt: skip
    assert not of_disk.non_trainable_weights, "no table"
    trained(of_table, batches())
    trained(of_disk, batches(store))
    for ours, theirs in zip(of_disk.trainable_weights, of_table.trainable_weights, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-3, atol=1e-4)
    expected = said(of_table, batches())
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(said(of_disk, batches(store)), expected, atol=1e-4)
    swapped = vectors_as_inputs(of_table)
    np.testing.assert_allclose(said(swapped, batches(store)), expected, atol=1e-6)
    of_disk.save(str(tmp_path / "of_disk.keras"))
    again = load_model(tmp_path / "of_disk.keras")
    np.testing.assert_array_equal(said(again, batches(store)), said(of_disk, batches(store)))


def test_a_split_model_ranks_as_the_whole_one(store: VectorStore, tmp_path: Path) -> None:
    model = trained(augment(base(), knowledge(store), inputs=BOTH), batches())
    tables, ranker = split(model, tmp_path / "tables")
    augmented = tables["item_id"]
    assert augmented.ids == IDS and augmented.spec.dimension == 4
    assert not [layer for layer in ranker.layers if isinstance(layer, KnowledgeAugmentation)]
    expected = said(model, batches())
    np.testing.assert_allclose(said(ranker, batches(augmented)), expected, atol=1e-6)
    ranker.save(str(tmp_path / "ranker.keras"))
    again = load_model(tmp_path / "ranker.keras")
    np.testing.assert_allclose(said(again, batches(augmented)), expected, atol=1e-6)
    served = tf.saved_model.load(str(export(ranker, tmp_path / "serving"))).signatures["serving_default"]
    sent = next(iter(batches(augmented).unbatch().batch(40)))[0]
    sent = {name: tf.cast(values, "float32") if values.dtype == tf.float16 else values for name, values in sent.items()}
    np.testing.assert_allclose(served(**sent)["ctr"], expected, atol=1e-6)


def test_vectors_of_another_version_are_as_if_there_were_none(store: VectorStore, tmp_path: Path) -> None:
    item = keras.Input((1,), name="item", dtype="string")
    fields = KnowledgeAugmentation({"item": store}, expert_units=(8, 4), name="kar")({"item": item})
    model = keras.Model(item, layers.Dense(1)(fields["item"]))
    model.get_layer("kar")._sources["item"].default.assign(np.arange(4.0))
    tables, ranker = split(model, tmp_path / "tables", versions=True)
    assert [tensor.name.split(":")[0] for tensor in ranker.inputs] == ["item_vectors", "item_version"], "no ids"
    version = tables["item"].spec.version
    vectors = tables["item"].gather(["i1", "i1", "i2"])[:, None]
    vectors[1] = np.nan  # whatever a feature store sends of what it has not
    found = ranker([tf.constant(vectors), tf.constant([[version], [""], ["1a2b3c4d"]])])
    expected = model(tf.constant([["i1"], ["nothing"], ["nothing"]]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_layer_that_vectors_come_to_can_stand_alone(store: VectorStore) -> None:
    layer = VectorAugmentation({"item_id": store}, expert_units=(8, 4))
    again = VectorAugmentation.from_config(layer.get_config())
    again.set_weights(layer.get_weights())
    known = np.asarray([True, False])
    given = {"item_id": store.gather(["i1", "i2"]), "item_id_known": known}
    np.testing.assert_array_equal(again(given)["item_id"], layer(given)["item_id"])
    assert not np.asarray(layer(given)["item_id"])[1].any() and layer.versions == {"item_id": store.spec.version}
    with pytest.raises(ValueError, match="does not know of which version"):
        GivenVectors({"item_id": 6})({"item_id": given["item_id"], "item_id_version": np.asarray(["a", "b"])})
    with pytest.raises(ValueError, match=r'`vectors` must be "table" or "input"'):
        augment(base(), knowledge(store), vectors="disk")
    with pytest.raises(ValueError, match="has no KnowledgeAugmentation in its own graph"):
        split(base(), "nowhere")
