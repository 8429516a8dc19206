"""The rows that a project's prompts are rendered from, as record batches: what a join gives where tables are larger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from kar_aug._helpers.batched import batched
from kar_aug.arrow.render import EVENTS
from kar_aug.prompts.entities import items_to_ask, users_with_history

if TYPE_CHECKING:
    from kar_aug.pipeline.workspace import Workspace

ROWS = 4096


def rows_of(workspace: Workspace, entity: str, size: int = ROWS) -> Iterator[Any]:
    """Those of users, or items, that `kar-aug generate` asks about, in its order: what `Render` takes."""
    return _users(workspace, size) if entity == "user" else _items(workspace, size)


def _items(workspace: Workspace, size: int) -> Iterator[Any]:
    limits, asking = workspace.config.prompts, workspace.asking
    tables = asking.tables
    ids = items_to_ask(tables, workspace.data.split, limits.max_items, whole_catalogue=limits.whole_catalogue)
    yield from _batches(tables.items.set_index("item_id"), ids, size)


def _users(workspace: Workspace, size: int) -> Iterator[Any]:
    limits, asking, split = workspace.config.prompts, workspace.asking, workspace.data.split_with_samples
    ids = users_with_history(split, limits.min_events)[: limits.max_users]
    shown = [name for name in asking.scenario.user["fields"] if name in asking.tables.users]
    profiles = asking.tables.users.set_index("user_id")[shown]
    rows = np.flatnonzero(split["part"] == "history")
    owner = pd.Categorical(split["user_id"].iloc[rows], categories=pd.Index(ids)).codes
    rows, owner = rows[owner >= 0], owner[owner >= 0]
    order = np.argsort(owner, kind="stable")
    rows = rows[order]
    ends = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(ids)))])
    told = asking.scenario.user.get("event_fields", [])
    columns = [name for name in ("item_id", "timestamp", "rating", "label", "order", *told) if name in split]
    start = 0
    for batch in _batches(profiles, ids, size):
        part = ends[start : start + batch.num_rows + 1]
        start += batch.num_rows
        events = pa.Table.from_pandas(split[columns].iloc[rows[part[0] : part[-1]]], preserve_index=False)
        structs = events.to_struct_array().combine_chunks() if events.num_rows else pa.array([], _struct(events))
        yield batch.append_column(EVENTS, pa.ListArray.from_arrays(pa.array(part - part[0], pa.int32()), structs))


def _struct(table: Any) -> Any:
    return pa.struct(list(table.schema))


def _batches(frame: pd.DataFrame, ids: Sequence[int | str], size: int) -> Iterator[Any]:
    """The frame's rows of these ids, by its index; empty where it has none."""
    for some in batched(ids, size):
        index = pd.Index(some, name=frame.index.name)
        table = pa.Table.from_pandas(frame.reindex(index).reset_index(), preserve_index=False)
        yield table.combine_chunks().to_batches()[0]
