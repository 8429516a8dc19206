"""Vectors join the batches of a tf.data pipeline, and a model that holds no table learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.errors import StoreError
from kar_aug.models import join

VOCABULARY = [None, "a", "b", "gone", "c"]


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    with VectorStore.writer(tmp_path / "store", StoreSpec("e", 2)) as writer:
        writer.append(["c", "a"], ["k", "k"], np.asarray([[3, 3], [1, -1]]))
        writer.append(["b"], ["k"], np.asarray([[2, 2]]))
    return VectorStore.open(tmp_path / "store")


@pytest.mark.parametrize("shape", [(6,), (6, 1), (3, 2)])
def test_each_id_gets_its_vector_in_any_shape(store: VectorStore, shape: tuple[int, ...]) -> None:
    ids = np.asarray([1, 4, 2, 0, 3, 99], "int32").reshape(shape)
    dataset = tf.data.Dataset.from_tensors(({"item_id": ids}, np.zeros(len(ids))))
    ((inputs, label),) = join(dataset, {"item_id": (store, VOCABULARY)}).as_numpy_iterator()
    expected = np.asarray([[1, -1], [3, 3], [2, 2], [0, 0], [0, 0], [0, 0]], "float16").reshape(*shape, 2)
    np.testing.assert_array_equal(inputs["item_id_vectors"], expected)
    np.testing.assert_array_equal(inputs["item_id_known"], np.asarray([1, 1, 1, 0, 0, 0], bool).reshape(shape))
    assert inputs["item_id_vectors"].dtype == np.float16 and len(label) == len(ids)


def test_batches_without_labels_and_unknown_length_keep_their_shapes(store: VectorStore) -> None:
    dataset = tf.data.Dataset.from_tensor_slices({"item_id": np.asarray([1, 2, 4])}).batch(2)
    joined = store.join(dataset, "item_id", VOCABULARY)
    assert joined.element_spec["item_id_vectors"].shape.as_list() == [None, 2]
    assert [len(batch["item_id_known"]) for batch in joined] == [2, 1]


def test_a_model_learns_from_joined_vectors(store: VectorStore) -> None:
    ids = np.tile(np.asarray([1, 2, 4], "int32"), 64)
    label = (ids == 1).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices(({"item_id": ids}, label)).batch(32)
    vectors: Any = keras.Input((2,), name="item_id_vectors")
    model = keras.Model(vectors, keras.layers.Dense(1, activation="sigmoid")(vectors))
    model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy")
    joined = store.join(batches, "item_id", VOCABULARY, dimension=2).map(lambda x, y: (x["item_id_vectors"], y))
    losses = model.fit(joined, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2


def test_another_dimension_than_the_models_is_refused(store: VectorStore) -> None:
    with pytest.raises(StoreError, match="holds vectors of 2 numbers, but the model expects 384 of item_id"):
        store.join(tf.data.Dataset.range(1), "item_id", VOCABULARY, dimension=384)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"id": [[0]]}, "The dataset has no input 'item_id'. It has: id"),
        ({"item_id": [["a"]]}, "must be the model's integers.*come as string"),
        ({"item_id": [[1.0]]}, "must be the model's integers.*come as float32"),
        ([[0]], "needs batches of inputs by name"),
    ],
)
def test_a_dataset_without_the_ids_is_told(store: VectorStore, inputs: Any, message: str) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((inputs, [0])).batch(1)
    with pytest.raises(ValueError, match=message):
        join(dataset, {"item_id": (store, store.ids)})


def test_a_store_without_the_models_vocabulary_is_told(store: VectorStore) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(({"item_id": [[0]]}, [0])).batch(1)
    with pytest.raises(ValueError, match=r"\{'item_id': \(store, vocabulary\)\}.* Received: VectorStore"):
        join(dataset, {"item_id": store})  # type: ignore[dict-item]
