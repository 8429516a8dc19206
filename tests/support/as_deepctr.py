"""Run on Keras 3: a model of benchmarks/plain_models.py, given DeepCTR's weights, predicts what DeepCTR's does."""

from __future__ import annotations

import re
import sys

import numpy as np
import plain_models

from support.events import FEATURES, SETTINGS

# What DeepCTR calls a weight -> what it is called here; numbers of layers of a kind are cut off before.
NAMES = {
    r"(?:linear0)?sparse_(?:seq_)?emb_(?:hist_(?=item_id|genres))?(\w+)/embeddings": r"embedding_\1/embeddings",
    r"dnn/(kernel|bias)(\d)": r"deep_\2/\1",
    r"dense/kernel": "deep/kernel",
    r"prediction_layer/global_bias": "deep/bias",
    r"interest_attention/split_activation_unit/dnn/(kernel|bias)0": r"attention/\1",
    r"interest_attention/split_activation_unit/dnn/(kernel|bias)1": r"attention/dense/\1",
    r"interest_attention/split_activation_unit/(kernel|bias)": r"attention/dense_1/\1",
    r"interest_attention/split_activation_unit/(dice(?:_1)?)/dice_(alpha)": r"attention/\1/\2",
    r"interest_attention/split_activation_unit/(dice(?:_1)?/batch_normalization(?:_1)?/\w+)": r"attention/\1",
    r"senet_layer/W_1": "senet/squeeze",
    r"senet_layer/W_2": "senet/excite",
    r"pairwise_interaction/bilinear_weights": "of_weighed/pairs",
    r"pairwise_interaction_1/bilinear_weights": "of_fields/pairs",
}


def here(name: str) -> str:
    """Our name of one of DeepCTR's weights."""
    for theirs, ours in NAMES.items():
        if found := re.fullmatch(theirs, name):
            return found.expand(ours).replace("embedding", "linear" if name.startswith("linear0") else "embedding", 1)
    raise AssertionError(f"{name} has no place here")


def main(backbone: str, path: str) -> None:
    with np.load(path) as file:
        given = {name: file[name] for name in file}
    inputs = {feature.name: given.pop(f"input/{feature.name}") for feature in FEATURES}
    expected = given.pop("predicted")
    model = plain_models.BACKBONES[backbone](FEATURES, SETTINGS)
    by_name = {here(name): values for name, values in given.items()}
    assert sorted(by_name) == sorted(weight.path for weight in model.weights)
    for weight in model.weights:
        weight.assign(by_name[weight.path])
    np.testing.assert_allclose(model.predict(inputs, verbose=0), expected, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    main(*sys.argv[1:])
