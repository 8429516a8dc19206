"""The fused optimizer does what Keras's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3

from kar_aug._helpers.keras import keras
from kar_aug.compare.adam import FusedAdam

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
IDS = np.random.default_rng(0).integers(0, 20, (64, 3)).astype(np.int32)


@pytest.mark.parametrize("regularizer", [None, "l2"], ids=["a gradient of a few rows", "of all"])
def test_it_comes_to_the_same_weights(regularizer: str | None) -> None:
    ours, theirs = (trained(kind(0.02), regularizer) for kind in (FusedAdam, keras.optimizers.Adam))
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def trained(optimizer: Any, regularizer: str | None) -> list[Any]:
    keras.utils.set_random_seed(3)
    ids = keras.Input((3,), dtype="int32")
    vectors = keras.layers.Flatten()(keras.layers.Embedding(20, 4, embeddings_regularizer=regularizer)(ids))
    model = keras.Model(ids, keras.layers.Dense(1, "sigmoid")(keras.layers.Dense(5, "relu")(vectors)))
    before = model.get_weights()
    model.compile(optimizer, "binary_crossentropy")
    model.fit(IDS, IDS[:, :1] % 2, batch_size=16, epochs=4, shuffle=False, verbose=0)
    assert all(np.abs(one - other).max() > 0 for one, other in zip(before, model.get_weights(), strict=True))
    return list(model.get_weights())
