"""Adaptors that are not ours: Keras layers of the user's own, and names from outside. Runs on both Keras APIs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted, ready

from kar_aug import GateUsage, KnowledgeAugmentation, VectorStore, augment, load_model, prestore, refresh
from kar_aug._helpers.keras import IS_KERAS_3, keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.layers import AdaptorSettings, HybridExpertAdaptor
from kar_aug.models import export

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
SOURCES = {"user": 5, "item": 3}
FILES = {
    "sequential": [".keras"],
    "one a source": [".keras", ".h5", ".weights.h5", ".ckpt", "savedmodel"],
}


class Doubled(keras.layers.Layer):
    """A layer that nobody registered."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.inner = units, keras.layers.Dense(units)

    def call(self, inputs: Any) -> Any:
        return 2 * self.inner(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def sequential() -> Any:
    return keras.Sequential(
        [keras.layers.Dense(6, activation="tanh"), keras.layers.Dropout(0.5), keras.layers.Dense(4)]
    )


ADAPTORS: dict[str, Any] = {
    "dense": lambda: keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1)),
    "sequential": sequential,
    "one a source": lambda: {"user": sequential(), "item": keras.layers.Dense(4)},
}


def tables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(9, width)).astype("float32") for name, width in SOURCES.items()}


def model(adaptor: Any, *, eagerly: bool = False, **options: Any) -> Any:
    ids = {name: keras.Input((1,), name=name, dtype="int32") for name in SOURCES}
    fields = KnowledgeAugmentation(tables(), adaptor=adaptor, name="kar", **options)(ids)
    joined = keras.layers.Concatenate()(list(fields.values()))
    built = keras.Model(ids, keras.layers.Dense(1, activation="sigmoid")(joined))
    return ready(built, eagerly=eagerly)


def inputs() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {name: random.integers(-1, 12, (32, 1)).astype("int32") for name in SOURCES}


def predict(built: Any) -> np.ndarray:
    return predicted(built, inputs())


def trained(adaptor: Any) -> Any:
    built = model(adaptor, eagerly=True)
    built.fit(inputs(), np.arange(32) % 2, epochs=2, verbose=0)
    return built


@cache
def learned(name: str) -> tuple[list[np.ndarray], Any]:
    """A model with one of `ADAPTORS`, and its weights before it was trained. Only to be read."""
    built = model(ADAPTORS[name]())
    before = built.get_weights()
    built.fit(inputs(), np.arange(32) % 2, epochs=3, verbose=0)
    return before, built


def test_a_layer_adapts_each_source_with_weights_of_its_own() -> None:
    layer = KnowledgeAugmentation(tables(), adaptor=keras.layers.Dense(4, name="mine"))
    assert layer.width == 4 and not layer.adaptor.has_gate
    user, item = layer.adaptor.parts
    assert (user.name, item.name) == ("mine_user", "mine_item")
    ids = np.asarray([2, 7, 2], "int32")
    for part, name in ((user, "user"), (item, "item")):
        output = layer({name: ids})[name]
        expected = tables()[name][ids] @ np.asarray(part.kernel)
        np.testing.assert_allclose(np.asarray(output), expected, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape({"user": (None, 7)}) == {"user": (None, 7, 4)}


def test_a_single_source_uses_the_very_layer() -> None:
    dense = keras.layers.Dense(4)
    layer = KnowledgeAugmentation({"item": tables()["item"]}, adaptor=dense)
    assert layer.adaptor.parts == [dense] and dense.built


@pytest.mark.parametrize("name", ADAPTORS)
def test_every_weight_learns_and_losses_of_the_layer_count(name: str) -> None:
    before, built = learned(name)
    frozen = {id(weight) for weight in built.non_trainable_weights}
    for weight, old, new in zip(built.weights, before, built.get_weights(), strict=True):
        assert np.array_equal(old, new) == (id(weight) in frozen), weight.name
    assert len(built.losses) == (2 if name == "dense" else 0)


@pytest.mark.parametrize(("name", "suffix"), [(name, suffix) for name in FILES for suffix in FILES[name]])
def test_a_saved_model_predicts_the_same(tmp_path: Path, name: str, suffix: str) -> None:
    (_, built), path = learned(name), str(tmp_path / f"model{suffix}")
    if suffix == "savedmodel":
        export.export(built, path)
        served = tf.saved_model.load(path).signatures["serving_default"]
        output = served(**{k: tf.constant(v) for k, v in inputs().items()})["ctr"]
        np.testing.assert_allclose(np.asarray(output), predict(built), rtol=1e-5)
        return
    if suffix == ".ckpt":
        tf.train.Checkpoint(model=built).write(path)
        again = model(ADAPTORS[name]())
        tf.train.Checkpoint(model=again).restore(path).expect_partial()
    elif suffix == ".weights.h5":
        built.save_weights(path)
        again = model(ADAPTORS[name]())
        again.load_weights(path)
    else:
        built.save(path)
        again = load_model(path)
    np.testing.assert_array_equal(predict(again), predict(built))
    if suffix in (".keras", ".h5"):  # and it can be saved once more
        again.save(str(tmp_path / f"again{suffix}"))
        np.testing.assert_array_equal(predict(load_model(tmp_path / f"again{suffix}")), predict(built))


@pytest.mark.parametrize("name", ADAPTORS)
def test_prestored_and_refreshed_models_keep_what_was_learned(name: str) -> None:
    _, built = learned(name)
    expected = predict(built)
    serving = prestore(built)
    np.testing.assert_allclose(predict(serving), expected, atol=1e-5)
    assert len(serving.weights) == 4, "two tables, and the last layer's"
    np.testing.assert_array_equal(predict(refresh(built, tables())), expected)
    other = refresh(built, {name: -vectors for name, vectors in tables().items()})
    assert not np.allclose(predict(other), expected)
    np.testing.assert_array_equal(predict(built), expected)


def test_new_knowledge_of_a_serving_model_goes_through_the_layer() -> None:
    _, built = learned("sequential")
    serving = prestore(built)
    serving.get_layer("kar_prestored").update({"item": {3: tables()["item"][5]}})
    table = built.get_layer("kar").augmented_vectors("item")
    output = serving.get_layer("kar_prestored")({"item": np.asarray([3, 5], "int32")})["item"]
    np.testing.assert_allclose(np.asarray(output), table[[5, 5]], rtol=1e-5, atol=1e-6)


def test_a_trained_model_is_augmented_with_a_layer_of_ones_own() -> None:
    ids = keras.Input((1,), name="item", dtype="int32")
    base = keras.Model(ids, keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Embedding(9, 3)(ids))))
    rows = np.arange(9, dtype="int32")[:, None]
    before = predicted(base, rows)
    augmented = augment(base, KnowledgeAugmentation({"item": tables()["item"]}, adaptor=sequential()))
    np.testing.assert_allclose(predicted(augmented, rows), before, atol=1e-6)
    ready(augmented, loss="mse", eagerly=True).fit(rows, np.ones(9), verbose=0)
    np.testing.assert_allclose(predicted(prestore(augmented), rows), predicted(augmented, rows), atol=1e-5)


def test_a_layer_that_nobody_registered_is_named_on_loading(tmp_path: Path) -> None:
    built = trained(Doubled())
    np.testing.assert_array_equal(predict(refresh(built, tables())), predict(built))
    built.save(str(tmp_path / "model.keras"))
    again = load_model(tmp_path / "model.keras", custom_objects={"Doubled": Doubled})
    np.testing.assert_array_equal(predict(again), predict(built))


@pytest.mark.skipif(IS_KERAS_3, reason="it rewrites no layer")
def test_a_layer_of_ones_own_may_branch_on_what_a_tensor_holds() -> None:
    class Branching(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            if tf.reduce_sum(inputs) > 1e9:
                inputs = inputs * 2
            return inputs[:, :2]

    built = model({"user": Branching(), "item": Branching()})
    expected = np.concatenate([tables()[name][[2, 3], :2] for name in SOURCES], axis=1)
    inner = keras.Model(built.inputs, built.layers[-1].input)
    rows = {name: np.asarray([[2], [3]], "int32") for name in SOURCES}
    np.testing.assert_allclose(inner.predict(rows, verbose=0), expected, rtol=1e-5)


def test_a_model_with_stores_and_a_layer_of_ones_own_is_loaded(tmp_path: Path) -> None:
    with VectorStore.writer(tmp_path / "items", StoreSpec("encoder", 3)) as writer:
        writer.append(["a", "b"], ["k", "k"], tables()["item"][:2])
    ids = keras.Input((1,), name="item", dtype="int32")
    table = VectorStore.open(tmp_path / "items").align([None, "a", "b"])
    built = keras.Model(ids, KnowledgeAugmentation({"item": table}, adaptor=sequential())({"item": ids})["item"])
    built.save(str(tmp_path / "model.keras"))
    rows = np.arange(4, dtype="int32")[:, None]
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predicted(again, rows), predicted(built, rows))


def test_what_needs_a_gate_says_that_there_is_none(tmp_path: Path) -> None:
    layer = KnowledgeAugmentation(tables(), adaptor=sequential())
    words = r"LayerAdaptor 'adaptor' has no gate: there are no experts to choose among.*adaptor='hybrid-expert'"
    for ask in (
        lambda: layer.gate_usage({"item": [1, 2]}),
        lambda: GateUsage(layer, {"item": [1, 2]}, tmp_path),
        lambda: KnowledgeAugmentation(tables(), adaptor=sequential(), load_balance=0.1),
    ):
        with pytest.raises(ValueError, match=words):
            ask()


def test_what_is_no_adaptor_is_refused() -> None:
    def built() -> Any:
        dense = keras.layers.Dense(4)
        dense.build((None, 5))
        return dense

    same = keras.layers.Dense(4)
    for adaptor, words in [
        (4, r"must be a name, a Keras layer, or a layer for each source. Received: 4"),
        ({"user": 4, "item": 5}, "needs a Keras layer for each source"),
        ({"user": same, "item": same}, "Each source needs a layer of its own"),
        ({"item": keras.layers.Dense(4)}, r"built with all of its sources \['item'\]. Received: \['item', 'user'\]"),
        (
            {"user": keras.layers.Dense(4), "item": keras.layers.Dense(5)},
            "equally wide. Received: {'user': 4, 'item': 5}",
        ),
        (keras.layers.Reshape((5, 1)), r"adaptor of 'user' must turn \(n, 5\) into \(n, width\)"),
        (built(), r"its weights can adapt one source only, not user, item"),
    ]:
        with pytest.raises(ValueError, match=words):
            KnowledgeAugmentation(tables(), adaptor=adaptor)


def test_an_adaptor_of_ours_with_other_arguments_is_saved_and_loaded(tmp_path: Path) -> None:
    built = trained(HybridExpertAdaptor(list(SOURCES), 1, 1, (4, 2), activation="tanh"))
    assert built.get_layer("kar").width == 2
    assert built.get_layer("kar").gate_usage({"item": [1, 2]})["item"].shape == (2,)
    built.save(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(predict(load_model(tmp_path / "model.keras")), predict(built))


def two_layers(settings: AdaptorSettings) -> Any:
    return keras.Sequential([keras.layers.Dense(6, activation="relu"), keras.layers.Dense(settings.width)])


def test_a_name_from_outside_is_an_adaptor_and_a_file_needs_no_import_of_it(tmp_path: Path) -> None:
    built = trained("test_own_adaptor:two_layers")
    assert built.get_layer("kar").width == 32 and built.get_layer("kar").adaptor_name == "test_own_adaptor:two_layers"
    np.testing.assert_array_equal(predict(refresh(built, tables())), predict(built))
    built.save(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(predict(load_model(tmp_path / "model.keras")), predict(built))
    assert "two_layers" not in json.dumps(built.get_layer("kar").get_config(), default=str)


def test_a_file_cannot_choose_what_is_imported() -> None:
    config = {**KnowledgeAugmentation(tables()).get_config(), "adaptor": "os:getcwd"}
    with pytest.raises(ValueError, match=r"`adaptor` must be one of \('hybrid-expert'.*Received: 'os:getcwd'"):
        KnowledgeAugmentation.from_config(config)
