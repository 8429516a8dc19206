"""The operations of Keras 3 on JAX and torch, under the names that the layers use."""

# ruff: noqa: A001 - the names are those of keras.ops

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from kar_aug._helpers.keras import BACKEND, dtype_name, keras

_ops = keras.ops
abs = _ops.abs
arange = _ops.arange
broadcast_to = _ops.broadcast_to
cast = _ops.cast
clip = _ops.clip
concatenate = _ops.concatenate
convert_to_numpy = _ops.convert_to_numpy
convert_to_tensor = _ops.convert_to_tensor
divide_no_nan = _ops.divide_no_nan
einsum = _ops.einsum
exp = _ops.exp
expand_dims = _ops.expand_dims
eye = _ops.eye
flip = _ops.flip
floor = _ops.floor
log = _ops.log
log1p = _ops.log1p
logical_and = _ops.logical_and
matmul = _ops.matmul
max = _ops.max
maximum = _ops.maximum
mean = _ops.mean
minimum = _ops.minimum
moments = _ops.moments
not_equal = _ops.not_equal
one_hot = _ops.one_hot
ones_like = _ops.ones_like
reshape = _ops.reshape
rsqrt = _ops.rsqrt
searchsorted = _ops.searchsorted
softmax = _ops.softmax
sort = _ops.sort
square = _ops.square
stack = _ops.stack
stop_gradient = _ops.stop_gradient
sum = _ops.sum
transpose = _ops.transpose
var = _ops.var
where = _ops.where
zeros = _ops.zeros
zeros_like = _ops.zeros_like


def name_scope(name: str) -> Any:
    """For weights' names in TensorFlow's files; here they are Keras's business alone."""
    return nullcontext()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that is called often, as a graph where that is faster; TensorFlow alone makes one."""
    return function


def for_each(function: Callable[[Any], object], values: Iterable[Any]) -> None:
    """Call it with each of the values; with several at once, where one call does not keep all cores busy."""
    for value in values:
        function(value)


def held(values: Any, dtype: Any = None) -> Any:
    """A tensor of an array's values or of `Parts`, with one copy of them."""
    return _ops.convert_to_tensor(np.asarray(values), dtype)


def take_along(tensor: Any, places: Any) -> Any:
    """Of each row of (batch, length, ...) what is at its places, (batch, count)."""
    deep = (..., *[None] * (len(tensor.shape) - 2))
    return _ops.take_along_axis(tensor, places[deep], axis=1)


def matvec(matrix: Any, vector: Any) -> Any:
    """Products of matrices with vectors, (..., m, n) x (..., n)."""
    return _ops.matmul(matrix, vector[..., None])[..., 0]


def split(tensor: Any, sizes: Sequence[int]) -> list[Any]:
    """Along the first axis, into parts of these sizes."""
    return list(_ops.split(tensor, np.cumsum(sizes)[:-1].tolist(), axis=0))


def fixed_shape(tensor: Any, shape: Any) -> Any:
    """The tensor, whose shape a graph is to know; here it always does."""
    return tensor


def dtype_of(tensor: Any) -> str:
    """The name of its type, "float32" or "string" say."""
    return dtype_name(tensor.dtype)


def lowest(tensor: Any) -> float:
    """The lowest number of its type."""
    return float(ml_dtypes.finfo(dtype_of(tensor)).min)


def is_symbolic(tensor: Any) -> bool:
    """Whether it is one of a model's graph that is being made, which knows Keras's own operations alone."""
    return isinstance(tensor, keras.KerasTensor)


def is_dense(given: Any) -> bool:
    """Whether what a layer was given is neither ragged nor sparse."""
    return not (getattr(given, "is_sparse", False) or getattr(given, "is_nested", False))


def sizes_of(tensor: Any) -> list[Any]:
    """A tensor's shape, known before anything is computed where it can be."""
    return list(tensor.shape)


def length_of(tensor: Any, axis: int) -> Any:
    """Of an axis, to compute with."""
    return tensor.shape[axis]


def at_most(count: int, tensor: Any, axis: int) -> Any:
    """`count`, or the length of an axis if it is shorter."""
    return min(count, tensor.shape[axis])


def largest(tensor: Any, count: int) -> Any:
    """What is largest in each column, in descending order: (rows, columns) -> (at most `count`, columns)."""
    columns = _ops.transpose(tensor)
    return _ops.transpose(_ops.top_k(columns, at_most(count, columns, 1))[0])


def unstack(tensor: Any) -> list[Any]:
    """What lies along the first axis; `keras.ops` has this name in its later versions alone."""
    return [tensor[place] for place in range(tensor.shape[0])]


def one_by_one() -> bool:
    """Whether several products take less time one after the other than as one of a batch."""
    return False


def size(tensor: Any) -> int:
    """How many numbers a tensor has."""
    return math.prod(tensor.shape)


def keys_of_strings(ids: Any) -> NoReturn:
    """The keys under which ids that are strings are looked up."""
    raise ValueError(
        f"Ids that are strings cannot be looked up on {BACKEND}: it has no strings. Number them, and give the layer a "
        "table for these integers: store.align(vocabulary)."
    )
