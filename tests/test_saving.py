"""Models with knowledge on disk: every format, read back by a fresh process. Runs on both Keras APIs."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import fresh
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, PrestoredAugmentation, StoreError, VectorStore, load_model
from kar_aug._helpers.keras import IS_KERAS_3, keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.layers import KnowledgeVectors, store_locations
from kar_aug.models.export import export

pytestmark = pytest.mark.both_keras
FORMATS = [".keras", ".h5", ".weights.h5", ".ckpt", "savedmodel"]

# What a fresh process does with each path. It builds the model anew where the file holds weights only.
_READ = """
import sys
import numpy as np
import tensorflow as tf
from test_saving import inputs, model, predict
from kar_aug import VectorStore, load_model

def read(path, store):
    if path.endswith((".weights.h5", ".ckpt")):
        built = model(VectorStore.open(store))
        if path.endswith("h5"):
            built.load_weights(path)
        else:
            tf.train.Checkpoint(model=built).restore(path).expect_partial()
        return predict(built)
    if path.endswith("savedmodel"):
        served = tf.saved_model.load(path)
        signature = served.signatures["serving_default"] if "serving_default" in served.signatures else served.serve
        return np.asarray(list(signature(**{k: tf.constant(v) for k, v in inputs().items()}).values())[0])
    return predict(load_model(path))

store, *paths = sys.argv[1:]
for path in paths:
    np.save(path + ".npy", read(path, store))
"""


def write_store(path: Path, seed: int = 0) -> VectorStore:
    with VectorStore.writer(path, StoreSpec("encoder", 6)) as writer:
        writer.append([f"i{n}" for n in range(40)], ["k"] * 40, np.random.default_rng(seed).normal(size=(40, 6)))
    return VectorStore.open(path)


def model(store: VectorStore, **options: Any) -> Any:
    item = keras.Input((1,), name="item", dtype="int32")
    raw = keras.Input((1,), name="raw", dtype="string")
    table = store.align([None, *(f"i{n}" for n in range(0, 60, 2))])
    augmentation = KnowledgeAugmentation({"item": table, "raw": store}, expert_units=(8, 4), name="kar", **options)
    fields = augmentation({"item": item, "raw": raw})
    joined = keras.layers.Concatenate()([fields["item"], fields["raw"]])
    built = keras.Model({"item": item, "raw": raw}, keras.layers.Dense(1, activation="sigmoid")(joined))
    return ready(built, eagerly=True)


def inputs() -> dict[str, Any]:
    random = np.random.default_rng(1)
    raw = np.asarray([[f"i{n}"] for n in random.integers(0, 50, 32)], dtype=object)
    return {"item": random.integers(-1, 40, (32, 1)).astype("int32"), "raw": raw}


def data() -> Any:
    features = {"item": tf.constant(inputs()["item"]), "raw": tf.constant(inputs()["raw"])}
    return tf.data.Dataset.from_tensor_slices((features, np.arange(32) % 2)).batch(16)


def features() -> Any:
    """All inputs in one batch, as both APIs take strings: tensors."""
    return data().unbatch().map(lambda x, _: x).batch(32)


def predict(built: Any) -> np.ndarray:
    return predicted(built, next(iter(features())))


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return write_store(tmp_path / "store")


@pytest.fixture(scope="module")
def read_back(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What a trained model predicts, and by format what a fresh process predicts that reads it from its file."""
    folder = tmp_path_factory.mktemp("formats")
    store = write_store(folder / "store")
    built, paths = model(store), {suffix: str(folder / f"model{suffix}") for suffix in FORMATS}
    built.fit(data(), epochs=2, verbose=0)
    tf.train.Checkpoint(model=built).write(paths[".ckpt"])
    built.save_weights(paths[".weights.h5"])
    if IS_KERAS_3:
        built.export(paths["savedmodel"])
    else:
        built.save(paths["savedmodel"], save_format="tf")
    for suffix in (".keras", ".h5"):
        built.save(paths[suffix])
    done = fresh(Path(__file__).parent, "-c", _READ, str(store.path), *paths.values())
    assert done.returncode == 0, done.stderr[-3000:]
    return predict(built), {suffix: np.load(f"{path}.npy") for suffix, path in paths.items()}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_fresh_process_predicts_the_same(read_back: tuple[np.ndarray, dict[str, np.ndarray]], suffix: str) -> None:
    expected, found = read_back
    # TensorFlow optimises the graph of a SavedModel anew: equal to rounding. All others: to the bit.
    np.testing.assert_allclose(found[suffix], expected, rtol=1e-6 if suffix == "savedmodel" else 0, atol=0)


def test_a_file_loads_in_safe_mode_and_holds_no_pickle(store: VectorStore, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model(store).save(str(path))
    keras.models.load_model(str(path), safe_mode=True)
    with zipfile.ZipFile(path) as file:
        assert {Path(name).suffix for name in file.namelist()} == {".json", ".h5"}
        config = file.read("config.json").decode()
    assert "Lambda" not in config
    assert store.fingerprint in config and str(store.path) in config


def test_tables_are_in_the_file_only_when_embedded(tmp_path: Path) -> None:
    with VectorStore.writer(tmp_path / "big", StoreSpec("encoder", 64)) as writer:
        writer.append([f"i{n}" for n in range(2000)], ["k"] * 2000, np.random.default_rng(0).normal(size=(2000, 64)))
    store, sizes = VectorStore.open(tmp_path / "big"), {}
    for embed in (False, True):
        built = model(store, embed_tables=embed)
        for suffix in (".keras", ".weights.h5", ".h5"):
            path = tmp_path / f"{embed}{suffix}"
            (built.save_weights if suffix == ".weights.h5" else built.save)(str(path))
            sizes[embed, suffix] = path.stat().st_size
    for suffix in (".keras", ".weights.h5", ".h5"):
        assert sizes[True, suffix] - sizes[False, suffix] > store.vectors.nbytes


def test_an_embedded_table_needs_no_store(store: VectorStore, tmp_path: Path) -> None:
    built = model(store, embed_tables=True)
    built.save(str(tmp_path / "model.keras"))
    store.path.rename(tmp_path / "gone")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(again), predict(built))
    kar = next(layer for layer in again.layers if isinstance(layer, KnowledgeAugmentation))
    assert kar.stores["item"]["fingerprint"] == VectorStore.open(tmp_path / "gone").fingerprint


def test_weights_of_another_store_are_refused_by_name(store: VectorStore, tmp_path: Path) -> None:
    model(store).save_weights(str(tmp_path / "model.weights.h5"))
    other = write_store(tmp_path / "other", seed=1)
    with pytest.raises(Exception, match=rf"(?s)item from a store with fingerprint {store.fingerprint}.*other with"):
        model(other).load_weights(str(tmp_path / "model.weights.h5"))


DATA = Path(__file__).parent / "data" / "models_of_0.1"


def test_a_model_that_an_older_version_saved_predicts_what_it_did() -> None:
    """Three sources: places in a vocabulary, raw ids of the same store, and an array. Each file by its Keras."""
    path = DATA / f"{'keras_3' if IS_KERAS_3 else 'tf_keras'}.keras"
    built = load_model(path, stores={"item": DATA / "items", "raw": DATA / "items"})
    output = built(
        {
            "item": tf.constant([[1], [2], [3], [9]]),
            "raw": tf.constant([["a"], ["c"], ["?"], ["b"]]),
            "query": tf.constant([[0], [3], [-1], [2]]),
        }
    )
    expected = [
        [1.89897, 0.252558, 0.001123, 0.272832, 0.000586, 0.142311],
        [0.12573, -0.132105, 0.193601, 0.748382, 0.000395, 0.095891],
        [4.352134, 0.085609, 0.345584, 0.821618, 0.189053, -0.522748],
        [0.12573, -0.132105, 0.001053, 0.290518, 0.606844, 1.447074],
    ]
    np.testing.assert_allclose(np.asarray(output), expected, rtol=1e-5, atol=2e-6)
    names = [weight.name.split("/")[-1].split(":")[0] for weight in built.get_layer("kar").weights]
    assert [name for name in names if name.startswith(("item", "raw", "query"))] == [
        *("item_default", "raw_default", "query_default"),
        *("item_rows", "raw_rows", "query_rows", "raw_keys"),
        *("item_fingerprint", "raw_fingerprint", "query_fingerprint", "query_vectors"),
    ]


def test_a_model_that_an_older_version_prestored_predicts_what_it_did() -> None:
    """Tables of augmented vectors, of raw ids among them, and frozen vectors. The file does not say what ids are."""
    built = load_model(DATA / f"{'keras_3' if IS_KERAS_3 else 'tf_keras'}_prestored.keras")
    raw, history = tf.constant([["i0"], ["zz"], ["i7"]]), tf.reshape(tf.range(15) % 9, [3, 5])
    output = built([tf.constant([[1], [2], [20]]), raw, history])
    np.testing.assert_allclose(np.ravel(output), [0.5002055, -0.24975677, 0.59745115], rtol=1e-5)


def test_texts_that_an_older_version_hashed_are_asked_for_and_exported(store: VectorStore, tmp_path: Path) -> None:
    built = load_model(DATA / f"{'keras_3' if IS_KERAS_3 else 'tf_keras'}_prestored.keras")
    built.get_layer("kar_prestored").stores = {}
    with pytest.raises(StoreError, match=r"texts of 'raw' by their hashes alone.*stores=\{'raw'"):
        export(built, tmp_path / "model", format="tflite")
    content = (export(built, tmp_path / "model", {"raw": store}, format="tflite") / "model.tflite").read_bytes()
    served = tf.lite.Interpreter(model_content=content).get_signature_runner("serving_default")
    ids, raw = np.asarray([[1], [2], [20]], "int32"), np.asarray([["i0"], ["zz"], ["i7"]], object)
    history = np.arange(15, dtype="int32").reshape(3, 5) % 9
    sent = dict(zip([each.name.split(":")[0] for each in built.inputs], (ids, raw, history), strict=True))
    np.testing.assert_allclose(np.ravel(served(**sent)["ctr"]), [0.5002055, -0.24975677, 0.59745115], rtol=1e-5)


@pytest.mark.skipif(not IS_KERAS_3, reason="JAX is for Keras 3")
def test_files_of_a_backend_with_narrow_integers_and_own_weights_alone_are_read(tmp_path: Path) -> None:
    """As JAX writes them: keys, and a fingerprint, of 32 bits, and the adaptor's weights in the adaptor alone."""
    with VectorStore.writer(tmp_path / "store", StoreSpec("encoder", 5)) as writer:
        writer.append([3, 70_000, 12], ["k"] * 3, np.random.default_rng(0).normal(size=(3, 5)))
    augmentation = KnowledgeAugmentation({"item": VectorStore.open(tmp_path / "store")}, expert_units=(4,))
    ids = np.asarray([[3], [70_000], [12], [4], [2**31 - 1]], "int32")
    for layer, call in (
        (augmentation, lambda layer: layer({"item": ids})["item"]),
        (PrestoredAugmentation.of(augmentation, spare=2), lambda layer: layer({"item": ids})["item"]),
        (KnowledgeVectors(VectorStore.open(tmp_path / "store"), None, spare=2), lambda layer: layer(ids)),
    ):
        expected, own = np.asarray(call(layer)), {id(weight) for each in layer._layers for weight in each.weights}
        weights = [np.asarray(weight) for weight in layer.weights if id(weight) not in own]
        free = np.iinfo("int64").max
        narrow = [
            np.where(weight == free, 2**31 - 1, weight).astype("int32") if weight.dtype == "int64" else weight
            for weight in weights
        ]
        layer.load_own_variables({str(place): weight for place, weight in enumerate(narrow)})
        np.testing.assert_array_equal(np.asarray(tf.function(call)(layer)), expected)
        for ours, theirs in zip((w for w in layer.weights if id(w) not in own), weights, strict=True):
            if "fingerprint" not in ours.name:
                np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_where_a_store_is_may_be_said_by_the_store(store: VectorStore, tmp_path: Path) -> None:
    built = model(store)
    built.save(str(tmp_path / "model.keras"))
    moved = VectorStore.open(store.path.rename(tmp_path / "moved"))
    loaded = load_model(tmp_path / "model.keras", stores={"item": moved, "raw": moved})
    np.testing.assert_array_equal(predict(loaded), predict(built))


def test_where_stores_are_is_said_for_a_block_and_one_thread(store: VectorStore, tmp_path: Path) -> None:
    model(store).save(str(tmp_path / "model.keras"))
    moved = store.path.rename(tmp_path / "moved")

    def load() -> Any:
        return keras.models.load_model(str(tmp_path / "model.keras"))

    with store_locations({"item": tmp_path / "nowhere", "raw": moved}):
        with store_locations({"item": moved}), ThreadPoolExecutor(1) as pool:
            assert load().get_layer("kar").stores.keys() == {"item", "raw"}
            with pytest.raises(StoreError, match="store is not a vector store"):
                pool.submit(load).result()
        with pytest.raises(StoreError, match="nowhere is not a vector store"):
            load()
    with pytest.raises(StoreError, match="store is not a vector store"):
        load()


class Stop(Exception):
    """The machine goes down."""


def test_training_stopped_in_the_middle_goes_on_from_its_checkpoint(store: VectorStore, tmp_path: Path) -> None:
    def fit(callbacks: list[Any]) -> Any:
        keras.utils.set_random_seed(0)
        built = model(store)
        built.fit(data(), epochs=4, verbose=0, callbacks=callbacks)
        return built

    class Stopping(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise Stop

    whole = predict(fit([]))
    with pytest.raises(Stop):
        fit([keras.callbacks.BackupAndRestore(str(tmp_path / "backup")), Stopping()])
    resumed = fit([keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])
    np.testing.assert_allclose(predict(resumed), whole, rtol=1e-5)
