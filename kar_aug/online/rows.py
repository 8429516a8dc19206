"""What other systems are given of a vector: whose it is, since when it may be used, and which version it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.files import StoreSpec
from kar_aug.cache.vectors.index import EntityId
from kar_aug.cache.vectors.moments import datetimes
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.errors import MissingDependencyError, StoreError

try:
    import pyarrow as pa
except ImportError:
    raise MissingDependencyError("pyarrow", "parquet") from None

SIZE = 16_384  # rows of a batch
_DAY = len("2000-01-31")


def version_of(vectors: VectorStore | StoreSpec) -> str:
    """That of all vectors of a store, `VectorStore.version`; or of those of a spec that went through no PCA."""
    return vectors.version


@dataclass(frozen=True)
class Rows:
    """The rows of a store's vectors: columns `{entity}_id`, event_timestamp, created, version, key, vector.

    `event_timestamp` is just after the latest event that any of the texts knew (a day after, where only days are
    known): a point-in-time join that takes the last row at or before a sample looks ahead nowhere. Texts that know no
    time (facts about items) are of 1970. Of a store of versions there is the last one of each entity, with the time of
    its own last event. `created` is when the row was written, and tells rows of one event_timestamp
    apart. `key` is that of the text which the vector encodes. A row whose vector is null says that nothing is known of
    the entity any more.

    Args:
        entity: "user" or "item".
    """

    store: VectorStore
    entity: str

    @property
    def id_column(self) -> str:
        """The name of the column of ids."""
        return f"{self.entity}_id"

    @property
    def version(self) -> str:
        """That of all rows."""
        return self.store.version

    @property
    def moment(self) -> datetime:
        """That of all rows, but for versions.

        Raises:
            StoreError: The store's as-of time is no time.
        """
        said = self.store.manifest.as_of
        try:
            moment = datetime.fromtimestamp(0, UTC) if said is None else datetime.fromisoformat(said)
        except ValueError:
            raise StoreError(
                f"{self.store.path} knows texts as of {said!r}, which is no time: nobody could tell since when its "
                "vectors may be used.",
                path=self.store.path,
            ) from None
        if said is None:
            return moment
        moment += timedelta(days=1) if len(said) == _DAY else timedelta(microseconds=1)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def moments(self, ids: Sequence[EntityId]) -> list[datetime]:
        """That of each row: of a store of versions its own, where it has one.

        Raises:
            StoreError: The store's as-of time is no time.
        """
        found = [self.moment] * len(ids)
        if self.store.versioned:
            rows = self.store.rows(ids)
            known = np.flatnonzero(rows >= 0)
            own = datetimes(self.store.moments_at(rows[known]) + 1)
            for place, moment in zip(known.tolist(), own, strict=True):
                found[place] = moment
        return found

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of all batches."""
        ids = pa.string() if self.store.id_kind == "U" else pa.int64()
        return pa.schema(
            {
                self.id_column: ids,
                "event_timestamp": pa.timestamp("us", tz="UTC"),
                "created": pa.timestamp("us", tz="UTC"),
                "version": pa.string(),
                "key": pa.string(),
                "vector": pa.list_(pa.float32()),
            }
        )

    def batch(
        self, ids: Sequence[EntityId], keys: Sequence[str | None], vectors: npt.NDArray[Any] | None
    ) -> pa.RecordBatch:
        """Rows of some ids; without vectors, rows that say that there is none any more."""
        count = len(ids)
        if vectors is None:
            lists = pa.nulls(count, pa.list_(pa.float32()))
        else:
            flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
            starts = pa.array(np.arange(count + 1, dtype=np.int32) * vectors.shape[1])
            lists = pa.ListArray.from_arrays(starts, flat)
        columns = [
            pa.array(ids, self.schema.field(0).type),
            pa.array(self.moments(ids), self.schema.field(1).type),
            pa.array([datetime.now(UTC)] * count, self.schema.field(2).type),
            pa.array([self.version] * count),
            pa.array(keys, pa.string()),
            lists,
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def blocks(self) -> Iterator[tuple[list[EntityId], list[str], npt.NDArray[Any]]]:
        """All ids, keys and vectors, some at a time."""
        return self.store.blocks(SIZE)
