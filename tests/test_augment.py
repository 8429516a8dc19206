"""`augment` on other people's models: the same class, names and structure, one flat graph. Runs on both Keras APIs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.training import predicted

from kar_aug import (
    KnowledgeAugmentation,
    VectorStore,
    attachment_points,
    augment,
    export,
    load_model,
    prestore,
    refresh,
)
from kar_aug._keras import IS_KERAS_3, keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.models import vectors_as_inputs
from kar_aug.models.find import knowledge_layers

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


def test_an_attribute_that_was_the_layer_is_the_one_in_its_place(tmp_path: Path) -> None:
    base, layer = deepfm(), knowledge(name="kar")
    model = augment(Own(base.input, base.output), layer)
    weights = len(model.weights)
    model.kar = layer
    refreshed = refresh(model, {name: layer.table(name) for name in layer.sources})
    assert refreshed.kar in refreshed.layers and refreshed.kar is not layer and len(refreshed.weights) == weights
    for changed in (prestore(model), vectors_as_inputs(model)):
        assert changed.kar in changed.layers and knowledge_layers(changed, (KnowledgeAugmentation,)) == []
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


OLD = Path(__file__).parent / "data" / "models_of_0.1"


def test_a_model_that_was_augmented_when_the_rest_was_nested_predicts_what_it_did() -> None:
    model = load_model(OLD / f"augmented_{'keras_3' if IS_KERAS_3 else 'tf_keras'}.keras")
    output = model([tf.constant([[0], [2], [5], [3]]), tf.constant([[0.5], [-1.0], [0.0], [2.0]])])
    np.testing.assert_allclose(output[:, 0], [0.03004, 0.247061, 0.178887, 1.15353e-05], rtol=1e-5)
    assert attachment_points(model) == [("flatten", False)], "what brings knowledge is no place for more"
