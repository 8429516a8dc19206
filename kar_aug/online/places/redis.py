"""A Redis server: `kar:item` -> the version that is served, 8 hex digits; and a hash an entity of that version,
`kar:item:1a2b3c4d:42` -> vector (float32, little-endian), version, key, event_timestamp, and id, as JSON, which says
whether it is a number.

Vectors of another version are written beside the former, which are served meanwhile; then `kar:item` is set, once. Who
reads the version first and then its hashes never meets two: the former ones stay for an hour.

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

from kar_aug._helpers.batched import batched
from kar_aug._helpers.servers.addresses import masked
from kar_aug.errors import MissingDependencyError, StoreError
from kar_aug.online.rows import SIZE, Rows

try:
    import redis
except ImportError:
    raise MissingDependencyError("redis", "redis") from None

_FIELDS = ("id", "version", "key", "vector")
_AT_ONCE = 1_000  # keys of one round trip
GRACE_SECONDS = 3_600  # for which a reader may go on with the version that it began with


class Redis:
    """The vectors of one entity."""

    def __init__(self, where: str, id_column: str) -> None:
        parts = urlsplit(where)
        query = dict(parse_qsl(parts.query))
        prefix = query.pop("prefix", "kar")
        self._where, self._ids = masked(where), id_column
        self._pointer = f"{prefix}:{id_column.removesuffix('_id')}"
        # Hashes of a version, and those of before there were versions. Another's prefix may begin as ours does.
        self._ours = re.compile(
            re.escape(f"{self._pointer}:".encode()) + rb"(?:[0-9a-f]{8}:|(?!(?:user|item)(?::|$)))(.*)", re.DOTALL
        )
        try:
            self._client: Any = redis.Redis.from_url(urlunsplit(parts._replace(query=urlencode(query))))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._where} is no address of a Redis server: {error}", path=self._where) from None

    def state(self) -> pd.DataFrame:
        """See `Place`."""
        rows = [(id, _text(version), _text(key)) for id, version, key in self._all(_FIELDS[:3])]
        return pd.DataFrame(rows, columns=[self._ids, "version", "key"]).set_index(self._ids)

    def read(self) -> Iterator[pa.RecordBatch]:
        """See `Place`."""
        for rows in batched(self._all(_FIELDS), SIZE):
            ids, versions, keys, vectors = zip(*rows, strict=True)
            columns = [
                pa.array(ids),
                pa.array([_text(version) for version in versions]),
                pa.array([_text(key) for key in keys]),
                # Null: somebody has made what is no vector of it.
                pa.array([None if len(v) % 4 else np.frombuffer(v, "<f4") for v in vectors], pa.list_(pa.float32())),
            ]
            yield pa.RecordBatch.from_arrays(columns, [self._ids, "version", "key", "vector"])

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """See `Place`. Within a version, an entity is seen before or after, and all of them take as long as they take;
        another version is seen whole.
        """
        served = self._served()
        if rows.version != served:
            self._take_away(f"{self._pointer}:{rows.version}:")  # of a write that was killed, or of an earlier time
        self._put(batches, f"{self._pointer}:{rows.version}:")
        if rows.version != served:
            with self._errors():
                self._client.set(self._pointer, rows.version)
            self._take_away(f"{self._pointer}:", but=f"{self._pointer}:{rows.version}:", seconds=GRACE_SECONDS)

    def _put(self, batches: Iterator[pa.RecordBatch], prefix: str) -> None:
        for batch in batches:
            with self._errors(), self._client.pipeline(transaction=False) as pipeline:
                for row in batch.to_pylist():
                    name = f"{prefix}{row[self._ids]}"
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
        """See `Place`. Those of former versions that readers may still go on with are taken away, too, and counted."""
        with self._errors():
            wanted = {str(id) for id in ids}
            ours = self._names(f"{self._pointer}:") if wanted else set()
            found = ((name, self._ours.fullmatch(name)) for name in ours)
            names = [name for name, match in found if match and _text(match[1]) in wanted]
            return len(names) if dry_run or not names else int(self._client.delete(*names))

    def _served(self) -> str | None:
        """The version that readers are led to; None if nothing was ever written."""
        with self._errors():
            said = self._client.get(self._pointer)
            return None if said is None else _text(said)

    def _all(self, fields: tuple[str, ...]) -> Iterator[list[Any]]:
        """Fields of every hash that is served, its id first, as what it is. One without an id is none."""
        served = self._served()
        with self._errors():
            for part in batched(set() if served is None else self._names(f"{self._pointer}:{served}:"), _AT_ONCE):
                with self._client.pipeline(transaction=False) as pipeline:
                    for name in part:
                        pipeline.hmget(name, fields)
                    for id, *values in pipeline.execute():
                        if None not in (id, *values) and (known := _id_of(id)) is not None:
                            yield [known, *values]

    def _names(self, prefix: str) -> set[bytes]:
        pattern = re.sub(r"([\[\]*?\\^-])", r"\\\1", prefix) + "*"
        found = set(self._client.scan_iter(pattern, count=_AT_ONCE))  # a scan may meet one twice
        return {name for name in found if self._ours.fullmatch(name)}

    def _take_away(self, prefix: str, *, but: str | None = None, seconds: int = 0) -> None:
        """Take away what is under a prefix, at once or some seconds from now."""
        with self._errors():
            for part in batched(self._names(prefix), _AT_ONCE):
                with self._client.pipeline(transaction=False) as pipeline:
                    for name in part:
                        if but is None or not name.startswith(but.encode()):
                            pipeline.expire(name, seconds)  # 0 seconds: now
                    pipeline.execute()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            said = str(error)
            if "WRONGTYPE" in said:
                command = re.search(r"\(\w+ (\S+)", said)  # "Command # 2 (HMGET kar:item:1a2b3c4d:42 ..." of several
                name = command[1] if command else self._pointer
                said = (
                    f"{name} holds what kar-aug never writes there. Take it away (DEL), or name another prefix: "
                    "redis://...?prefix=..."
                )
            raise StoreError(f"{self._where}: {said}", path=self._where) from None


def _text(written: bytes) -> str:
    """What is written, be it by somebody else."""
    return written.decode(errors="replace")


def _id_of(written: bytes) -> int | str | None:
    """The id that a hash holds; None if somebody has made something else of it."""
    try:
        id = json.loads(written)
    except ValueError:
        return None
    return id if isinstance(id, int | str) else None
