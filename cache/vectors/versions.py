"""Which version of an entity's knowledge a row may be given: the last one strictly before the row's own time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.moments import moments
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.cache.vectors.vocabulary import Vocabulary, rows_of


class Versions:
    """Looks up versions by a model's integers and times. Holds sixteen bytes an id, and no vector.

    Args:
        vocabulary: `vocabulary[i]` is the id that the model calls i, or None.

    Raises:
        StoreError: The store is not of versions; or an id is of another kind than the store's, or none has a vector.
    """

    def __init__(self, store: Snapshot, vocabulary: Vocabulary) -> None:
        store.require_versions()
        rows_of(store, vocabulary)
        self._index = store.index
        self._first, self._stop = self._index.spans(vocabulary)

    def rows(self, codes: npt.NDArray[Any], times: Any) -> npt.NDArray[np.int64]:
        """Rows of the store, the codes' shape; -1 where nothing was known yet, or the code is not of the vocabulary.

        Args:
            codes: integers of the model, of any shape.
            times: what `kar_aug.cache.vectors.moments.moments` reads: one for each code, or for each row of codes.
        """
        asked = moments(times)
        asked = asked.reshape(asked.shape + (1,) * (codes.ndim - asked.ndim))
        asked = np.broadcast_to(asked, codes.shape).reshape(-1)
        flat = codes.reshape(-1)
        inside = (flat >= 0) & (flat < len(self._first))
        place = np.where(inside, flat, 0)
        first = self._first[place]
        found = self._index.before(first, np.where(inside, self._stop[place], first), asked)
        return found.reshape(codes.shape)
