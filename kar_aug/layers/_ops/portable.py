"""Look-ups of raw ids by operations that every runtime has, for models that leave TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kar_aug._helpers.keras import tf

HASHES = 2**63 - 1  # how many there are of texts


class Portable:
    """How ids are looked up in what is traced now.

    Args:
        hashed: a table from texts to their hashes, where a runtime knows no hash; None where it does.
        doubles: whether the runtime computes in floats of 64 bits.
    """

    def __init__(self, hashed: Any = None, doubles: bool = True) -> None:
        self.hashed, self.doubles = hashed, doubles


_portable: ContextVar[Portable | None] = ContextVar("portable", default=None)


@contextmanager
def portable(hashed: Any = None, *, doubles: bool = True) -> Iterator[None]:
    """What is traced inside the block looks ids up by comparisons and gathers alone: ONNX and TFLite have neither a
    search in a sorted table nor hash tables of every kind.

    Args:
        hashed, doubles: see `Portable`.
    """
    token = _portable.set(Portable(hashed, doubles))
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether such a block is open."""
    return _portable.get() is not None


def computes_in_doubles() -> bool:
    """Whether the runtime computes in floats of 64 bits, as TensorFlow does."""
    now = _portable.get()
    return now is None or now.doubles


def hashes(texts: Any) -> Any:
    """Of a tensor of texts, 64 bits each."""
    now = _portable.get()
    if now is None or now.hashed is None:
        return tf.strings.to_hash_bucket_fast(texts, HASHES)
    return now.hashed.lookup(texts)


def first_places(keys: Any, values: Any) -> Any:
    """Per value the place of the first key that is not smaller, int32, as many as there are keys if all are.

    Args:
        keys: (size,) ascending.
        values: (any,), of the same type.
    """
    if _portable.get() is None:
        return tf.searchsorted(keys, values)
    size = int(keys.shape[0])
    place = tf.zeros_like(values, "int32")
    step = 1 << max(size.bit_length() - 1, 0)
    while step:  # unrolled: 20 times for a million keys
        further = place + step
        smaller = tf.gather(keys, tf.minimum(further, size) - 1) < values
        place = tf.where(smaller & (further <= size), further, place)
        step //= 2
    return place
