"""What a store hands to the layer: the vectors of one model's vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.parts import Parts, all_finite
from kar_aug.errors import StoreError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RowCodes:
    """Semantic ids in the order of a table's vectors (`kar_aug.codes`).

    Args:
        values: (count, levels), of 1 to `size`; zeros where there is none.
        size: codes a level.
        version: of the codebooks: a code of another version means something else.
        store, fingerprint: the bundle that they come from.
    """

    values: Array
    size: int
    version: str = ""
    store: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class KnowledgeTable:
    """The vectors of a vocabulary, ready for the layer: `vectors[rows[i]]` belongs to the model's integer i.

    Args:
        vectors: (count, dimension) knowledge vectors in the store's own order: an array, or the parts of a store, which
            are read like one (`vectors[rows]`) and joined by `np.asarray` alone.
        rows: (vocabulary size,) int32 row of `vectors`, or -1 where the id has no knowledge.
        store, fingerprint: where the vectors come from, None for vectors given as an array.
        version: of the vectors (`VectorStore.version`), likewise.
        codes: of each of the vectors, where somebody attached them (`kar_aug.codes.SemanticIds.attach`).
    """

    vectors: Array | Parts
    rows: npt.NDArray[np.int32]
    store: str | None = None
    fingerprint: str | None = None
    version: str | None = None
    codes: RowCodes | None = None

    @classmethod
    def from_array(cls, vectors: npt.ArrayLike, known: npt.ArrayLike | None = None) -> KnowledgeTable:
        """A table of vectors that are in the model's order already; `known` is False where there is no knowledge."""
        matrix = np.asarray(vectors)
        if matrix.ndim != 2:
            raise ValueError(f"`vectors` must have shape (vocabulary, dimension). Received shape: {matrix.shape}")
        mask = np.ones(len(matrix), bool) if known is None else np.asarray(known, bool)
        if mask.shape != (len(matrix),):
            raise ValueError(f"`known` must have shape ({len(matrix)},). Received shape: {mask.shape}")
        if not all_finite(matrix) and len(bad := np.flatnonzero(mask & ~np.isfinite(matrix).all(axis=1))):
            raise StoreError(
                f"The vector of integer id {bad[0]} holds NaN or infinity. Mark it unknown or mend it.",
                entity_id=int(bad[0]),
            )
        return cls(matrix, np.where(mask, np.arange(len(matrix)), -1).astype(np.int32))

    @property
    def coverage(self) -> float:
        """Share of the vocabulary that has knowledge."""
        return float((self.rows >= 0).mean()) if len(self.rows) else 0.0

    def matrix(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """(vocabulary, dimension) vectors in the model's order, zeros where there is none, and (vocabulary,) whether
        there is one.
        """
        known = self.rows >= 0
        matrix = np.zeros((len(self.rows), self.vectors.shape[1]), self.vectors.dtype)
        matrix[known] = self.vectors[self.rows[known]]
        return matrix, known
