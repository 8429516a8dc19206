"""Vectors made ready to be compared, and the layers that look them up. On both of Keras's APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3

from kar_aug import KnowledgeAugmentation, KnowledgeTable, StoreError, VectorStore, load_model, refresh
from kar_aug._helpers.keras import keras
from kar_aug.cache import StoreSpec
from kar_aug.cache.vectors.preparation import Preparation
from kar_aug.layers import KnowledgeSimilarity, KnowledgeVectors

pytestmark = [pytest.mark.both_keras, same_on_keras_3]


def vectors_in_a_cone(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """As those of text: all alike, but for what tells them apart."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, dimension)) * np.linspace(2, 0.1, dimension) + 5).astype("float32")


def ready(vectors: np.ndarray, known: np.ndarray, components: int | None, centre: bool, unit: bool) -> np.ndarray:
    """What the layer's table should be, by an SVD of all vectors at once."""
    mean = vectors[known].mean(axis=0) if centre else 0 * vectors[0]
    moved = vectors.astype(float) - mean
    if components and components < vectors.shape[1] and components < known.sum():
        moved = moved @ np.linalg.svd(moved[known], full_matrices=False)[2][:components].T
    moved = moved / np.linalg.norm(moved, axis=1, keepdims=True) if unit else moved
    return np.where(known[:, None], moved, 0)


@settings(max_examples=examples(30))
@given(data=st.data())
def test_similarities_are_products_of_vectors_made_ready(data: Any) -> None:
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 10**6)))
    count, dimension = draw(st.integers(6, 30)), draw(st.integers(2, 6))
    components, length = draw(st.sampled_from([None, 1, 3, 64])), draw(st.integers(1, 5))
    centre, unit = draw(st.booleans()), draw(st.booleans())
    vectors, known = vectors_in_a_cone(count, dimension, draw(st.integers(0, 99))), random.random(count) < 0.8
    known[:4] = True
    expected = np.pad(ready(vectors, known, components, centre, unit), [(0, 1), (0, 0)])
    layer = KnowledgeSimilarity(KnowledgeTable.from_array(vectors, known), components, centre, unit=unit)
    rows = draw(st.sampled_from([0, 1, 7]))
    candidate = random.integers(-1, count + 2, (rows, 1)).astype("int32")
    events = random.integers(-1, count + 2, (rows, length)).astype("int32")

    def table(ids: np.ndarray) -> np.ndarray:
        return expected[np.where((ids >= 0) & (ids < count), ids, count)]

    products = (table(candidate[:, 0])[:, None] * table(events)).sum(axis=-1)
    found = np.asarray(layer([candidate, events]))
    np.testing.assert_allclose(found, np.where(events == 0, 0, products), rtol=2e-3, atol=2e-3)
    assert not found[(events <= 0) | (events >= count) | (candidate < 0) | (candidate >= count)].any()


def test_blocks_of_rows_change_nothing() -> None:
    layer = KnowledgeSimilarity(vectors_in_a_cone(50, 64), components=None)
    random = np.random.default_rng(0)
    candidate, events = (
        random.integers(0, 50, 700),
        random.integers(1, 50, (700, 40)),
    )  # three blocks, the last not full
    vectors = KnowledgeVectors(vectors_in_a_cone(50, 64), components=None)
    products = np.einsum("bd,bld->bl", vectors(candidate), vectors(events))
    np.testing.assert_allclose(layer([candidate, events]), products, atol=1e-5)


def test_whitened_vectors_vary_alike_and_constant_ones_are_like_nothing() -> None:
    vectors = vectors_in_a_cone(200, 5)
    table = KnowledgeTable.from_array(vectors)
    whitened = Preparation.fitted(table, 3, centre=True, whiten=True, unit=False)(vectors)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=0.02)
    assert Preparation.fitted(table, None, centre=True, whiten=True, unit=True).width == 5
    same = KnowledgeTable.from_array(np.full((20, 5), 0.1, "float32"))
    assert not Preparation.fitted(same, 3, centre=True, whiten=False, unit=True).of_table(same).any()


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    with VectorStore.writer(tmp_path / "item", StoreSpec("an encoder", 6)) as writer:
        writer.append([f"i{i}" for i in range(20)], ["k"] * 20, vectors_in_a_cone(20, 6))
    return VectorStore.open(tmp_path / "item")


def test_raw_ids_and_places_in_a_vocabulary_get_the_same_vectors(store: VectorStore) -> None:
    raw, placed = KnowledgeVectors(store, 4), KnowledgeVectors(store.align([None, *store.ids]), 4)
    ids = [f"i{i}" for i in range(20)]
    np.testing.assert_allclose(raw(np.asarray(ids)), placed(np.arange(1, 21)), atol=1e-6)
    events = np.asarray(raw(np.asarray([["i3", "", "nobody"]])))[0]
    assert events[0].any() and not events[1:].any()
    assert raw.stores == {
        raw.name: {"store": str(store.path), "fingerprint": store.fingerprint, "version": store.version}
    }


def test_new_items_are_made_ready_as_the_old_ones(store: VectorStore) -> None:
    layer = KnowledgeVectors(store, 4, spare=1)
    before = np.asarray(layer(np.asarray(["i1", "i2"])))
    new = vectors_in_a_cone(1, 6, seed=7)[0]
    layer.update({"new": new, "i2": new})
    after = np.asarray(layer(np.asarray(["i1", "i2", "new"])))
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(after[1:], [layer.preparation(new[None])[0]] * 2, atol=1e-6)
    with pytest.raises(StoreError, match=r"1 new ids, but room for 0\. Make room when the layer is made: spare="):
        layer.update({"newer": new})
    with pytest.raises(StoreError, match="must be 6 finite numbers"):
        layer.update({"i1": new[:2]})


@pytest.mark.parametrize("table_dtype", ["float32", "float16"])
def test_a_saved_model_needs_no_store_and_refresh_keeps_what_was_fitted(tmp_path: Path, table_dtype: str) -> None:
    vectors, rows = (
        vectors_in_a_cone(20, 6),
        {"item": np.asarray([[3], [4]]), "past_item": np.asarray([[5, 0], [6, 7]])},
    )
    layer = KnowledgeSimilarity(vectors, 4, table_dtype=table_dtype, source_name="item")
    inputs = {name: keras.Input(values.shape[1:], dtype="int32", name=name) for name, values in rows.items()}
    similarity = layer(list(inputs.values()))
    model = keras.Model(inputs, keras.layers.Dense(1)(similarity))
    expected = np.asarray(model(rows))
    for suffix in (".keras", ".weights.h5"):
        path = tmp_path / f"model{suffix}"
        if suffix == ".keras":
            model.save(path)
            np.testing.assert_allclose(np.asarray(load_model(path)(rows)), expected, atol=1e-6)
        else:
            model.save_weights(path)
            model.load_weights(path)
    changed = vectors.copy()
    changed[3] += vectors_in_a_cone(1, 6, seed=9)[0]
    renewed = refresh(model, {"item": changed, "user": changed})
    (fresh,) = (each for each in renewed.layers if isinstance(each, KnowledgeSimilarity))
    np.testing.assert_array_equal(fresh.preparation.mean, layer.preparation.mean)
    assert not np.allclose(np.asarray(renewed(rows))[0], expected[0])
    np.testing.assert_allclose(np.asarray(renewed(rows))[1], expected[1], atol=1e-6)
    with pytest.raises(ValueError, match=r"needs vectors of 'item'\. Received those of: user"):
        refresh(model, {"user": changed})


def test_one_of_an_augmentation_is_made_once(store: VectorStore) -> None:
    augmentation = KnowledgeAugmentation({"item": store, "user": vectors_in_a_cone(9, 6)})
    one, again, other = (KnowledgeVectors.of(augmentation, "item", components=n) for n in (4, 4, 3))
    assert one is again and (one.vector_width, other.vector_width) == (4, 3) and one.name != other.name
    ids = np.asarray(["i0", "i9"])
    np.testing.assert_allclose(one(ids), KnowledgeVectors(store, 4)(ids), atol=1e-6)
    assert KnowledgeVectors.of(augmentation, "user").source_name == "user"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"table_dtype": "int8"}, "float32 or"), ({"components": 0}, "`components` must be a whole number, 1 or more")],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KnowledgeVectors(vectors_in_a_cone(9, 6), **options)
