"""How knowledge vectors are made ready to be compared: fitted once, and the same for all that come later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.parts import Parts
from kar_aug.cache.vectors.reduction import fit_pca, mean_of
from kar_aug.cache.vectors.table import KnowledgeTable

Array = npt.NDArray[Any]
_BLOCK = 65_536
_SHORTEST = 1e-12
_ON_THE_MEAN = 1e-5  # of a vector's length: what is left of it there is rounding
# What hardly varies is noise: no direction is stretched more than a hundredfold against the widest.
_STRETCHED = 0.01


@dataclass(frozen=True)
class Preparation:
    """ready = directions (vector - mean), divided by its length.

    Text vectors of one encoder lie in a narrow cone: any two are alike until their mean is taken off. A PCA keeps what
    tells them apart in fewer numbers.

    Args:
        mean: (dimension,), zeros to leave vectors where they are.
        directions: (width, dimension), of a PCA; with whitening, each divided by the spread along it. None to keep all
            numbers as they are.
        unit: whether a ready vector has length 1.
    """

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32] | None
    unit: bool

    @classmethod
    def fitted(
        cls, table: KnowledgeTable, components: int | None, *, centre: bool, whiten: bool, unit: bool
    ) -> Preparation:
        """Fitted on the vectors of all ids that have one; in blocks, so that they are never in memory whole.

        Args:
            components: how many numbers are to be left. None, and not fewer than there are, keep all; and so do vectors
                that are not more than them, out of which no PCA is made.
            centre: whether the mean is taken off.
            whiten: whether every direction is given the same variance.
        """
        known, width = np.unique(table.rows[table.rows >= 0]), table.vectors.shape[1]
        kept = min(components or width, width)
        if len(known) <= kept or (kept == width and not whiten):
            mean = mean_of(table.vectors, known) if centre else np.zeros(width)
            return cls(np.asarray(mean, np.float32), None, unit)
        matrix = fit_pca(table.vectors, kept, rows=known, centre=centre)
        fitted = cls(matrix[0], matrix[1:], unit)
        return fitted._whitened(table.vectors, known) if whiten else fitted

    @property
    def width(self) -> int:
        """Of a ready vector."""
        return len(self.mean) if self.directions is None else len(self.directions)

    def __call__(self, vectors: Array) -> npt.NDArray[np.float32]:
        """Vectors, (count, dimension), made ready: (count, width). One that lies on the mean is zeros."""
        vectors = np.asarray(vectors, np.float32)
        ready = self._projected(vectors)
        if self.unit:
            ready /= np.maximum(_lengths(ready), np.float32(_SHORTEST))
        return np.where(_lengths(vectors - self.mean) > _ON_THE_MEAN * _lengths(vectors), ready, np.float32(0))

    def of_table(self, table: KnowledgeTable) -> npt.NDArray[np.float32]:
        """The ready vectors of a vocabulary, (vocabulary, width), zeros where there is no knowledge."""
        ready = np.zeros((len(table.rows), self.width), np.float32)
        for start in range(0, len(ready), _BLOCK):
            rows = table.rows[start : start + _BLOCK]
            ready[start : start + _BLOCK][rows >= 0] = self(table.vectors[rows[rows >= 0]])
        return ready

    def _projected(self, vectors: Array) -> npt.NDArray[np.float32]:
        moved = np.asarray(vectors, np.float32) - self.mean
        return moved if self.directions is None else np.asarray(moved @ self.directions.T, np.float32)

    def _whitened(self, vectors: Array | Parts, rows: npt.NDArray[np.integer[Any]]) -> Preparation:
        squares, directions = np.zeros(self.width), self.directions
        assert directions is not None
        for start in range(0, len(rows), _BLOCK):
            squares += np.square(self._projected(vectors[rows[start : start + _BLOCK]]), dtype=np.float64).sum(axis=0)
        spread = np.sqrt(squares / len(rows))
        spread = np.maximum(spread, max(_STRETCHED * spread.max(), _SHORTEST))
        return Preparation(self.mean, (directions / spread[:, np.newaxis]).astype(np.float32), self.unit)


def _lengths(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
