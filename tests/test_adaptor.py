"""The hybrid-expert adaptor against an independent computation in NumPy. Runs on both Keras APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3, table

from kar_aug import KnowledgeAugmentation
from kar_aug._helpers.keras import keras, tf
from kar_aug.layers import HybridExpertAdaptor

pytestmark = [pytest.mark.both_keras, same_on_keras_3]


def weights_by_name(adaptor: Any) -> dict[str, np.ndarray]:
    return {w.name.split("/")[-1].split(":")[0]: np.asarray(w, np.float64) for w in adaptor.weights}


def reference(adaptor: Any, source: str, x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Row by row and expert by expert, as the paper says it; nothing of the layer's arrangement is used."""

    def experts(group: str, count: int) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        first = f"shared_kernel_0_{x.shape[1]}" if group == "shared" else f"{group}_kernel_0"
        kernels = [first, *(f"{group}_kernel_{i}" for i in range(1, len(adaptor.expert_units)))]
        return [
            [(weights[kernel][e], weights[f"{group}_bias_{i}"][e]) for i, kernel in enumerate(kernels)]
            for e in range(count)
        ]

    networks = experts("shared", adaptor.shared_experts) + experts(f"dedicated_{source}", adaptor.dedicated_experts)
    rows = []
    for row in x:
        gate = np.ones(1)
        if len(networks) > 1:
            scores = row @ weights[f"gate_{source}_kernel"] + weights[f"gate_{source}_bias"]
            gate = np.exp(scores - scores.max())
            gate /= gate.sum()
        total = np.zeros(adaptor.expert_units[-1])
        for share, layers in zip(gate, networks, strict=True):
            hidden = row
            for kernel, bias in layers:
                hidden = np.maximum(hidden @ kernel + bias, 0)
            total += share * hidden
        rows.append(total)
    return np.asarray(rows).reshape(len(x), adaptor.expert_units[-1])


def build(sources: list[str], dimension: int | list[int], **options: Any) -> Any:
    adaptor = HybridExpertAdaptor(sources, **options)
    dimensions = [dimension] * len(sources) if isinstance(dimension, int) else dimension
    adaptor.build({source: (None, d) for source, d in zip(sources, dimensions, strict=True)})
    random = np.random.default_rng(1)
    adaptor.set_weights([random.normal(size=w.shape).astype("float32") * 0.5 for w in adaptor.get_weights()])
    return adaptor


@settings(max_examples=examples(25), deadline=None)
@given(
    dimensions=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    shared=st.integers(0, 3),
    dedicated=st.integers(0, 3),
    units=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    batch=st.integers(0, 5),
)
def test_it_equals_numpy_for_any_number_of_sources_experts_and_layers(
    dimensions: list[int], shared: int, dedicated: int, units: list[int], batch: int
) -> None:
    if not shared + dedicated:
        return
    names = [f"source_{i}" for i in range(len(dimensions))]
    adaptor = build(names, dimensions, shared_experts=shared, dedicated_experts=dedicated, expert_units=units)
    random = np.random.default_rng(2)
    inputs = {n: random.normal(size=(batch, d)).astype("float32") for n, d in zip(names, dimensions, strict=True)}
    outputs = adaptor(inputs)
    weights = weights_by_name(adaptor)
    for name in names:
        expected = reference(adaptor, name, inputs[name].astype(np.float64), weights)
        np.testing.assert_allclose(np.asarray(outputs[name]), expected, rtol=2e-4, atol=1e-5)


def test_by_hand() -> None:
    adaptor = HybridExpertAdaptor(["user"], shared_experts=1, dedicated_experts=1, expert_units=(1,))
    adaptor.build({"user": (None, 2)})
    weights = {
        "shared_kernel_0_2": [[[1.0], [1.0]]],
        "dedicated_user_kernel_0": [[[1.0], [-1.0]]],
        "shared_bias_0": [[0.5]],
    }
    for weight in adaptor.weights:
        name = weight.name.split("/")[-1].split(":")[0]
        weight.assign(np.asarray(weights.get(name, np.zeros(weight.shape)), "float32"))
    # shared: relu(3 + 0.5) = 3.5; dedicated: relu(2 - 1) = 1; equal gate: 2.25. Row 2: relu(-2.5) = 0, relu(1) = 1.
    output = adaptor({"user": np.asarray([[2.0, 1.0], [-1.0, -2.0]], "float32")})["user"]
    np.testing.assert_allclose(np.asarray(output), [[2.25], [0.5]], rtol=1e-6)


def test_gradients_equal_finite_differences_of_the_reference() -> None:
    names = ["user", "item"]
    adaptor = build(names, 4, shared_experts=2, dedicated_experts=1, expert_units=(3, 2))
    random = np.random.default_rng(3)
    inputs = {name: random.normal(size=(6, 4)).astype("float32") for name in names}
    with tf.GradientTape() as tape:
        outputs = adaptor(inputs)
        loss = tf.add_n([tf.reduce_sum(tf.square(outputs[name])) for name in names])
    variables = [getattr(w, "value", w) if not isinstance(w, tf.Variable) else w for w in adaptor.trainable_weights]
    gradients = tape.gradient(loss, variables)
    weights = weights_by_name(adaptor)

    def reference_loss() -> float:
        return sum(float((reference(adaptor, n, inputs[n].astype(np.float64), weights) ** 2).sum()) for n in names)

    for weight, gradient in zip(adaptor.trainable_weights, gradients, strict=True):
        values, step = weights[weight.name.split("/")[-1].split(":")[0]], 1e-5
        for index in [tuple(random.integers(0, n) for n in values.shape) for _ in range(4)]:
            original = values[index]
            values[index] = original + step
            above = reference_loss()
            values[index] = original - step
            slope = (above - reference_loss()) / (2 * step)
            values[index] = original
            assert np.asarray(gradient)[index] == pytest.approx(slope, rel=1e-2, abs=1e-2), weight.name


def test_gate_weights_sum_to_one() -> None:
    adaptor = build(["user"], 4)
    gate = np.asarray(adaptor.gate({"user": np.random.default_rng(0).normal(size=(7, 4)).astype("float32")})["user"])
    assert gate.shape == (7, 5)
    np.testing.assert_allclose(gate.sum(axis=1), 1, rtol=1e-6)


def test_experts_start_with_the_spread_of_separate_dense_layers() -> None:
    adaptor = HybridExpertAdaptor(["user"], shared_experts=4, dedicated_experts=0, expert_units=(64, 32))
    adaptor.build({"user": (None, 128)})
    weights = weights_by_name(adaptor)
    for name, inputs, units in (("shared_kernel_0_128", 128, 64), ("shared_kernel_1", 64, 32)):
        limit = np.sqrt(6 / (inputs + units))
        assert 0.95 * limit < np.abs(weights[name]).max() <= limit
    assert not np.array_equal(weights["shared_kernel_1"][0], weights["shared_kernel_1"][1])


def test_config_round_trips_to_the_constructor_arguments() -> None:
    options = {"activation": "tanh", "dropout": 0.1, "kernel_regularizer": "l2", "layer_norm": True}
    adaptor = HybridExpertAdaptor(["a", "b"], 1, 4, (7, 3), name="mine", **options)
    again = HybridExpertAdaptor.from_config(adaptor.get_config())
    assert again.get_config() == adaptor.get_config()
    assert (again.sources, again.expert_units, again.name) == (["a", "b"], [7, 3], "mine")


def test_a_normalised_layer_is_what_its_formula_says() -> None:
    adaptor = build(["user"], 4, shared_experts=0, dedicated_experts=1, expert_units=(6, 3), layer_norm=True)
    w, x = weights_by_name(adaptor), np.random.default_rng(0).normal(size=(5, 4))
    hidden = x
    for layer in (0, 1):
        z = hidden @ w[f"dedicated_user_kernel_{layer}"][0]
        normalised = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-3)
        scale, bias = (w[f"dedicated_user_{kind}_{layer}"][0] for kind in ("scale", "bias"))
        hidden = np.maximum(normalised * scale + bias, 0)
    np.testing.assert_allclose(np.asarray(adaptor({"user": x.astype("float32")})["user"]), hidden, rtol=1e-3, atol=1e-5)


def test_dropout_is_for_training_and_a_regularizer_for_kernels() -> None:
    adaptor = build(["user"], 4, dropout=0.5, kernel_regularizer=keras.regularizers.L2(0.1))
    layer = KnowledgeAugmentation({"user": np.ones((3, 4), "float32")}, adaptor=adaptor)
    ids = keras.Input((1,), dtype="int32")
    model, batch = keras.Model(ids, layer({"user": ids})["user"]), np.asarray([[0], [0], [1]], "int32")
    still, moved = (np.asarray(model(batch, training=training)) for training in (False, True))
    np.testing.assert_array_equal(still, np.asarray(model(batch)))
    assert not np.allclose(moved, still) and np.array_equal(moved[0], moved[1]), "rows of one id have the same zeros"
    kernels = [np.asarray(w) for w in adaptor.weights if "kernel" in w.name and "gate" not in w.name]
    assert float(sum(model.losses)) == pytest.approx(0.1 * sum((k**2).sum() for k in kernels), rel=1e-5)


@pytest.mark.parametrize("suffix", table([".keras", ".h5", ".weights.h5"], ".keras"))
def test_saving_and_loading_keeps_every_weight(tmp_path: Path, suffix: str) -> None:
    def model() -> Any:
        inputs = {name: keras.Input((4,), name=name) for name in ("user", "item")}
        options = {"activation": "gelu", "dropout": 0.2, "kernel_regularizer": "l2", "layer_norm": True}
        outputs = HybridExpertAdaptor(["user", "item"], expert_units=(6, 3), **options)(inputs)
        return keras.Model(list(inputs.values()), [outputs["user"], outputs["item"]])

    first, path = model(), str(tmp_path / f"model{suffix}")
    if suffix == ".weights.h5":
        first.save_weights(path)
        second = model()
        second.load_weights(path)
    else:
        first.save(path)
        second = keras.models.load_model(path)
    vectors = [np.random.default_rng(i).normal(size=(5, 4)).astype("float32") for i in range(2)]
    for before, after in zip(first.predict(vectors, verbose=0), second.predict(vectors, verbose=0), strict=True):
        np.testing.assert_array_equal(before, after)


def test_shapes_are_as_declared() -> None:
    adaptor = build(["user", "item"], 4, expert_units=(6, 3))
    assert adaptor.compute_output_shape({"user": (None, 4), "item": (8, 4)}) == {
        "user": (None, 3),
        "item": (8, 3),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": []}, "`sources` must be different names"),
        ({"sources": ["a", "a"]}, "`sources` must be different names"),
        ({"shared_experts": 0, "dedicated_experts": 0}, "at least one expert"),
        ({"shared_experts": -1}, "`shared_experts` must be a whole number, 0 or more"),
        ({"expert_units": ()}, "`expert_units` must be positive"),
        ({"expert_units": (8, 0)}, "`expert_units` must be positive"),
        ({"dropout": 1.0}, "`dropout` must be a share"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridExpertAdaptor(**{"sources": ["a"], **options})


def test_sources_of_different_dimensions_share_all_but_the_first_kernel() -> None:
    adaptor = build(["user", "item", "query"], [4, 5, 4], expert_units=(6, 3))
    shared = sorted(name for name in weights_by_name(adaptor) if name.startswith("shared"))
    assert shared == ["shared_bias_0", "shared_bias_1", "shared_kernel_0_4", "shared_kernel_0_5", "shared_kernel_1"]


def test_a_source_that_is_missing_when_built_is_refused() -> None:
    with pytest.raises(ValueError, match="built with all of its sources"):
        HybridExpertAdaptor(["user", "item"]).build({"user": (None, 4)})


def test_a_single_expert_has_no_gate() -> None:
    adaptor = build(["user"], 4, shared_experts=0, dedicated_experts=1)
    assert not [name for name in weights_by_name(adaptor) if "gate" in name]
    np.testing.assert_array_equal(np.asarray(adaptor.gate({"user": np.ones((3, 4), "float32")})["user"]), 1)
