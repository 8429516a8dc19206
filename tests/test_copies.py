"""Models made of models: copies know what the original knows or say that they do not. Both Keras APIs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import table
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, PrestoredAugmentation, StoreError, VectorStore, load_model, prestore, refresh
from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.layers import KnowledgeVectors

pytestmark = pytest.mark.both_keras
VECTORS = np.random.default_rng(0).normal(size=(9, 5)).astype("float32")
BATCH = np.arange(-1, 11, dtype="int32")[:, None]


def store(path: Path, seed: int = 0) -> VectorStore:
    with VectorStore.writer(path, StoreSpec("encoder", 5)) as writer:
        writer.append(list(range(8)), ["k"] * 8, np.random.default_rng(seed).normal(size=(8, 5)))
    return VectorStore.open(path)


def model(item: Any = VECTORS, raw: Any = VECTORS) -> Any:
    """The item's knowledge by two sources, through experts, and in frozen vectors."""
    ids = keras.Input((1,), dtype="int32", name="item_id")
    fields = KnowledgeAugmentation({"item_id": item, "raw": raw}, expert_units=(4,), name="kar")(
        {"item_id": ids, "raw": ids}
    )
    frozen = KnowledgeVectors(item, 3, name="frozen")(ids)
    return ready(
        keras.Model(ids, keras.layers.Dense(1)(keras.layers.Concatenate()([*fields.values(), frozen]))), loss="mse"
    )


@pytest.mark.parametrize("form", table(["clone_model", "from_config", "model_from_json"], "clone_model"))
def test_a_copy_has_the_knowledge_and_new_weights(tmp_path: Path, form: str) -> None:
    items = store(tmp_path / "items")
    built = model(items.align([None, *range(3, 9)]), items)
    for original in (built, prestore(built)):
        copy = {
            "clone_model": keras.models.clone_model,
            "from_config": lambda m: type(m).from_config(m.get_config()),
            "model_from_json": lambda m: keras.models.model_from_json(m.to_json()),
        }[form](original)
        for name in ("kar", "kar_prestored", "frozen"):
            for ours, theirs in zip(layers(original, name), layers(copy, name), strict=True):
                assert ours.coverage == theirs.coverage and ours.coverage
                for left, right in zip(ours.non_trainable_weights, theirs.non_trainable_weights, strict=True):
                    np.testing.assert_array_equal(np.asarray(left), np.asarray(right))
        copy.set_weights(original.get_weights())
        np.testing.assert_array_equal(predicted(copy, BATCH), predicted(original, BATCH))


def layers(model: Any, name: str) -> list[Any]:
    return [layer for layer in model.layers if layer.name == name]


@pytest.mark.parametrize("kind", table(["kar", "prestored", "frozen"], "kar"))
def test_a_copy_without_knowledge_says_so_until_it_has_weights(kind: str) -> None:
    built = model()
    if kind == "prestored":
        built = prestore(built)
    elif kind == "frozen":
        built = keras.Model(built.input, built.get_layer("frozen").output)
    text, weights, expected = built.to_json(), built.get_weights(), predicted(built, BATCH)
    del built
    keras.backend.clear_session()
    gc.collect()
    copy = ready(keras.models.model_from_json(text), loss="mse")
    for use in (lambda: copy.fit(BATCH, BATCH, verbose=0), lambda: copy(BATCH)):
        with pytest.raises(Exception, match=r"has no knowledge: its layer was made of a config.*set_weights"):
            use()
    if kind == "kar":
        with pytest.raises(StoreError, match="Source 'item_id' has no knowledge"):
            _ = copy.get_layer("kar").coverage
    copy.set_weights(weights)
    np.testing.assert_array_equal(predicted(copy, BATCH), expected)


def test_weights_set_to_those_of_another_store_are_noticed(tmp_path: Path) -> None:
    one, other = (model(store(tmp_path / name, seed), VECTORS) for name, seed in (("one", 1), ("other", 2)))
    one.set_weights(other.get_weights())
    with pytest.raises(StoreError, match=r"trained with item_id from a store with fingerprint .*one with"):
        predicted(one, BATCH)
    other.predict(BATCH, verbose=0)
    own = other.get_weights()
    other.set_weights([-weight if weight.dtype == "int64" else weight for weight in own])  # of yet another store
    with pytest.raises(tf.errors.InvalidArgumentError, match="trained with item_id from another store"):
        other.predict(BATCH, verbose=0)
    other.set_weights(own)
    assert np.isfinite(other.predict(BATCH, verbose=0)).all()


def test_a_moved_store_is_remembered_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    built = model(store(tmp_path / "old"))
    built.save(str(tmp_path / "first.keras"))
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(
        StoreError, match=r"'item_id' from .*old, and `stores` says only where itm is.*stores=\{'item_id'"
    ):
        load_model(tmp_path / "first.keras", stores={"itm": tmp_path / "new"})
    load_model(tmp_path / "first.keras", stores={"item_id": tmp_path / "new"}).save(str(tmp_path / "second.keras"))
    again = load_model(tmp_path / "second.keras", stores={"raw": "a source that needs none"})
    np.testing.assert_array_equal(predicted(again, BATCH), predicted(built, BATCH))
    with pytest.raises(ValueError, match=r"`stores` names 'itm'.*Its sources are: frozen, item_id, raw"):
        load_model(tmp_path / "second.keras", stores={"itm": tmp_path / "new"})


def test_the_layer_is_found_in_a_nested_tower_and_replaced_once() -> None:
    ids = {name: keras.Input((1,), dtype="int32", name=name) for name in ("left", "right")}
    tower = model()
    nested = keras.Model(ids, keras.layers.Concatenate()([tower(each) for each in ids.values()]))
    batch = {"left": BATCH, "right": BATCH[::-1]}
    serving = prestore(nested)
    np.testing.assert_allclose(predicted(serving, batch), predicted(nested, batch), atol=1e-5)
    assert not [weight for weight in serving.weights if "kernel_0" in weight.name]
    assert serving.get_layer(tower.name).get_layer("kar_prestored").coverage == {"item_id": 1, "raw": 1}
    with_half = np.where(np.arange(9)[:, None] < 4, VECTORS, 0)
    refreshed = refresh(nested, {"item_id": with_half, "raw": VECTORS, "frozen": VECTORS})
    first = {name: ids[:4] for name, ids in {"left": BATCH, "right": BATCH}.items()}
    np.testing.assert_allclose(predicted(refreshed, first), predicted(nested, first), atol=1e-5)


class Ranker(keras.Model):
    def __init__(self, knowledge: Any) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.click = keras.layers.Dense(1)

    def call(self, ids: Any) -> Any:
        return self.click(self.knowledge({"item_id": ids})["item_id"])


def test_a_subclassed_model_is_told_what_to_do_and_that_works() -> None:
    ranker = Ranker(KnowledgeAugmentation({"item_id": VECTORS}, expert_units=(4,)))
    expected = predicted(ranker, BATCH)
    with pytest.raises(ValueError, match=r"second Ranker with PrestoredAugmentation\.of\(model\.knowledge\) there"):
        prestore(ranker)
    with pytest.raises(ValueError, match=r"second Ranker with model\.knowledge\.refreshed\(tables\) there"):
        refresh(ranker, {"item_id": VECTORS})
    serving = Ranker(PrestoredAugmentation.of(ranker.knowledge))
    serving.click = ranker.click
    np.testing.assert_allclose(predicted(serving, BATCH), expected, atol=1e-6)


@keras.utils.register_keras_serializable("tests")
class Towers(keras.Model):
    """Functional models in a list."""

    def __init__(self, towers: Any) -> None:
        super().__init__()
        self.towers = list(towers)

    def call(self, ids: Any) -> Any:
        return self.towers[0](ids)


def test_a_subclassed_model_of_towers_is_told_which_tower_to_make_anew() -> None:
    towers = Towers([model()])
    with pytest.raises(ValueError, match=r"a second Towers with prestore\(model\.towers\[0\]\) there"):
        prestore(towers)
    with pytest.raises(ValueError, match=r"a second Towers with refresh\(model\.towers\[0\], tables\) there"):
        refresh(towers, {"item_id": VECTORS, "raw": VECTORS, "frozen": VECTORS})
    expected = predicted(towers, BATCH)
    np.testing.assert_allclose(predicted(Towers([prestore(towers.towers[0])]), BATCH), expected, atol=1e-6)


def test_a_tower_that_reads_each_item_of_a_list_is_replaced_too(tmp_path: Path) -> None:
    tower = model()
    shown, candidate = keras.Input((3, 1), dtype="int32", name="shown"), keras.Input((1,), dtype="int32", name="item")
    each = keras.layers.TimeDistributed(tower, name="each")(shown)
    lists, both = keras.Model(shown, each), keras.Model([shown, candidate], [each, tower(candidate)])
    given = np.stack([BATCH, BATCH[::-1], BATCH], axis=1)
    expected = predicted(lists, given)
    tables = {"item_id": VECTORS, "raw": VECTORS, "frozen": VECTORS}
    for change in (prestore, lambda ranker: refresh(ranker, tables)):
        changed = change(lists)
        np.testing.assert_allclose(predicted(changed, given), expected, atol=1e-6)
        changed.save(str(tmp_path / "lists.keras"))
        np.testing.assert_allclose(predicted(load_model(tmp_path / "lists.keras"), given), expected, atol=1e-6)
        shared = change(both)  # which Keras itself cannot load, once it is saved
        assert shared.get_layer("each").layer is shared.get_layer(tower.name), "one tower, as before"


def test_what_float16_cannot_hold_is_refused() -> None:
    augmentation = KnowledgeAugmentation({"item_id": VECTORS * 1e6}, adaptor="none")
    with pytest.raises(StoreError, match=r"item_id: a vector holds [\d,]+, and float16 ends at 65,504"):
        PrestoredAugmentation.of(augmentation, table_dtype="float16")
