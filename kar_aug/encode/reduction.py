"""Fewer numbers a vector: a PCA that is fitted once and stays with its store, or the first numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def fit_pca(vectors: Array, dimension: int) -> npt.NDArray[np.float32]:
    """The projection onto the `dimension` directions of largest variance, as one matrix (1 + dimension, width):
    the mean of `vectors`, (count, width), and then the directions, largest variance first.

    Raises:
        ValueError: There are not more vectors than directions, or not so many directions.
    """
    if not 1 <= dimension <= vectors.shape[1] or len(vectors) <= dimension:
        raise ValueError(
            f"`dimension` must be below the number of vectors and at most their width. Received: {dimension} for "
            f"vectors of shape {vectors.shape}"
        )
    centred = np.asarray(vectors, np.float64)
    mean = centred.mean(axis=0)
    centred = centred - mean
    _, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, ::-1][:, :dimension].T
    # An eigenvector's sign is arbitrary: the largest entry positive, so that every machine gives the same vectors.
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, np.newaxis], axis=1)
    return np.vstack([mean, chosen * np.sign(largest)]).astype(np.float32)


def project(vectors: Array, matrix: Array) -> Array:
    """`vectors`, (count, width), through what `fit_pca` gave: (count, dimension)."""
    return (np.asarray(vectors, np.float32) - matrix[0]) @ matrix[1:].T


def truncate(vectors: Array, dimension: int, *, normalized: bool) -> Array:
    """The first `dimension` numbers, for models trained so that these come first; of length 1 again if `normalized`."""
    shorter = np.asarray(vectors, np.float32)[:, :dimension]
    return shorter / np.maximum(np.linalg.norm(shorter, axis=1, keepdims=True), 1e-12) if normalized else shorter
