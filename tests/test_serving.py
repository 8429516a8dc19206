"""From a trained model to one that serves: prestored tables, new ids, half precision, export. Both Keras APIs."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import fresh, without

from kar_aug import KnowledgeAugmentation, StoreError, VectorStore, load_model, prestore, refresh
from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.cache.vectors.parts import Parts
from kar_aug.errors import ConfigError
from kar_aug.layers import PrestoredAugmentation, vectors_left_out
from kar_aug.models.export import export

pytestmark = pytest.mark.both_keras
IDS = [f"i{n}" for n in range(20)]
LAYER = "kar_prestored"


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    with VectorStore.writer(tmp_path / "store", StoreSpec("encoder", 6)) as writer:
        writer.append(IDS, ["k"] * 20, np.random.default_rng(0).normal(size=(20, 6)))
    return VectorStore.open(tmp_path / "store")


def model(store: VectorStore) -> Any:
    """Two sources: `item`, places in a vocabulary whose last ten have no knowledge; `raw`, the store's own strings."""
    item = keras.Input((1,), name="item", dtype="int32")
    raw = keras.Input((1,), name="raw", dtype="string")
    price = keras.Input((1,), name="price")
    table = store.align([None, *IDS, *(f"new{n}" for n in range(10))])
    layer = KnowledgeAugmentation({"item": table, "raw": store}, expert_units=(8, 4), name="kar")
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(np.random.default_rng(i).normal(size=weight.shape).astype("float32"))
    fields = layer({"item": item, "raw": raw})
    joined = keras.layers.Concatenate()([fields["item"], fields["raw"], price])
    return keras.Model([item, raw, price], keras.layers.Dense(1, activation="sigmoid")(joined))


def inputs(item: Any, raw: Any) -> dict[str, Any]:
    """One row an id."""
    return {
        "item": tf.constant(np.reshape(item, (-1, 1)).astype("int32")),
        "raw": tf.constant(np.reshape(np.asarray(raw, object), (-1, 1))),
        "price": tf.constant(np.linspace(0, 1, len(item), dtype="float32")[:, None]),
    }


def predict(built: Any, item: Any, raw: Any) -> np.ndarray:
    values = inputs(item, raw)
    return np.asarray(built([values[name] for name in ("item", "raw", "price")], training=False))


EVERY_ID = (list(range(-2, 35)), [*IDS, *(["?"] * 17)])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)])
def test_prestored_predictions_are_equal(store: VectorStore, tmp_path: Path, dtype: str, tolerance: float) -> None:
    built = model(store)
    serving = prestore(built, dtype=dtype, spare=3)
    expected = predict(built, *EVERY_ID)
    np.testing.assert_allclose(predict(serving, *EVERY_ID), expected, rtol=tolerance)
    serving.save(str(tmp_path / "serving.keras"))
    again = load_model(tmp_path / "serving.keras")
    np.testing.assert_array_equal(predict(again, *EVERY_ID), predict(serving, *EVERY_ID))
    tables = [w for w in again.get_layer(LAYER).weights if len(w.shape) == 2]
    assert {np.asarray(t).dtype.name for t in tables} == {dtype}


def test_new_ids_get_their_vectors_and_nothing_else_changes(store: VectorStore) -> None:
    built = model(store)
    serving = prestore(built, spare=2)
    before = {w.name: np.asarray(w) for w in serving.weights if "item" not in w.name and "raw" not in w.name}
    old, unknown = predict(serving, *EVERY_ID), predict(serving, [21, 31], ["fresh", "i3"])
    vectors = np.random.default_rng(5).normal(size=(4, 6)).astype("float32")
    serving.get_layer(LAYER).update({"item": {21: vectors[0], 31: vectors[1]}, "raw": {"fresh": vectors[2]}})
    with VectorStore.writer(store.path, store.spec) as writer:
        writer.append(["new0", "beyond", "fresh"], ["k"] * 3, vectors[:3])
    grown = VectorStore.open(store.path)
    layer = next(layer for layer in built.layers if isinstance(layer, KnowledgeAugmentation))
    table = grown.align([None, *IDS, *(f"new{n}" for n in range(10)), "beyond"])
    expected = layer.refreshed({"item": table, "raw": grown})
    ids = {"item": np.asarray([21, 31], "int32"), "raw": np.asarray(["fresh", "i3"])}
    for name, values in serving.get_layer(LAYER)(ids).items():
        np.testing.assert_allclose(np.asarray(values), np.asarray(expected(ids)[name]), rtol=5e-3, atol=5e-3)
    assert not np.allclose(predict(serving, [21, 31], ["fresh", "i3"]), unknown)
    untouched = [row for row, id in enumerate(EVERY_ID[0]) if id not in (21, 31)]
    np.testing.assert_array_equal(predict(serving, *EVERY_ID)[untouched], old[untouched])
    for weight in serving.weights:
        if weight.name in before:
            np.testing.assert_array_equal(np.asarray(weight), before[weight.name])


def test_a_store_of_many_parts_costs_one_copy(tmp_path: Path) -> None:
    """Counted: what NumPy allocated at most, and what is left of it, which is the layer's tensor itself."""
    rows, width, draw = 20_000, 64, np.random.default_rng(0)
    spec = StoreSpec("encoder", width)
    with VectorStore.writer(tmp_path, spec) as writer:
        for part in range(20):
            ids = range(part * 1000, (part + 1) * 1000)
            writer.append([*ids], ["k"] * 1000, draw.normal(size=(1000, width)))
        writer.append([7], ["k"], np.ones((1, width)))
    store = VectorStore.open(tmp_path)
    assert isinstance(store.align([7]).vectors, Parts), "the writer has left more than one"
    KnowledgeAugmentation({"item": store.align(range(10))})  # what is imported and cached with the first
    whole = rows * width * 2
    tracemalloc.start()
    try:
        layer = KnowledgeAugmentation({"item": store.align(np.arange(rows))}, expert_units=(8, 128))
        left, most = tracemalloc.get_traced_memory()
        assert 1.0 * whole < left < 1.2 * whole and most < 1.6 * whole, (left / whole, most / whole)
        tracemalloc.reset_peak()
        prestored = PrestoredAugmentation.of(layer)
        most, table = tracemalloc.get_traced_memory()[1], (rows + 1) * 128 * 4
        assert most - left < 2.5 * table, (most - left) / table
    finally:
        tracemalloc.stop()
    ids = np.array([0, 7, 999, 1000, rows - 1, rows])
    np.testing.assert_allclose(prestored({"item": ids})["item"], layer({"item": ids})["item"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(layer.table("item").vectors), store.vectors)


def test_an_update_that_cannot_be_made_changes_nothing(store: VectorStore, tmp_path: Path) -> None:
    built = model(store)
    serving = prestore(built, spare=1)
    before, layer, vector = predict(serving, *EVERY_ID), serving.get_layer(LAYER), np.ones(6)
    for knowledge, message in [
        ({"item": {1: vector}, "raw": {"a": vector, "b": vector}}, r"raw: 2 new ids, but room for 1\..*spare="),
        ({"item": {32: vector}}, "item: there is no row for id 32, only for 0 to 31"),
        ({"item": {1: vector * np.nan}}, "item: the vector of id 1 must be 6 finite numbers"),
        ({"item": {1: np.ones(5)}}, "item: the vector of id 1 must be 6 finite numbers"),
        ({"item": {"i1": vector}}, "item: its ids are integers, as the model reads them. Received: 'i1'"),
        ({"raw": {7: vector}}, "raw: its ids are strings, as the model reads them. Received: 7"),
        ({"item": vector}, r"item: knowledge comes as \{id: vector\}. Received: ndarray"),
    ]:
        with pytest.raises(StoreError, match=message):
            layer.update(knowledge)
    np.testing.assert_array_equal(predict(serving, *EVERY_ID), before)
    serving.save(str(tmp_path / "serving.keras"))
    loaded = load_model(tmp_path / "serving.keras").get_layer(LAYER)
    with pytest.raises(ValueError, match="give `update` the trained KnowledgeAugmentation as well"):
        loaded.update({"item": {1: vector}})
    loaded.update({"item": {1: vector}}, next(x for x in built.layers if isinstance(x, KnowledgeAugmentation)))


def test_refresh_takes_the_ids_that_the_model_reads(store: VectorStore, tmp_path: Path) -> None:
    built, numbers = model(store), tmp_path / "numbers"
    with VectorStore.writer(numbers, StoreSpec("encoder", 6)) as writer:
        writer.append([1, 2], ["k"] * 2, np.ones((2, 6)))
    table = store.align(IDS)
    for tables, message in [
        ({"item": store, "raw": store}, r"reads the integers of a vocabulary of 'item'.*store.align\(vocabulary\)"),
        ({"item": table, "raw": table}, "reads a store's own ids of 'raw'.*Give the VectorStore itself"),
        ({"item": table, "raw": VectorStore.open(numbers)}, "of 'raw' are strings to the model, and integers in this"),
        ({"item": table}, "needs knowledge of 'raw'. Received that of: item"),
    ]:
        with pytest.raises(ValueError, match=message):
            refresh(built, tables)
    with pytest.raises(ValueError, match="`spare` must be a whole number, 0 or more"):
        prestore(built, spare=-1)


def test_a_saved_model_whose_store_has_grown_is_loaded_with_what_is_known_now(
    store: VectorStore, tmp_path: Path
) -> None:
    built = model(store)
    built.save(tmp_path / "model.keras")
    before = predict(built, *EVERY_ID)
    with VectorStore.writer(store.path, store.spec) as writer:  # as `kar-aug encode` does, after new answers
        writer.append(["later", "i3"], ["k", "newer"], np.ones((2, 6)))
    with pytest.raises(StoreError, match=r"load_model\(path, tables=\{'item': \.\.\.\}\) with what `refresh` takes"):
        load_model(tmp_path / "model.keras")
    now = VectorStore.open(store.path)
    tables = {"item": now.align([None, *IDS, *(f"new{n}" for n in range(9)), "later"]), "raw": now}
    loaded = load_model(tmp_path / "model.keras", tables=tables)
    np.testing.assert_allclose(predict(loaded, *EVERY_ID), predict(refresh(built, tables), *EVERY_ID), atol=1e-6)
    same, (item, raw) = np.ones(len(before), bool), EVERY_ID
    same[
        [place for place, (i, r) in enumerate(zip(item, raw, strict=True)) if i in (4, 30) or r in ("i3", "later")]
    ] = 0
    assert 0 < same.sum() < len(same)
    np.testing.assert_allclose(predict(loaded, *EVERY_ID)[same], before[same], atol=1e-6)
    asked = [1, 30], ["i0", "later"]
    assert np.abs(predict(loaded, *asked)[1] - predict(built, *asked)[1]) > 1e-4, "it is known now"
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(predict(load_model(tmp_path / "again.keras"), *asked), predict(loaded, *asked))

    with VectorStore.writer(tmp_path / "other", StoreSpec("another encoder", 6)) as writer:
        writer.append(IDS, ["k"] * 20, np.ones((20, 6)))
    with pytest.raises(StoreError, match="these are of version"):
        load_model(tmp_path / "model.keras", tables={**tables, "raw": VectorStore.open(tmp_path / "other")})
    with pytest.raises(ValueError, match="needs knowledge of 'raw'"):
        load_model(tmp_path / "model.keras", tables={"item": tables["item"]})


@keras.utils.register_keras_serializable(package="test_serving")
class Ranker(keras.Model):  # type: ignore[misc, name-defined]
    """Its `call` is its own."""

    def __init__(self, knowledge: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.knowledge, self.click = knowledge, keras.layers.Dense(1, activation="sigmoid", name="click")

    def call(self, inputs: Any) -> Any:
        return self.click(keras.layers.concatenate([self.knowledge({"item": inputs["item"]})["item"], inputs["price"]]))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "knowledge": keras.utils.serialize_keras_object(self.knowledge)}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
        return cls(keras.utils.deserialize_keras_object(config["knowledge"]), name=config["name"])


def test_of_a_class_of_ones_own_another_is_made_with_what_is_known_now_and_served(
    store: VectorStore, tmp_path: Path
) -> None:
    vocabulary = [*IDS, "later", "never"]
    ranker = Ranker(KnowledgeAugmentation({"item": store.align(vocabulary)}, expert_units=(8, 4)))
    values = {name: value for name, value in inputs(range(22), [""] * 22).items() if name != "raw"}
    before = np.asarray(ranker(values))
    ranker.save(tmp_path / "ranker.keras")
    with VectorStore.writer(store.path, store.spec) as writer:
        writer.append(["later"], ["k"], np.ones((1, 6)))
    tables = {"item": VectorStore.open(store.path).align(vocabulary)}
    with pytest.raises(
        ValueError, match=r"a second Ranker with model\.knowledge\.refreshed\(tables\), .*vectors_left_out"
    ):
        load_model(tmp_path / "ranker.keras", tables=tables)
    with vectors_left_out():
        former = load_model(tmp_path / "ranker.keras")
    renewed = Ranker(former.knowledge.refreshed(tables))
    renewed.click = former.click
    after, came = np.asarray(renewed(values)), np.arange(22) == 20
    np.testing.assert_allclose(after[~came], before[~came], atol=1e-6)
    assert (np.abs(after - before)[came] > 1e-3).all()

    with pytest.raises(ValueError, match="a second Ranker with PrestoredAugmentation"):
        export(renewed, tmp_path / "serving")
    serving = Ranker(PrestoredAugmentation.of(renewed.knowledge))
    serving.click = renewed.click
    with pytest.raises(
        ValueError, match=r"`export` needs a built functional .*keras\.Model\(inputs, model\(inputs\)\)"
    ):
        export(serving, tmp_path / "serving")
    specs = {"item": "int32", "price": "float32"}
    named = {name: keras.Input((1,), name=name, dtype=dtype) for name, dtype in specs.items()}
    export(keras.Model(named, serving(named)), tmp_path / "serving")
    served = tf.saved_model.load(str(tmp_path / "serving")).signatures["serving_default"](**values)
    np.testing.assert_allclose(served["ctr"], after, atol=1e-6)


def test_a_mount_point_is_no_place_for_an_export(store: VectorStore) -> None:
    root = Path(Path.cwd().anchor)  # the one that is everywhere
    with pytest.raises(StoreError, match=r"is a mount point, .* Name a folder in it"):
        export(model(store), root)


def test_an_export_takes_the_place_of_an_older_one_and_of_nothing_else(
    store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, here = model(store), tmp_path / "here"
    (here / "own").mkdir(parents=True)
    (here / "own" / "thesis.txt").write_text("precious")
    monkeypatch.chdir(here)
    (here / "afile").write_text("a file")
    keras.Model(built.inputs, built.outputs).save(here / "a.keras")
    tf.saved_model.save(tf.Module(), str(here / "another"))
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    for where, said in [
        ("", "No place is named"),
        (".", "is not empty: a.keras, afile, another, ... would be lost"),
        ("..", "is not empty: here, store would be lost"),
        ("own", "is not empty: thesis.txt would be lost"),
        ("another", "is not empty: .*saved_model.pb"),  # of whoever made it
        ("afile", "is a file, and a folder is wanted there"),
        ("afile/below", "is a file, and .*below is to be a folder in it"),
        ("redis://localhost", "is no path"),
        ("s3:/bucket/model", "is no path"),
    ]:
        with pytest.raises((ConfigError, StoreError), match=said):
            export(built, where)
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before

    (here / "empty").mkdir()
    (here / "link").symlink_to("empty", target_is_directory=True)
    for _ in range(2):
        assert export(built, "link") == Path("link")
    assert (here / "link").is_symlink() and (here / "empty" / "saved_model.pb").is_file()
    (here / "empty" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"is not empty: notes\.txt would be lost"):
        export(built, "empty")
    assert (here / "empty" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in here.iterdir()) == [
        "a.keras", "afile", "another", "empty", "link", "own",
    ]  # fmt: skip


# What production does: TensorFlow, and nothing of ours or of DeepCTR's.
_SERVE = f"""{without("kar_aug", "deepctr")}
import numpy as np, tensorflow as tf
inputs = np.load(sys.argv[1])
features = {{n: tf.constant(inputs[n].astype(object) if inputs[n].dtype.kind == "U" else inputs[n]) for n in inputs}}
for folder in sys.argv[2:]:
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    np.save(folder + ".npy", serve(**features)["ctr"].numpy())
"""


def test_tensorflow_alone_serves_an_export(store: VectorStore, tmp_path: Path) -> None:
    built, tolerances = model(store), {"float32": 1e-5, "float16": 1e-2}
    for dtype in tolerances:
        export(built, tmp_path / dtype, dtype=dtype)
        note = json.loads((tmp_path / dtype / "assets.extra" / "kar_aug.json").read_text())
        assert note["stores"] == {"item": store.fingerprint, "raw": store.fingerprint}
    values = {name: np.asarray(value) for name, value in inputs(*EVERY_ID).items()}
    values["raw"] = np.asarray([[id.decode()] for id in values["raw"][:, 0]])
    np.savez(tmp_path / "inputs.npz", **values)
    paths = [tmp_path / "inputs.npz", *(tmp_path / dtype for dtype in tolerances)]
    done = fresh(tmp_path, "-c", _SERVE, *map(str, paths))
    assert done.returncode == 0, done.stderr[-3000:]
    for dtype, tolerance in tolerances.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{dtype}.npy"), predict(built, *EVERY_ID), rtol=tolerance)
