"""An encoder without a model: a text's vector is made of the hashes of its words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kar_aug.encode.encoders import Options


class HashEncoder:
    """Turns texts into vectors of length one, the same on every machine; an `Encoder` for `kar_aug.encode`.

    Texts that share words are near each other, others are not. The numbers are rounded to what float16 holds, so a
    store gives back the very numbers that were encoded.

    Args:
        dimension: numbers in a vector.

    Attributes:
        seen: every text that was encoded, in order.

    Example:
        >>> fargo, again, other = HashEncoder(16).encode(["a crime comedy", "a crime comedy", "songs for children"])
        >>> bool((fargo == again).all()), bool(fargo @ other < 0.9)
        (True, True)
    """

    def __init__(self, dimension: int = 8) -> None:
        if dimension < 1:
            raise ValueError(f"`dimension` must be positive. Received: {dimension}")
        self.name, self.dimension = f"hash-{dimension}", dimension
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Encode texts into a float32 array of shape (len(texts), dimension)."""
        self.seen += texts
        vectors = np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, self.dimension))
        return vectors.astype("float16").astype("float32")

    def _vector(self, text: str) -> npt.NDArray[Any]:
        total = np.sum([_direction(word, self.dimension) for word in text.lower().split() or [""]], axis=0)
        return total / np.linalg.norm(total)


def hash_encoder(options: Options) -> HashEncoder:
    """The encoder under its name in kar.toml: `[encode] encoder = "kar_aug.testing:hash_encoder"`."""
    return HashEncoder()


@lru_cache(maxsize=100_000)
def _direction(word: str, dimension: int) -> npt.NDArray[Any]:
    """Odd numbers between -2 ** 15 and 2 ** 15: never zero, so that no word is without a direction."""
    bits = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(2 * dimension)
    return (np.frombuffer(bits, "<i2") | 1).astype("float64")
