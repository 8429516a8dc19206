"""Mixed precision, XLA and several devices. Each in its own process where devices must be set up. Both Keras APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import fresh
from support.exhaustive import left_out, same_on_keras_3
from support.training import predicted, ready

from kar_aug import KnowledgeAugmentation, prestore
from kar_aug._helpers.keras import keras

pytestmark = pytest.mark.both_keras
VECTORS = np.random.default_rng(0).normal(size=(30, 6)).astype("float16")
ROWS = np.random.default_rng(1).integers(-1, 32, (64, 1)).astype("int32")
LABEL = np.random.default_rng(2).integers(0, 2, 64).astype("float32")


def model(dtype: str | None = None) -> Any:
    keras.utils.set_random_seed(0)
    ids = keras.Input((1,), name="item", dtype="int32")
    history = keras.Input((3,), name="history", dtype="int32")
    layer = KnowledgeAugmentation({"item": VECTORS}, expert_units=(8, 4), dtype=dtype)
    seen = keras.layers.Flatten()(layer({"item": history})["item"])
    joined = keras.layers.Concatenate()([layer({"item": ids})["item"], seen])
    return keras.Model([ids, history], keras.layers.Dense(1, activation="sigmoid", dtype="float32")(joined))


def inputs() -> list[Any]:
    return [ROWS, np.random.default_rng(3).integers(0, 30, (64, 3)).astype("int32")]


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_float16", 2e-3), left_out("mixed_bfloat16", 2e-2)])
def test_mixed_precision_trains_and_agrees_with_float32(dtype: str, tolerance: float) -> None:
    full, mixed = model(), model(dtype)
    mixed.set_weights(full.get_weights())
    np.testing.assert_allclose(predicted(mixed, inputs()), predicted(full, inputs()), atol=tolerance)
    assert {w.dtype for w in mixed.trainable_weights} in ({"float32"}, {full.trainable_weights[0].dtype})
    losses = ready(mixed, 0.02).fit(inputs(), LABEL, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(predicted(prestore(mixed), inputs()), predicted(mixed, inputs()), atol=tolerance)


@same_on_keras_3
def test_xla_trains_to_the_same_weights() -> None:
    trained = []
    for jit_compile in (False, True):
        built = model()
        built.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", jit_compile=jit_compile)
        built.fit(inputs(), LABEL, batch_size=32, epochs=3, shuffle=False, verbose=0)
        trained.append(built.get_weights())
    for plain, compiled in zip(*trained, strict=True):
        np.testing.assert_allclose(plain, compiled, rtol=1e-3, atol=1e-5)


_MIRRORED = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from test_execution import LABEL, inputs, model
from kar_aug._helpers.keras import keras
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
def train(built):
    built.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", jit_compile=False)
    built.fit(inputs(), LABEL, batch_size=32, epochs=2, shuffle=False, verbose=0)
    return built.get_weights()
with strategy.scope():
    mirrored = model()
for one, two in zip(train(model()), train(mirrored), strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
print("equal")
"""


@same_on_keras_3
def test_two_devices_train_to_the_same_weights() -> None:
    done = fresh(Path(__file__).parent, "-c", _MIRRORED)
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
