"""What could make a gain that is no knowledge: the right ids with wrong vectors, other vectors, more parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kar_aug.cache import KnowledgeTable

_ROWS = 65_536


def shuffled(table: KnowledgeTable, seed: int) -> KnowledgeTable:
    """The same vectors for the same ids, but each id has that of another drawn at random."""
    covered = np.flatnonzero(table.rows >= 0)
    rows = table.rows.copy()
    rows[covered] = np.random.default_rng([seed, 1]).permutation(rows[covered])
    return replace(table, rows=rows)


def random(table: KnowledgeTable, seed: int) -> KnowledgeTable:
    """For each id that has a vector one of the same length, in a direction drawn at random."""
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
    return KnowledgeTable(vectors, rows)


def covering(table: KnowledgeTable, other: KnowledgeTable) -> KnowledgeTable:
    """`table` for the ids alone that `other` covers too, so that no control knows of more entities."""
    return replace(table, rows=np.where(other.rows >= 0, table.rows, -1).astype(np.int32))


def widened(hidden_units: Sequence[int], inputs: int, more: int) -> tuple[int, ...]:
    """The widths of a deep part with `more` parameters, each layer widened by the same factor.

    Args:
        hidden_units: widths now.
        inputs: width of what the first layer reads.
    """

    def size(widths: Sequence[int]) -> int:
        return sum((before + 1) * after for before, after in zip([inputs, *widths], widths, strict=False)) + widths[-1]

    def by(factor: float) -> tuple[int, ...]:
        return tuple(round(units * factor) for units in hidden_units)

    wanted = size(hidden_units) + more
    low, high = 1.0, 2.0
    while size(by(high)) < wanted:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if size(by(middle)) < wanted else (low, middle)
    return by(high)
