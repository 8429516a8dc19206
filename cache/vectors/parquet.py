"""A vector store as Arrow batches and as a Parquet file, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kar_aug._helpers.files import atomic_path
from kar_aug.cache.vectors.files import StoreSpec
from kar_aug.cache.vectors.moments import Moments
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.cache.vectors.writer import open_writer
from kar_aug.errors import MissingDependencyError, StoreError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise MissingDependencyError("pyarrow", "parquet") from None

ROWS = 65_536
_TIME = pa.timestamp("us", tz="UTC")


def batches(store: Snapshot, size: int = ROWS) -> Iterator[pa.RecordBatch]:
    """See `VectorStore.batches`."""
    kind = pa.float16() if store.spec.dtype == "float16" else pa.float32()
    for ids, times, keys, vectors in store.version_blocks(size):
        flat = pa.array(vectors.reshape(-1), kind)
        lists = pa.FixedSizeListArray.from_arrays(flat, store.spec.dimension)
        columns = {"id": pa.array(ids), "key": pa.array(keys), "vector": lists}
        if times is not None:
            columns["as_of"] = pa.array(times, _TIME)
        yield pa.RecordBatch.from_pydict(columns)


def write(store: Snapshot, path: Path) -> None:
    """See `VectorStore.to_parquet`."""
    if not len(store):
        raise StoreError(f"{store.path} holds no vector to write to {path}.", path=store.path)
    rest = batches(store)
    first = next(rest)
    described = {"kar_aug": json.dumps({"spec": asdict(store.spec), "as_of": store.manifest.as_of})}
    schema = first.schema.with_metadata(described)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as file:
        for batch in (first, *rest):
            file.write_table(pa.Table.from_batches([batch]).replace_schema_metadata(described))


def append(parquet: Path | str, path: Path, spec: StoreSpec | None) -> None:
    """Append the rows of a Parquet file to the store at `path`; see `VectorStore.from_parquet`."""
    try:
        with pq.ParquetFile(parquet) as file:
            described = json.loads((file.schema_arrow.metadata or {}).get(b"kar_aug", b"null"))
            if described is not None:
                spec = spec or StoreSpec.from_dict(described["spec"])
            if spec is None:
                raise StoreError(f"{parquet} does not say how its vectors were made. Give `spec`.", path=parquet)
            with open_writer(path, spec) as writer:
                for batch in file.iter_batches(ROWS):
                    ids, vectors = batch.column("id").to_pylist(), batch.column("vector").flatten()
                    keys = batch.column("key").to_pylist() if "key" in batch.schema.names else [""] * len(ids)
                    matrix = np.asarray(vectors).reshape(len(ids), -1)
                    as_of = described["as_of"] if described else None
                    writer.append(ids, keys, matrix, as_of=as_of, versions=_versions(batch))
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{parquet} is not a Parquet file of vectors ({error}).", path=parquet) from None


def _versions(batch: pa.RecordBatch) -> Moments | None:
    if "as_of" not in batch.schema.names or not pa.types.is_timestamp(batch.schema.field("as_of").type):
        return None
    return np.asarray(batch.column("as_of").cast(_TIME).cast(pa.int64()).to_numpy(), np.int64)
