"""Answers as a Parquet file, to look at with other tools, to share, and to bring back.

One row for each entity that has an answer, and one for each answer that is nobody's. `entity_id` is JSON (50 or
"B00X"), so that numbers and texts stay apart; `messages` and `parameters` are JSON too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kar_aug._helpers.batched import batched
from kar_aug._helpers.files import atomic_path
from kar_aug.cache.texts.cache import Answer, DamagedAnswer, Link, TextCache
from kar_aug.cache.texts.incoming import Brought, Incoming, bring
from kar_aug.errors import StoreError

_ROWS = 1000
_SPREAD = re.compile(r"[0-9a-f]{8}")  # the first digits of a key of ours
_COLUMNS = {
    "source": "string",
    "entity_id": "string",
    "text": "string",
    "status": "string",
    "model": "string",
    "served_model": "string",
    "prompt_version": "string",
    "as_of": "string",
    "updated": "string",
    "created": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "seconds": "double",
    "cost": "double",
    "tier": "string",
    "key": "string",
    "parameters": "string",
    "messages": "string",
}


def export_parquet(
    cache: TextCache,
    path: Path,
    *,
    messages: bool = True,
    on_damage: Callable[[DamagedAnswer], None] | None = None,
) -> int:
    """Write all answers, and whose they are. Returns the number of rows.

    Args:
        messages: whether the prompts go with them. Prompts show rows of your data: leave them out of what you pass on.
        on_damage: as in `TextCache.answers`.
    """
    return _write(_rows(cache, messages, on_damage), path)


def export_shards(
    cache: TextCache,
    folder: Path,
    shards: int,
    *,
    messages: bool = True,
    on_damage: Callable[[DamagedAnswer], None] | None = None,
) -> int:
    """Write all answers as so many files by their keys, 00017-of-00256.parquet: an answer is in the same of them
    wherever it was exported, so that engines join shard with shard. Returns the number of rows; a shard without any
    has no file.

    Args:
        messages, on_damage: as in `export_parquet`.

    Raises:
        StoreError: The folder holds another number of shards.
    """
    paths = shard_paths(folder, shards)
    others = [path for path in parquet_files(folder) if path not in paths]
    if others:
        raise StoreError(f"{folder} holds {others[0].name}, which is no shard of {shards}. Name another folder.")
    for left in folder.glob(".*-of-*.parquet"):  # by an export that was killed
        left.unlink(missing_ok=True)
    counts: Counter[Path] = Counter()
    with ExitStack() as stack:
        writers: dict[Path, Callable[[list[dict[str, Any]]], None]] = {}
        # Keys of ours come in order, and a shard is a range of them; others' may be of any shard.
        for some in batched(_rows(cache, messages, on_damage), _ROWS):
            parts: dict[Path, list[dict[str, Any]]] = {}
            for row in some:
                parts.setdefault(paths[shard_of(row["key"], shards)], []).append(row)
            for path, rows in parts.items():
                if path not in writers:
                    writers[path] = stack.enter_context(_writing(path))
                writers[path](rows)
                counts[path] += len(rows)
    for path in paths:
        if path not in counts:
            path.unlink(missing_ok=True)
    return counts.total()


def shard_paths(folder: Path, shards: int) -> list[Path]:
    """The files of so many shards."""
    return [folder / f"{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]


def parquet_files(folder: Path) -> list[Path]:
    """Those of a folder, by their names; not what a job that was killed has left, half written."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def shard_of(key: str, shards: int) -> int:
    """The shard of an answer: keys are spread evenly, and so are their first digits; a key that somebody else gave (the
    custom_id of a foreign line) is by its SHA-256.
    """
    digits = key if _SPREAD.match(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return int(digits[:8], 16) * shards >> 32


def _write(rows: Iterable[dict[str, Any]], path: Path) -> int:
    count = 0
    with _writing(path) as write:
        for some in batched(rows, _ROWS):
            write(list(some))
            count += len(some)
    return count


@contextmanager
def _writing(path: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def import_parquet(path: Path, cache: TextCache) -> Brought:
    """Bring answers of such a file into a cache: see `kar_aug.cache.texts.incoming`. Where a file of an older kar-aug
    does not say since when an answer is an entity's, it is since it came.

    Raises:
        StoreError: It is not such a file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = sorted({"key", "text", "status", "model"} - set(file.schema_arrow.names))
            if missing:
                raise StoreError(
                    f"{path} holds no answers: there is no column {missing[0]!r}.", path=path, column=missing[0]
                )
            rows = (row for batch in file.iter_batches(_ROWS) for row in batch.to_pylist())
            return bring(map(_incoming, rows), cache)
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such file.", path=path) from None
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}", path=path) from None
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} holds a row that is no answer: {error}", path=path) from None


def _rows(
    cache: TextCache, messages: bool, on_damage: Callable[[DamagedAnswer], None] | None
) -> Iterator[dict[str, Any]]:
    for answers in batched(cache.answers(on_damage), _ROWS):
        links = cache.links_since([answer.key for answer in answers])
        for answer in answers:
            row = {name: getattr(answer, name, None) for name in _COLUMNS}
            row["parameters"] = None if answer.parameters is None else json.dumps(dict(answer.parameters))
            row["messages"] = json.dumps(list(answer.messages)) if messages else None
            owners = links.get(answer.key)
            yield from [row] if owners is None else (row | _owner(*owner) for owner in owners)


def _owner(link: Link, since: str) -> dict[str, Any]:
    """The columns that say whose an answer is. The kind of knowledge is the column `source`, as it always was."""
    fields = link._asdict()
    return {"source": fields.pop("knowledge"), **fields, "entity_id": json.dumps(link.entity_id), "updated": since}


def _incoming(row: Mapping[str, Any]) -> Incoming:
    answer, links = _answer(row), []
    if row.get("source") is not None:
        link = Link(row["source"], json.loads(row["entity_id"]), row["key"], row["prompt_version"], row["as_of"])
        links.append((link, row.get("updated") or answer.created))
    return Incoming(answer, links)


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(
        row["key"],
        row["status"],
        row["text"],
        row["model"],
        json.loads(row.get("messages") or "[]"),
        row.get("prompt_tokens") or 0,
        row.get("completion_tokens") or 0,
        row.get("seconds") or 0.0,
        row.get("created") or "",
        json.loads(row["parameters"]) if row.get("parameters") else None,
        row.get("served_model") or "",
        row.get("tier") or "",
        row.get("cost"),
    )
