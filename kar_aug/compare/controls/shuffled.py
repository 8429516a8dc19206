"""Does it matter whose knowledge it is? The same vectors for the same ids, each id with that of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kar_aug.cache import KnowledgeTable
from kar_aug.compare.controls import Control


class Shuffled(Control):
    """Each id that has a vector has that of another, drawn at random; and its codes."""

    words = "shuffled vectors"

    def table(self, tables: Mapping[str, KnowledgeTable], seed: int) -> KnowledgeTable:
        table = tables["knowledge"]
        covered = np.flatnonzero(table.rows >= 0)
        rows = table.rows.copy()
        rows[covered] = np.random.default_rng([seed, 1]).permutation(rows[covered])
        return replace(table, rows=rows)
