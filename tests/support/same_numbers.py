"""A model of most layers whose predictions and gradients must be the same on all that Keras runs on.

    python -m support.same_numbers NUMBERS.npz

compares those that `numbers` gave elsewhere with those of this process, which must do without TensorFlow.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kar_aug import KnowledgeAugmentation, KnowledgeTable, augment, load_model, prestore
from kar_aug._helpers.keras import BACKEND, keras
from kar_aug.errors import ConfigError
from kar_aug.layers import (
    EventMask,
    EventValues,
    KnowledgeAttention,
    KnowledgeSimilarity,
    KnowledgeState,
    MaskedMean,
    MostSimilar,
    SimilarityFeatures,
)
from kar_aug.layers.lookup import keys_of

USERS, ITEMS, LENGTH, ROWS = 20, 30, 6, 48


def inputs() -> dict[str, Any]:
    """Unknown ids, empty histories and repeated events are among them."""
    random = np.random.default_rng(0)
    there = np.arange(LENGTH) < random.integers(0, LENGTH + 1, (ROWS, 1))
    events = (random.integers(1, ITEMS, (ROWS, LENGTH)) * there).astype("int32")
    return {
        "user": random.integers(0, USERS + 2, (ROWS, 1)).astype("int32"),
        "item": random.integers(0, ITEMS + 2, (ROWS, 1)).astype("int32"),
        "events": events,
        "values": ((events > 0) * random.integers(1, 6, (ROWS, LENGTH))).astype("float32"),
    }


def build() -> Any:
    """With most layers in it, by names that are the same everywhere."""
    random = np.random.default_rng(1)
    users = KnowledgeTable.from_array(random.normal(size=(USERS, 12)).astype("float32"), np.arange(USERS) % 4 != 0)
    items = random.normal(size=(ITEMS, 10)).astype("float16")
    given = {name: keras.Input(each.shape[1:], dtype=each.dtype.name, name=name) for name, each in inputs().items()}
    item, events = given["item"], given["events"]
    augmentation = KnowledgeAugmentation(
        {"user": users, "item": items}, expert_units=(8, 4), load_balance=0.01, mask_zero=True, name="augmentation"
    )
    fields = augmentation({"user": given["user"], "item": [item, events]})
    pooled = MaskedMean(name="mean")([events, fields["item"][1]])
    mask = EventMask(name="mask")(events)
    alike = KnowledgeSimilarity(items, components=6, name="similarity")([item, events])
    columns = SimilarityFeatures(bins=3, top=3, name="columns")([alike, given["values"], mask])
    worth = EventValues(name="worth")([given["values"], mask])
    attended = KnowledgeAttention(items, width=4, heads=2, components=6, name="attention")([item, events, worth, mask])
    sums = KnowledgeState(items, components=6, name="state")([item, events, given["values"], mask])
    _, nearest = MostSimilar(3, name="nearest")([alike, mask, given["values"]])
    joined = keras.layers.Concatenate()([fields["user"], fields["item"][0], pooled, columns, attended, nearest, sums])
    return keras.Model(given, keras.layers.Dense(1, "sigmoid", name="click")(joined))


def weights_of(model: Any) -> dict[str, Any]:
    """By layer and name: the order differs between what Keras runs on."""
    found = {}
    for layer in model.layers:
        for weight in layer.weights:
            name = getattr(weight, "path", weight.name).split("/")[-1].split(":")[0]
            found[f"{layer.name}/{name}"] = weight
    return found


def values_of(model: Any) -> dict[str, Any]:
    return {
        name: np.asarray(keras.ops.convert_to_numpy(weight) if hasattr(keras, "ops") else weight)
        for name, weight in weights_of(model).items()
    }


def numbers(model: Any) -> dict[str, Any]:
    """The weights, the predictions, and the weights after a step of plain gradient descent."""
    before, rows = values_of(model), inputs()
    predictions = model.predict(rows, verbose=0, batch_size=ROWS)
    model.compile(keras.optimizers.SGD(1.0), "binary_crossentropy")
    model.fit(rows, np.arange(ROWS)[:, np.newaxis] % 2, batch_size=ROWS, shuffle=False, verbose=0)
    return {"predictions": predictions, **before, **{f"after {name}": each for name, each in values_of(model).items()}}


def compare(path: Path) -> None:
    """Raise unless this process comes to the same."""
    wanted = dict(np.load(path))
    model = build()
    for name, weight in weights_of(model).items():
        weight.assign(wanted[name])
    found = numbers(model)
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)
    rows = inputs()
    trained = model.predict(rows, verbose=0)
    model.save(path.with_suffix(".keras"))
    for again in (load_model(path.with_suffix(".keras")), prestore(model)):
        np.testing.assert_allclose(again.predict(rows, verbose=0), trained, rtol=1e-5, atol=1e-6)


def check_augment() -> None:
    """Knowledge is added to a model that exists, and changes nothing until it is trained on."""
    ids = keras.Input((1,), dtype="int32", name="item")
    hidden = keras.layers.Dense(4, "relu")(keras.layers.Flatten()(keras.layers.Embedding(ITEMS, 3)(ids)))
    base = keras.Model(ids, keras.layers.Dense(1)(hidden))
    rows = np.arange(ITEMS, dtype="int32")[:, np.newaxis]
    model = augment(base, KnowledgeAugmentation({"item": np.eye(ITEMS, 8, dtype="float32")}))
    np.testing.assert_allclose(model.predict(rows, verbose=0), base.predict(rows, verbose=0), atol=1e-6)


def check_refusals() -> None:
    """What cannot be there is said in one line."""
    with pytest.raises(ConfigError, match=f"works on TensorFlow alone, but Keras runs on {BACKEND}"):
        importlib.import_module("kar_aug.models.export")
    with pytest.raises(ValueError, match="Ids that are strings cannot be looked up"):
        keys_of(["a", "b"])


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
    check_augment()
    check_refusals()
    assert "tensorflow" not in sys.modules
