"""Products with the vectors of events, however they are computed: many users or one, some rows at a time, by XLA."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples, same_on_keras_3

from kar_aug._helpers.keras import tf
from kar_aug.layers._ops import ops

pytestmark = [pytest.mark.both_keras, same_on_keras_3]
ITEMS, WIDTH = 9, 4


@settings(max_examples=examples(15), deadline=None)
@given(
    rows=st.integers(0, 12), heads=st.integers(1, 3), length=st.integers(1, 5), block=st.integers(1, 300),
    users=st.sampled_from(["one", "many", "first and last"]), seed=st.integers(0, 10**6),
    dtype=st.sampled_from(["float32", "float16", "float64"]), known=st.booleans(),
)  # fmt: skip
def test_products_and_their_slopes_are_those_of_numpy(
    rows: int, heads: int, length: int, block: int, users: str, seed: int, dtype: str, known: bool
) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(size=(ITEMS, WIDTH)).astype("float32")
    places = random.integers(0, ITEMS, (rows, length)).astype("int32")
    if users == "one" and rows:
        places[:] = places[0]
    elif rows:
        places[-1] = places[0]
    tolerance = {"rtol": 2e-2, "atol": 3e-2} if dtype == "float16" else {"rtol": 1e-5, "atol": 1e-5}
    of_vectors, of_events = "bhw,blw->bhl", "bhl,blw->bhw"
    for product, size, formula, back in (
        (ops.products_with_rows, WIDTH, of_vectors, of_events),
        (ops.sums_of_rows, length, of_events, of_vectors),
    ):
        left = random.normal(size=(rows, heads, size)).astype(dtype)
        shape = (None, heads, size if known else None)

        @tf.function(
            input_signature=[tf.TensorSpec(shape, dtype), tf.TensorSpec((None, length if known else None), "int32")]
        )
        def both(left: tf.Tensor, places: tf.Tensor, product: object = product) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(left)
                found = product(left, tf.constant(table), places)
                total = tf.reduce_sum(found**2)
            return found, tape.gradient(total, left)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kar_aug.layers._ops.by_blocks._BLOCK", block)
            found, slope = both(left, places)
        expected = np.einsum(formula, left.astype(float), table[places])
        np.testing.assert_allclose(found, expected, **tolerance)
        np.testing.assert_allclose(
            slope,
            2 * np.einsum(back, expected, table[places]),
            **{**tolerance, "atol": 0.1 if dtype == "float16" else 1e-4},
        )


@pytest.mark.parametrize("users", ["one", "many"])
def test_xla_comes_to_the_same(users: str) -> None:
    random = np.random.default_rng(0)
    table, left = (
        random.normal(size=(ITEMS, WIDTH)).astype("float32"),
        random.normal(size=(7, 1, WIDTH)).astype("float32"),
    )
    places = np.broadcast_to(random.integers(0, ITEMS, (1 if users == "one" else 7, 5)), (7, 5)).astype("int32")
    compiled = tf.function(
        lambda left, places: ops.products_with_rows(left, tf.constant(table), places), jit_compile=True
    )
    np.testing.assert_allclose(compiled(left, places), np.einsum("bhw,blw->bhl", left, table[places]), atol=1e-5)
