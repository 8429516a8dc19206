"""What both augmentation layers do with ids: find their places in a table, and give every shape its meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._keras import IS_KERAS_3, keras, tf
from kar_aug.errors import StoreError
from kar_aug.layers.portable import HASHES, first_places, hashes


def keys_of(ids: Sequence[int | str]) -> npt.NDArray[np.int64]:
    """Raw ids as the integers under which the layers look them up: themselves, or a 64-bit hash of the text."""
    if len(ids) and isinstance(ids[0], str):
        return np.asarray(tf.strings.to_hash_bucket_fast(list(ids), HASHES))
    return np.asarray(ids, np.int64)


def sorted_keys(ids: Sequence[int | str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Keys of raw ids in ascending order, and the order: `keys[i]` belongs to `ids[order[i]]`.

    Raises:
        StoreError: An id comes twice, or two share a hash (odds of 1 in 10^7 for a million ids).
    """
    keys = keys_of(ids)
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(np.diff(keys[order]) == 0)
    if len(twice):
        first, second = (ids[order[twice[0] + i]] for i in (0, 1))
        raise StoreError(f"Ids {first!r} and {second!r} cannot be told apart. Rename one of them.")
    return keys[order], order


def positions(ids: Any, size: int, keys: Any = None) -> Any:
    """Per id its place in a table of `size` rows, int32, and `size` for an id that has none.

    Args:
        ids: integers or strings of any shape.
        keys: (size,) ascending keys of raw ids; None where ids are places already.
    """
    if keys is None:
        ids = ids if ids.dtype.is_integer else tf.cast(ids, "int64")
        # Compared in their own type: cast to 32 bits first, a large id would pass for a small one.
        return tf.cast(tf.where((ids >= 0) & (ids < size), ids, tf.cast(size, ids.dtype)), "int32")
    wanted = hashes(ids) if ids.dtype == tf.string else tf.cast(ids, "int64")
    flat = tf.reshape(wanted, [-1])
    place = tf.minimum(first_places(keys, flat), size - 1)
    return tf.reshape(tf.where(tf.gather(keys, place) == flat, place, size), tf.shape(ids))


def look_up_distinct(places: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """`function` of the places of each input, flattened: (number of ids, width), computed once for each distinct one.

    CTR batches repeat their ids: popular items, active users, the padding of histories.
    """
    flat = [tf.reshape(each, [-1]) for each in places]
    distinct, position = tf.unique(tf.concat(flat, axis=0) if len(flat) > 1 else flat[0])
    found = tf.gather(function(distinct), position)
    return tf.split(found, [tf.size(each) for each in flat]) if len(flat) > 1 else [found]


def sequence_mask(ids: Any, mask: Any, mask_zero: bool) -> Any:
    """Of the ids' shape, False where a sequence is padded; None for single ids, or if nothing says what padding is."""
    if not is_sequence(ids.shape) or (mask is None and not mask_zero):
        return None
    own = not_padding(ids) if mask_zero else None
    if mask is None or own is None:
        return own if mask is None else mask
    return keras.ops.logical_and(own, mask) if IS_KERAS_3 else own & mask


def not_padding(ids: Any) -> Any:
    """Where a sequence of ids is neither 0 nor the empty string."""
    if IS_KERAS_3 and isinstance(ids, keras.KerasTensor):  # a model's graph is being made: only Keras's own operations
        if ids.dtype == "string":
            raise ValueError("On Keras 3, `mask_zero` needs integer ids. Call the layer with mask={...} for strings.")
        return keras.ops.not_equal(ids, 0)
    return tf.not_equal(ids, tf.constant("" if ids.dtype == tf.string else 0, ids.dtype))


def is_sequence(shape: Any) -> bool:
    """(batch, length) of ids is a sequence, and so is all of more axes; (batch,) and (batch, 1) are one id a row."""
    shape = tuple(shape)
    return len(shape) > 2 or (len(shape) == 2 and shape[1] != 1)


def shape_like(ids: Any, vectors: Any, mask: Any = None) -> Any:
    """Flat `vectors`, (number of ids, width), as (batch, width) for one id a row, else as the ids' shape + (width,);
    zeros where `mask` is False.
    """
    if ids.shape.rank and not is_sequence(ids.shape):
        return vectors
    vectors = tf.reshape(vectors, [*sizes_of(ids), vectors.shape[-1]])
    return vectors if mask is None else tf.where(mask[..., tf.newaxis], vectors, tf.zeros_like(vectors))


def sizes_of(tensor: Any) -> list[Any]:
    """A tensor's shape, known before anything is computed where it can be: tf.reshape keeps what is."""
    sizes = tf.shape(tensor)
    return [sizes[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def output_shape(shape: Any, width: int) -> Any:
    """Shape of the augmented vectors of ids of `shape`, or a list of it for shapes of several inputs."""
    shape = tuple(shape)
    if shape and not any(size is None or isinstance(size, int) for size in shape):
        return [output_shape(each, width) for each in shape]
    return (*shape, width) if is_sequence(shape) else (*shape[:1], width)


def is_several(ids: Any) -> bool:
    """Whether a source's ids are those of several inputs: a list of tensors, [(batch, 1), (batch, length)] say."""
    return isinstance(ids, (list, tuple)) and bool(ids) and all(len(getattr(each, "shape", ())) for each in ids)


def of_each(function: Callable[[Any, Any], Any], ids: Any, mask: Any) -> Any:
    """`function` of ids and their mask, or a list of it where they are those of several inputs."""
    if not is_several(ids):
        return function(ids, mask)
    return [function(*each) for each in zip(ids, mask or [None] * len(ids), strict=True)]


def constant(values: Any) -> Any:
    """An initializer with these very values."""
    return lambda shape, dtype=None, **_: tf.constant(np.asarray(values), dtype=dtype)


def values_of(weight: Any) -> npt.NDArray[Any]:
    """A weight's values, or a tensor's; of a mirrored weight too."""
    return np.asarray(tf.convert_to_tensor(weight))


def concatenate(vectors: list[Any], name: str | None = None) -> Any:
    """Vectors of all sources side by side, in a model's graph. One source needs no layer: legacy Keras would hand
    a list of one to it as a bare tensor when the model is cloned.
    """
    return keras.layers.Concatenate(name=name)(vectors) if len(vectors) > 1 else vectors[0]
