"""What a knowledge source may be: raw ids, sequences with masks, any dimension, any coverage. Both Keras APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import same_on_keras_3
from support.training import predicted, ready

from kar_aug import GateUsage, KnowledgeAugmentation, KnowledgeTable, StoreError, VectorStore, refresh
from kar_aug._helpers.keras import keras, tf
from kar_aug.cache import StoreSpec
from kar_aug.registry import ADAPTORS

pytestmark = [pytest.mark.both_keras, same_on_keras_3]


def store(path: Path, ids: list[Any], dimension: int = 4) -> VectorStore:
    with VectorStore.writer(path, StoreSpec("encoder", dimension)) as writer:
        writer.append(ids, ["k"] * len(ids), np.random.default_rng(0).normal(size=(len(ids), dimension)))
    return VectorStore.open(path)


def randomised(augmentation: KnowledgeAugmentation) -> KnowledgeAugmentation:
    for i, weight in enumerate(augmentation.trainable_weights):
        weight.assign(np.random.default_rng(i).normal(size=weight.shape).astype("float32"))
    return augmentation


def test_four_sources_of_four_dimensions_and_kinds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tables = {
        "user": store(tmp_path / "users", ["ann", "bob"], 3),
        "item": store(tmp_path / "items", [10**12, 7], 4).align([None, 7, 10**12]),
        "query": random.normal(size=(5, 6)).astype("float16"),
        "context": store(tmp_path / "hours", list(range(24)), 2),
    }
    fields = KnowledgeAugmentation(tables, expert_units=(8, 4))(
        {
            "user": np.asarray(["bob", "eve"]),
            "item": np.asarray([2, 0], "int32"),
            "query": np.asarray([[4, 4, 1], [0, 9, -1]], "int32"),
            "context": np.asarray([[23], [3]], "int64"),
        }
    )
    assert {name: tuple(field.shape) for name, field in fields.items()} == {
        "user": (2, 4), "item": (2, 4), "query": (2, 3, 4), "context": (2, 4),
    }  # fmt: skip


@pytest.mark.parametrize("ids", [["tt0116282", "tt0086979", "Amélie"], [10**15, -3, 42]])
def test_raw_ids_get_what_their_places_in_a_vocabulary_get(tmp_path: Path, ids: list[Any]) -> None:
    items = store(tmp_path / "items", ids)
    raw = randomised(KnowledgeAugmentation({"item": items}, expert_units=(8, 4)))
    placed = randomised(KnowledgeAugmentation({"item": items.align(ids)}, expert_units=(8, 4)))
    unknown = "?" if isinstance(ids[0], str) else 999
    wanted = np.asarray([[ids[2], ids[0]], [unknown, ids[1]]])
    places = np.asarray([[2, 0], [-1, 1]], "int32")
    np.testing.assert_array_equal(
        np.asarray(raw({"item": wanted})["item"]), np.asarray(placed({"item": places})["item"])
    )


def test_a_large_id_does_not_pass_for_a_small_one() -> None:
    layer = randomised(KnowledgeAugmentation({"item": np.ones((3, 2), "float32")}, expert_units=(4,)))
    output = np.asarray(layer({"item": np.asarray([2**32 + 1, 1, -(2**40)], "int64")})["item"])
    np.testing.assert_array_equal(output[0], output[2])
    assert not np.array_equal(output[0], output[1])


def test_ids_that_cannot_be_told_apart_are_refused() -> None:
    from kar_aug.layers.lookup import sorted_keys

    with pytest.raises(StoreError, match="Ids 'a' and 'a' cannot be told apart"):
        sorted_keys(["a", "b", "a"])


def test_padding_gives_zeros_and_its_mask_reaches_the_next_layer() -> None:
    layer = randomised(KnowledgeAugmentation({"item": np.ones((5, 3), "float32")}, expert_units=(4,), mask_zero=True))
    ids = np.asarray([[1, 2, 0, 0], [3, 9, 4, 0]], "int32")
    output = np.asarray(layer({"item": ids})["item"])
    np.testing.assert_array_equal(output[ids == 0], 0)
    assert (output[ids != 0] != 0).any(axis=-1).all(), "an unknown id is no padding: it has the default vector"
    history = keras.Input((None,), name="item", dtype="int32")
    pooled = keras.layers.GlobalAveragePooling1D()(layer({"item": history})["item"])
    pooled = predicted(keras.Model(history, pooled), ids)
    np.testing.assert_allclose(pooled, output.sum(axis=1) / (ids != 0).sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_mask_given_with_the_ids_is_respected() -> None:
    layer = randomised(KnowledgeAugmentation({"item": np.ones((5, 3), "float32")}, expert_units=(4,)))
    mask = np.asarray([[True, False, True]])
    output = np.asarray(layer({"item": np.asarray([[1, 2, 3]], "int32")}, mask={"item": tf.constant(mask)})["item"])
    assert (output[mask] != 0).all() and (output[~mask] == 0).all()


@pytest.mark.parametrize(("adaptor", "kernels"), list(zip(ADAPTORS, (5, 5, 1, 1), strict=True)))
def test_each_adaptor_has_its_experts_and_learns(adaptor: str, kernels: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")
    layer = KnowledgeAugmentation({"item": vectors}, expert_units=(8, 4), adaptor=adaptor)
    assert layer.adaptor.experts == kernels
    assert (layer.adaptor.shared_experts > 0) == (adaptor == "hybrid-expert")
    ids = keras.Input((1,), name="item", dtype="int32")
    model = keras.Model(ids, keras.layers.Dense(1)(layer({"item": ids})["item"]))
    rows = np.arange(30, dtype="int32")[:, None]

    def loss() -> float:
        return float(np.square(predicted(model, rows) - vectors[:, :1]).mean())

    before, often = loss(), np.tile(rows, (40, 1))  # one long epoch: each begins anew at a cost
    ready(model, 0.02, "mse").fit(often, vectors[often[:, 0], :1], batch_size=30, verbose=0)
    assert loss() < 0.5 * before
    assert KnowledgeAugmentation.from_config({**layer.get_config(), "name": "again"}).adaptor_name == adaptor


def test_an_unknown_adaptor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`adaptor` must be one of \('hybrid-expert'"):
        KnowledgeAugmentation({"item": np.ones((2, 2))}, adaptor="moe")


def test_a_model_survives_a_change_of_coverage() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, 6)).astype("float32")
    before = KnowledgeTable.from_array(vectors, np.arange(20) < 12)
    layer = KnowledgeAugmentation({"item": before}, expert_units=(8, 4))
    ids = keras.Input((1,), name="item", dtype="int32")
    model = keras.Model(ids, keras.layers.Dense(1, activation="sigmoid")(layer({"item": ids})["item"]))
    ready(model, 0.001, eagerly=True)
    rows = np.arange(20, dtype="int32")[:, None]
    model.fit(rows, random.integers(0, 2, 20), epochs=3, verbose=0)
    more = refresh(model, {"item": vectors})
    fewer = refresh(model, {"item": KnowledgeTable.from_array(vectors, np.arange(20) < 5)})
    old, full, small = (predicted(m, rows)[:, 0] for m in (model, more, fewer))
    np.testing.assert_allclose(full[:12], old[:12], rtol=1e-5)
    np.testing.assert_allclose(small[:5], old[:5], rtol=1e-5)
    np.testing.assert_allclose(small[5:], old[12], rtol=1e-5)
    assert len(np.unique(full[12:])) == 8 and np.isfinite(full).all()
    with pytest.raises(ValueError, match="experts read vectors of"):
        refresh(model, {"item": np.ones((20, 5), "float32")})


def test_the_load_balancing_loss_spreads_the_gate() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    spread = {}
    for weight in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        layer = KnowledgeAugmentation({"item": vectors}, expert_units=(8, 4), load_balance=weight)
        ids = keras.Input((1,), name="item", dtype="int32")
        model = keras.Model(ids, keras.layers.Dense(1)(layer({"item": ids})["item"]))
        ready(model, 0.02, "mse")
        bias = next(w for w in layer.weights if "gate_item_bias" in w.name)
        bias.assign(np.asarray([3, 0, 0, 0, 0], "float32"))
        rows = np.arange(50, dtype="int32")[:, None]
        often = np.tile(rows, (50, 1))  # one long epoch: each begins anew at a cost
        model.fit(often, vectors[often[:, 0], :1], verbose=0)
        spread[weight] = layer.gate_usage({"item": rows})["item"].std()
    assert spread[1.0] < 0.5 * spread[0.0]


def test_gate_usage_is_logged_for_tensorboard(tmp_path: Path) -> None:
    layer = KnowledgeAugmentation({"item": np.eye(4, dtype="float32")}, expert_units=(8, 4))
    ids = keras.Input((1,), name="item", dtype="int32")
    model = keras.Model(ids, keras.layers.Dense(1)(layer({"item": ids})["item"]))
    ready(model, 0.001, "mse", eagerly=True)
    rows = np.arange(4, dtype="int32")[:, None]
    callback = GateUsage(layer, {"item": rows}, tmp_path)
    model.fit(rows, np.ones(4), epochs=2, verbose=0, callbacks=[callback])
    written = []
    for file in tmp_path.glob("events*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            written += [(event.step, v.tag, float(tf.make_ndarray(v.tensor))) for v in event.summary.value]
    assert {(step, tag) for step, tag, _ in written} == {
        (step, f"gate_usage/item/expert_{i}") for step in range(2) for i in range(5)
    }
    last = [weight for step, _, weight in written if step == 1]
    np.testing.assert_allclose(last, layer.gate_usage({"item": rows})["item"], rtol=1e-4)
