"""The columns of batches.

| column    | type                | holds                                                                              |
|-----------|---------------------|------------------------------------------------------------------------------------|
| knowledge | string              | the kind of knowledge that the answer is: "user", "item:tags"                      |
| entity_id | string              | the id as JSON, so that numbers and texts stay apart: `50`, `"B00X"`; or integers  |
| messages  | string              | the messages as JSON; or a list of structs with role and content                   |
| version   | string              | of the prompt                                                                      |
| as_of     | string              | the time of the last event that the prompt shows                                   |
| schema    | string              | as JSON, where the answer must fit one                                             |
| status    | string              | what came of the row: see below                                                    |
| reason    | string              | why, where it is none of the answers'                                              |
| key       | string              | of the answer                                                                      |
| text      | string              | the knowledge; null where the answer is none                                       |
| new       | bool                | whether it was answered, or rejected, since the batch came                         |
| change    | string              | of the prompt, since its entity's last answer: "new", "changed", "unchanged"       |
| vector    | list of floats      | the text encoded; null where there is no text                                      |
| text_key  | string              | of the text that was encoded                                                       |

`status` is the word of an answer (`kar_aug.cache.Status`: "ok", "truncated", "refused", ...) or one of those here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from kar_aug.errors import DataError
from kar_aug.prompts import Prompt

NO_PROMPT = "no prompt"  # there is nothing to ask about it: too short a history, no name
FORGOTTEN = "forgotten"  # by kar-aug forget: whatever the tables hold, nothing is asked about it
BAD = "bad row"  # it holds what it must not
REJECTED = "rejected"  # by the server, for itself; not asked again
FAILED = "failed"  # it has no answer, and the next run asks it
IN_BATCH = "in a batch"  # that runs at the server, and is collected by `kar-aug generate --batch`
STOPPED = "stopped"  # before it was asked

PROMPT = ("knowledge", "entity_id", "messages", "version")
_OPTIONAL = ("as_of", "schema", "status", "reason")
RENDERED = pa.schema([(name, pa.string()) for name in (*PROMPT, *_OPTIONAL)])
ASKED = pa.schema([("key", pa.string()), ("status", pa.string()), ("reason", pa.string()), ("text", pa.string()),
                   ("new", pa.bool_()), ("change", pa.string())])  # fmt: skip

# A RecordBatch, or a Table; pyarrow has no types.
Batch = TypeVar("Batch", bound=Any)


class NoPrompt(NamedTuple):
    """A row that is not asked, and why."""

    status: str
    reason: str | None


def prompt_batch(prompts: Iterable[Prompt | NoPrompt]) -> Any:
    """Prompts as a record batch, a row each."""
    rows = [_row(prompt) for prompt in prompts]
    return pa.RecordBatch.from_pylist(rows, schema=RENDERED)


def ids_as_json(ids: Sequence[int | str]) -> list[str]:
    """Ids as the column `entity_id` holds them."""
    return [json.dumps(id) for id in ids]


def read_prompts(batch: Any) -> list[Prompt | NoPrompt]:
    """What each row asks.

    Raises:
        DataError: A column is missing: that is no row's fault.
    """
    missing = [name for name in PROMPT if name not in batch.schema.names]
    if missing:
        raise DataError(
            f"A batch of prompts needs the columns {', '.join(PROMPT)}: there is no {missing[0]!r}. "
            f"It has: {', '.join(batch.schema.names)}",
            table="batch",
            column=missing[0],
        )
    names = [name for name in (*PROMPT, *_OPTIONAL) if name in batch.schema.names]
    return [_read(row) for row in batch.select(names).to_pylist()]


def with_columns(batch: Batch, columns: Mapping[str, Any]) -> Batch:
    """The batch with these columns, in place of those of the same names; a table stays a table."""
    kept = [name for name in batch.schema.names if name not in columns]
    arrays = [batch.column(name) for name in kept] + list(columns.values())
    made: Batch = type(batch).from_arrays(arrays, names=[*kept, *columns])
    return made


def _row(prompt: Prompt | NoPrompt) -> dict[str, str | None]:
    if isinstance(prompt, NoPrompt):
        return {"status": prompt.status, "reason": prompt.reason}
    return {
        "knowledge": prompt.knowledge,
        "entity_id": json.dumps(prompt.entity_id),
        "messages": json.dumps(list(prompt.messages), ensure_ascii=False),
        "version": prompt.version,
        "as_of": prompt.as_of,
        "schema": None if prompt.schema is None else json.dumps(dict(prompt.schema)),
    }


def _read(row: Mapping[str, Any]) -> Prompt | NoPrompt:
    if row["messages"] is None:
        return NoPrompt(row.get("status") or NO_PROMPT, row.get("reason"))
    try:
        said = row["messages"]
        messages = tuple(json.loads(said) if isinstance(said, str) else said)
        if not messages or not all(isinstance(each["role"], str) and "content" in each for each in messages):
            raise ValueError("messages must be a list of objects with role and content")
        if not (row["knowledge"] and row["version"] is not None):
            raise ValueError("knowledge and version must not be empty")
        schema = row.get("schema")
        return Prompt(
            row["knowledge"], _id(row["entity_id"]), messages, row["version"], row.get("as_of"),
            schema=None if schema is None else json.loads(schema),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return NoPrompt(BAD, f"{type(error).__name__}: {error}")


def _id(stored: Any) -> int | str:
    found = json.loads(stored) if isinstance(stored, str) else stored
    if type(found) not in (int, str):
        raise ValueError(f"entity_id must be an integer or a text as JSON, not {stored!r}")
    return found
