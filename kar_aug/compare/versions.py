"""Where knowledge has versions, each sample is given the last one strictly before it.

To the layers a version is what an id is elsewhere: an integer that they look up. So an arm with versions reads the
same samples, in which the key of an entity (`Samples.keys`) is a number for the entity as it was known then; 0 where
nothing was. An earlier event has the number of its item as it was known when that event happened, which is before the
sample: one number an event serves all samples that read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kar_aug.cache import KnowledgeTable, VectorStore
from kar_aug.cache.vectors.moments import moments
from kar_aug.cache.vectors.versions import Versions
from kar_aug.cache.vectors.vocabulary import rows_of
from kar_aug.data.features import HIST, PAST
from kar_aug.data.samples import Column, Samples

_SECOND = 1e6  # moments


class GivenVersions:
    """What the samples of an arm are given of an entity.

    Args:
        stores: by the names of an arm's addition; one of versions among them, and others perhaps that know one thing of
            each id at all times.
    """

    def __init__(self, samples: Samples, entity: str, stores: Mapping[str, VectorStore]) -> None:
        self._samples, self._entity, self._stores = samples, entity, dict(stores)
        # Of items those of earlier events are read, too.
        events = samples.rows if entity == "user" else np.arange(len(samples.timestamps))
        vocabulary, places = samples.vocabulary[entity], samples.places[entity][events]
        rows = [
            Versions(store, vocabulary).rows(places, samples.timestamps[events])
            if store.versioned
            else rows_of(store, vocabulary)[places].astype(np.int64)
            for store in stores.values()
        ]
        none = np.full((1, len(rows)), -1)
        both = np.concatenate([none, np.stack(rows, axis=1)])  # so that the first of all, -1, is there
        distinct, codes = np.unique(both, axis=0, return_inverse=True)
        self._rows: npt.NDArray[np.int32] = distinct.astype(np.int32)
        self._codes = np.zeros(len(samples.timestamps), np.int32)  # of each event
        self._codes[events] = codes.reshape(-1)[1:]

    @property
    def samples(self) -> Samples:
        """The samples with these numbers for keys."""
        samples = replace(self._samples, versions={**self._samples.versions, self._entity: self._codes})
        if self._entity == "user":
            return samples
        before = {f"{name}_item": events for name, events in samples.sequences.items() if name in (HIST, PAST)}
        met = {key: Column(events.pad(self._codes)) for key, events in before.items() if key in samples.columns}
        return replace(samples, columns={**samples.columns, **met})

    @property
    def tables(self) -> dict[str, KnowledgeTable]:
        """By the names of the stores, what the numbers stand for."""
        return {
            name: KnowledgeTable(store.mapped, rows, str(store.path.resolve()), store.fingerprint, store.version)
            for (name, store), rows in zip(self._stores.items(), self._rows.T, strict=True)
        }

    def ages(self, of: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Of some samples the seconds since the last event that their knowledge knew, by the first store of versions;
        NaN where there is none.
        """
        number, store = next((n, store) for n, store in enumerate(self._stores.values()) if store.versioned)
        events = self._samples.rows[of]
        rows = self._rows[self._codes[events], number]
        since = moments(self._samples.timestamps[events]) - store.moments_at(rows)
        return np.where(rows >= 0, since / _SECOND, np.nan)
