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

    def in_blocks(tensor: Any) -> Any:
        padded = tf.pad(tensor, [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)])
        return tf.reshape(padded, tf.concat([[-1, block], tf.shape(tensor)[1:]], axis=0))

    blocks = tuple(in_blocks(tensor) for tensor in tensors)
    found = tf.map_fn(function, blocks, fn_output_signature=dtype, parallel_iterations=2)
    return tf.reshape(found, tf.concat([[-1], tf.shape(found)[2:]], axis=0))[:rows]
