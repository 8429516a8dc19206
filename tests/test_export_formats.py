"""One model in four runtimes: Keras, TensorFlow's SavedModel, ONNX and TFLite say the same, of unknown ids too."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3, table

from kar_aug import KnowledgeAugmentation, StoreError, VectorStore, augment, load_model, prestore
from kar_aug._helpers.keras import IS_KERAS_3, keras, tf
from kar_aug.backbones import embed
from kar_aug.backbones.protocol import Settings
from kar_aug.cache import StoreSpec
from kar_aug.codes import SemanticIds
from kar_aug.data.features import Feature
from kar_aug.layers import KnowledgeCodes, KnowledgeVectors
from kar_aug.models.export import export
from kar_aug.models.texts import texts_of

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
layers = keras.layers
ALIKE = ["sku 15267", "sku 17766"]  # in float32 their hashes are one
NAMES = ["a", "ü", "it's", "", "x y", *ALIKE]
NUMBERS = [0, 3, 2**40, 2**40 + 2, 2**40 + 3, -7]


def raw_store(folder: Path, ids: list[Any]) -> VectorStore:
    with VectorStore.writer(folder, StoreSpec("encoder", 6)) as writer:
        writer.append(ids, ["k"] * len(ids), np.random.default_rng(0).normal(size=(len(ids), 6)))
    return VectorStore.open(folder)


def places(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Ids that are places, one of them in a history that may be empty; a price in buckets; a model of two outputs."""
    inputs = {name: keras.Input((n,), name=name, dtype="int32") for name, n in (("item", 1), ("hist", 3))}
    price = keras.Input((1,), name="price")
    read = [*inputs.values(), layers.Discretization([0.5, 2.0])(price)]
    hidden = layers.Dense(5, "gelu")(layers.Concatenate()([layers.Flatten()(layers.Embedding(20, 3)(x)) for x in read]))
    outputs = {name: layers.Dense(1, "sigmoid", name=name)(hidden) for name in ("ctr", "cvr")}
    base = keras.Model({**inputs, "price": price}, outputs)
    table = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    model = augment(base, KnowledgeAugmentation({"item": table}), inputs={"item": ["item", "hist"]})
    hist = np.asarray([[1, 2, 0], [0, 0, 0], [7, 7, 7], [9, 0, 0]], "int32")
    prices = np.asarray([[0.4], [0.5], [np.nan], [7.0]], "float32")
    return model, {"item": np.asarray([[1], [0], [15], [19]], "int32"), "hist": hist, "price": prices}


def integers(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Raw integers of 64 bits, and Keras's own look-up of them."""
    ids = keras.Input((1,), name="id", dtype="int64")
    fields = KnowledgeAugmentation({"id": raw_store(folder / "ids", NUMBERS)})({"id": ids})
    embedded = layers.Flatten()(layers.Embedding(4, 3)(layers.IntegerLookup(vocabulary=[3, 2**40 + 1, -(2**62)])(ids)))
    model = keras.Model(ids, layers.Dense(1)(layers.Concatenate()([fields["id"], embedded])))
    return model, {"id": np.asarray([*NUMBERS, 1, 2**40 + 1, -(2**62), 2**62])[:, None]}


def texts(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Raw texts, and Keras's own look-up of them, beside a number that Keras scales."""
    ids, kind = (keras.Input((1,), name=name, dtype="string") for name in ("id", "kind"))
    price, scaled = keras.Input((1,), name="price"), layers.Normalization()
    scaled.adapt(np.asarray([[1.0], [2.0], [6.0]]))
    fields = KnowledgeAugmentation({"id": raw_store(folder / "ids", NAMES)})({"id": ids})
    embedded = layers.Flatten()(layers.Embedding(4, 3)(layers.StringLookup(vocabulary=["u", "v"])(kind)))
    joined = layers.Concatenate()([fields["id"], embedded, scaled(price)])
    model = keras.Model([ids, kind, price], layers.Dense(1)(joined))
    kinds = np.asarray(["u", "v", "w", "", "u", "u", "ü", "v", "w"], object)[:, None]
    prices = np.linspace(0, 9, 9, dtype="float32")[:, None]
    return model, {"id": np.asarray([*NAMES, "b", "A"], object)[:, None], "kind": kinds, "price": prices}


def histories(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Texts in sequences, of which one was added since, with padding; a mask, and a comparison of the user's own."""
    item, hist = (keras.Input((n,), name=name, dtype="string") for name, n in (("item", 1), ("hist", 3)))
    store = raw_store(folder / "ids", NAMES)
    augmentation = KnowledgeAugmentation({"item": store}, mask_zero=not IS_KERAS_3, name="kar")  # which masks no texts
    found = augmentation({"item": [item, hist]})["item"]
    vectors = KnowledgeVectors(store, 3, spare=1, name="frozen")
    is_a = keras.layers.Lambda(lambda ids: tf.cast(ids == "a", "float32"), output_shape=(1,))(item)
    both = layers.Flatten()(vectors(hist)), layers.Flatten()(found[1]), found[0], is_a
    model = prestore(keras.Model([item, hist], layers.Dense(1)(layers.Concatenate()(both))), spare=1)
    new = np.linspace(-1, 1, 6)
    model.get_layer("kar_prestored").update({"item": {"new": new}}, augmentation)
    model.get_layer("frozen").update({"new": new})
    asked = np.asarray([["a"], ["new"], [""], ["?"]], object)
    events = np.asarray([["a", "ü", ""], ["", "", ""], ["new", "it's", ""], ["x y", "?", "a"]], object)
    return model, {"item": asked, "hist": events}


def codes(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Semantic ids of texts, of which one was added since, and of integers."""
    item, number = keras.Input((1,), name="item", dtype="string"), keras.Input((1,), name="number", dtype="int64")
    store = raw_store(folder / "ids", NAMES)
    known = SemanticIds.make(store, levels=2, size=3)
    of_texts = KnowledgeCodes(known, buckets=50, spare=1, name="codes")
    of_numbers = KnowledgeCodes(SemanticIds.make(raw_store(folder / "numbers", NUMBERS), levels=1, size=3))
    fields = [
        layers.Embedding(size, 3)(piece)
        for layer, ids in ((of_texts, item), (of_numbers, number))
        for size, piece in zip(layer.vocabulary_sizes, layer(ids), strict=True)
    ]
    model = keras.Model([item, number], layers.Dense(1)(layers.Flatten()(layers.Concatenate()(fields))))
    of_texts.update(known.update(raw_store(folder / "ids", ["new", "later"])), ["new"])
    (folder / "again").mkdir()
    model.save(folder / "again" / "model.keras")
    asked = np.asarray([["a"], ["new"], [""], ["later"], ["x y"]], object)
    numbers = np.asarray([[3], [2**40], [5], [-7], [0]])
    return load_model(folder / "again" / "model.keras"), {"item": asked, "number": numbers}


def similarities(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The candidate against a history, in frozen vectors."""
    item, hist = (keras.Input((n,), name=name, dtype="int32") for name, n in (("item", 1), ("hist", 4)))
    vectors = KnowledgeVectors(np.random.default_rng(0).normal(size=(16, 6)).astype("float32"), name="frozen")
    both = layers.Flatten()(vectors(hist)), vectors(item)
    model = keras.Model([item, hist], layers.Dense(1)(layers.Concatenate()(both)))
    return model, {"item": np.asarray([[1], [3]], "int32"), "hist": np.asarray([[1, 2, 3, 4], [0, 0, 0, 0]], "int32")}


def events_of_several_values(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A candidate and its events, of which each has several tags, some fewer than there is room for."""
    item, of_item = Feature("item_id", 9), Feature("tags", 7, 3)
    hist = Feature("hist_item_id", 9, 4, "item_id", "hist"), Feature("hist_tags", 7, 4, "tags", "hist", values=3)
    embedded = embed((item, of_item, *hist), Settings(embedding_dim=4))
    vectors = np.random.default_rng(0).normal(size=(9, 6)).astype("float32")
    known = KnowledgeAugmentation({"item": vectors})({"item": embedded.inputs["item_id"]})["item"]
    read = layers.Concatenate()([*embedded.fields, layers.Flatten()(known)])
    model = keras.Model(embedded.inputs, layers.Dense(1)(read))
    random = np.random.default_rng(3)
    there = np.asarray([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    several = random.integers(0, 7, (3, 4, 3)) * there[..., np.newaxis]
    assert (several[there > 0] == 0).any(), "events of fewer values"
    sent = {
        "item_id": np.asarray([[2], [1], [8]]), "tags": np.asarray([[2, 6, 0], [0, 0, 0], [1, 2, 3]]),
        "hist_item_id": random.integers(1, 9, (3, 4)) * there, "hist_tags": several,
    }  # fmt: skip
    return model, {name: values.astype("int32") for name, values in sent.items()}


@pytest.mark.parametrize("kind", ["int32", "string"])
def test_a_history_of_any_length_is_pooled_in_tflite(kind: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    ids = [*"abcd"] if kind == "string" else [1, 2, 3, 4]
    store, price = raw_store(tmp_path / "store", ids), keras.Input((1,), name="price")
    base = keras.Model(price, layers.Dense(1, name="click")(layers.Dense(4, activation="relu", name="deep")(price)))
    hist = keras.Input((None,), name="hist", dtype=kind)
    model = augment(base, KnowledgeAugmentation({"id": store}, expert_units=(4, 3)), inputs={"id": hist}, at="deep")
    for place, weight in enumerate(model.trainable_weights):
        weight.assign(np.random.default_rng(place).normal(0, 0.5, weight.shape).astype("float32"))
    export(model, tmp_path / "out", format="tflite")
    for length in (1, 3, 6):
        values = np.resize(np.asarray(ids, object if kind == "string" else kind), (2, length))
        values[1, length // 2 :] = "" if kind == "string" else 0
        sent = {"price": np.ones((2, 1), "float32"), "hist": values}
        asked = {name: tf.constant(value) for name, value in sent.items()}
        expected = model([asked[each.name.split(":")[0]] for each in model.inputs], training=False)
        np.testing.assert_allclose(in_tflite(tmp_path / "out", sent)["ctr"], expected, atol=1e-5)


def positions(folder: Path) -> tuple[Any, dict[str, Any]]:
    """A sequence to which a tensor is added that no input leads to: where in the sequence an event is."""
    hist = keras.Input((30,), name="hist", dtype="int32")
    place = layers.Embedding(30, 6)(tf.range(30))
    added = layers.Embedding(20, 6)(hist) + place
    base = keras.Model(hist, layers.Dense(1)(layers.Flatten()(layers.Dense(3, name="each")(added))))
    table = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    model = augment(base, KnowledgeAugmentation({"hist": table}), at="each")
    return model, {"hist": np.random.default_rng(1).integers(0, 20, (3, 30)).astype("int32")}


def in_onnx(folder: Path, sent: dict[str, Any]) -> dict[str, Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, sent), strict=True))


def in_tflite(folder: Path, sent: dict[str, Any]) -> dict[str, Any]:
    content = (folder / "model.tflite").read_bytes()
    return dict(tf.lite.Interpreter(model_content=content).get_signature_runner("serving_default")(**sent))


def in_tensorflow(folder: Path, sent: dict[str, Any]) -> dict[str, Any]:
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return dict(served(**{name: tf.constant(values) for name, values in sent.items()}))


RUNTIMES = {"savedmodel": in_tensorflow, "onnx": in_onnx, "tflite": in_tflite}


@pytest.mark.parametrize(
    "made",
    table(
        [places, integers, texts, histories, codes, similarities, events_of_several_values, positions],
        places,
        codes,
        events_of_several_values,
        positions,
    ),
    ids=lambda made: made.__name__,
)
def test_every_format_says_what_keras_says(made: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    model, sent = made(tmp_path)
    for place, weight in enumerate(model.trainable_weights):
        weight.assign(np.random.default_rng(place).normal(0, 0.3, weight.shape).astype("float32"))
    asked = tf.nest.map_structure(lambda each: tf.constant(sent[each.name.split(":")[0]]), model.input)
    said = model(asked, training=False)
    expected = said if isinstance(said, dict) else {"ctr": said}
    assert len(np.unique(np.round(expected["ctr"], 4))) > 1
    differences = {}
    for kind in RUNTIMES if find_spec("tf2onnx") else RUNTIMES.keys() - {"onnx"}:
        found = RUNTIMES[kind](export(model, tmp_path / kind, format=kind), sent)
        assert found.keys() == expected.keys()
        differences[kind] = max(float(np.abs(np.subtract(found[name], expected[name])).max()) for name in expected)
    sys.stdout.write(f"{made.__name__}: {differences}\n")  # the matrix, with pytest -s
    assert max(differences.values()) < 1e-5, differences


def test_what_a_format_cannot_have_is_said(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    ids = keras.Input((1,), name="id", dtype="string")
    hashing = layers.Hashing(9)
    known = KnowledgeAugmentation({"id": np.ones((9, 4), "float32")})({"id": hashing(ids)})
    model = keras.Model(ids, layers.Dense(1)(known["id"]))
    for kind, runtime in (("onnx", "ONNX"), ("tflite", "TFLite")):
        said = rf"{runtime} has no operations StringToHashBucketFast \(of layer '{hashing.name}', Hashing\), which the"
        with pytest.raises(
            StoreError, match=f"{said} model has. Let another layer do what that one does, or do it before"
        ):
            export(model, tmp_path / "out", format=kind)
    title, words = keras.Input((1,), name="title", dtype="string"), layers.TextVectorization(9, name="words")
    words.adapt(np.asarray(["red hat", "blue shoe"]))
    read = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3)(words(title)))
    of_words = keras.Model([title, ids], layers.Dense(1)(layers.Concatenate()([read, known["id"]])))
    with pytest.raises(StoreError, match=r"ONNX has no operations .*\(of layer 'words', TextVectorization\)"):
        export(of_words, tmp_path / "out", format="onnx")
    hist = keras.Input((3,), name="hist", dtype="int32")
    fields = KnowledgeAugmentation({"id": np.ones((9, 4), "float32")})({"id": hist})
    with pytest.raises(StoreError, match=r"TFLite has no operations TensorListReserve \(of layer 'memory', GRU\)"):
        export(
            keras.Model(hist, layers.Dense(1)(layers.GRU(2, name="memory")(fields["id"]))), tmp_path, format="tflite"
        )
    with pytest.raises(ValueError, match="must be one of savedmodel, onnx, tflite"):
        export(model, tmp_path / "out", format="pmml")


@pytest.mark.parametrize(("policy", "kinds"), [("mixed_bfloat16", ["onnx", "tflite"]), ("mixed_float16", ["tflite"])])
def test_floats_that_a_runtime_does_not_know_are_named_before_anything_is_written(
    policy: str, kinds: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("tf2onnx")
    ids = keras.Input((1,), name="id", dtype="int32")
    known = KnowledgeAugmentation({"id": np.ones((9, 4), "float32")})({"id": ids})
    model = keras.Model(ids, layers.Dense(1, name="click", dtype=policy)(known["id"]))
    for kind in kinds:
        half = policy.removeprefix("mixed_")
        with pytest.raises(StoreError, match=rf"{kind} does not compute in {half}, as layer 'click' \(Dense\) does"):
            export(model, tmp_path / kind, format=kind)
        assert not (tmp_path / kind).exists()
    again = keras.Model(ids, layers.Dense(1)(known["id"]))
    again.set_weights(model.get_weights())
    sent = {"id": np.asarray([[1], [8]], "int32")}
    for kind in kinds:
        served = RUNTIMES[kind](export(again, tmp_path / kind, format=kind), sent)["ctr"]
        np.testing.assert_allclose(served, np.asarray(again(sent["id"])), atol=1e-5)


def test_onnx_has_no_use_for_what_regularises_activities(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    ids = keras.Input((1,), name="id", dtype="int32")
    known = KnowledgeAugmentation({"id": np.random.default_rng(0).normal(size=(9, 4))})({"id": ids})
    hidden = layers.Dense(4, "relu", activity_regularizer=keras.regularizers.L1(1e-3))
    model = keras.Model(ids, layers.Dense(1)(hidden(known["id"])))
    sent = {"id": np.asarray([[1], [8]], "int32")}
    found = in_onnx(export(model, tmp_path / "out", format="onnx"), sent)["ctr"]
    np.testing.assert_allclose(found, model.predict(sent["id"], verbose=0), atol=1e-5)
    assert hidden.activity_regularizer is not None and model.losses


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "SimpleRNN"])
def test_onnx_counts_the_steps_of_a_memory_as_keras_does(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    hist = keras.Input((5,), name="id", dtype="int32")
    known = KnowledgeAugmentation({"id": np.random.default_rng(0).normal(size=(9, 4))}, mask_zero=True)({"id": hist})
    memory = layers.Bidirectional(getattr(layers, kind)(3))
    model = keras.Model(hist, layers.Dense(1)(memory(known["id"])))
    sent = {"id": np.asarray([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 8, 8, 0, 0]], "int32")}
    found = in_onnx(export(model, tmp_path / "out", format="onnx"), sent)["ctr"]
    np.testing.assert_allclose(found, model.predict(sent["id"], verbose=0), atol=1e-5)


def test_what_tflite_lacks_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ids = keras.Input((1,), name="id", dtype="string")
    known = KnowledgeAugmentation({"id": np.ones((9, 4), "float32")})({"id": layers.Hashing(9)(ids)})
    capfd.readouterr()
    with pytest.raises(StoreError, match="TFLite has no operations StringToHashBucketFast "):
        export(keras.Model(ids, layers.Dense(1)(known["id"])), tmp_path / "out", format="tflite")
    assert "StringToHashBucketFast" not in capfd.readouterr().err, "nothing of the converter's own"


def test_texts_of_codes_that_nobody_has_any_more_are_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    model, _ = codes(tmp_path)
    (tmp_path / "ids.codes").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"Layer 'codes' knows 7 of the 8 texts of 'codes' by their hashes alone"):
        export(model, tmp_path / "out", format="onnx")
    assert set(texts_of(model, {"codes": VectorStore.open(tmp_path / "ids")})) == {*NAMES, "new", "later"}
