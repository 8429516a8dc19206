"""A Redis server: a hash an entity, `kar:item:42` -> vector (float32, little-endian), version, key, event_timestamp,
and id, as JSON, which says whether it is a number.

`redis://host:port/db?prefix=kar` names it; the prefix is ours, not Redis's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
import pandas as pd
import pyarrow as pa

from kar_aug._batched import batched
from kar_aug._servers.addresses import masked
from kar_aug.errors import MissingDependencyError, StoreError
from kar_aug.online.rows import SIZE, Rows

try:
    import redis
except ImportError:
    raise MissingDependencyError("redis", "redis") from None

_FIELDS = ("id", "version", "key", "vector")
_AT_ONCE = 1_000  # keys of one round trip


class Redis:
    """The vectors of one entity. A request that looks several up meets each before or after a write, never between."""

    def __init__(self, where: str, id_column: str) -> None:
        parts = urlsplit(where)
        query = dict(parse_qsl(parts.query))
        prefix = query.pop("prefix", "kar")
        self._where, self._ids = masked(where), id_column
        self._prefix = f"{prefix}:{id_column.removesuffix('_id')}:"
        try:
            self._client: Any = redis.Redis.from_url(urlunsplit(parts._replace(query=urlencode(query))))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._where} is no address of a Redis server: {error}", path=self._where) from None

    def state(self) -> pd.DataFrame:
        """See `Place`."""
        rows = [(json.loads(id), version.decode(), key.decode()) for id, version, key in self._all(_FIELDS[:3])]
        return pd.DataFrame(rows, columns=[self._ids, "version", "key"]).set_index(self._ids)

    def read(self) -> Iterator[pa.RecordBatch]:
        """See `Place`."""
        for rows in batched(self._all(_FIELDS), SIZE):
            ids, versions, keys, vectors = zip(*rows, strict=True)
            columns = [
                pa.array([json.loads(id) for id in ids]),
                pa.array([version.decode() for version in versions]),
                pa.array([key.decode() for key in keys]),
                pa.array([np.frombuffer(vector, "<f4") for vector in vectors]),
            ]
            yield pa.RecordBatch.from_arrays(columns, [self._ids, "version", "key", "vector"])

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """See `Place`: an entity is seen before or after; all of them take as long as they take."""
        for batch in batches:
            with self._errors(), self._client.pipeline(transaction=False) as pipeline:
                for row in batch.to_pylist():
                    name = f"{self._prefix}{row[self._ids]}"
                    if row["vector"] is None:
                        pipeline.delete(name)
                        continue
                    fields = {
                        "id": json.dumps(row[self._ids]),
                        "version": row["version"],
                        "key": row["key"],
                        "event_timestamp": row["event_timestamp"].isoformat(),
                        "vector": np.asarray(row["vector"], "<f4").tobytes(),
                    }
                    pipeline.hset(name, mapping=fields)
                    if len(pipeline) >= _AT_ONCE:
                        pipeline.execute()
                pipeline.execute()

    def forget(self, ids: Collection[Any], *, dry_run: bool = False) -> int:
        """See `Place`."""
        with self._errors():
            names = {f"{self._prefix}{id}" for id in ids}
            return int((self._client.exists if dry_run else self._client.delete)(*names)) if names else 0

    def _all(self, fields: tuple[str, ...]) -> Iterator[list[bytes]]:
        """Fields of every hash that is ours."""
        with self._errors():
            pattern = re.sub(r"([\[\]*?\\^-])", r"\\\1", self._prefix) + "*"
            names = set(self._client.scan_iter(pattern, count=_AT_ONCE))  # a scan may meet one twice
            for part in batched(names, _AT_ONCE):
                with self._client.pipeline(transaction=False) as pipeline:
                    for name in part:
                        pipeline.hmget(name, fields)
                    yield from (values for values in pipeline.execute() if None not in values)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise StoreError(f"{self._where}: {error}", path=self._where) from None
