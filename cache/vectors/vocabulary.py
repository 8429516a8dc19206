"""A model's vocabulary against the ids of a store: what could only be a mistake is refused, not taken for unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.index import EntityId, listed
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.errors import StoreError

Vocabulary = Sequence[EntityId | None] | npt.NDArray[Any]
_KINDS = {"i": "integers", "U": "strings"}  # as `Snapshot.id_kind` calls them


def rows_of(store: Snapshot, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    """Per id of a vocabulary its row in the store, -1 where it has no vector. None, NaN and pandas.NA are no id.

    Raises:
        StoreError: An id is of another kind than the store's, or no id has a vector; or they are in no order.
    """
    vocabulary = listed(vocabulary)
    rows = store.rows(vocabulary)
    if not (isinstance(vocabulary, np.ndarray) and vocabulary.dtype.kind in "iu" and store.id_kind == "i"):
        ids = vocabulary.tolist() if hasattr(vocabulary, "tolist") else vocabulary
        for place in np.flatnonzero(rows < 0).tolist() if store.id_kind else []:
            if not _fits(ids[place], store.id_kind):
                raise StoreError(
                    f"The ids of {store.path} are {_KINDS[store.id_kind]}, but vocabulary[{place}] is {ids[place]!r}. "
                    "Give it ids as the store has them, and None where there is none.",
                    path=store.path, entity_id=ids[place], left=store.id_kind, right=type(ids[place]).__name__,
                )  # fmt: skip
    asked = [] if (rows >= 0).any() else [id for id in vocabulary if not _is_missing(id)]
    if asked:
        there = ", ".join(map(repr, store.ids_at(store.live_rows[:3]))) or "none"
        raise StoreError(
            f"None of the {len(asked):,} ids of the vocabulary ({', '.join(map(repr, asked[:3]))} ...) has a vector in "
            f"{store.path}, whose ids are {there} ... Is it the store of these?",
            path=store.path, entity_id=asked[0],
        )  # fmt: skip
    return rows


def _fits(id: Any, kind: str) -> bool:
    """Whether an id could be in a store of a kind, or is none."""
    if kind == "i":
        return _is_missing(id) or (isinstance(id, (int, np.integer)) and not isinstance(id, bool))
    return _is_missing(id) or isinstance(id, str)


def _is_missing(id: Any) -> bool:
    return id is None or (isinstance(id, float) and id != id) or type(id).__name__ == "NAType"  # pandas.NA
