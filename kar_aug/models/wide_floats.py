"""Floats of 64 bits, which raw values and times are, and what a runtime makes of them that only takes them in (TFLite).

It has no operation of such floats but to read their bits. Those bits are an integer, and it computes with integers of
64 bits; so there a number is its *ordinal*, its place in the order of all floats: 0.0 is 0, the next one 1, and what is
less than 0 has a place below 0. Comparisons of ordinals are exact. Differences are taken of integers, too: of a
number's multiples of a small power of two. Wherever floats of 64 bits are computed with, these functions leave them as
they are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import tf
from kar_aug.layers._ops.portable import computes_in_doubles

NAN = float("nan")
_LEAST = int(np.iinfo(np.int64).min)
_FRACTION, _ROOM = 52, 61  # bits: of a float's fraction, and that an integer has to spare for a difference
_SECONDS = 20  # and of a second's fraction: a millionth, of some 70,000 years


def taken_in(values: Any) -> Any:
    """Numbers of 64 bits as the functions below take them; others as they are."""
    return values if values.dtype != tf.float64 or computes_in_doubles() else _turned(tf.bitcast(values, tf.int64))


def of_integers(values: Any) -> Any:
    """Integers as such numbers."""
    return taken_in(tf.cast(values, tf.float64))


def number(value: float) -> Any:
    """One, as a constant of their kind."""
    return tf.constant(value, tf.float64) if computes_in_doubles() else tf.constant(_ordinals(value))


def is_finite(values: Any) -> Any:
    """Which are neither missing nor infinite."""
    if _are_floats(values):
        return tf.math.is_finite(values)
    return (values < int(_ordinals(math.inf))) & (values > int(_ordinals(-math.inf)))


def is_missing(values: Any) -> Any:
    """Which are NaN."""
    if _are_floats(values):
        return tf.math.is_nan(values)
    return (values > int(_ordinals(math.inf))) | (values < int(_ordinals(-math.inf)))


def reached(values: Any, edges: npt.NDArray[Any]) -> Any:
    """How many of the edges each has reached, int32."""
    edges = edges if _are_floats(values) else _ordinals(edges)
    return tf.reduce_sum(tf.cast(tf.expand_dims(values, -1) >= edges, tf.int32), -1)


def equal(values: Any, numbers: npt.NDArray[np.float64]) -> Any:
    """Which are which of some numbers: (..., how many numbers)."""
    return tf.expand_dims(values, -1) == (numbers if _are_floats(values) else _ordinals(numbers))


def on_scale(values: Any, shift: float, width: float, most: float) -> Any:
    """(values - shift) / width, cut off at `most` on either side."""
    if _are_floats(values):
        return tf.clip_by_value((values - shift) / width, -most, most)
    power = _ROOM - math.frexp(abs(shift) + most * width)[1]
    if not 0 <= power < 2 * _FRACTION:
        return tf.clip_by_value((as_dtype(values, tf.float32) - shift) / width, -most, most)
    lowest, highest = (_ordinals(shift + side * most * width) for side in (-1, 1))
    within = tf.minimum(tf.maximum(values, lowest), highest)
    return tf.cast(_multiples(within, power) - round(math.ldexp(shift, power)), tf.float32) / math.ldexp(width, power)


def logarithm(values: Any) -> Any:
    """Of one more than how large they are, with their sign."""
    if _are_floats(values):
        return tf.sign(values) * tf.math.log1p(tf.abs(values))
    short = as_dtype(values, tf.float32)
    return tf.sign(short) * tf.math.log(1 + tf.abs(short))


def as_dtype(values: Any, dtype: Any) -> Any:
    """As numbers of another type; those of 64 bits stay what they are."""
    if _are_floats(values):
        return tf.cast(values, dtype)
    return values if dtype == tf.float64 else tf.cast(_floats(values), dtype)


def seconds_between(then: Any, now: Any) -> Any:
    """From one time to another, in 32 bits; NaN where one of them is missing."""
    if _are_floats(now):
        return tf.cast(now - then, tf.float32)
    between = tf.cast(_multiples(now, _SECONDS) - _multiples(then, _SECONDS), tf.float32) / 2**_SECONDS
    return tf.where(is_finite(now) & is_finite(then), between, NAN)


def part_of_time(seconds: Any, unit: int, units: int, first: int = 0) -> Any:
    """Which of so many units it is, round and round, at times in seconds since 1970: the number `first` then.

    Args:
        unit: seconds of one.
    """
    if _are_floats(seconds):
        return tf.math.floormod(tf.floor(seconds / unit) + first, units)
    since = _multiples(seconds, _SECONDS) + ((first * unit) << _SECONDS)
    left = tf.math.floormod(since, (unit * units) << _SECONDS)
    part = tf.reduce_sum(tf.cast(tf.expand_dims(left, -1) >= _multiples_of(unit, units), tf.int32), -1)
    return tf.where(is_finite(seconds), of_integers(part), number(NAN))


def _multiples_of(unit: int, units: int) -> npt.NDArray[np.int64]:
    return (np.arange(1, units, dtype=np.int64) * unit) << _SECONDS


def _are_floats(values: Any) -> bool:
    return bool(values.dtype.is_floating)


def _ordinals(values: Any) -> Any:
    """Of NumPy's numbers."""
    bits = np.asarray(values, np.float64).view(np.int64)
    with np.errstate(over="ignore"):  # of those that are not taken
        return np.where(bits < 0, _LEAST - bits, bits)


def _turned(bits: Any) -> Any:
    """Bits as ordinals, or ordinals as bits: a float below 0 is told by its sign and how large it is."""
    return tf.where(bits < 0, tf.constant(_LEAST, tf.int64) - bits, bits)


def _floats(ordinals: Any) -> Any:
    return tf.bitcast(_turned(ordinals), tf.float64)


def _multiples(ordinals: Any, power: int) -> Any:
    """How many times 2^-power goes into numbers; nothing in those that are missing."""
    largest = int(_ordinals(math.ldexp(1.0, _ROOM - power)))
    there = tf.where(is_finite(ordinals), ordinals, tf.zeros_like(ordinals))
    within = tf.minimum(tf.maximum(there, -largest), largest)
    raised = tf.bitcast(_turned(within) + (power << _FRACTION), tf.float64)
    return tf.cast(raised, tf.int64)
