"""What both augmentation layers do with ids: find their places in a table, and give every shape its meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import keras
from kar_aug.errors import StoreError
from kar_aug.layers._ops import ops
from kar_aug.layers.ids import is_integer


def keys_of(ids: Sequence[int | str]) -> npt.NDArray[np.int64]:
    """Raw ids as the integers under which the layers look them up: themselves, or a 64-bit hash of the text."""
    if len(ids) and isinstance(ids[0], str):
        return ops.keys_of_strings(ids)
    return checked_keys(np.asarray(ids, np.int64))


def checked_keys(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Keys as wide as this backend's integers are.

    Raises:
        StoreError: One is wider.
    """
    limits = np.iinfo(ops.KEYS)
    if len(keys) and (keys.min() < limits.min or keys.max() > limits.max):
        raise StoreError("Ids above 2,147,483,647 need integers of 64 bits, which JAX has with JAX_ENABLE_X64=1 alone.")
    return keys.astype(ops.KEYS)


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


def positions(ids: Any, size: int, keys: Any = None, padded: bool = False) -> Any:
    """Per id its place in a table of `size` rows, int32, and `size` for an id that has none.

    Args:
        ids: integers or strings of any shape; or floats, of which 2.5 is no id, and never 2.
        keys: (size,) ascending keys of raw ids; None where ids are places already.
        padded: whether 0 and "" are padding, which has no place.
    """
    if "float" in (dtype := ops.dtype_of(ids)):
        whole = ops.cast(ids, ops.KEYS)
        return ops.where(ids == ops.cast(whole, dtype), positions(whole, size, keys, padded), size)
    if keys is None:
        if not is_integer(dtype):
            ids = ops.cast(ids, ops.KEYS)
        elif np.dtype(dtype).itemsize < 4:  # whose largest number may be less than `size`
            ids = ops.cast(ids, "int32")
        # Compared in their own type: cast to 32 bits first, a large id would pass for a small one.
        return ops.cast(ops.where((ids >= int(padded)) & (ids < size), ids, ops.cast(size, ids.dtype)), "int32")
    flat = ops.reshape(ops.keys_of(ids), [-1])
    place = ops.minimum(ops.searchsorted(keys, flat), size - 1)
    found = ops.reshape(ops.where(ops.rows_at(keys, place) == flat, place, size), ops.sizes_of(ids))
    return ops.where(not_padding(ids), found, size) if padded else found


def look_up_distinct(places: Sequence[Any], size: int, function: Callable[[Any], Any]) -> list[Any]:
    """`function` of the places of each input, flattened: (number of ids, width), computed once for each distinct one.

    CTR batches repeat their ids: popular items, active users, the padding of histories.

    Args:
        size: of the table that they are places in, which is the place of an unknown id.
    """
    flat = [ops.reshape(each, [-1]) for each in places]
    distinct, position = ops.distinct(ops.concatenate(flat, axis=0) if len(flat) > 1 else flat[0], size)
    found = ops.rows_at(function(distinct), position)
    return ops.split(found, [ops.size(each) for each in flat]) if len(flat) > 1 else [found]


def sequence_mask(ids: Any, mask: Any, mask_zero: bool) -> Any:
    """Of the ids' shape, False where a sequence is padded; None for single ids, or if nothing says what padding is."""
    if not is_sequence(ids.shape) or (mask is None and not mask_zero):
        return None
    own = not_padding(ids) if mask_zero else None
    if mask is None or own is None:
        return own if mask is None else mask
    return ops.logical_and(own, mask)


def not_padding(ids: Any) -> Any:
    """Where a sequence of ids is neither 0 nor the empty string."""
    if ops.is_symbolic(ids):  # a model's graph is being made: only Keras's own operations
        if ids.dtype == "string":
            raise ValueError("On Keras 3, `mask_zero` needs integer ids. Call the layer with mask={...} for strings.")
        return keras.ops.not_equal(ids, 0)
    return ops.not_equal(ids, ops.convert_to_tensor("" if ops.dtype_of(ids) == "string" else 0, ids.dtype))


def is_sequence(shape: Any) -> bool:
    """(batch, length) of ids is a sequence, and so is all of more axes; (batch,) and (batch, 1) are one id a row."""
    shape = tuple(shape)
    return len(shape) > 2 or (len(shape) == 2 and shape[1] != 1)


def shape_like(ids: Any, vectors: Any, mask: Any = None) -> Any:
    """Flat `vectors`, (number of ids, width), as (batch, width) for one id a row, else as the ids' shape + (width,);
    zeros where `mask` is False.
    """
    if len(ids.shape) and not is_sequence(ids.shape):
        return vectors
    vectors = ops.reshape(vectors, [*ops.sizes_of(ids), vectors.shape[-1]])
    return vectors if mask is None else ops.where(ops.expand_dims(mask, -1), vectors, ops.zeros_like(vectors))


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
    return lambda shape, dtype=None, **_: ops.held(values, dtype)


def values_of(weight: Any) -> npt.NDArray[Any]:
    """A weight's values, or a tensor's; of a mirrored weight too."""
    return ops.convert_to_numpy(weight)


def concatenate(vectors: list[Any], name: str | None = None) -> Any:
    """Vectors of all sources side by side, in a model's graph. One source needs no layer: legacy Keras would hand
    a list of one to it as a bare tensor when the model is cloned.
    """
    return keras.layers.Concatenate(name=name)(vectors) if len(vectors) > 1 else vectors[0]
