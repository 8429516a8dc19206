"""A function of many rows, some rows at a time: for what is large only in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kar_aug._helpers.keras import tf
from kar_aug.layers._ops.portable import is_portable

# Bytes at a time. A processor's caches hold so much; a GPU is given all at once.
_BLOCK = 2**21
_BLOCK_OF_A_GPU = 2**30


def by_blocks(function: Callable[[Sequence[Any]], Any], tensors: Sequence[Any], bytes_of_a_row: Any, dtype: Any) -> Any:
    """`function` of tensors (rows, ...), as if it were called with all rows.

    Args:
        function: (some rows, ...) each -> (some rows, ...); the last rows that it is given may be zeros.
        bytes_of_a_row: that it needs in between.
        dtype: of what it returns.
    """
    if is_portable():  # a loop is what other runtimes are worst at, and a request has few rows
        return function(tensors)
    rows = tf.shape(tensors[0])[0]
    most = _BLOCK_OF_A_GPU if tf.config.list_physical_devices("GPU") else _BLOCK
    block = tf.clip_by_value(most // tf.maximum(1, bytes_of_a_row), 1, tf.maximum(1, rows))
    missing = tf.maximum(1, -(-rows // block)) * block - rows  # of the last block, of which there is one for no rows

    padded = [tf.pad(tensor, [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)]) for tensor in tensors]

    def of_block(start: Any) -> Any:
        def some(tensor: Any) -> Any:  # a slice of whole rows is no copy
            first, size = [start, *[0] * (len(tensor.shape) - 1)], [block, *tf.unstack(tf.shape(tensor)[1:])]
            return tf.ensure_shape(tf.slice(tensor, first, size), [None, *tensor.shape[1:]])

        return function([some(tensor) for tensor in padded])

    starts = tf.range(0, rows + missing, block)
    found = tf.map_fn(of_block, starts, fn_output_signature=dtype, parallel_iterations=2)
    return tf.reshape(found, tf.concat([[-1], tf.shape(found)[2:]], axis=0))[:rows]
