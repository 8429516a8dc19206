"""`augment` on each model that DeepCTR has: unchanged until trained, then trained, saved, the same in a new process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import fresh
from support.training import ready

from kar_aug import KnowledgeAugmentation, attachment_points, augment, export, load_model, prestore
from kar_aug._helpers.keras import IS_KERAS_3, tf

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

import deepctr.models
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from kar_aug.backbones import MODELS

USERS, ITEMS, WIDTH, ROWS = 10, 15, 4, 32
IDS = [SparseFeat("user_id", USERS, WIDTH), SparseFeat("item_id", ITEMS, WIDTH)]
PLAIN = [*IDS, DenseFeat("age", 1)]
GROUPS = [SparseFeat("user_id", USERS, WIDTH, group_name="user"), SparseFeat("item_id", ITEMS, WIDTH, group_name="x")]


def history(name: str, **options: Any) -> Any:
    return VarLenSparseFeat(SparseFeat(name, ITEMS, WIDTH, embedding_name="item_id"), maxlen=4, **options)


HISTORY = [*PLAIN, history("hist_item_id", length_name="seq_length")]
SESSIONS = [*PLAIN, *(history(f"sess_{i}_item_id") for i in range(2))]
NO_NUMBERS, ALL = [IDS, IDS], [PLAIN, PLAIN]
# What a model wants in place of `ALL`.
ASKED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    **dict.fromkeys(("ESMM", "MMOE", "PLE", "SharedBottom"), ([PLAIN], {})),
    **dict.fromkeys(("AFM", "CCPM", "EDCN"), (NO_NUMBERS, {})),
    "BST": ([HISTORY, ["item_id"]], {"att_head_num": 2}),
    "DIN": ([HISTORY, ["item_id"]], {}),
    "DSIN": ([SESSIONS, ["item_id"]], {"sess_max_count": 2, "att_embedding_size": 2, "att_head_num": 2}),
    "FGCNN": (NO_NUMBERS, {"conv_kernel_width": (2,), "conv_filters": (3,), "new_maps": (2,), "pooling_width": (1,)}),
    "FLEN": ([GROUPS, GROUPS], {}),
    "PNN": ([PLAIN], {}),
}
# They have no layer that reads all features; where knowledge is to enter instead.
AT = {"AFM": "prediction_layer", "MLR": "prediction_layer"}
# Their Lambdas are code, which Keras loads from files that one made oneself.
WITH_CODE = {"CCPM", "DIFM", "DeepFEFM", "IFM", "MMOE", "PLE"}
UNSAVED = {"FGCNN"}  # of its layers' configs Keras can write none, with or without knowledge: its weights alone
FAILS = {"DIEN"}  # by itself: its GRU asks TensorFlow for what 2.21 no longer has


def built(name: str) -> Any:
    args, options = ASKED.get(name, (ALL, {}))
    return getattr(deepctr.models, name)(*args, **options)


def knowledge() -> KnowledgeAugmentation:
    random = np.random.default_rng(0)
    tables = {"user_id": random.normal(size=(USERS, 6)), "item_id": random.normal(size=(ITEMS, 6))}
    return KnowledgeAugmentation({n: v.astype("float32") for n, v in tables.items()}, expert_units=(8, 3))


def inputs_of(model: Any) -> dict[str, Any]:
    """One row a sample, every column of the shape that the model says."""
    random, given = np.random.default_rng(1), {}
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        shape = (ROWS, *tensor.shape[1:])
        most = USERS if name == "user_id" else ITEMS
        values = random.normal(size=shape) if name == "age" else random.integers(1, most, shape)
        given[name] = np.full(shape, 2) if name.endswith("_length") else values
    return {name: tf.constant(values.astype("float32" if name == "age" else "int32")) for name, values in given.items()}


def flat(model: Any, inputs: Any) -> np.ndarray:
    return np.concatenate([np.asarray(each) for each in tf.nest.flatten(model(inputs, training=False))], axis=1)


# TensorFlow and this package are there; the model comes from its file.
_READ = """
import sys, numpy as np
folder, file, safe_mode = sys.argv[1:]
from kar_aug import load_model
given = dict(np.load(f"{folder}/inputs.npz"))
model = load_model(file, safe_mode=safe_mode == "safe")
outputs = model({name: given[name] for name in model.input_names}, training=False)
outputs = outputs if isinstance(outputs, list) else [outputs]
np.save(f"{folder}/outputs.npy", np.concatenate([np.asarray(each) for each in outputs], axis=1))
"""


def test_all_that_deepctr_has_stands_in_the_table() -> None:
    assert {case if isinstance(case, str) else case.values[0] for case in TABLE} | FAILS == set(MODELS)


@pytest.mark.filterwarnings("ignore:.tf.nn.rnn_cell.GRUCell. is deprecated")
def test_what_does_not_build_is_deepctrs_own_fault() -> None:
    with pytest.raises(AttributeError, match=r"rnn|array_ops"):  # the second where AutoGraph does not know the Python
        deepctr.models.DIEN(HISTORY, ["item_id"])


TELLING = ("xDeepFM", "MMOE")  # embeddings that branches share; two outputs and Lambdas. test_backbones has three more
TABLE = [
    name if name in TELLING else pytest.param(name, marks=pytest.mark.exhaustive) for name in sorted({*MODELS} - FAILS)
]


@pytest.mark.parametrize("name", TABLE)
def test_a_trained_model_gets_knowledge_and_is_the_same_until_it_is_trained_on(name: str, tmp_path: Path) -> None:
    model = built(name)
    given, label = inputs_of(model), [np.arange(ROWS) % 2] * len(model.outputs)
    ready(model, eagerly=True).fit(given, label, batch_size=ROWS, verbose=0)
    before, place = flat(model, given), AT.get(name)
    if place is not None:
        with pytest.raises(ValueError, match="neither a DNN nor a Dense layer"):
            augment(model, knowledge())
        place = next(layer for layer, _ in attachment_points(model) if layer.startswith(place))
    augmented, outputs, weights = augment(model, knowledge(), at=place), model.output_names, len(model.weights)
    np.testing.assert_allclose(flat(augmented, given), before, rtol=0, atol=1e-6)
    assert augmented.output_names == outputs
    ready(augmented, eagerly=True).fit(given, label, batch_size=ROWS, epochs=2, verbose=0)
    expected = flat(augmented, given)
    assert np.abs(expected - before).max() > 1e-4
    assert np.abs(augmented.get_layer("knowledge_projection").get_weights()[0]).max() > 0, "knowledge is learnt from"
    serving = prestore(augmented)
    np.testing.assert_allclose(flat(serving, given), expected, rtol=0, atol=1e-5)
    served = tf.saved_model.load(str(export(serving, tmp_path / "serving"))).signatures["serving_default"]
    asked = served.structured_input_signature[1]  # which casts nothing, as Keras does: DSIN's lengths are floats
    raw = served(**{n: tf.reshape(tf.cast(given[n], t.dtype), (ROWS, *t.shape[1:])) for n, t in asked.items()})
    found = np.sort(np.concatenate([np.asarray(each) for each in raw.values()], axis=1))
    np.testing.assert_allclose(found, np.sort(expected), rtol=0, atol=1e-5)
    if name in UNSAVED:
        for each in (model, augmented):
            with pytest.raises(ValueError, match="Invalid input for serialization"):
                each.save(tmp_path / "model.keras")
        augmented.save_weights(tmp_path / "model.weights.h5")
        again = augment(built(name), knowledge())
        again.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(flat(again, given), expected)
        return
    np.savez(tmp_path / "inputs.npz", **given)
    mode = "unsafe" if name in WITH_CODE else "safe"
    for file in ("model.keras", "model.h5"):
        augmented.save(tmp_path / file)
        done = fresh(Path(__file__).parent, "-c", _READ, str(tmp_path), str(tmp_path / file), mode)
        assert done.returncode == 0, done.stderr[-3000:]
        np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, rtol=0, atol=1e-6)
    again = load_model(tmp_path / "model.keras", safe_mode=mode == "safe")
    assert len(again.weights) == len(augmented.weights) > weights, "what was shared is still one"
