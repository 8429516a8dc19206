"""The largest numbers of many columns, by comparing whole rows: a processor compares eight numbers of two rows at once,
and `tf.math.top_k` one number with another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from kar_aug._helpers.keras import tf

# Rows that are merged one by one, in a graph of some hundred operations; of more rows, groups are merged together.
_MOST_ROWS = 32


def largest(tensor: Any, count: int) -> Any:
    """What is largest in each column, in descending order: (rows, columns) -> (at most `count`, columns)."""
    rows = int(tensor.shape[0])

    @tf.custom_gradient
    def found_in(tensor: Any) -> tuple[Any, Callable[[Any], Any]]:
        def slope_of_all(slope: Any) -> Any:
            places = tf.math.top_k(tf.transpose(tensor), min(count, rows))[1]
            return tf.einsum("kc,ckr->rc", slope, tf.one_hot(places, rows, dtype=slope.dtype))

        return _traced(rows, count, tensor.dtype.name)(tensor), slope_of_all

    return found_in(tensor)


@cache
def _traced(rows: int, count: int, dtype: str) -> Callable[[Any], Any]:
    """Traced once for all models: these are many operations."""
    signature = [tf.TensorSpec((rows, None), dtype)]
    return tf.function(lambda tensor: _by_groups(tensor, count), input_signature=signature)


def _by_groups(tensor: Any, count: int) -> Any:
    rows = int(tensor.shape[0])
    if rows <= max(_MOST_ROWS, 2 * count):
        return tf.stack(_largest(tf.unstack(tensor), count))
    groups = -(-rows // max(_MOST_ROWS, 2 * count))
    of_a_group = -(-rows // groups)
    padded = tf.pad(tensor, [[0, groups * of_a_group - rows], [0, 0]], constant_values=tensor.dtype.min)
    found = _largest(tf.unstack(tf.reshape(padded, [of_a_group, -1])), count)
    return _by_groups(tf.reshape(tf.stack(found), [len(found) * groups, -1]), count)


def _largest(rows: Sequence[Any], count: int) -> list[Any]:
    if len(rows) == 1:
        return list(rows)
    half = len(rows) // 2
    return merged(_largest(rows[:half], count), _largest(rows[half:], count))[:count]


def merged(left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
    """One descending list of two, of any lengths: Batcher's odd-even merge (Knuth, volume 3, section 5.3.4)."""
    if not left or not right:
        return [*left, *right]
    if len(left) == len(right) == 1:
        return [tf.maximum(left[0], right[0]), tf.minimum(left[0], right[0])]
    first, *even = merged(left[::2], right[::2])
    odd = merged(left[1::2], right[1::2])
    pairs = list(zip(odd, even, strict=False))
    compared = [either for pair in pairs for either in (tf.maximum(*pair), tf.minimum(*pair))]
    return [first, *compared, *odd[len(pairs) :], *even[len(pairs) :]]
