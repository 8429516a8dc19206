"""A model learnt to read vectors of one version: it says which, keeps it, and asks before it takes others. Both Keras
APIs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3

from kar_aug import KnowledgeAugmentation, StoreError, VectorStore, augment, load_model, prestore, refresh
from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.cache.vectors.files import MANIFEST, _checksum
from kar_aug.layers import KnowledgeVectors, VectorAugmentation
from kar_aug.models import join, split, vectors_as_inputs, versions_of
from kar_aug.models.augmented import augmented_store

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
IDS = list(range(1, 9))
VECTORS = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


def store(path: Path, encoder: str = "one", matrix: np.ndarray | None = None) -> VectorStore:
    with VectorStore.writer(path, StoreSpec(encoder, 5, reduction="" if matrix is None else "pca from 6")) as writer:
        if matrix is not None:
            writer.project(matrix)
        writer.append(IDS, ["k"] * 8, VECTORS)
    return VectorStore.open(path)


def model(source: Any, kind: str) -> Any:
    ids = keras.Input((1,), dtype="int64", name="item")
    if kind == "fields":
        known = KnowledgeAugmentation({"item": source}, expert_units=(4,), name="kar")({"item": ids})["item"]
    else:
        known = KnowledgeVectors(source, 3, source_name="item", name="kar")(ids)
    return keras.Model(ids, keras.layers.Dense(1)(known))


@pytest.mark.parametrize("kind", ["fields", "similarity"])
@pytest.mark.parametrize("reads", ["ids", "places"])
def test_the_version_that_was_learnt_is_asked_for_whatever_was_taken_since(
    kind: str, reads: str, tmp_path: Path
) -> None:
    ours, others = store(tmp_path / "ours"), store(tmp_path / "others", "another")
    sources: list[Any] = [ours, others]
    if reads == "places":
        sources = [each.align([None, *IDS]) for each in sources] + [np.concatenate([VECTORS[:1], VECTORS])]
    own, foreign = sources[:2]
    trained = model(own, kind)
    trained.save(str(tmp_path / "trained.keras"))
    for former in (trained, load_model(tmp_path / "trained.keras")):
        with pytest.raises(StoreError, match=f"of version {ours.version}, and these are of version {others.version}"):
            refresh(former, {"item": foreign})
        for table in sources:
            again = refresh(former, {"item": table}, any_version=True)
            assert again.get_layer("kar").stores["item"]["version"] == ours.version
            with pytest.raises(StoreError, match="say any_version=True"):
                refresh(again, {"item": foreign})
            refresh(again, {"item": own})
    if kind == "fields":
        assert prestore(again).get_layer("kar_prestored").stores["item"]["version"] == ours.version


def test_vectors_of_another_version_do_not_join_the_batches_of_a_model_that_is_given_them(tmp_path: Path) -> None:
    ours, others = store(tmp_path / "ours"), store(tmp_path / "others", "another")
    inputs = {name: keras.Input((1,), dtype="int32", name=name) for name in ("item", "before")}
    embedding = keras.layers.Embedding(9, 3)
    embedded = [keras.layers.Flatten()(embedding(ids)) for ids in inputs.values()]
    base = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(embedded)))
    looked_up = augment(base, KnowledgeAugmentation({"item": ours}), inputs={"item": ["item", "before"]})
    of_vectors = augment(base, VectorAugmentation({"item": ours}), inputs={"item": ["item", "before"]})
    places = np.asarray([[1], [8]], "int32")
    batches = tf.data.Dataset.from_tensors({"item": places, "before": places[::-1]})
    for reader in (looked_up, vectors_as_inputs(looked_up), of_vectors):
        versions = versions_of(reader)
        assert versions["item"] == ours.version
        join(batches, {"item": (ours, [None, *IDS])}, versions=versions)
        names = ("item",) if reader is looked_up else ("item", "before")
        for name in names:
            with pytest.raises(StoreError, match=f"of version {others.version}, but the model learnt to read version"):
                join(batches, {name: (others, [None, *IDS])}, versions=versions)


def test_experts_are_not_split_from_a_model_to_read_another_version(tmp_path: Path) -> None:
    ours, others = store(tmp_path / "ours"), store(tmp_path / "others", "another")
    trained = model(ours, "fields")
    with pytest.raises(StoreError, match="say any_version=True"):
        split(trained, tmp_path / "refused", {"item": others})
    taken = split(trained, tmp_path / "taken", {"item": others}, any_version=True).tables["item"]
    anyway = refresh(trained, {"item": others}, any_version=True)
    its_own = split(anyway, tmp_path / "own").tables["item"]
    np.testing.assert_allclose(its_own.gather(IDS), taken.gather(IDS), atol=1e-6)


def test_two_matrices_are_two_versions_and_older_stores_stay_what_they_were(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    first, second = (store(tmp_path / name, matrix=random.normal(size=(6, 6))) for name in ("first", "second"))
    assert first.spec == second.spec and len({first.version, second.version, first.spec.version}) == 3
    trained = model(first, "fields")
    with pytest.raises(StoreError, match=f"and these are of version {second.version}"):
        refresh(trained, {"item": second})
    layer = trained.get_layer("kar")
    augmented_store(layer, "item", first, tmp_path / "augmented")
    with pytest.raises(StoreError, match="Encode into another folder"):
        augmented_store(layer, "item", second, tmp_path / "augmented", any_version=True)

    said = json.loads((first.path / MANIFEST).read_text())
    document = {name: value for name, value in said.items() if name not in ("version", "checksum")}
    (first.path / MANIFEST).write_text(json.dumps({**document, "checksum": _checksum(document)}))
    older = VectorStore.open(first.path)
    assert older.version == older.spec.version == first.spec.version
    with VectorStore.writer(older.path, older.spec) as writer:
        writer.append([9], ["k"], VECTORS[:1])
    assert VectorStore.open(older.path).version == older.version, "models that learnt it read it on"
