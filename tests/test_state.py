"""Sums over a user's events, against NumPy written event by event, and kept for users. On both of Keras's APIs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3

from kar_aug._helpers.keras import keras, tf
from kar_aug.layers import KnowledgeState

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
