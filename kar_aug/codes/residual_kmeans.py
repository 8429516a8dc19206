"""Residual k-means: a vector as the sum of one centre a level, and so as one small integer a level.

    r_0 = x;   c_l = argmin_k |r_l - centre_lk|;   r_(l+1) = r_l - centre_(l, c_l)

It is what RQ-VAE is without its networks (Lee et al. 2022, arXiv:2203.01941, section 3.1), with nothing to train but
the centres.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kar_aug.errors import EncodingError, MissingDependencyError

MOST_CODES = np.iinfo(np.uint16).max
_BLOCK = 8192  # vectors, whose distances to all centres are in memory at a time
_FEW = 20_000  # vectors, of which every iteration reads all
_STARTS = 3

Vectors = npt.NDArray[np.floating[Any]]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ResidualKMeans:
    """Vectors to codes, and back.

    Args:
        codebooks: (levels, size, dimension) float32: the centres of each level. Code c of level l stands for
            `codebooks[l, c - 1]`; code 0 for nothing.
    """

    codebooks: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, vectors: Vectors, levels: int = 3, size: int = 256, seed: int = 0) -> Self:
        """Codebooks for vectors such as these, (count, dimension): k-means a level, on what the levels before left.

        The same vectors and seed give the same codebooks. Of more than 20,000 vectors k-means reads some at a time.

        Args:
            levels: codes an item.
            size: codes a level.
            seed: of the centres that k-means starts with.

        Raises:
            ValueError: There is no level, or not 1 to 65,535 codes a level.
            EncodingError: There are fewer vectors than codes a level, or one is not finite.
            MissingDependencyError: scikit-learn is not installed.
        """
        if levels < 1 or not 1 <= size <= MOST_CODES:
            raise ValueError(
                f"There must be at least one level, and 1 to {MOST_CODES:,} codes a level. Received: {levels}, {size}"
            )
        if len(vectors) < size:
            raise EncodingError(
                f"{len(vectors):,} vectors cannot be put under {size:,} codes a level: lower [codes] size.",
                left=size, right=len(vectors),
            )  # fmt: skip
        left = _finite(vectors)
        codebooks = np.empty((levels, size, left.shape[1]), np.float32)
        for level in range(levels):
            codebooks[level] = _centres(left, size, seed + level)
            left = left - codebooks[level][_nearest(left, codebooks[level])]
        return cls(codebooks)

    @property
    def levels(self) -> int:
        """Codes an item."""
        return len(self.codebooks)

    @property
    def size(self) -> int:
        """Codes a level, the one of unknown items not counted."""
        return int(self.codebooks.shape[1])

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.codebooks.shape[2])

    def encode(self, vectors: Vectors) -> Codes:
        """Codes of vectors, (count, dimension): (count, levels), each of 1 to `size`.

        Raises:
            ValueError: The vectors have another length.
            EncodingError: A vector is not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(
                f"The codebooks are of vectors of {self.dimension} numbers. Received shape: {vectors.shape}"
            )
        codes = np.empty((len(vectors), self.levels), np.int32)
        for block in _blocks(len(vectors)):
            left = _finite(vectors[block])
            for level, centres in enumerate(self.codebooks):
                nearest = _nearest(left, centres)
                codes[block, level] = nearest + 1
                left = left - centres[nearest]
        return codes

    def decode(self, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """What codes, (count, levels), say of the vectors: (count, dimension), the sum of their centres.

        A prefix is decoded with zeros behind it; nothing but zeros gives zeros.
        """
        decoded = np.zeros((len(codes), self.dimension), np.float32)
        for level, centres in enumerate(self.codebooks):
            known = codes[:, level] > 0
            decoded[known] += centres[codes[known, level] - 1]
        return decoded


def _centres(vectors: npt.NDArray[np.float32], size: int, seed: int) -> npt.NDArray[np.float32]:
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError:
        raise MissingDependencyError("scikit-learn", "online") from None
    if len(vectors) <= _FEW:
        kmeans = KMeans(size, n_init=_STARTS, random_state=seed)
    else:
        kmeans = MiniBatchKMeans(size, n_init=1, batch_size=4096, random_state=seed)  # more starts bring nothing here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than codes: some stay unused
        return np.asarray(kmeans.fit(vectors).cluster_centers_, np.float32)


def _nearest(vectors: npt.NDArray[np.float32], centres: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Per vector the place of the nearest centre, the first of equals."""
    found, half = np.empty(len(vectors), np.intp), 0.5 * np.square(centres).sum(axis=1)
    for block in _blocks(len(vectors)):
        found[block] = np.argmax(vectors[block] @ centres.T - half, axis=1)
    return found


def _finite(vectors: Vectors) -> npt.NDArray[np.float32]:
    copied = np.asarray(vectors, np.float32)
    if not np.isfinite(copied).all():
        raise EncodingError("A vector holds NaN or infinity, and has no code. Encode it again.")
    return copied


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, start + _BLOCK)
