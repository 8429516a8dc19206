"""Ids as they come: of any number of axes, of the right kind, for several inputs of one source. Both Keras APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted

from kar_aug import KnowledgeAugmentation, PrestoredAugmentation, VectorStore, load_model, prestore
from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.errors import StoreError
from kar_aug.layers import HybridExpertAdaptor, KnowledgeVectors, MaskedMean

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
VECTORS = np.random.default_rng(0).normal(size=(30, 5)).astype("float32")


def layer(source: Any = VECTORS, **options: Any) -> KnowledgeAugmentation:
    return KnowledgeAugmentation({"item_id": source}, expert_units=(8, 4), **options)


def store(path: Path, ids: list[Any]) -> VectorStore:
    with VectorStore.writer(path, StoreSpec("encoder", 5)) as writer:
        writer.append(ids, ["k"] * len(ids), VECTORS[: len(ids)])
    return VectorStore.open(path)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 5), (2, 5, 1), (2, 3, 2, 2), (0, 3, 4), (2, 0), (2, 3, 0), ()])
def test_ids_of_any_rank_keep_their_shape(shape: tuple[int, ...]) -> None:
    ids = np.arange(np.prod(shape, dtype=int), dtype="int32").reshape(shape)
    augmentation = layer(mask_zero=True)
    for know in (augmentation, PrestoredAugmentation.of(augmentation)):
        found = np.asarray(know({"item_id": ids})["item_id"])
        assert found.shape == (*shape, 4) == know.compute_output_shape({"item_id": shape})["item_id"]
        one_by_one = np.array(know({"item_id": ids.reshape(-1)})["item_id"])
        if len(shape) > 1:
            one_by_one[ids.reshape(-1) == 0] = 0  # padding
        np.testing.assert_allclose(found.reshape(-1, 4), one_by_one, atol=1e-6)
    assert KnowledgeVectors(VECTORS, 3)(ids).shape == (*shape, 3)


def test_lists_of_unknown_length_are_read_pooled_and_prestored() -> None:
    ids = keras.Input((None, None), dtype="int32", name="item_id")
    pooled = MaskedMean()([ids, layer()({"item_id": ids})["item_id"]])
    model = keras.Model(ids, pooled)
    assert tuple(model.output_shape) == (None, None, 4)
    batch = np.random.default_rng(1).integers(0, 30, (6, 3, 7)).astype("int32")
    np.testing.assert_allclose(predicted(prestore(model), batch), predicted(model, batch), atol=1e-6)


def test_the_adaptor_reads_vectors_of_any_rank() -> None:
    adaptor = HybridExpertAdaptor(["item"], expert_units=(8, 4))
    vectors = VECTORS[:24].reshape(2, 3, 4, 5)
    flat = np.asarray(adaptor({"item": vectors.reshape(-1, 5)})["item"])
    np.testing.assert_array_equal(np.asarray(adaptor({"item": vectors})["item"]), flat.reshape(2, 3, 4, 4))
    assert adaptor.gate({"item": vectors})["item"].shape == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("ids", "given", "message"),
    [
        ([1, 2], ["1"], "The ids of 'item_id' are integers, but strings came"),
        (["a", "b"], [1], "The ids of 'item_id' are strings, as its store has them, but int32 came"),
        ([1, 2**24], [1.0], "go up to 16,777,216, but come as float32"),
        ([1, 3 * 10**9], [1], "go up to 3,000,000,000, but come as int32.*dtype='int64'"),
    ],
)
def test_ids_of_the_wrong_kind_are_refused(tmp_path: Path, ids: list[Any], given: list[Any], message: str) -> None:
    raw = store(tmp_path / "items", ids)
    augmentation = layer(raw)
    came = tf.constant(given)
    symbolic = keras.Input((1,), dtype=came.dtype.name, name="item_id")
    for know in (augmentation, PrestoredAugmentation.of(augmentation)):
        for each in (came, symbolic):
            with pytest.raises(ValueError, match=message):
                know({"item_id": each})
    with pytest.raises(ValueError, match=message.replace("item_id", "vectors")):
        KnowledgeVectors(raw, 2, name="vectors")(came)


@pytest.mark.parametrize("given", [np.asarray([1, 2]), [np.asarray([1, 2])], {}])
def test_ids_come_by_the_names_of_their_sources(given: Any) -> None:
    for know in (layer(), PrestoredAugmentation.of(layer())):
        with pytest.raises(ValueError, match=r"takes ids by the names of its sources, \{'item_id': ids\}"):
            know(given)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vectors/item", r"is a path. Open it: VectorStore.open\('vectors/item'\)"),
        ({"a": [1.0, 2.0]}, "must be a VectorStore.*Received: dict"),
        (np.asarray([["a", "b"]]), "Received: an array of <U1"),
        (np.ones((3, 0), "float32"), r"vectors of shape \(count, dimension\)"),
    ],
)
def test_what_is_no_knowledge_is_told(source: Any, message: str) -> None:
    with pytest.raises((ValueError, StoreError), match=message):
        layer(source)


def test_sources_have_names() -> None:
    with pytest.raises(ValueError, match="by which input ids come"):
        KnowledgeAugmentation(VECTORS)  # type: ignore[arg-type]


def test_truth_values_are_ids_of_two() -> None:
    two = layer(VECTORS[:2])
    found = [np.asarray(two({"item_id": np.asarray([1, 0]).astype(dtype)})["item_id"]) for dtype in ("bool", "int32")]
    np.testing.assert_array_equal(*found)
    with pytest.raises(ValueError, match="go up to 29, but come as bool"):
        layer()({"item_id": np.asarray([True, False])})


def test_floats_are_ids_where_they_tell_all_apart(tmp_path: Path) -> None:
    ids = keras.Input((1,), name="item_id")  # float32, as Keras has it
    small, placed = store(tmp_path / "items", [7, 8]), layer()
    assert predicted(keras.Model(ids, layer(small)({"item_id": ids})["item_id"]), np.asarray([[7.0]])).shape == (1, 4)
    np.testing.assert_array_equal(
        placed({"item_id": tf.constant([3.0, 99.0])})["item_id"], placed({"item_id": tf.constant([3, 99])})["item_id"]
    )
    with pytest.raises(ValueError, match="ragged or sparse, and must be dense"):
        layer()({"item_id": tf.ragged.constant([[1, 2], [3]])})


def test_a_fraction_is_no_id(tmp_path: Path) -> None:
    """A price read as an id has no knowledge, and not that of the id below it."""
    for source in (VECTORS, store(tmp_path / "items", [0, 1, 2, 29])):
        augmentation = layer(source)
        augmentation.set_weights(
            [
                np.random.default_rng(0).normal(size=w.shape) if w.dtype == "float32" else w
                for w in augmentation.get_weights()
            ]
        )
        for know in (augmentation, PrestoredAugmentation.of(augmentation)):
            known, unknown = (np.asarray(know({"item_id": tf.constant([given])})["item_id"])[0] for given in (2, 99))
            assert np.abs(known - unknown).max() > 1e-3
            for given in (2.5, 1.9999, -0.5, np.nan, np.inf, 1e30, 99.0):
                np.testing.assert_allclose(
                    know({"item_id": tf.constant([given])})["item_id"][0], unknown, err_msg=str(given)
                )
            np.testing.assert_allclose(know({"item_id": tf.constant([2.0])})["item_id"][0], known)
    frozen = np.asarray(KnowledgeVectors(VECTORS, None)(tf.constant([2.0, 2.5])))
    assert frozen[0].any() and not frozen[1].any()


@pytest.mark.parametrize(("dtype", "size"), [("int8", 128), ("uint8", 256), ("int16", 2**15)])
def test_the_narrowest_type_that_says_all_ids_says_unknown_ones_too(dtype: str, size: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(size, 3)).astype("float32")
    augmentation = layer(vectors)
    ids = np.asarray([0, 1, size - 1, *([-1] if dtype != "uint8" else [])], dtype)
    for know in (augmentation, PrestoredAugmentation.of(augmentation)):
        found = know({"item_id": tf.constant(ids)})["item_id"]
        np.testing.assert_allclose(found, know({"item_id": tf.constant(ids, "int64")})["item_id"], atol=1e-6)
    frozen = KnowledgeVectors(vectors, None)
    np.testing.assert_array_equal(frozen(tf.constant(ids)), frozen(tf.constant(ids, "int64")))


def test_one_source_of_several_inputs_is_adapted_once_and_saved(tmp_path: Path) -> None:
    augmentation = layer(load_balance=0.1)
    item, history = (keras.Input(shape, dtype="int32") for shape in ((1,), (6,)))
    candidate, events = augmentation({"item_id": [item, history]})["item_id"]
    model = keras.Model([item, history], [candidate, events])
    model.save(str(tmp_path / "model.keras"))
    batch = [np.asarray([[3], [4]], "int32"), np.arange(12, dtype="int32").reshape(2, 6)]
    for again in (model, load_model(tmp_path / "model.keras"), prestore(model)):
        for found, ids in zip(again(batch), batch, strict=True):
            np.testing.assert_allclose(found, augmentation({"item_id": ids})["item_id"], atol=1e-6)
    augmentation({"item_id": [tf.constant([1]), tf.constant([[1, 2]])]})
    assert len(augmentation.losses) == 1, "the experts saw both inputs at once"


def test_two_ids_in_one_input_are_two_slices_of_it() -> None:
    pairs = keras.Input((2,), dtype="int32")
    augmentation = KnowledgeAugmentation({"user_id": VECTORS, "item_id": VECTORS}, expert_units=(4,))
    fields = augmentation({"user_id": pairs[:, 0], "item_id": pairs[:, 1]})
    model = keras.Model(pairs, [fields["user_id"], fields["item_id"]])
    batch = np.asarray([[1, 2], [3, 4]], "int32")
    for again in (model, prestore(model)):
        for found, name, ids in zip(again(batch), ("user_id", "item_id"), batch.T, strict=True):
            np.testing.assert_allclose(found, augmentation({name: ids})[name], atol=1e-6)
