"""Encodings inside a model: TensorFlow's operations that give the same numbers as `kar_aug.data.encodings`.

Numbers are read as 64 bits wide, as they were when the encodings were fitted: 0.7 in 32 bits may lie in another bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import tf
from kar_aug.data.encodings import FIRST, MISSING, MOST, UNKNOWN, Buckets, Categories, Encoding, Scale
from kar_aug.data.samples import SINCE_SIZE, since_code
from kar_aug.layers._ops.portable import is_portable
from kar_aug.layers.lookup import positions, sorted_keys
from kar_aug.models import wide_floats
from kar_aug.models.wide_floats import NAN

# What stands for a missing value, where no known value is the same.
_NO_INTEGER = (-1, int(np.iinfo(np.int64).min))
_NO_STRING = ("", "[missing]")


def encoded(encoding: Encoding) -> Known | FewNumbers | InBuckets | OnScale:
    """An encoding as a module: raw values of any shape to what a model reads, of the same shape."""
    if isinstance(encoding, Buckets):
        return InBuckets(encoding)
    if isinstance(encoding, Scale):
        return OnScale(encoding)
    if any(isinstance(value, float) for value in encoding.values):
        return FewNumbers(encoding)
    return Known(encoding.values, FIRST, UNKNOWN)


class Known(tf.Module):
    """Integers or strings as places in a vocabulary, by a hash table.

    Args:
        values: all of one kind.
        first: the place of the first of them. That of a missing one is 0.
        unknown: the place of what is none of them.
    """

    def __init__(self, values: Sequence[int | str], first: int, unknown: int) -> None:
        super().__init__()
        integers = bool(values) and isinstance(values[0], int)
        self.dtype = tf.int64 if integers else tf.string
        self.missing: int | str = next(each for each in (_NO_INTEGER if integers else _NO_STRING) if each not in values)
        self.values = [self.missing, *values]
        self._places, self._unknown = [MISSING, *range(first, first + len(values))], unknown
        keys, places = tf.constant(self.values, self.dtype), tf.constant(self._places, tf.int32)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, places), unknown)

    def __call__(self, raw: Any) -> Any:
        if not is_portable():
            return self.table.lookup(raw)
        with tf.init_scope():
            keys, order = sorted_keys(self.values)
        places = np.append(np.asarray(self._places, np.int32)[order], np.int32(self._unknown))
        return tf.gather(tf.constant(places), positions(raw, len(keys), tf.constant(keys)))


class FewNumbers(tf.Module):
    """Categories that are numbers: ratings by halves."""

    dtype, missing = tf.float64, NAN

    def __init__(self, categories: Categories) -> None:
        super().__init__()
        # As arrays: a graph that is traced holds them as constants, which ONNX takes along.
        self._values = np.asarray(categories.values, np.float64)
        self._codes = np.arange(FIRST, categories.size, dtype=np.int32)

    def __call__(self, raw: Any) -> Any:
        code = tf.reduce_sum(tf.where(wide_floats.equal(raw, self._values), self._codes, 0), -1)
        return tf.where(wide_floats.is_missing(raw), MISSING, tf.where(code == 0, UNKNOWN, code))


class InBuckets(tf.Module):
    """Numbers as the bucket that each is in."""

    dtype, missing = tf.float64, NAN

    def __init__(self, buckets: Buckets) -> None:
        super().__init__()
        self._edges = np.asarray(buckets.edges, np.float64)

    def __call__(self, raw: Any) -> Any:
        return tf.where(wide_floats.is_finite(raw), FIRST + wide_floats.reached(raw, self._edges), MISSING)


class OnScale(tf.Module):
    """Numbers on a scale."""

    dtype, missing = tf.float64, NAN

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self._scale = scale

    def __call__(self, raw: Any) -> Any:
        scale = self._scale
        scaled = wide_floats.on_scale(wide_floats.logarithm(raw) if scale.log else raw, scale.shift, scale.width, MOST)
        there = wide_floats.is_finite(raw)
        return tf.cast(tf.where(there, scaled, tf.constant(scale.missing, scaled.dtype)), tf.float32)


class HowLongAgo(tf.Module):
    """Seconds as `since_code` has them."""

    def __init__(self) -> None:
        super().__init__()
        self._bounds = _since_bounds()

    def __call__(self, seconds: Any) -> Any:
        seconds = tf.cast(seconds, tf.float32)
        there = tf.math.is_finite(seconds)
        return tf.where(there, FIRST + wide_floats.reached(seconds, self._bounds), MISSING)


def of_time(part: str, seconds: Any) -> Any:
    """The hour, 0 to 23, or the weekday, 0 a Monday, of moments in seconds since 1970; numbers of 64 bits."""
    if part == "hour":
        return wide_floats.part_of_time(seconds, 3_600, 24)
    return wide_floats.part_of_time(seconds, 86_400, 7, first=3)  # 1970 began on a Thursday


def latest(there: Any, length: int) -> Any:
    """Places of the latest events of each row.

    Args:
        there: (rows, any), whether an event stands there, oldest first, or padding.
        length: how many events at most.

    Returns:
        (rows, length), int32; behind the last of them the width of `there`.
    """
    width = tf.shape(there)[1]
    places = tf.sort(tf.where(there, tf.range(width), width))
    places = tf.pad(places, [[0, 0], [0, length]], constant_values=width)
    first = tf.maximum(tf.reduce_sum(tf.cast(there, tf.int32), 1) - length, 0)
    return tf.gather(places, first[:, tf.newaxis] + tf.range(length), batch_dims=1)


def _since_bounds() -> npt.NDArray[np.float32]:
    """Of each code of `since_code` but the first, the fewest seconds that have it: found by trying, so that rounding is
    that of the samples.
    """
    codes = np.arange(FIRST + 1, SINCE_SIZE)
    # As integers: the bits of positive floats are in the order of these.
    low, high = (np.full(len(codes), np.float32(end).view(np.int32)) for end in (0, np.finfo(np.float32).max))
    while (high - low > 1).any():
        middle = low + (high - low) // 2
        reached = since_code(middle.view(np.float32)) >= codes
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high.view(np.float32)
