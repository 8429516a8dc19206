"""The operations on TensorFlow. Elsewhere it is said what they do; here, how they are done."""

# ruff: noqa: A001 - the names are those of keras.ops

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import IS_KERAS_3, dtype_name, keras, tf
from kar_aug._helpers.processes import cores
from kar_aug.cache.vectors.parts import Parts
from kar_aug.layers._ops import by_merging
from kar_aug.layers._ops.by_blocks import by_blocks
from kar_aug.layers._ops.portable import HASHES, first_places, hashes, is_portable

abs = tf.abs
arange = tf.range
broadcast_to = tf.broadcast_to
cast = tf.cast
clip = tf.clip_by_value
concatenate = tf.concat
convert_to_tensor = tf.convert_to_tensor
divide_no_nan = tf.math.divide_no_nan
einsum = tf.einsum
exp = tf.exp
expand_dims = tf.expand_dims
eye = tf.eye
flip = tf.reverse
floor = tf.floor
log = tf.math.log
log1p = tf.math.log1p
logical_and = keras.ops.logical_and if IS_KERAS_3 else operator.and_
matmul = tf.matmul
matvec = tf.linalg.matvec
max = tf.reduce_max
maximum = tf.maximum
mean = tf.reduce_mean
minimum = tf.minimum
moments = tf.nn.moments
not_equal = tf.not_equal
one_hot = tf.one_hot
ones_like = tf.ones_like
reshape = tf.reshape
rsqrt = tf.math.rsqrt
searchsorted = first_places
softmax = tf.nn.softmax
sort = tf.sort
split = tf.split
square = tf.square
stack = tf.stack
stop_gradient = tf.stop_gradient
sum = tf.reduce_sum
top_k = tf.math.top_k
transpose = tf.transpose
unstack = tf.unstack
var = tf.math.reduce_variance
where = tf.where
zeros = tf.zeros
zeros_like = tf.zeros_like

rows_at = tf.gather
size = tf.size
name_scope = tf.name_scope
fixed_shape = tf.ensure_shape

KEYS: Any = np.int64


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return tf.function(function, reduce_retracing=True)


def for_each(function: Callable[[Any], object], values: Iterable[Any]) -> None:
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(function, values):
            pass  # what one raised is raised here


def held(values: Any, dtype: Any = None) -> Any:
    # An array TensorFlow copies twice: for us, and to where a tensor may begin. What `Parts` makes it takes over.
    values = values if isinstance(values, Parts) else np.asarray(values)
    if not values.shape or tf.as_dtype(dtype or values.dtype) != tf.as_dtype(values.dtype):
        return tf.convert_to_tensor(np.asarray(values), dtype)
    return tf.convert_to_tensor(values if isinstance(values, Parts) else Parts([values]))


def take_along(tensor: Any, places: Any) -> Any:
    return tf.gather(tensor, places, batch_dims=1)


def dtype_of(tensor: Any) -> str:
    return dtype_name(tensor.dtype)


def lowest(tensor: Any) -> Any:
    return tensor.dtype.min


def is_symbolic(tensor: Any) -> bool:
    return IS_KERAS_3 and isinstance(tensor, keras.KerasTensor)


def is_dense(given: Any) -> bool:
    return not isinstance(given, (tf.RaggedTensor, tf.SparseTensor))


def sizes_of(tensor: Any) -> list[Any]:
    sizes = tf.shape(tensor)
    return [sizes[axis] if known is None else known for axis, known in enumerate(tensor.shape)]


def length_of(tensor: Any, axis: int) -> Any:
    return tf.shape(tensor)[axis]


def at_most(count: int, tensor: Any, axis: int) -> Any:
    return tf.minimum(count, sizes_of(tensor)[axis])


def convert_to_numpy(tensor: Any) -> npt.NDArray[Any]:
    return np.asarray(tf.convert_to_tensor(tensor))


def keys_of(ids: Any) -> Any:
    return hashes(ids) if ids.dtype == tf.string else tf.cast(ids, "int64")


def keys_of_strings(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.asarray(tf.strings.to_hash_bucket_fast(list(ids), HASHES))


def distinct(places: Any, size: int) -> tuple[Any, Any]:
    found, position = tf.unique(places)
    return found, position


def one_by_one() -> bool:
    return not tf.config.list_logical_devices("GPU")


def largest(tensor: Any, count: int) -> Any:
    if tensor.shape[0] is not None and one_by_one() and not is_portable():
        return by_merging.largest(tensor, count)
    columns = tf.transpose(tensor)
    return tf.transpose(tf.math.top_k(columns, at_most(count, columns, 1))[0])


def products_with_rows(queries: Any, table: Any, places: Any) -> Any:
    """The vectors are looked up and multiplied a block of rows at a time, forward and backward: written to memory
    whole, those of 50 events of 4,096 rows are 52 MB a step, which takes longer than all else together.
    """
    return _with_rows(queries, table, places, transposed=True)


def sums_of_rows(weights: Any, table: Any, places: Any) -> Any:
    """In blocks likewise."""
    return _with_rows(weights, table, places, transposed=False)


def _with_rows(left: Any, table: Any, places: Any, *, transposed: bool) -> Any:
    """A tensor times the vectors of each row, or times these transposed; the slope of the one is the other."""
    length, width = sizes_of(places)[1], table.shape[-1]

    def times_vectors(left: Any, *, transposed: bool) -> Any:
        def of_some(some: Sequence[Any]) -> Any:
            vectors = tf.cast(tf.gather(table, some[1]), left.dtype)  # (rows, length, width)
            return _small_products(some[0], vectors, transposed)

        def of_one_user() -> Any:
            vectors = tf.cast(tf.gather(table, places[0]), left.dtype)  # (length, width)
            flat = tf.reshape(left, [-1, sizes_of(left)[2]])
            found = tf.matmul(flat, vectors, transpose_b=transposed)
            return tf.reshape(found, [-1, left.shape[1], length if transposed else width])

        def of_users() -> Any:
            return by_blocks(of_some, [left, places], length * width * 4, left.dtype)

        if is_portable() or not one_by_one():
            return of_users()
        return tf.cond(_are_alike(places), of_one_user, of_users)

    @tf.custom_gradient
    def product(left: Any) -> tuple[Any, Callable[[Any], Any]]:
        return times_vectors(left, transposed=transposed), lambda slope: times_vectors(slope, transposed=not transposed)

    return product(left)


def _are_alike(rows: Any) -> Any:
    """Whether there are rows, and all are the same: the events of one user, of whom many candidates are asked about."""
    ends = tf.reduce_all(rows[:1] == rows[-1:]) & (tf.shape(rows)[0] > 0)  # says no at once, of a batch of many users
    return tf.cond(ends, lambda: tf.reduce_all(rows == rows[:1]), lambda: False)


def _small_products(left: Any, right: Any, transposed: bool) -> Any:
    """`tf.matmul`, which on a processor is oneDNN's; of one row at a time, Eigen's takes a third of its time, and this
    version of the operation is Eigen's.
    """
    if is_portable() or not one_by_one() or left.shape[1] != 1 or left.dtype != tf.float32:
        return tf.matmul(left, right, transpose_b=transposed)
    return tf.raw_ops.BatchMatMulV3(x=left, y=right, Tout=left.dtype, adj_y=transposed)


def if_equal(weight: Any, value: Any, tensor: Any, otherwise: str) -> Any:
    if tf.executing_eagerly() or is_portable():  # `value_now` tells it then
        return tensor
    is_equal = tf.cast(weight, "int32") == np.asarray(value).astype(np.int32)
    tf.debugging.Assert(is_equal, [otherwise])
    return tf.where(is_equal, tensor, np.nan)  # XLA leaves assertions out


def value_now(tensor: Any) -> npt.NDArray[Any] | None:
    """Asked while a graph is traced, it is of the moment: which is after weights were set and before they are used; of
    a graph that is only sketched, they may come yet.
    """
    if _is_sketched():
        return None
    with tf.init_scope():
        return convert_to_numpy(tensor) if tf.executing_eagerly() else None


def _is_sketched() -> bool:
    """Whether Keras only asks for shapes, as it does before it loads weights, and nothing is computed."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        name = getattr(graph, "name", "")
        if name == "build_graph" or "scratch_graph" in name:  # what both APIs call such graphs
            return True
        graph = getattr(graph, "outer_graph", None)
    return False
