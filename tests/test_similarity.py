"""What is made of similarities, against NumPy written event by event. On both of Keras's APIs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3

from kar_aug._helpers.keras import keras, tf
from kar_aug.layers import (
    BilinearSimilarity,
    EventMask,
    EventValues,
    KnowledgeAttention,
    KnowledgeSimilarity,
    KnowledgeState,
    MostSimilar,
    SimilarityFeatures,
)
from kar_aug.layers._ops import ops

pytestmark = [pytest.mark.both_keras, same_on_keras_3]


@st.composite
def histories(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities, values and masks of a few rows: empty ones, unknown candidates, unknown events, duplicates."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    similarity = random.uniform(-1, 1, (rows, length)).round(1)  # ties, and some zeros
    similarity[random.random(rows) < 0.2] = 0
    there = random.integers(0, length + 1, rows)
    mask = (np.arange(length) < there[:, None]).astype("float32")
    values = random.integers(1, 6, (rows, length)) * draw(st.sampled_from([1.0, 0.0]))
    return similarity.astype("float32"), values.astype("float32"), mask


def features_of(similarity: np.ndarray, value: np.ndarray, mask: np.ndarray, layer: Any) -> dict[str, float]:
    """Those of one row, by the names of the columns."""
    full = np.log(1 + len(mask))
    mean = value[mask > 0].mean() if mask.any() else 0
    events = [(s, v - mean) for s, v, m in zip(similarity, value, mask, strict=True) if m and s]
    found = {"amount": np.log(1 + len(events)) / full}
    for i, (log_temperature, level) in enumerate(zip(*(w.astype(float) for w in layer.get_weights()), strict=True)):
        weights = [np.exp((s - level) / np.exp(log_temperature)) for s, _ in events]
        found[f"preference {i}"] = sum(w * v for w, (_, v) in zip(weights, events, strict=True)) / (1 + sum(weights))
        found[f"evidence {i}"] = np.log(1 + sum(weights)) / full
    for side, belongs in (("liked", lambda v: v > 1e-6), ("disliked", lambda v: v <= 1e-6)):
        nearest = sorted((s for s, v in events if belongs(v)), reverse=True)
        top = nearest[: layer.top]
        found[f"maximum {side}"] = nearest[0] if nearest else 0
        found[f"mean of top {layer.top} {side}"] = np.mean(top) if top else 0
        found[f"mean {side}"] = np.mean(nearest) if nearest else 0
        for i in range(layer.bins):
            low, high = (-1 + 2 * edge / layer.bins for edge in (i, i + 1))
            count = sum(low <= s < high or (s == 1 and i == layer.bins - 1) for s in nearest)
            found[f"tier {i} {side}"] = np.log(1 + count) / full
    return found


@settings(max_examples=examples(60))
@given(
    history=histories(), top=st.integers(1, 9), bins=st.sampled_from([0, 3]), cold=st.sampled_from([0.01, 0.05, 0.5])
)
def test_features_are_what_their_names_say(history: Any, top: int, bins: int, cold: float) -> None:
    layer = SimilarityFeatures((cold, 0.3), top, bins)
    found = np.asarray(layer(list(history)))
    assert found.shape[1] == len(layer.names) == len(set(layer.names))
    for row, similarity, value, mask in zip(found, *history, strict=True):
        expected = features_of(similarity, value, mask, layer)
        np.testing.assert_allclose(row, [expected[name] for name in layer.names], rtol=1e-3, atol=1e-4)
        if not (mask * similarity).any():
            assert not row.any(), "nothing that could be compared is exactly nothing"


@settings(max_examples=examples(60))
@given(
    rows=st.integers(1, 150), columns=st.integers(1, 3), count=st.integers(1, 40), decimals=st.integers(0, 3),
    known=st.booleans(), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_the_largest_of_columns_are_those_of_a_sort(
    rows: int, columns: int, count: int, decimals: int, known: bool, seed: int
) -> None:
    numbers = np.random.default_rng(seed).normal(size=(rows, columns)).round(decimals).astype("float32")  # with ties
    signature = [tf.TensorSpec((rows if known else None, columns))]
    found = tf.function(lambda tensor: ops.largest(tensor, count), input_signature=signature)(numbers)
    np.testing.assert_array_equal(found, -np.sort(-numbers, axis=0)[:count])


def test_padding_changes_nothing_where_histories_have_any_length() -> None:
    inputs = [keras.Input((None,)) for _ in range(3)]
    model = keras.Model(inputs, SimilarityFeatures(bins=2)(inputs))
    history = [np.asarray(each, "float32") for each in ([[0.9, 0.1, -0.4]], [[5, 1, 3]], [[1, 1, 1]])]
    padded = [np.pad(each, ((0, 0), (0, 40))) for each in history]
    alone, beside = (np.asarray(model(given)) for given in (history, padded))
    np.testing.assert_allclose(alone, beside, atol=1e-6)
    assert 0 < alone[0, SimilarityFeatures().names.index("amount")] < 1


def test_what_stands_where_there_is_no_event_changes_nothing() -> None:
    similarity, mask = np.asarray([[0.8, -0.2, 0.1, 0.0]], np.float32), np.asarray([[1.0, 1.0, 0.0, 0.0]], np.float32)
    zeros, nothing = (np.asarray([[1.0, 0.25, worth, worth]], np.float32) for worth in (0.0, np.nan))
    items, ids = np.eye(3, dtype=np.float32), np.asarray([[1, 2, 0, 0]])
    state = KnowledgeState(items)
    for told in (
        lambda values: SimilarityFeatures()([similarity, values, mask]),
        lambda values: EventValues()([values, mask]),
        lambda values: state([np.asarray([1]), ids, values, mask]),
    ):
        np.testing.assert_array_equal(np.asarray(told(nothing)), np.asarray(told(zeros)))


def test_a_candidate_like_a_liked_film_is_told_from_one_like_a_disliked_one() -> None:
    layer = SimilarityFeatures(temperatures=[0.1])
    inputs = [np.asarray(each) for each in ([[0.9, 0.1], [0.1, 0.9]], [[5.0, 1.0]] * 2, np.ones((2, 2)))]
    liked, disliked = np.asarray(layer(inputs))
    by_name = {name: (liked[i], disliked[i]) for i, name in enumerate(layer.names)}
    assert by_name["preference 0"][0] > 1.9 and by_name["preference 0"][1] < -1.9
    assert by_name["maximum liked"] == pytest.approx((0.9, 0.1))


@settings(max_examples=examples(40))
@given(history=histories(), count=st.integers(1, 9))
def test_the_most_similar_events_are_kept_in_their_order(history: Any, count: int) -> None:
    similarity, values, mask = history
    ids = np.arange(1, similarity.size + 1, dtype="int64").reshape(similarity.shape)
    kept, some_ids, some_values = MostSimilar(count)([similarity, mask, ids, values[..., None]])
    for row in range(len(ids)):
        events = [e for e in range(ids.shape[1]) if mask[row, e]]
        best = sorted(events, key=lambda e: (similarity[row, e], e), reverse=True)[:count]
        there = np.asarray(kept)[row] > 0
        np.testing.assert_array_equal(np.asarray(some_ids)[row][there], ids[row][sorted(best)])
        np.testing.assert_array_equal(np.asarray(some_values)[row][there, 0], values[row][sorted(best)])
    assert some_ids.dtype == tf.int64 and kept.shape[1] == min(count, ids.shape[1])


def attended(weights: Any, candidate: np.ndarray, events: np.ndarray, values: np.ndarray, mask: np.ndarray) -> Any:
    """The output of one row, head by head and event by event."""
    projection, log_temperature, level, null, kernel, bias = weights
    mixed = []
    for head in range(len(level)):
        temperature = np.exp(log_temperature[head])
        shares, read = [np.exp(level[head] / temperature)], [null[head]]
        for event, value, there in zip(events, values, mask, strict=True):
            if there and candidate.any() and event.any():
                shares.append(np.exp(candidate @ projection[head] @ event / temperature))
                read.append(value)
        mixed.append(np.asarray(shares) / sum(shares) @ np.asarray(read))
    return np.concatenate(mixed) @ kernel + bias


def attention_on(vectors: np.ndarray, width: int, heads: int) -> KnowledgeAttention:
    """One that compares vectors as they are."""
    return KnowledgeAttention(vectors, width, heads, components=None, centre=False, unit=False)


@settings(max_examples=examples(30))
@given(data=st.data())
def test_attention_and_its_slopes_are_what_its_formula_says(data: Any) -> None:
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 10**6)))
    rows, length, d, mixed = 4, draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    vectors = random.normal(size=(12, d)).astype("float32")
    vectors[[0, 5]] = 0  # nothing is known
    candidate, events = random.integers(1, 12, rows), random.integers(0, 12, (rows, length))
    candidate[0], events[2] = 5, events[2, :1]  # unknown; the same one again and again
    mask = ((random.random((rows, length)) < 0.7) & (events > 0)).astype("float32")
    mask[1] = 0  # an empty history
    values = random.normal(size=(rows, length, mixed)).astype("float32")
    layer, inputs = attention_on(vectors, 3, draw(st.integers(1, 3))), [candidate, events, values, mask]
    layer(inputs)
    for weight in layer.trainable_weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    weights = [np.asarray(weight, float) for weight in layer.trainable_weights]

    def outputs() -> np.ndarray:
        read = zip(vectors[candidate].astype(float), vectors[events].astype(float), values, mask, strict=True)
        return np.asarray([attended(weights, *row) for row in read])

    with tf.GradientTape() as tape:
        found = layer(inputs)
        total = tf.reduce_sum(found**2)
    np.testing.assert_allclose(found, outputs(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5, err_msg="what nothing is known of has the null event")
    projection = layer.trainable_weights[0]
    slope = tape.gradient(total, projection if isinstance(projection, tf.Variable) else projection.value)
    place = tuple(random.integers(0, size) for size in slope.shape)
    around = []
    for step in (1e-5, -2e-5):
        weights[0][place] += step
        around.append((outputs() ** 2).sum())
    np.testing.assert_allclose(slope[place], (around[0] - around[1]) / 2e-5, rtol=0.02, atol=1e-3)


def test_attention_is_a_cosine_before_it_is_trained() -> None:
    layer = attention_on(np.vstack([np.zeros((1, 3)), np.eye(3)]).astype("float32"), 2, heads=2)
    events = np.asarray([[1, 2, 3]])
    inputs = [np.asarray([2]), events, np.eye(3, dtype="float32")[None], np.ones((1, 3), "float32")]
    layer(inputs)
    layer.trainable_weights[-2].assign(np.eye(6, 2))  # the first head's first two numbers come out
    found = np.asarray(layer(inputs))[0]
    assert found[1] > 0.99 and found[0] < 0.01, "the head that is cold asks the same event alone"


def test_what_events_were_worth_is_spread_over_a_few_numbers() -> None:
    mask = np.asarray([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    values = EventValues()([np.asarray([[5, 3, 9], [2, 2, 2]], "int32"), mask])
    np.testing.assert_array_equal(values, [[[1, 5, 1, 1], [1, 3, -1, 1], [0] * 4], [[0] * 4] * 3])
    np.testing.assert_array_equal(EventMask()(np.asarray([[3, 0], [0, 0]])), [[1, 0], [0, 0]])
    np.testing.assert_array_equal(EventMask()(np.asarray([["a", ""]])), [[1, 0]])


def test_a_user_and_an_item_are_compared_by_learned_products() -> None:
    layer, random = BilinearSimilarity(heads=2), np.random.default_rng(0)
    user, item = random.normal(size=(3, 4)).astype("float32"), random.normal(size=(3, 5)).astype("float32")
    user[1] = 0
    found = np.asarray(layer([user, item]))
    (kernel,) = layer.get_weights()
    np.testing.assert_allclose(found, np.einsum("bd,hde,be->bh", user, kernel, item), rtol=1e-4, atol=1e-5)
    assert found.shape == (3, 2) and not found[1].any()


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (SimilarityFeatures, {"temperatures": []}),
        (SimilarityFeatures, {"temperatures": [0.1, -1]}),
        (SimilarityFeatures, {"top": 0}),
        (MostSimilar, {"count": 0}),
        (KnowledgeAttention, {"source": np.ones((3, 2)), "heads": 0}),
        (BilinearSimilarity, {"heads": 0}),
    ],
)
def test_options_that_make_no_sense_are_refused(layer: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        layer(**options)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        ("KnowledgeSimilarity", [(4, 5)]),
        ("KnowledgeSimilarity", [(4, 2), (4, 5)]),
        ("KnowledgeSimilarity", [(4,), (4,)]),
        ("KnowledgeSimilarity", [(4,), (4, 5, 2)]),
        ("KnowledgeAttention", [(4,), (4, 5), (4, 5), (4, 5)]),
        ("KnowledgeAttention", [(4,), (4, 5), (4, 3, 2), (4, 3)]),
        ("KnowledgeAttention", [(4,), (4, 5), (4, 5, 2)]),
        ("KnowledgeState", [(4,), (4, 7)]),
        ("KnowledgeState", [(4,), (4, 5), (4, 5)]),
        ("KnowledgeState", [(4,), (4, 5), (4, 3), (4, 5)]),
        ("SimilarityFeatures", [(4, 5), (4, 5)]),
        ("SimilarityFeatures", [(4, 5), (4, 5), (4, 1)]),  # which would be spread over all events
        ("SimilarityFeatures", [(4, 5, 1), (4, 5, 1), (4, 5, 1)]),
        ("EventValues", [(4, 5), (4, 1)]),
        ("MostSimilar", [(4, 5)]),
        ("MostSimilar", [(4, 5), (4, 5), (4, 2)]),
        ("BilinearSimilarity", [(4, 5, 3), (4, 3)]),
        ("BilinearSimilarity", [(4, 3)]),
    ],
)
def test_inputs_that_do_not_go_together_are_named_by_their_shapes(layer: str, shapes: list[tuple[int, ...]]) -> None:
    known: Any = {"KnowledgeSimilarity": KnowledgeSimilarity, "KnowledgeAttention": KnowledgeAttention}
    known["KnowledgeState"] = KnowledgeState
    others: Any = {"EventValues": EventValues(), "MostSimilar": MostSimilar(2)}
    others |= {"SimilarityFeatures": SimilarityFeatures(), "BilinearSimilarity": BilinearSimilarity()}
    made = known[layer](np.eye(6, dtype=np.float32)) if layer in known else others[layer]
    given = [ops.convert_to_tensor(np.ones(shape, np.int32 if layer in known else np.float32)) for shape in shapes]
    with pytest.raises(ValueError, match=rf"{layer} takes \[.*Received shapes: {re.escape(str(shapes[0]))}"):
        made(given)


def test_layers_come_back_from_their_settings() -> None:
    attention = KnowledgeAttention(np.ones((3, 2)), 5, 2)
    layers = [SimilarityFeatures([0.2], 3, 4), MostSimilar(7), attention, BilinearSimilarity(3)]
    for layer in layers:
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
        assert keras.layers.deserialize(keras.layers.serialize(layer)).get_config() == layer.get_config()
