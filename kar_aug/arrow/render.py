"""Rows of users or items into prompts: those that `kar-aug generate` would ask, made where the rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from kar_aug.arrow.columns import BAD, FORGOTTEN, NO_PROMPT, Batch, NoPrompt, prompt_batch
from kar_aug.arrow.worker import forgotten_of, workspace_of
from kar_aug.data import Tables
from kar_aug.data.place import Table
from kar_aug.data.room import MEMORY
from kar_aug.data.tables import typed
from kar_aug.errors import ConfigError, DataError, KarError
from kar_aug.prompts import Prompt, item_prompts, user_prompts
from kar_aug.prompts.prompt import version_with

if TYPE_CHECKING:
    from kar_aug.pipeline.project import Project
    from kar_aug.pipeline.workspace import Workspace

EVENTS = "events"


class Render:
    """Makes of a batch of users, or items, a batch of prompts (`columns.RENDERED`), a row each.

    A row of a user holds `user_id`, the columns of users that the scenario shows, and `events`: a list of structs with
    item_id, timestamp and rating or label, which prompts may see: all that is before the user's first sample. Events of
    one time stay in their order. Other fields of the structs are the items' own, for catalogues that no worker should
    hold. A row of an item holds `item_id` and the columns of items that the scenario shows. Who was forgotten before
    this was made has no prompt, and a forgotten item is in nobody's.

    Args:
        project: its [prompts] say how to ask.
        entity: "user" or "item".
        items: the items that users' events are of, pickled with this; None where the structs hold what the scenario
            shows of them.

    Raises:
        ConfigError: [prompts] asks for what is told from all rows at once: a selection other than "recent", a recipe of
            neighbours.
    """

    def __init__(self, project: Project | Workspace, entity: str, *, items: pd.DataFrame | None = None) -> None:
        workspace = workspace_of(project)
        config, asking = workspace.config.prompts, workspace.asking
        if entity not in ("user", "item"):
            raise ValueError(f"An entity is 'user' or 'item'. Received: {entity!r}")
        if why := needs_all_rows(workspace, entity):
            raise ConfigError(f"{why} is told from all rows at once: such prompts are rendered by kar-aug generate.")
        self._entity, self._scenario = entity, asking.scenario
        self._recipe = workspace.paths.recipes[entity]
        self._left_out = sorted(config.leave_out)
        self._max_events, self._min_events = config.max_events, config.min_events
        self._items = items
        self._id_type, self._forgotten = workspace.config.data.id_type, forgotten_of(workspace)

    def __call__(self, batch: Batch) -> Batch:
        """A batch of prompts; a row about which nothing is to be asked has none, and says why.

        Raises:
            DataError: A column is missing: that is no row's fault.
        """
        needed = ("user_id", EVENTS) if self._entity == "user" else ("item_id",)
        for name in needed:
            if name not in batch.schema.names:
                raise DataError(
                    f"A batch of {self._entity}s needs the columns {', '.join(needed)}: there is no {name!r}. It has: "
                    f"{', '.join(batch.schema.names)}",
                    table="batch",
                    column=name,
                )
        made: Any = prompt_batch(self._rendered(batch))
        return made if isinstance(batch, pa.RecordBatch) else pa.Table.from_batches([made])

    def _rendered(self, batch: Any) -> list[Prompt | NoPrompt]:
        try:
            return self._prompts(batch)
        except Exception as error:  # of whatever kind: which row it was is found out
            if batch.num_rows == 1:
                why = str(error) if isinstance(error, KarError) else f"{type(error).__name__}: {error}"
                return [NoPrompt(BAD, why)]
            return [row for place in range(batch.num_rows) for row in self._rendered(batch.slice(place, 1))]

    def _prompts(self, batch: Any) -> list[Prompt | NoPrompt]:
        ids_name = f"{self._entity}_id"
        ids = batch.column(ids_name)
        if ids.null_count:
            raise DataError("the id is empty", table="batch", column=ids_name)
        own = typed(f"{self._entity}s", pd.DataFrame({ids_name: ids.to_pandas()}), Table("batch"), self._id_type)
        entity_ids = own[ids_name].tolist()
        forgotten = set(self._forgotten.among(self._entity, entity_ids))
        left = batch.filter(pa.array([id not in forgotten for id in entity_ids], pa.bool_())) if forgotten else batch
        prompts: dict[int | str, Prompt] = {}
        if left.num_rows:
            prompts = self._of_users(left) if self._entity == "user" else self._of_items(left)
        return [
            NoPrompt(FORGOTTEN, None) if id in forgotten else prompts.get(id, NoPrompt(NO_PROMPT, None))
            for id in entity_ids
        ]

    def _of_users(self, batch: Any) -> dict[int | str, Prompt]:
        users = self._frame(batch, leave=(EVENTS, *self._left_out))
        events = _exploded(batch)
        own = {"user_id", "item_id", "timestamp", "rating", "label", "order", *self._event_fields}
        fields = [name for name in events if name not in own]
        events = typed("interactions", events, Table("events"), self._id_type)
        items = self._items if self._items is not None else events[["item_id", *fields]].drop_duplicates("item_id")
        for name in ("item_id", "timestamp", *(() if "label" in events else ("rating",))):
            if name not in events or events[name].isna().any():
                raise DataError(f"events: {name} is empty, or not there", table="events", column=name)
        events = self._forgotten.rows_left(events, MEMORY)
        sort = ["user_id", "timestamp", *(["order"] if "order" in events else [])]
        events = events.sort_values(sort, kind="stable").assign(part="history")
        tables = _tables(events, items.drop(columns=self._left_out, errors="ignore"), users)
        made = user_prompts(
            self._scenario, tables, events, recipe=self._recipe, max_events=self._max_events,
            min_events=self._min_events,
        )  # fmt: skip
        return {prompt.entity_id: self._with_version(prompt) for prompt in made}

    def _of_items(self, batch: Any) -> dict[int | str, Prompt]:
        items = self._frame(batch, leave=self._left_out)
        nobody = pd.DataFrame({"user_id": [], "item_id": [], "timestamp": [], "part": []})
        made = item_prompts(self._scenario, _tables(nobody, items, items.iloc[:0]), nobody, recipe=self._recipe)
        return {prompt.entity_id: self._with_version(prompt) for prompt in made}

    def _frame(self, batch: Any, leave: Sequence[str]) -> pd.DataFrame:
        """The batch's own columns, each of a type that the project keeps."""
        names = [name for name in batch.schema.names if name not in leave]
        frame = batch.select(names).to_pandas()
        repeated = frame[f"{self._entity}_id"].duplicated()
        return typed(f"{self._entity}s", frame[~repeated], Table("batch"), self._id_type)

    @property
    def _event_fields(self) -> Sequence[str]:
        return tuple(self._scenario.user.get("event_fields", ()))

    def _with_version(self, prompt: Prompt) -> Prompt:
        if not self._left_out:
            return prompt
        return replace(prompt, version=version_with(prompt.version, {"leave_out": self._left_out}))


def needs_all_rows(workspace: Workspace, entity: str) -> str | None:
    """What keeps the prompts of an entity from being rendered row by row: a setting, in words; None if nothing does."""
    prompts = workspace.config.prompts
    if entity == "user" and prompts.selection != "recent":
        return f'[prompts] selection = "{prompts.selection}"'
    if "neighbours" in workspace.paths.recipes[entity].needs:
        return f"The recipe of {entity}s"
    if workspace.paths.groups(entity) is not None:
        return f"[prompts] {entity}_clusters"
    return None


def _exploded(batch: Any) -> pd.DataFrame:
    """A row an event, with its user."""
    from pyarrow.compute import list_parent_indices

    table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    lists = table.column(EVENTS).combine_chunks()
    owners = list_parent_indices(lists)
    frame = pa.Table.from_struct_array(lists.flatten()).to_pandas()
    return frame.assign(user_id=table.column("user_id").combine_chunks().take(owners).to_pandas().to_numpy())


def _tables(interactions: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> Tables:
    """Tables of some rows, which may be none: what `Tables` checks of a whole is not asked of a part."""
    tables = object.__new__(Tables)
    named: Mapping[str, pd.DataFrame] = {"interactions": interactions, "items": items, "users": users}
    for name, frame in named.items():
        object.__setattr__(tables, name, frame)
    return tables
