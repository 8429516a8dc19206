"""Fewer numbers a vector: a PCA that is fitted once and kept, or the first numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.parts import Parts

if TYPE_CHECKING:
    from kar_aug.cache.vectors.store import VectorStore

Array = npt.NDArray[Any]
_BLOCK = 32_768


def fit_pca(
    vectors: Array | Parts, dimension: int, *, rows: npt.NDArray[np.integer[Any]] | None = None, centre: bool = True
) -> npt.NDArray[np.float32]:
    """The projection onto the `dimension` directions of largest variance, as one matrix (1 + dimension, width):
    the mean of `vectors`, (count, width), and then the directions, largest variance first.

    Goes over the vectors in blocks, twice: a memory-mapped matrix is never in memory whole.

    Args:
        rows: which of the vectors count; all by default.
        centre: False takes zeros for the mean, and directions of the largest second moment.

    Raises:
        ValueError: There are not more vectors than directions, or not so many directions.
    """
    count, width = len(vectors) if rows is None else len(rows), vectors.shape[1]
    if not 1 <= dimension <= width or count <= dimension:
        raise ValueError(
            f"`dimension` must be below the number of vectors and at most their width. Received: {dimension} for "
            f"vectors of shape {(count, width)}"
        )
    mean = mean_of(vectors, rows) if centre else np.zeros(width)
    moment = np.zeros((width, width))
    for block in _blocks(vectors, rows):
        block -= mean
        moment += block.T @ block
    _, directions = np.linalg.eigh(moment)
    chosen = directions[:, ::-1][:, :dimension].T
    # An eigenvector's sign is arbitrary: the largest entry positive, so that every machine gives the same vectors.
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, np.newaxis], axis=1)
    return np.vstack([mean, chosen * np.sign(largest)]).astype(np.float32)


def mean_of(vectors: Array | Parts, rows: npt.NDArray[np.integer[Any]] | None = None) -> npt.NDArray[np.float64]:
    """The mean of vectors, (width,); zeros of none."""
    total, count = np.zeros(vectors.shape[1]), 0
    for block in _blocks(vectors, rows):
        total, count = total + block.sum(axis=0), count + len(block)
    return total / max(1, count)


def project(vectors: Array, matrix: Array) -> Array:
    """`vectors`, (count, width), through what `fit_pca` gave: (count, dimension)."""
    return (np.asarray(vectors, np.float32) - matrix[0]) @ matrix[1:].T


def truncate(vectors: Array, dimension: int, *, normalized: bool) -> Array:
    """The first `dimension` numbers, for models trained so that these come first; of length 1 again if `normalized`."""
    shorter = np.asarray(vectors, np.float32)[:, :dimension]
    return shorter / np.maximum(np.linalg.norm(shorter, axis=1, keepdims=True), 1e-12) if normalized else shorter


def reduced(store: VectorStore, vectors: Array) -> Array:
    """Vectors of the encoder, (count, width), as a store keeps its own: projected, truncated, or as they are."""
    matrix = store.projection
    if matrix is not None:
        return project(vectors, matrix)
    spec = store.spec
    return truncate(vectors, spec.dimension, normalized=spec.normalized) if spec.reduction else vectors


def _blocks(vectors: Array | Parts, rows: npt.NDArray[np.integer[Any]] | None) -> Iterator[npt.NDArray[np.float64]]:
    """Copies of the vectors, some at a time."""
    for start in range(0, len(vectors) if rows is None else len(rows), _BLOCK):
        some = slice(start, start + _BLOCK)
        yield np.array(vectors[some] if rows is None else vectors[rows[some]], np.float64)
