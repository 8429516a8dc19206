"""Copies of answers and requests in files, written anew without those who are forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from kar_aug._helpers.files import atomic_path
from kar_aug.cache.texts.forgetting import Whom

_ROWS = 1000


def without_lines(path: Path, whom: Whom, keys: Collection[str], *, dry_run: bool) -> int:
    """Take lines out of a file of spilt answers, or of requests; how many. One without any line left is deleted."""
    left, gone = [], 0
    with path.open("rb") as file:
        for line in file:
            if _is_theirs(line, whom, keys):
                gone += 1
            else:
                left.append(line)
    if gone and not dry_run:
        _replace(path, left)
    return gone


def keys_of_requests(path: Path) -> list[str]:
    """The `custom_id` of each line of a file of requests that has one."""
    found = []
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                document = json.loads(line)
                if isinstance(document, dict) and isinstance(id := document.get("custom_id"), str):
                    found.append(id)
    return found


def _is_theirs(line: bytes, whom: Whom, keys: Collection[str]) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    links = document.get("links") or []
    linked = any(isinstance(link, list) and len(link) > 1 and whom.is_about(link[0], link[1]) for link in links)
    return linked or document.get("custom_id", document.get("key")) in keys


def _replace(path: Path, lines: list[bytes]) -> None:
    if not lines:
        path.unlink()
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(lines))


def without_rows(path: Path, is_theirs: Callable[[dict[str, Any]], bool], *, dry_run: bool) -> int:
    """Take rows out of a Parquet file; how many. Its columns and what its schema says stay."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        gone = sum(map(is_theirs, (row for batch in file.iter_batches(_ROWS) for row in batch.to_pylist())))
        if gone and not dry_run:
            with (
                atomic_path(path) as temporary,
                pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd") as new,
            ):
                for batch in file.iter_batches(_ROWS):
                    new.write_batch(batch.filter(pa.array([not is_theirs(row) for row in batch.to_pylist()])))
    return gone


def is_their_answer(whom: Whom, keys: Collection[str]) -> Callable[[dict[str, Any]], bool]:
    """Whether a row of exported answers is theirs."""

    def is_theirs(row: dict[str, Any]) -> bool:
        stored = row.get("entity_id")
        return row.get("key") in keys or (stored is not None and whom.is_about(row.get("source"), json.loads(stored)))

    return is_theirs
