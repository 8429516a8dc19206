"""`augment` on other people's models: the same class, names and structure, one flat graph. Runs on both Keras APIs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import table
from support.training import predicted

from kar_aug import (
    KnowledgeAugmentation,
    StoreError,
    VectorStore,
    attachment_points,
    augment,
    export,
    load_model,
    prestore,
    refresh,
)
from kar_aug._helpers.keras import IS_KERAS_3, is_ragged, keras, nest, tf
from kar_aug.cache import StoreSpec
from kar_aug.models import split, vectors_as_inputs
from kar_aug.models.find import knowledge_layers
from kar_aug.models.graph import input_name, structure_of

pytestmark = pytest.mark.both_keras
layers = keras.layers
VOCABULARY, ROWS = 20, 16
BOTH = ("user_id", "item_id")


def knowledge(*sources: str, **options: Any) -> KnowledgeAugmentation:
    random = np.random.default_rng(0)
    tables = {name: random.normal(size=(VOCABULARY, 5)).astype("float32") for name in sources or BOTH}
    return KnowledgeAugmentation(tables, expert_units=(6, 3), **options)


def batch(shapes: Mapping[str, tuple[int, ...]], rows: int = ROWS) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {name: tf.constant(random.integers(1, VOCABULARY, (rows, *s)), tf.int32) for name, s in shapes.items()}


INPUTS = batch({"user_id": (1,), "item_id": (1,)})
LABEL = (np.arange(ROWS) % 2).astype("float32")


def embedded() -> tuple[dict[str, Any], list[Any]]:
    inputs = {name: keras.Input((1,), name=name, dtype="int32") for name in BOTH}
    return inputs, [layers.Flatten()(layers.Embedding(VOCABULARY, 4)(ids)) for ids in inputs.values()]


def deepfm() -> Any:
    """Its embeddings feed the deep part and another branch, as in nearly every CTR model."""
    inputs, fields = embedded()
    deep = layers.Dense(8, "relu", name="deep", activity_regularizer="l2")(layers.Concatenate()(fields))
    return keras.Model(inputs, layers.Dense(1, "sigmoid", name="click")(layers.Concatenate()([deep, *fields])))


def trained(model: Any) -> Any:
    """With weights that no initializer drew: a projection of zeros would hide what is behind it."""
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(0.5 * np.random.default_rng(number).normal(size=weight.shape))
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_embeddings_that_two_branches_share_are_saved_and_train_on_as_one(suffix: str, tmp_path: Path) -> None:
    base, augmentation = deepfm(), knowledge()
    model = augment(base, augmentation)
    np.testing.assert_allclose(predicted(model, INPUTS), predicted(base, INPUTS), atol=1e-6)
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)], "one flat graph"
    weights = len(base.trainable_weights) + len(augmentation.trainable_weights) + 1
    trained(model).save(str(tmp_path / f"model{suffix}"))
    again = load_model(tmp_path / f"model{suffix}")
    for each in (model, again):
        assert len(each.trainable_weights) == weights
        each.compile(keras.optimizers.SGD(0.5), keras.losses.MeanSquaredError(), run_eagerly=True)
        each.train_on_batch(INPUTS, LABEL)
    np.testing.assert_allclose(predicted(again, INPUTS), predicted(model, INPUTS), atol=1e-7)
    serving = prestore(model)
    serving.save(str(tmp_path / f"serving{suffix}"))
    np.testing.assert_allclose(
        predicted(load_model(tmp_path / f"serving{suffix}"), INPUTS), predicted(model, INPUTS), atol=1e-6
    )


@keras.utils.register_keras_serializable("tests")
class Counting(keras.Model):
    """A model with a step of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = 0

    def train_step(self, data: Any) -> Any:
        self.steps += 1
        return super().train_step(data)


def test_a_model_of_several_tasks_keeps_its_class_and_its_names() -> None:
    inputs, fields = embedded()
    hidden = layers.Dense(8, "relu", kernel_regularizer="l2")(layers.Concatenate()(fields))
    outputs = {name: layers.Dense(1, "sigmoid", name=f"{name}_head")(hidden) for name in ("ctr", "cvr")}
    base = Counting({"user_id": inputs["user_id"], "item_id": inputs["item_id"]}, outputs)
    model = augment(base, knowledge(), trainable=False)
    assert isinstance(model, Counting) and model.output_names == base.output_names
    before = base(INPUTS)
    for name, values in model(INPUTS).items():
        np.testing.assert_allclose(values, before[name], atol=1e-6)
    model.compile("sgd", {"ctr": "mse", "cvr": "mse"}, run_eagerly=True)
    model.fit(INPUTS, {"ctr": LABEL, "cvr": 1 - LABEL}, verbose=0)
    assert model.steps == 1 and len(model.losses) == len(base.losses)


def test_what_was_set_on_a_model_of_a_class_of_ones_own_goes_with_it() -> None:
    base = deepfm()
    counting = Counting(base.input, base.output)
    counting.steps, counting.cut, counting.other = 7, 0.5, layers.Dense(2)
    layer = knowledge()
    model = augment(counting, layer)
    for again in (model, prestore(model), refresh(model, {name: layer.table(name) for name in layer.sources})):
        assert type(again) is Counting and (again.steps, again.cut) == (7, 0.5) and again.other is counting.other
        np.testing.assert_allclose(predicted(again, INPUTS), predicted(base, INPUTS), atol=1e-6)
    again.compile("sgd", "mse", run_eagerly=True)
    again.fit(INPUTS, LABEL, verbose=0)
    assert again.steps == 8, "the model that was refreshed trains as the former did"


@keras.utils.register_keras_serializable("tests")
class Own(keras.Model):
    """A class of somebody's own."""


class Reading(layers.Layer):
    """A layer with a `call` of its own, and what it reads in a list."""

    def __init__(self, knowledge: Any) -> None:
        super().__init__()
        self.parts = [layers.Dense(2), {"kar": knowledge}]

    def call(self, ids: Any) -> Any:
        return self.parts[0](self.parts[1]["kar"](ids)["item_id"])


def test_an_attribute_that_was_or_held_the_layer_has_the_one_in_its_place(tmp_path: Path) -> None:
    base, layer, other = deepfm(), knowledge(name="kar"), layers.Dense(2)
    model = augment(Own(base.input, base.output), layer)
    weights = len(model.weights)
    model.kar, model.parts, model.by_name, model.sizes = layer, [other, (layer, 3)], {"kar": layer, "no": 1}, [1, 2]
    refreshed = refresh(model, {name: layer.table(name) for name in layer.sources})
    assert refreshed.kar in refreshed.layers and refreshed.kar is not layer and len(refreshed.weights) == weights
    for changed in (refreshed, prestore(model), vectors_as_inputs(model)):
        assert changed.kar in changed.layers and (changed is refreshed) == (changed.kar.name == "kar")
        assert changed.parts[0] is other and changed.parts[1][0] is changed.by_name["kar"] is changed.kar
        assert changed.parts[1][1] == 3 and changed.by_name["no"] == 1 and list(changed.sizes) == [1, 2]
        assert [each for each in knowledge_layers(changed, (KnowledgeAugmentation,)) if each is not refreshed.kar] == []
    model.reading = Reading(layer)
    for change in (prestore, vectors_as_inputs):
        with pytest.raises(ValueError, match=r"reading.*(layer\.parts\[1\]\['kar'\]|an attribute of model)"):
            change(model)
    refreshed.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(again, INPUTS), predicted(model, INPUTS), atol=1e-6)


def test_a_class_that_is_made_otherwise_is_refused_with_a_way_out() -> None:
    class Tempered(keras.Model):
        def __init__(self, inputs: Any, outputs: Any, temperature: float = 1.0, **kwargs: Any) -> None:
            super().__init__(inputs, outputs, **kwargs)
            self.temperature = temperature

    base = deepfm()
    with pytest.raises(ValueError, match=r"is a Tempered, which cannot be made .* takes temperature\)\. Augment"):
        augment(Tempered(base.input, base.output, 2.0), knowledge())
    layer = knowledge()
    plain = augment(base, layer)
    tempered = Tempered(plain.input, plain.output, 2.0)
    assert tempered(INPUTS).shape == (ROWS, 1)
    with pytest.raises(ValueError, match=r"is a Tempered, which cannot be made .* takes temperature\)\. Refresh"):
        refresh(tempered, {name: layer.table(name) for name in layer.sources})
    np.testing.assert_allclose(predicted(prestore(tempered), INPUTS), predicted(tempered, INPUTS), atol=1e-6)


def towers(head: bool) -> Any:
    inputs, (user, item) = embedded()
    sides = [layers.Dense(3, name="user_dense")(user), layers.Dense(3, name="item_dense")(item)]
    score = layers.Dot(1)(sides)
    if head:
        score = layers.Dense(1, name="head")(layers.Concatenate()([*sides, score]))
    return keras.Model(inputs, score)


def test_no_knowledge_of_items_enters_a_tower_of_users() -> None:
    assert augment(towers(head=True), knowledge()).knowledge_attached_to == "head"
    with pytest.raises(
        ValueError, match=r"reads all of user_id, item_id: .* Of user_id: user_dense.*; of item_id: item"
    ):
        augment(towers(head=False), knowledge())
    with pytest.raises(ValueError, match=r"`at` must name a layer for each source.*There is none for 'item_id'"):
        augment(towers(head=False), knowledge(), at={"user_id": "user_dense"})
    with pytest.raises(ValueError, match=r"`at` names one layer for each source.*for 'item_id': \['item_dense'\]"):
        augment(towers(head=False), knowledge(), at={"user_id": "user_dense", "item_id": ["item_dense"]})
    base = towers(head=False)
    model = augment(base, knowledge(), at={"user_id": "user_dense", "item_id": "item_dense"})
    assert model.knowledge_attached_to == "user_dense, item_dense"
    np.testing.assert_allclose(predicted(model, INPUTS), predicted(base, INPUTS), atol=1e-6)
    trained(model)
    sides = model.layers[-1].input
    for name, side in zip(BOTH, sides, strict=True):
        alone = keras.Model(model.input[name], side)  # as it is computed ahead: from its own ids
        assert alone(INPUTS[name]).shape == (ROWS, 3)


def test_the_items_of_a_list_get_their_own_knowledge() -> None:
    user, items = keras.Input((1,), name="user_id", dtype="int32"), keras.Input((4,), name="item_id", dtype="int32")
    beside = layers.RepeatVector(4)(layers.Flatten()(layers.Embedding(VOCABULARY, 3)(user)))
    read = layers.Concatenate()([layers.Embedding(VOCABULARY, 3)(items), beside])
    base = keras.Model([user, items], layers.Dense(1)(layers.Dense(5, name="per_item")(read)))
    given = batch({"user_id": (1,), "item_id": (4,)})
    before = predicted(base, [given["user_id"], given["item_id"]])
    model = augment(base, knowledge())
    assert model.knowledge_attached_to == "per_item"
    np.testing.assert_allclose(predicted(model, [given["user_id"], given["item_id"]]), before, atol=1e-6)
    trained(model)
    shown = predicted(model, [given["user_id"], given["item_id"]])
    turned = predicted(model, [given["user_id"], given["item_id"][:, ::-1]])
    np.testing.assert_allclose(turned, shown[:, ::-1], atol=1e-6)  # no position knows of another's knowledge


def test_a_sequence_of_any_length_gives_its_mean_from_the_table_of_the_candidate() -> None:
    inputs, fields = embedded()
    past = keras.Input((None,), name="hist_item_id", dtype="int32")
    masked = layers.Embedding(VOCABULARY, 4, mask_zero=True)(past)
    read = layers.Concatenate()([*fields, layers.GlobalAveragePooling1D()(masked)])
    base = keras.Model({**inputs, "hist_item_id": past}, layers.Dense(1)(layers.Dense(5)(read)))
    model = trained(augment(base, knowledge(), inputs={"item_id": ["item_id", "hist_item_id"]}))
    given = batch({"user_id": (1,), "item_id": (1,), "hist_item_id": (3,)})
    short = predicted(model, given)
    padded = tf.pad(given["hist_item_id"], [[0, 0], [0, 4]])
    np.testing.assert_allclose(predicted(model, {**given, "hist_item_id": padded}), short, atol=1e-6)
    np.testing.assert_allclose(predicted(prestore(model), given), short, atol=1e-5)


def test_an_item_0_of_which_a_store_knows_is_no_padding(tmp_path: Path) -> None:
    with VectorStore.writer(tmp_path / "s", StoreSpec("encoder", 5)) as writer:
        writer.append(list(range(VOCABULARY)), ["k"] * VOCABULARY, np.eye(VOCABULARY, 5))
    past = keras.Input((2,), name="item_id", dtype="int32")
    read = layers.Flatten()(layers.Embedding(VOCABULARY, 4)(past))
    base = keras.Model(past, layers.Dense(1)(read))
    for mask_zero, is_padding in ((False, False), (True, True)):
        source = VectorStore.open(tmp_path / "s")
        layer = KnowledgeAugmentation({"item_id": source}, expert_units=(4, 3), mask_zero=mask_zero)
        model = augment(base, layer)
        model.get_layer("knowledge_projection").kernel.assign(tf.ones((3, 8)))
        added = np.asarray(model(np.asarray([[1, 0]])) - base(np.asarray([[1, 0]])))
        of_one = np.asarray(model(np.asarray([[1, 1]])) - base(np.asarray([[1, 1]])))
        assert np.allclose(added, of_one, atol=1e-6) == is_padding
        if not mask_zero:  # the same of vectors that come with the ids
            fed = augment(base, layer, vectors="input")
            fed.get_layer("knowledge_projection").kernel.assign(tf.ones((3, 8)))
            ids, vectors = np.asarray([[1, 0]]), source.gather([1, 0])[None].astype("float32")
            np.testing.assert_allclose(fed([ids, vectors, np.asarray([[True, True]])]), model(ids), atol=1e-6)


def test_the_mask_of_what_knowledge_is_added_to_goes_on() -> None:
    ids = keras.Input((6,), name="item_id", dtype="int32")
    base = keras.Model(ids, layers.GRU(3, name="gru")(layers.Embedding(VOCABULARY, 4, mask_zero=True)(ids)))
    model = trained(augment(base, knowledge("item_id"), at="gru"))
    given = batch({"item_id": (6,)})["item_id"].numpy()
    given[:, 3:] = 0
    before = predicted(model, given)
    layer = next(each for each in model.layers if isinstance(each, KnowledgeAugmentation))
    layer._sources["item_id"].vectors.assign(np.vstack([np.full((1, 5), 9), layer.table("item_id").vectors[1:]]))
    np.testing.assert_allclose(predicted(model, given), before, atol=1e-6)  # what is known of padding does not count


def test_a_second_augment_finds_the_places_of_the_first() -> None:
    base = deepfm()
    points = attachment_points(base)
    first = trained(augment(base, knowledge("item_id")))
    assert attachment_points(first) == points
    second = augment(first, knowledge("user_id", name="users"))
    assert second.knowledge_attached_to == first.knowledge_attached_to == "deep"
    np.testing.assert_allclose(predicted(second, INPUTS), predicted(first, INPUTS), atol=1e-6)
    assert second.get_layer("knowledge_projection_1").get_weights()[0].shape == (3, 8)
    with pytest.raises(ValueError, match=r"has a layer 'users' already\. Give this one a name"):
        augment(second, knowledge("user_id", name="users"))


def test_all_outputs_are_exported_by_name_and_tflite_is_given_what_keras_has(tmp_path: Path) -> None:
    kind, item = keras.Input((1,), name="kind", dtype="string"), keras.Input((1,), name="item_id", dtype="int32")
    code = layers.StringLookup(vocabulary=["a", "b"])(kind)
    fields = [layers.Flatten()(layers.Embedding(VOCABULARY, 4)(ids)) for ids in (code, item)]
    read = layers.Concatenate()(fields)
    base = keras.Model([kind, item], [layers.Dense(1, name=name)(read) for name in ("ctr", "cvr")])
    model = trained(augment(base, knowledge("item_id"), at="ctr"))
    given = {"kind": tf.constant([["a"], ["b"], ["?"]]), "item_id": tf.constant([[1], [2], [3]])}
    expected = model([given["kind"], given["item_id"]])
    served = tf.saved_model.load(str(export(model, tmp_path / "two"))).signatures["serving_default"](**given)
    for name, values in zip(("ctr", "cvr"), expected, strict=True):
        np.testing.assert_allclose(served[name], values, rtol=1e-5)
    model = trained(augment(deepfm(), knowledge()))
    export(model, tmp_path / "one")
    lite = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "one")).convert()
    runner = tf.lite.Interpreter(model_content=lite).get_signature_runner("serving_default")
    one = {name: values[:1].numpy() for name, values in INPUTS.items()}
    np.testing.assert_allclose(runner(**one)["ctr"], predicted(model, one), rtol=1e-5)


# The models of other owners, each through all that is done to a model


def two_tower(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Towers that are models of their own, and their product: knowledge enters before each."""
    inputs, fields = embedded()
    sides = []
    for name, field in zip(BOTH, fields, strict=True):
        entered = keras.Input((4,))
        tower = keras.Model(entered, layers.Dense(3)(layers.Dense(5, "relu")(entered)), name=f"{name}_tower")
        sides.append(tower(layers.Dense(4, name=f"{name}_dense")(field)))
    return keras.Model(inputs, layers.Dot(1)(sides)), knowledge(), {"at": {name: f"{name}_dense" for name in BOTH}}


def mmoe(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Two tasks, three experts, a gate a task; of a class of somebody's own."""
    inputs, fields = embedded()
    read = layers.Concatenate()(fields)
    experts = layers.Reshape((3, 4))(layers.Dense(12, "relu", name="experts")(read))
    outputs = {}
    for task in ("ctr", "cvr"):
        mixed = layers.Flatten()(layers.Dot(1)([layers.Reshape((3, 1))(layers.Dense(3, "softmax")(read)), experts]))
        outputs[task] = layers.Dense(1, "sigmoid", name=f"{task}_head")(mixed)
    return Own(inputs, outputs), knowledge(), {}


def sequential(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A `Sequential` that begins with a named Input."""
    ids = keras.Input((1,), name="item_id", dtype="int32")
    model = keras.Sequential([ids, layers.Embedding(VOCABULARY, 4), layers.Flatten(), layers.Dense(5), layers.Dense(1)])
    return model, knowledge("item_id"), {}


def keys_of_ones_own(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A dictionary whose keys are not the names of its inputs, ids of one axis, and a mask."""
    iid, past = keras.Input((), name="iid_in", dtype="int64"), keras.Input((4,), name="past_in", dtype="int64")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(VOCABULARY, 4, mask_zero=True)(past))
    read = layers.Concatenate()([layers.Embedding(VOCABULARY, 4)(iid), pooled])
    base = keras.Model({"iid": iid, "past": past}, layers.Dense(1)(layers.Dense(5, name="deep")(read)))
    return base, knowledge("item_id"), {"inputs": {"item_id": ["iid", "past"]}}


def tab_transformer(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Raw texts hashed by the model, fields that attend to one another, and a number; a store of the same texts."""
    with VectorStore.writer(folder / "items", StoreSpec("encoder", 5)) as writer:
        writer.append(["a", "b"], ["k"] * 2, np.eye(2, 5))
    item, price = keras.Input((1,), name="item_id", dtype="string"), keras.Input((1,), name="price")
    fields = [layers.Embedding(9, 4)(layers.Hashing(9, salt=salt)(item)) for salt in (1, 2)]
    stacked = layers.Concatenate(axis=1)(fields)
    attended = layers.LayerNormalization()(layers.Add()([stacked, layers.MultiHeadAttention(2, 2)(stacked, stacked)]))
    read = layers.Concatenate()([layers.Flatten()(attended), layers.BatchNormalization()(price)])
    base = keras.Model([item, price], layers.Dense(1, "sigmoid")(layers.Dense(5, "relu", name="mlp")(read)))
    return base, KnowledgeAugmentation({"item_id": VectorStore.open(folder / "items")}, expert_units=(6, 3)), {}


@keras.utils.register_keras_serializable("tests")
class MeanOfRagged(layers.Layer):
    """(batch, ragged) of numbers to (batch, 1)."""

    def call(self, values: Any) -> Any:
        return tf.reduce_mean(tf.cast(values, "float32"), 1, keepdims=True)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], 1)


def ragged_ranker(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A ragged input beside the ids."""
    inputs, fields = embedded()
    prices = keras.Input((None,), name="prices", ragged=True)
    hidden = layers.Dense(5, name="deep")(layers.Concatenate()([*fields, MeanOfRagged()(prices)]))
    return keras.Model({**inputs, "prices": prices}, layers.Dense(1)(hidden)), knowledge(), {}


def fed(model: Any) -> dict[str, Any]:
    """Values for all inputs of a model, by their names."""
    random, values = np.random.default_rng(2), {}
    for tensor in model.inputs:
        name, shape = input_name(tensor), (ROWS, *tensor.shape[1:])
        if is_ragged(tensor):
            values[name] = tf.ragged.constant([[0.5] * (1 + row % 3) for row in range(ROWS)])
        elif tensor.dtype == "string":
            values[name] = tf.constant(random.choice(["a", "b", "?"], shape))
        else:
            values[name] = tf.cast(random.integers(0, VOCABULARY, shape), tensor.dtype)
    return values


def said(model: Any, values: Mapping[str, Any]) -> list[Any]:
    """All outputs, in the structure of the model's inputs."""
    given = nest.map_structure(lambda tensor: values[input_name(tensor)], structure_of(model)[0])
    return [np.asarray(each) for each in nest.flatten(model(given, training=False))]


def sent(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a signature takes: dense values."""
    dense = {name: each for name, each in values.items() if not isinstance(each, tf.RaggedTensor)}
    for name in values.keys() - dense:
        dense |= {name: values[name].values, f"{name}_lengths": values[name].row_lengths()}
    return dense


OWNERS = [two_tower, mmoe, sequential, keys_of_ones_own, tab_transformer, ragged_ranker]


@pytest.mark.parametrize("made", table(OWNERS, two_tower, tab_transformer), ids=lambda made: made.__name__)
def test_the_models_of_other_owners_go_all_the_way(made: Any, tmp_path: Path) -> None:
    base, layer, options = made(tmp_path)
    values, weights = fed(base), len(base.weights)
    before, model = said(base, values), augment(base, layer, **options)

    def agree(other: Any, expected: list[Any], tolerance: float = 1e-5) -> None:
        for now, then in zip(said(other, values), expected, strict=True):
            np.testing.assert_allclose(now, then, atol=tolerance, err_msg=other.name)

    agree(model, before, 1e-6)
    if hasattr(base, "output_names"):  # a Sequential of Keras 3 has none
        assert list(model.output_names) == list(base.output_names)
    assert len(model.weights) == weights + len(layer.weights) + len(options.get("at", ["one place"]))
    expected = said(trained(model), values)
    assert np.abs(np.subtract(expected, before)).max() > 1e-3
    known: dict[str, Any] = {name: layer.table(name) for name in layer.sources}
    serving = prestore(model)
    refreshed = refresh(model, {"item_id": VectorStore.open(tmp_path / "items")} if layer.keys() else known)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for other in (serving, refreshed, copy):
        agree(other, expected)
    assert type(serving) is type(refreshed) is type(model)
    for number, each in enumerate((model, serving)):
        each.save(tmp_path / f"{number}.keras")
        agree(load_model(tmp_path / f"{number}.keras"), expected)
    served = tf.saved_model.load(str(export(serving, tmp_path / "out"))).signatures["serving_default"](**sent(values))
    found, wanted = (np.sort(np.stack([np.ravel(e) for e in each]), axis=0) for each in (served.values(), expected))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    if made is ragged_ranker:
        with pytest.raises(StoreError, match="onnx has no ragged inputs, as 'prices' is"):
            export(serving, tmp_path / "out", format="onnx")


@keras.utils.register_keras_serializable("tests")
class PlusIfThere(layers.Layer):
    """What there is of two tensors, added up."""

    def call(self, inputs: Any) -> Any:
        first, second = inputs
        return first if second is None else first + second

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)


@pytest.mark.skipif(not IS_KERAS_3, reason="optional inputs are Keras 3's")
def test_sparse_and_optional_inputs_stay_what_they_are(tmp_path: Path) -> None:
    item = keras.Input((), name="item_id", dtype="int32")
    words = keras.Input((12,), name="words", sparse=True)
    bonus = keras.Input((8,), name="bonus", optional=True)
    read = layers.Concatenate()([layers.Embedding(VOCABULARY, 4)(item), layers.Dense(4)(words)])
    out = layers.Dense(1, "sigmoid", name="deep")(PlusIfThere()([read, bonus]))
    layer = knowledge("item_id")
    base = keras.Model([item, words, bonus], out)
    ids, dense = tf.range(5), tf.eye(12)[:5]
    rows = {
        given: [ids, tf.sparse.from_dense(dense), extra] for given, extra in (("less", None), ("all", tf.ones((5, 8))))
    }
    model = augment(base, layer, at="deep")
    for given in rows.values():
        np.testing.assert_allclose(model(given), base(given), atol=1e-6)
    for number, weight in enumerate(model.trainable_weights):
        weight.assign_add(np.random.default_rng(number).normal(size=weight.shape, scale=0.3).astype("float32"))
    expected = {given: np.asarray(model(values)) for given, values in rows.items()}
    assert np.abs(expected["all"] - expected["less"]).max() > 1e-3
    serving, refreshed = prestore(model), refresh(model, {"item_id": layer.table("item_id")})
    model.save(tmp_path / "whole.keras")
    serving.save(tmp_path / "serving.keras")
    saved = [load_model(tmp_path / f"{name}.keras") for name in ("whole", "serving")]
    for other in (serving, refreshed, *saved):
        assert [(each.sparse, each._keras_history[0].optional) for each in other.inputs] == [
            (False, False), (True, False), (False, True),
        ]  # fmt: skip
        for given, values in rows.items():
            np.testing.assert_allclose(other(values), expected[given], atol=1e-5)
    signature = tf.saved_model.load(str(export(model, tmp_path / "out"))).signatures["serving_default"]
    sent = {"item_id": ids, "words": dense, "bonus": tf.ones((5, 8))}  # a signature has dense inputs, and all of them
    np.testing.assert_allclose(signature(**sent)["ctr"], expected["all"], atol=1e-5)


def test_what_cannot_be_augmented_is_told_what_to_do() -> None:
    prices = keras.Input((None,), name="item_id", dtype="int32", ragged=True)
    ranker = keras.Model(prices, layers.Dense(1)(MeanOfRagged()(prices)))
    with pytest.raises(ValueError, match=r"Input 'item_id' is ragged, .* read padded ids"):
        augment(ranker, knowledge("item_id"))

    class Written(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.click = layers.Embedding(VOCABULARY, 4), layers.Dense(1)

        def call(self, ids: Any) -> Any:
            return self.click(self.embedding(ids))

    with pytest.raises(ValueError, match="needs a built functional Keras model, one that knows its inputs"):
        augment(Written(), knowledge("item_id"))
    with pytest.raises(ValueError, match=r"needs a built functional .* Begin it with a keras\.Input"):
        augment(keras.Sequential([layers.Dense(1)]), knowledge("item_id"))
    ids = keras.Input((1,), name="item_id", dtype="int32")
    with pytest.raises(
        ValueError, match=r"has no layer that reads one float tensor: .* put the KnowledgeAugmentation yourself"
    ):
        augment(keras.Model(ids, Written()(ids)), knowledge("item_id"))


OLD = Path(__file__).parent / "data" / "models_of_0.1"


def test_a_model_that_was_augmented_when_the_rest_was_nested_predicts_what_it_did() -> None:
    model = load_model(OLD / f"augmented_{'keras_3' if IS_KERAS_3 else 'tf_keras'}.keras")
    output = model([tf.constant([[0], [2], [5], [3]]), tf.constant([[0.5], [-1.0], [0.0], [2.0]])])
    np.testing.assert_allclose(output[:, 0], [0.03004, 0.247061, 0.178887, 1.15353e-05], rtol=1e-5)
    assert attachment_points(model) == [("flatten", False)], "what brings knowledge is no place for more"


def test_what_is_no_functional_model_or_no_layer_is_told(tmp_path: Path) -> None:
    class Mine(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.knowledge = knowledge("item_id")

        def call(self, inputs: Any) -> Any:
            return self.knowledge(inputs)["item_id"]

    mine = Mine()
    mine({"item_id": np.zeros((2, 1), "int32")})
    with pytest.raises(
        ValueError, match=r"`attachment_points` needs a built functional Keras model.*call it in `call`"
    ):
        attachment_points(mine)
    for take_apart in (vectors_as_inputs, lambda model: split(model, tmp_path)):
        with pytest.raises(ValueError, match=r"'mine' does not.*a `call` of its own.*VectorAugmentation.of"):
            take_apart(mine)
    for change in (prestore, attachment_points, vectors_as_inputs, lambda path: export(path, tmp_path / "out")):
        with pytest.raises(
            ValueError, match=r"takes a Keras model. Received: str. Load it: kar_aug.load_model\(path\)"
        ):
            change("model.keras")
    ids = keras.Input((1,), name="item_id", dtype="int32")
    with pytest.raises(ValueError, match=r"`augment` adds a layer.*Received: dict"):
        augment(keras.Model(ids, layers.Flatten()(layers.Embedding(9, 2)(ids))), {"item_id": np.ones((9, 2))})  # type: ignore[arg-type]


@pytest.mark.parametrize("written", [str.upper, str.lower])
def test_how_much_is_known_of_raw_ids_is_told_by_what_the_model_looks_up(
    written: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "kar_aug")
    vocabulary = ["SKU-1", "SKU-2", "SKU-3", "SKU-4"]
    with VectorStore.writer(tmp_path, StoreSpec("encoder", 3)) as writer:
        writer.append([written(sku) for sku in [*vocabulary[:3], "SKU-9"]], ["k"] * 4, np.eye(4, 3))
    sku = keras.Input((), name="sku", dtype="string")
    hidden = layers.Embedding(5, 2)(layers.StringLookup(vocabulary=vocabulary, name="codes")(sku))
    base = keras.Model(sku, layers.Dense(1)(hidden))
    augmentation = KnowledgeAugmentation({"sku": VectorStore.open(tmp_path)}, expert_units=(4, 2))
    if written is str.upper:
        augment(base, augmentation)
        assert "sku (75.0% of the ids that layer 'codes' knows)" in caplog.text
        augment(keras.Model(sku, layers.Dense(1)(layers.Embedding(5, 2)(layers.Hashing(5)(sku)))), augmentation)
        assert "sku (4 raw ids)" in caplog.text
    else:
        with pytest.raises(StoreError, match=r"None of the 4 ids that layer 'codes' .*'SKU-1', 'SKU-2', 'SKU-3'"):
            augment(base, augmentation)
