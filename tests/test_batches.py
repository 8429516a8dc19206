"""Batches: every sample once an epoch, in an order that the seed and the epoch alone decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_tables import EVENTS, ITEMS

from kar_aug.compare.batches import Batches, TrainingBatches
from kar_aug.compare.order import Order
from kar_aug.data import Tables, split_interactions
from kar_aug.data.building import build_samples
from kar_aug.data.encodings import FIRST, UNKNOWN
from kar_aug.data.samples import Samples
from kar_aug.errors import DataError

NAMES = ("item_id", "item", "price", "hist_item_id", "hist_rating")


def samples(**columns: Any) -> Samples:
    events = EVENTS.assign(**columns)
    return build_samples(
        Tables(events, ITEMS.assign(price=np.arange(8.0))),
        split_interactions(events, history=2),
        numeric={"price": "standard"},
        weight="weight" if "weight" in columns else None,
    )


def rows(batches: Batches) -> dict[str, np.ndarray]:
    """All that an epoch gives, and "label"."""
    found: dict[str, list[np.ndarray]] = {}
    for inputs, label, *weight in batches.dataset():
        for name, values in {**inputs, "label": label, **dict(zip(("weight",), weight, strict=False))}.items():
            found.setdefault(name, []).append(values.numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_a_model_gets_the_inputs_that_it_has_and_no_other() -> None:
    built = samples()
    found = rows(Batches(built, built.of("train"), NAMES, 7))
    assert set(found) == {*NAMES, "label"}
    for name, values in built.read(built.of("train"), NAMES).items():
        np.testing.assert_array_equal(found[name], values)
    np.testing.assert_array_equal(found["label"], built.label[built.of("train")])


def test_inputs_lie_apart_and_where_tensorflow_takes_them_as_they_are() -> None:
    built = samples()
    found = built.read(built.of("train"))
    events = {feature.name for feature in (*built.features, *built.keys) if feature.sequence}
    assert len(events) > 3 and all(found[name].ctypes.data % 64 == 0 for name in events)
    for number, name in enumerate(events, 1):
        found[name][:] = number
    assert all((found[name] == number).all() for number, name in enumerate(events, 1))


def test_each_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    built = samples()
    train = built.of("train")
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        batches = TrainingBatches(built, NAMES, 16, seed)
        batches.start(epoch)
        assert sorted(batches.order[:]) == train.tolist()
        orders.append(rows(batches))
    same = [all(np.array_equal(orders[0][n], other[n]) for n in orders[0]) for other in orders]
    assert same == [True, False, False, True]


def test_a_share_of_the_ids_is_given_as_unknown_and_knowledge_of_them_stays() -> None:
    built = samples()
    batches = TrainingBatches(built, NAMES, 16, 0, unknown_share=0.5)
    batches.start(3)
    found, plain = rows(batches), built.read(batches.order[:], NAMES)
    known = plain["hist_item_id"] >= FIRST
    assert 0.3 < (found["hist_item_id"][known] == UNKNOWN).mean() < 0.7
    assert 0.2 < (found["item_id"] == UNKNOWN).mean() < 0.8
    assert (found["hist_item_id"][~known] == plain["hist_item_id"][~known]).all(), "padding stays"
    for name in ("item", "hist_rating", "price"):
        np.testing.assert_array_equal(found[name], plain[name])


def test_weights_come_with_the_batches_where_there_are_some() -> None:
    built = samples(weight=1.0 + (EVENTS["item_id"] % 2))
    found = rows(Batches(built, built.of("train"), NAMES, 7))
    np.testing.assert_allclose(found["weight"], built.weight[built.of("train")])
    assert np.isclose(built.weight.mean(), 1) and len(np.unique(built.weight)) == 2


@given(
    count=st.integers(0, 300),
    pool=st.sampled_from([8, 32, 1000]),
    block=st.sampled_from([4, 8]),
    seed=st.integers(0, 9),
)
def test_shuffling_in_pools_of_blocks_loses_nothing(count: int, pool: int, block: int, seed: int) -> None:
    order = Order(np.arange(count) * 2, seed, pool, block)
    found = order[:]
    assert sorted(found) == list(range(0, 2 * count, 2))
    pieces = [order[start : start + 7] for start in range(0, count, 7)]
    np.testing.assert_array_equal(found, np.concatenate([found[:0], *pieces]))
    np.testing.assert_array_equal(found[13:29], Order(np.arange(count) * 2, seed, pool, block)[13:29])


def test_what_does_not_fit_into_a_pool_is_read_in_long_pieces() -> None:
    found = Order(np.arange(4096), 0, pool=512, block=64)[:]
    blocks = [set((found[start : start + 512] // 64).tolist()) for start in range(0, 4096, 512)]
    assert all(len(each) == 8 for each in blocks), "a pool holds whole blocks"
    assert len(np.unique(found[:64] // 64)) > 4, "and mixes them"


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([-1.0] * 120, "samples have none; the first holds -1.0."),
        ([np.nan] * 120, "samples have none; the first holds nothing."),
        (["2,5"] * 120, "samples have none; the first holds '2,5'."),
        ([0.0] * 120, "0 of "),
    ],
)
def test_weights_that_weigh_nothing_are_refused(weight: list[Any], said: str) -> None:
    with pytest.raises(DataError, match="weight: 'weight' must hold a number of at least 0 in each sample") as error:
        samples(weight=pd.Series(weight))
    assert said in str(error.value)
