"""Sums over a user's events, against NumPy written event by event, and kept for users. On both of Keras's APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3
from support.training import predicted

from kar_aug import KnowledgeAugmentation, VectorStore, export, load_model
from kar_aug._helpers.keras import keras, tf
from kar_aug.backbones.injections.state import State
from kar_aug.cache import StoreSpec
from kar_aug.errors import StoreError
from kar_aug.layers import EventMask, KnowledgeState
from kar_aug.models import UserStates, states_as_inputs
from kar_aug.online import Rows, check, publish

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
ITEMS, UNKNOWN = 12, 5


def layer_on(vectors: np.ndarray, **options: Any) -> KnowledgeState:
    """One that compares vectors as they are."""
    return KnowledgeState(vectors, components=None, centre=False, unit=False, **options)


@st.composite
def histories(draw: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Vectors of items, and candidates, events, values and masks of four rows: the candidate of the first is unknown,
    the second has no history, the third's is one item again and again, and gaps are anywhere.
    """
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    length, width = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    vectors = random.normal(size=(ITEMS, width)).astype("float32")
    vectors[[0, UNKNOWN]] = 0
    candidate, events = random.integers(1, ITEMS + 3, 4), random.integers(0, ITEMS + 3, (4, length))
    candidate[0], events[2] = UNKNOWN, events[2, :1]
    mask = (events > 0) & (random.random((4, length)) < 0.8)
    mask[1] = False
    values = random.integers(1, 6, (4, length)) * draw(st.sampled_from([1.0, 0.0]))
    return vectors, [candidate, events, values.astype("float32"), mask.astype("float32")]


def vector(vectors: np.ndarray, id: int) -> np.ndarray:
    return vectors[id].astype(float) if 0 < id < len(vectors) else np.zeros(vectors.shape[1])


def told(vectors: np.ndarray, candidate: int, events: Any, values: Any, mask: Any) -> list[float]:
    """The numbers of one row, in the order of the names."""
    asked, met = vector(vectors, candidate), [(e, v) for e, v, m in zip(events, values, mask, strict=True) if m]
    if not met or not asked.any():
        return [0.0] * 5
    mean = np.mean([v for _, v in met])
    liked, seen = np.zeros(len(asked)), np.zeros(len(asked))
    for event, value in met:
        liked += (value - mean) * vector(vectors, event)
        seen += vector(vectors, event)
    scale = np.sqrt(len(asked)) / (1 + len(met))
    columns = [(scale * asked @ each, asked @ each / (1 + np.linalg.norm(each))) for each in (liked, seen)]
    return [*columns[0], *columns[1], np.log(1 + len(met)) / np.log(51)]


@settings(max_examples=examples(60))
@given(case=histories())
def test_a_state_tells_what_its_formula_says(case: Any) -> None:
    vectors, rows = case
    layer = layer_on(vectors)
    found = np.asarray(layer(rows))
    expected = [told(vectors, *row) for row in zip(*rows, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.shape[1] == len(layer.names) and not found[:2].any(), "exactly nothing"


@settings(max_examples=examples(40))
@given(case=histories(), seed=st.integers(0, 10**6))
def test_an_event_is_added_to_a_state_and_the_state_tells_what_the_events_do(case: Any, seed: int) -> None:
    vectors, (candidate, events, values, mask) = case
    layer = layer_on(vectors)
    states = np.asarray(layer.state_of(events, values, mask))
    assert states.shape == (4, layer.state_width) == (4, 2 * vectors.shape[1] + 2)
    one = np.random.default_rng(seed).integers(1, ITEMS, (4, 1))
    worth, there = np.full((4, 1), 2.5, "float32"), np.ones((4, 1), "float32")
    longer = [np.concatenate(pair, axis=1) for pair in ((events, one), (values, worth), (mask, there))]
    added = states + np.asarray(layer.state_of(one, worth, there))
    np.testing.assert_allclose(layer.state_of(*longer), added, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer([candidate, added]), layer([candidate, *longer]), rtol=1e-4, atol=1e-4)


def test_neither_order_nor_padding_nor_a_shift_of_all_values_changes_what_is_told() -> None:
    random = np.random.default_rng(0)
    layer = layer_on(random.normal(size=(ITEMS, 4)).astype("float32"))
    candidate, events = random.integers(1, ITEMS, 6), random.integers(1, ITEMS, (6, 9))
    values, mask = random.integers(1, 6, (6, 9)).astype("float32"), np.ones((6, 9), "float32")
    expected = np.asarray(layer([candidate, events, values, mask]))
    order = random.permutation(9)
    shuffled = layer([candidate, *(each[:, order] for each in (events, values, mask))])
    padded = layer([candidate, *(np.pad(each, ((0, 0), (30, 0))) for each in (events, values, mask))])
    for other in (shuffled, padded, layer([candidate, events, values + 7, mask])):
        np.testing.assert_allclose(other, expected, atol=1e-4)


def test_values_that_are_all_the_same_like_nothing_more_than_another() -> None:
    layer = layer_on(np.eye(ITEMS, 4, dtype="float32") + 0.1)
    events, mask = np.full((1, 40), 2), np.ones((1, 40), "float32")
    found = dict(zip(layer.names, np.asarray(layer([np.asarray([2]), events, 3.3 * mask, mask]))[0], strict=True))
    assert abs(found["preference"]) < 1e-4 > abs(found["towards liked"]) and found["similarity"] > 1


def test_what_values_are_made_of_can_be_trained() -> None:
    layer = layer_on(np.eye(ITEMS, 4, dtype="float32"))
    values = tf.Variable([[1.0, 2.0], [1.0, 1.0]])
    with tf.GradientTape() as tape:
        told_now = layer([np.asarray([1, 2]), np.asarray([[1, 2], [3, 3]]), values, np.ones((2, 2), "float32")])
        total = tf.reduce_sum(told_now[:, 0])
    slope = np.asarray(tape.gradient(total, values))
    assert np.isfinite(slope).all()
    # Of the first: 2 ((v1 - v2) / 2) / 3, of the second nothing, whose candidate is like none of its events.
    np.testing.assert_allclose(slope, [[1 / 3, -1 / 3], [0, 0]], atol=1e-5)


def test_it_comes_back_from_its_settings() -> None:
    layer = KnowledgeState(np.random.default_rng(0).normal(size=(90, 70)), components=8)
    assert (layer.vector_width, layer.state_width) == (8, 18)
    assert keras.layers.deserialize(keras.layers.serialize(layer)).get_config() == layer.get_config()


USERS, LENGTH = 7, 6
LOG = np.random.default_rng(3)
OF_USERS = LOG.integers(1, ITEMS, (USERS, LENGTH)) * (np.arange(LENGTH) < LOG.integers(0, LENGTH + 1, (USERS, 1)))
OF_USERS[0] = 0  # nobody knows the first
WORTH = (OF_USERS > 0) * LOG.integers(1, 6, OF_USERS.shape)
NAMES = [f"u{user}" for user in range(USERS)]


def log_of_users() -> pd.DataFrame:
    """A row an event, in no order."""
    user, place = np.nonzero(OF_USERS)
    names = [NAMES[each] for each in user]
    log = pd.DataFrame({"user": names, "item": OF_USERS[user, place], "rating": WORTH[user, place]})
    return log.sample(frac=1, random_state=0)


def states_of(log: pd.DataFrame, layer: KnowledgeState) -> UserStates:
    states = UserStates(layer)
    states.add(log.user, log.item, log.rating)
    return states


@pytest.fixture
def layer() -> KnowledgeState:
    vectors = np.random.default_rng(1).normal(size=(ITEMS, 9)).astype("float32")
    vectors[UNKNOWN] = 0
    return KnowledgeState(vectors, components=4, source_name="item")


def test_states_of_a_log_are_those_of_histories_however_the_events_come(layer: KnowledgeState) -> None:
    log = log_of_users()
    expected = np.asarray(layer.state_of(OF_USERS, WORTH, EventMask(dtype="float32")(OF_USERS)))
    at_once, one_by_one = states_of(log, layer), UserStates(layer)
    for event in log.itertuples():
        one_by_one.add([event.user], [event.item], [event.rating])
    for states in (at_once, one_by_one):
        np.testing.assert_allclose(states.of(NAMES), expected, rtol=1e-5, atol=1e-5)
        assert sorted(states.users) == sorted(set(log.user)) and not states.of(["nobody"]).any()
    at_once.add([], [], [])
    at_once.add(["new"], [0], [3.0])
    assert "new" not in at_once.users, "0 is no event"


def test_more_events_than_a_block_are_summed_as_if_they_were_one(layer: KnowledgeState) -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 50, 40_000), random.integers(1, ITEMS, 40_000)
    states, vectors = UserStates(layer), layer.held()[0]
    states.add(users, items, np.ones(40_000))
    for user in (0, 49):
        met = vectors[items[users == user]].astype(float).sum(axis=0)
        np.testing.assert_allclose(states.of([user])[0, 5:9], met, rtol=1e-4, atol=1e-2)
        assert states.of([user])[0, -1] == (users == user).sum()


def test_states_are_a_store_that_is_brought_up_to_date_and_read_again(layer: KnowledgeState, tmp_path: Path) -> None:
    log, path = log_of_users(), tmp_path / "states"
    states = states_of(log.iloc[:10], layer)
    before = states.save(path)
    assert before.spec.dimension == layer.state_width and sorted(before.ids) == sorted(states.users)
    assert states.save(path).manifest.generation == before.manifest.generation, "nothing is new"
    again, rest = UserStates.open(path, layer), log.iloc[10:]
    again.add(rest.user, rest.item, rest.rating)
    again.forget([log.user.iloc[0], "nobody"])
    store = again.save(path, as_of="2026-01-01")
    kept = [user for user in sorted(set(log.user)) if user != log.user.iloc[0]]
    assert sorted(store.ids) == sorted(again.users) == kept and store.manifest.as_of == "2026-01-01"
    np.testing.assert_allclose(store.gather(kept), states_of(log, layer).of(kept), rtol=1e-5, atol=1e-5)
    place = str(tmp_path / "online")
    assert publish(Rows(store, "user"), place).written == len(kept) and not publish(Rows(store, "user"), place).written
    assert check(Rows(store, "user"), place).sound
    other = KnowledgeState(np.random.default_rng(8).normal(size=(ITEMS, 9)), components=4, source_name="item")
    with pytest.raises(StoreError, match=r"was made with encoder 'states of item .* not .* layer '.*' cannot read it"):
        UserStates.open(path, other)


def test_events_that_cannot_be_added_are_refused_and_change_nothing(layer: KnowledgeState) -> None:
    states = UserStates(layer)
    with pytest.raises(ValueError, match=r"Received shapes: \(2,\), \(1,\) and \(2,\)"):
        states.add([1, 2], [1], [1, 1])
    with pytest.raises(ValueError, match="What event 1 was worth is nan"):
        states.add([1, 2], [1, 2], [1, np.nan])
    with pytest.raises(ValueError, match=r"ids of 'item' are integers, but strings came"):
        states.add([1, 2], ["a", "b"], [1, 2])
    with pytest.raises(StoreError, match="all integers or all strings"):
        states.add([1, "b"], [1, 2], [1, 2])
    assert not states.users


def of_events() -> Any:
    """A model of events, by the knowledge of two sources."""
    random = np.random.default_rng(5)
    tables = {name: random.normal(size=(ITEMS, 6)).astype("float32") for name in ("item", "item.reviews")}
    inputs = {
        "item": keras.Input((1,), name="item", dtype="int32"),
        "past_item": keras.Input((LENGTH,), name="past_item", dtype="int32"),
        "past_value": keras.Input((LENGTH,), name="past_value"),
        "age": keras.Input((1,), name="age"),
    }
    injected = State(vectors={"components": 3})(KnowledgeAugmentation(tables, expert_units=(4, 3)), inputs)
    hidden = keras.layers.Dense(5, "relu")(keras.layers.Concatenate()([inputs["age"], *injected.dense]))
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="click")(hidden))


def test_a_model_of_states_predicts_what_that_of_events_does_and_is_saved_and_served(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model, log = of_events(), log_of_users()
    other = {"item": np.arange(5, 5 + USERS)[:, None].astype("int32"), "age": np.ones((USERS, 1), "float32")}
    rows = {**other, "past_item": OF_USERS.astype("int32"), "past_value": WORTH.astype("float32")}
    expected = predicted(model, rows)
    assert np.ptp(expected) > 0.01
    served = states_as_inputs(model)
    kept = [each for each in served.layers if isinstance(each, KnowledgeState)]
    given_now = {**other, **{f"{each.source_name}_state": states_of(log, each).of(NAMES) for each in kept}}
    names = {tensor.name.split(":")[0] for tensor in served.inputs}
    assert names == given_now.keys() == {"item", "age", "item_state", "item.reviews_state"}
    np.testing.assert_allclose(predicted(served, given_now), expected, atol=1e-5)
    np.testing.assert_array_equal(predicted(model, rows), expected, err_msg="the former model is what it was")
    served.save(str(tmp_path / "served.keras"))
    loaded = load_model(tmp_path / "served.keras")
    np.testing.assert_allclose(predicted(loaded, given_now), expected, atol=1e-5)
    of_tensorflow = tf.saved_model.load(str(export(loaded, tmp_path / "out"))).signatures["serving_default"]
    answer = of_tensorflow(**{name: tf.constant(each) for name, each in given_now.items()})["ctr"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"no KnowledgeState of events.*, but '.*', elsewhere or of states already"):
        states_as_inputs(served)


def test_items_of_a_store_are_summed_by_their_own_names(tmp_path: Path) -> None:
    names = [f"i{item}" for item in range(8)]
    with VectorStore.writer(tmp_path / "items", StoreSpec("encoder", 5)) as writer:
        writer.append(names, names, np.random.default_rng(0).normal(size=(8, 5)))
    layer = KnowledgeState(VectorStore.open(tmp_path / "items"), components=3)
    states = UserStates(layer)
    states.add([7, 7, 8, 8], ["i1", "nowhere", "i2", ""], [1, 0, 1, 1])
    assert states.of([7, 8])[:, -1].tolist() == [2, 1]
    events = np.asarray([["i1", "nowhere"], ["i2", ""]])
    expected = layer.state_of(events, np.asarray([[1, 0], [1, 1]]), EventMask(dtype="float32")(events))
    np.testing.assert_allclose(states.of([7, 8]), expected, atol=1e-6)
