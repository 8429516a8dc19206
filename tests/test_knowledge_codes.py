"""Semantic ids in models: the layer that looks them up, and the injection that embeds them. On both of Keras's APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, StoreError, VectorStore, load_model, refresh
from kar_aug._helpers.keras import keras
from kar_aug.backbones import Settings, embed
from kar_aug.backbones.injections.codes import Codes
from kar_aug.cache import StoreSpec
from kar_aug.codes import SemanticIds
from kar_aug.data.features import Feature
from kar_aug.layers import KnowledgeCodes
from kar_aug.models.find import knowledge_layers
from kar_aug.registry import INJECTIONS

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
ITEMS, WIDTH = 9, 4
SPEC = StoreSpec("encoder", 3)
VOCABULARY = [None, *range(1, ITEMS)]  # of which 7 and 8 have no vector
FEATURES = (
    Feature("item", ITEMS, is_key=True),
    Feature("hist_item", ITEMS, length=4, sequence="hist", is_key=True),
    Feature("hour", 3),
)
ROWS = {
    "item": np.asarray([[6], [1], [8]], "int32"),
    "hist_item": np.asarray([[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]], "int32"),
    "hour": np.asarray([[1], [2], [0]], "int32"),
}


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return with_items(tmp_path / "items", [1, 2, 3, 4, 5, 6])


def with_items(path: Path, ids: list[int]) -> VectorStore:
    with VectorStore.writer(path, SPEC) as writer:
        writer.append(ids, ["key"] * len(ids), np.random.default_rng(ids).normal(size=(len(ids), 3)))
    return VectorStore.open(path)


def augmentation(store: VectorStore, codes: SemanticIds) -> KnowledgeAugmentation:
    table = codes.attach(store.align(VOCABULARY), VOCABULARY)
    return KnowledgeAugmentation({"item": table}, expert_units=(8, WIDTH))


def model_with(injection: Any, augmentation: KnowledgeAugmentation) -> Any:
    embedded = embed(FEATURES, Settings(embedding_dim=WIDTH))
    known = injection(augmentation, embedded.inputs)
    hidden = keras.layers.Concatenate()([*embedded.fields, *known.vectors(), *known.dense])
    return keras.Model(embedded.inputs, keras.layers.Dense(1, "sigmoid")(hidden))


def test_each_id_has_the_pieces_of_its_codes_and_an_unknown_one_zeros(store: VectorStore) -> None:
    codes = SemanticIds.make(store, levels=2, size=3)
    layer = KnowledgeCodes(codes.align(VOCABULARY), buckets=50)
    assert layer.piece_names == ["level_1", "level_2", "prefix_2"] and layer.vocabulary_sizes == [4, 4, 51]
    asked = np.asarray([[1, 6, 8], [0, 2, 40]], "int32")
    pieces = [np.asarray(piece) for piece in layer(asked)]
    expected = layer.pieces.of(codes.codes_of([1, 6, 8, None, 2, 40])).T.reshape(3, 2, 3)
    np.testing.assert_array_equal(pieces, expected)
    assert all(piece.dtype == np.int32 for piece in pieces)
    assert [np.asarray(piece).shape for piece in layer(asked[:, :1])] == [(2, 1)] * 3
    np.testing.assert_array_equal(KnowledgeCodes(augmentation(store, codes).table("item"), buckets=50)(asked), expected)


def test_raw_ids_are_looked_up_and_a_new_item_has_codes_without_training(store: VectorStore) -> None:
    codes = SemanticIds.make(store, levels=2, size=3)
    layer = KnowledgeCodes(codes, spare=1)
    before = np.asarray(layer(np.asarray([1, 6, 77], "int64")))
    assert before[:, :2].all() and not before[:, 2].any()
    newer = codes.update(with_items(store.path, [77, 78]))
    layer.update(newer, [77])
    after = np.asarray(layer(np.asarray([1, 6, 77], "int64")))
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    np.testing.assert_array_equal(after[:2, 2], newer.codes_of([77])[0])
    with pytest.raises(StoreError, match=r"1 new ids, but room for 0. Make room when the layer is made: spare="):
        layer.update(newer, [78])
    with pytest.raises(StoreError, match="they mean something else"):
        layer.update(SemanticIds.make(store, levels=2, size=3, seed=1), [1])


def test_ids_that_are_texts_are_looked_up_as_they_are(tmp_path: Path) -> None:
    with VectorStore.writer(tmp_path / "texts", SPEC) as writer:
        writer.append(["b", "a", "é"], ["key"] * 3, np.eye(3))
    codes = SemanticIds.make(VectorStore.open(tmp_path / "texts"), levels=1, size=3)
    (found,) = KnowledgeCodes(codes)(np.asarray([["é", "nobody"], ["", "b"]]))
    np.testing.assert_array_equal(np.asarray(found).ravel(), codes.codes_of(["é", "nobody", "", "b"])[:, 0])


def test_without_codes_it_is_said_how_to_get_some(store: VectorStore) -> None:
    with pytest.raises(StoreError, match=r"no codes of 'item'. Make some \(kar-aug codes\), and attach them"):
        Codes()(KnowledgeAugmentation({"item": store.align(VOCABULARY)}), {"item": keras.Input((1,), dtype="int32")})
    config = KnowledgeCodes(SemanticIds.make(store, levels=1, size=3)).get_config()
    copy = KnowledgeCodes.from_config({**config, "source": {**config["source"], "content": "of another process"}})
    with pytest.raises(StoreError, match="has no knowledge"):
        copy(np.asarray([1], "int64"))


def test_codes_are_fields_of_the_candidate_and_of_events_through_the_same_embeddings(store: VectorStore) -> None:
    codes = SemanticIds.make(store, levels=2, size=3)
    inputs = {name: keras.Input((ROWS[name].shape[1],), dtype="int32", name=name) for name in ("item", "hist_item")}
    injected = Codes()(augmentation(store, codes), inputs)
    (known,) = injected.events.values()
    model = keras.Model(list(inputs.values()), [*injected.fields, known.candidate, known.vectors, known.mask])
    ids = [np.asarray([[3], [8], [0]], "int32"), ROWS["hist_item"]]
    *fields, candidate, events, mask = (np.asarray(each) for each in model(ids))
    assert len(fields) == len(known.pooled) == 3 and len(model.trainable_weights) == 3
    np.testing.assert_allclose(candidate, np.concatenate(fields, axis=1))
    np.testing.assert_allclose(events[1, 0], candidate[0], err_msg="item 3, as event and as candidate")
    np.testing.assert_allclose(candidate[1], candidate[2], err_msg="nothing is known of either")
    np.testing.assert_array_equal(mask, ROWS["hist_item"] > 0)


@pytest.mark.parametrize("name", ["codes", "fields+codes"])
def test_a_model_with_codes_learns_and_is_saved_without_any_vector(
    name: str, store: VectorStore, tmp_path: Path
) -> None:
    codes = SemanticIds.make(store, levels=2, size=3)
    model = ready(model_with(INJECTIONS.load(name)(), augmentation(store, codes)), 0.05, eagerly=True)
    assert bool(knowledge_layers(model, (KnowledgeAugmentation,))) == (name != "codes")
    losses = model.fit(ROWS, np.asarray([1.0, 0.0, 1.0], "float32"), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    keras.Model(model.inputs, model.outputs).save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(loaded, ROWS), predicted(model, ROWS), rtol=1e-6)
    newer = with_items(store.path, [7, 8])
    known = codes.update(newer).attach(newer.align(VOCABULARY), VOCABULARY)
    renewed = refresh(loaded, {"item": known})
    np.testing.assert_allclose(predicted(renewed, ROWS)[1], predicted(model, ROWS)[1], rtol=1e-6)
    assert predicted(renewed, ROWS)[2] != predicted(model, ROWS)[2], "item 8 has codes now"
