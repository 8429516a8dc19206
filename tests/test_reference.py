"""KnowledgeAugmentation against NumPy in value and gradient, for anything hypothesis thinks of. Runs on both APIs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3

from kar_aug import KnowledgeAugmentation, KnowledgeTable
from kar_aug._helpers.keras import tf
from kar_aug.registry import ADAPTORS

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
Arrays = dict[str, np.ndarray]


def short(weight: Any) -> str:
    return weight.name.split("/")[-1].split(":")[0]


def expert(x: np.ndarray, layers: list[tuple[str, int]], weights: Arrays, linear: bool) -> tuple[np.ndarray, Any]:
    """One expert's output for one vector, and the function that turns its gradient into those of the weights."""
    steps = []
    for i, (kernel, bias, e) in enumerate(layers):
        before = x
        x = x @ weights[kernel][e] + weights[bias][e]
        live = np.ones_like(x) if linear else (x > 0).astype(float)
        x = x * live
        steps.append((kernel, bias, e, before, live, i))

    def backward(slope: np.ndarray, gradients: Any) -> None:
        for kernel, bias, e, before, live, _ in reversed(steps):
            slope = slope * live
            gradients[kernel][e] += np.outer(before, slope)
            gradients[bias][e] += slope
            slope = weights[kernel][e] @ slope

    return x, backward


def reference(layer: Any, name: str, table: KnowledgeTable, ids: np.ndarray, slopes: np.ndarray) -> tuple[Any, Any]:
    """Outputs for ids of any shape, and the gradients of sum(slopes * outputs), id by id and expert by expert."""
    weights = {short(w): np.asarray(w, float) for w in layer.trainable_weights}
    gradients: Any = defaultdict(float)
    gradients.update({n: np.zeros_like(w) for n, w in weights.items()})
    shared, dedicated = layer.adaptor.shared_experts, layer.adaptor.dedicated_experts
    depth, linear = len(layer.adaptor.expert_units), layer.adaptor_name == "none"

    def layers(group: str, e: int, dimension: int) -> list[Any]:
        first = f"shared_kernel_0_{dimension}" if group == "shared" else f"{group}_kernel_0"
        kernels = [first, *(f"{group}_kernel_{i}" for i in range(1, depth))]
        return [(kernel, f"{group}_bias_{i}", e) for i, kernel in enumerate(kernels)]

    outputs = []
    for id, slope in zip(ids.reshape(-1), slopes.reshape(-1, slopes.shape[-1]), strict=True):
        if ids.ndim > 1 and ids.shape[1] > 1 and layer.mask_zero and id == 0:
            outputs.append(np.zeros(layer.width))
            continue
        if not 0 <= id < len(table.rows) or table.rows[id] < 0:
            outputs.append(weights[f"{name}_default"])
            gradients[f"{name}_default"] += slope
            continue
        x = table.vectors[table.rows[id]].astype(float)
        experts = [layers("shared", e, len(x)) for e in range(shared)]
        experts += [layers(f"dedicated_{name}", e, len(x)) for e in range(dedicated)]
        results = [expert(x, e, weights, linear) for e in experts]
        gate = np.ones(1)
        if len(experts) > 1:
            scores = x @ weights[f"gate_{name}_kernel"] + weights[f"gate_{name}_bias"]
            gate = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            worth = np.asarray([slope @ value for value, _ in results])
            score_slope = gate * (worth - gate @ worth)
            gradients[f"gate_{name}_kernel"] += np.outer(x, score_slope)
            gradients[f"gate_{name}_bias"] += score_slope
        for share, (_, backward) in zip(gate, results, strict=True):
            backward(share * slope, gradients)
        outputs.append(sum(share * value for share, (value, _) in zip(gate, results, strict=True)))
    return np.asarray(outputs).reshape(*slopes.shape), gradients


@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_values_and_gradients_equal_numpy(data: Any) -> None:
    draw = data.draw
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    adaptor = draw(st.sampled_from(list(ADAPTORS)))
    shared, dedicated = draw(st.sampled_from([(0, 1), (1, 0), (2, 3), (0, 3), (3, 0), (1, 2)]))
    units = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    tables, inputs = {}, {}
    for name in [f"source_{i}" for i in range(draw(st.integers(1, 3)))]:
        size, dimension = draw(st.integers(1, 6)), draw(st.integers(1, 4))
        vectors = random.normal(size=(size, dimension)).astype(draw(st.sampled_from(["float16", "float32"])))
        known = np.zeros(size, bool) if draw(st.booleans()) else random.random(size) < 0.7
        tables[name] = KnowledgeTable.from_array(vectors, known)
        shape = draw(st.sampled_from([(0,), (1,), (7,), (7, 1), (3, 4), (0, 4)]))
        inputs[name] = random.integers(-2, size + 3, shape).astype(draw(st.sampled_from(["int32", "int64"])))
    layer = KnowledgeAugmentation(tables, shared, dedicated, units, adaptor, mask_zero=draw(st.booleans()))
    for weight in layer.trainable_weights:
        weight.assign(random.normal(size=weight.shape).astype("float32"))
    with tf.GradientTape() as tape:
        outputs = layer(inputs)
        slopes = {name: random.normal(size=outputs[name].shape) for name in inputs}
        loss = tf.add_n([tf.reduce_sum(outputs[name] * slopes[name].astype("float32")) for name in inputs])
    weights = layer.trainable_weights
    gradients = tape.gradient(loss, [w if isinstance(w, tf.Variable) else w.value for w in weights])
    expected: dict[str, Any] = defaultdict(float)
    for name, ids in inputs.items():
        values, own = reference(layer, name, tables[name], ids, slopes[name])
        np.testing.assert_allclose(np.asarray(outputs[name]), values, rtol=1e-3, atol=1e-4)
        for weight, gradient in own.items():
            expected[weight] = expected[weight] + gradient
    for weight, gradient in zip(weights, gradients, strict=True):
        actual = np.zeros(weight.shape) if gradient is None else np.asarray(tf.convert_to_tensor(gradient))
        np.testing.assert_allclose(actual, expected[short(weight)], rtol=2e-3, atol=1e-3, err_msg=weight.name)
