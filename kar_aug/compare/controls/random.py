"""Do the vectors matter at all? Others of the same lengths in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kar_aug.cache import KnowledgeTable
from kar_aug.cache.vectors.table import RowCodes
from kar_aug.compare.controls import Control

_ROWS = 65_536


class Random(Control):
    """For each id that has a vector one of the same length, in a direction drawn at random; and codes drawn at random,
    as a hash of the id would give.
    """

    words = "random vectors"

    def table(self, tables: Mapping[str, KnowledgeTable], seed: int) -> KnowledgeTable:
        table = tables["knowledge"]
        covered = np.flatnonzero(table.rows >= 0)
        generator = np.random.default_rng([seed, 2])
        vectors = np.zeros((len(covered), table.vectors.shape[1]), table.vectors.dtype)
        for start in range(0, len(covered), _ROWS):
            own = table.vectors[table.rows[covered[start : start + _ROWS]]].astype(np.float32)
            drawn = generator.standard_normal(own.shape, np.float32)
            lengths = np.linalg.norm(own, axis=1, keepdims=True) / np.linalg.norm(drawn, axis=1, keepdims=True)
            vectors[start : start + len(own)] = drawn * lengths
        rows = np.full_like(table.rows, -1)
        rows[covered] = np.arange(len(covered), dtype=rows.dtype)
        return KnowledgeTable(vectors, rows, codes=_drawn(table.codes, len(covered), generator))


def _drawn(codes: RowCodes | None, count: int, generator: np.random.Generator) -> RowCodes | None:
    if codes is None:
        return None
    shape = (count, codes.values.shape[1])
    return replace(codes, values=generator.integers(1, codes.size, shape, np.uint16, endpoint=True))
