"""What a project has so far: the prompt and answer of an entity, the vectors, and what they put side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.cache import Answer, Link, VectorStore
from kar_aug.cache.texts.cache import Failure
from kar_aug.cache.vectors.index import EntityId
from kar_aug.errors import ConfigError, KarError
from kar_aug.inspect.inputs import DataView
from kar_aug.inspect.nearest import find, nearest, norms, titles
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.prompts.histories.blocks import block_of


@dataclass(frozen=True)
class Inspection:
    """What `kar-aug inspect` shows. Nothing is changed."""

    workspace: Workspace

    def user(self, id: EntityId) -> Known:
        """What is known about a user, by id, also as typed."""
        return self.entity("user", id)

    def item(self, id: EntityId) -> Known:
        """What is known about an item, by id, also as typed."""
        return self.entity("item", id)

    def entity(self, entity: str, id: EntityId) -> Known:
        """What is known about a "user" or an "item"; of a user who is asked about in blocks, the last of them.

        Raises:
            ConfigError: There is none of this id.
        """
        ids = [known for known in self.workspace.data.tables.ids(entity) if str(known) == str(id)]
        if not ids:
            raise ConfigError(f"There is no {entity} {id!r} in the data.")
        with self.workspace.paths.open_cache(reading=True) as cache:
            name = self.workspace.paths.knowledge(entity)
            asked = self._asked(entity, ids[0])
            links = cache.linked(name, asked)
            link = next((links[each] for each in reversed(asked) if each in links), None)
            answer = cache.get(link.key) if link else None
            failures = [f for f in cache.failures() if f.knowledge == name and f.entity_id in asked]
        return Known(entity, id, failures, link, answer)

    def _asked(self, entity: str, id: EntityId) -> list[EntityId]:
        """Under which ids an entity is asked about: its own, or those of its blocks."""
        if not self.workspace.paths.in_versions(entity):
            return [id]
        events = int((self.workspace.data.tables.interactions[f"{entity}_id"] == id).sum())
        return [block_of(id, number + 1) for number in range(-(-events // self.workspace.config.prompts.max_events))]

    def data(self) -> DataView:
        """What a model reads: features, parts, lengths of histories, warnings; read when first looked at."""
        return DataView(self.workspace.data)

    def answers(self) -> dict[str, int]:
        """How many answers of each status there are, and their tokens."""
        with self.workspace.paths.open_cache(reading=True) as cache:
            return cache.counts()

    def vectors(self) -> Vectors:
        """The vector stores that models read.

        Raises:
            StoreError: There is none; the message says which command makes them.
        """
        stores = self.workspace.paths.stores()
        return Vectors([self._view(column.removesuffix("_id"), store) for column, store in stores.items()])

    def usable(self) -> Vectors:
        """Those of them that can be opened, perhaps none."""
        found = []
        for entity in ENTITIES:
            try:
                found.append(self._view(entity, VectorStore.open(self.workspace.paths.store(entity))))
            except KarError:
                continue
        return Vectors(found)

    def _view(self, entity: str, store: VectorStore) -> StoreView:
        data = self.workspace.data
        return StoreView(entity, store, data.split[f"{entity}_id"].tolist(), data.tables.ids(entity))

    def nearest(self, item: EntityId, count: int = 5) -> Nearest:
        """The items whose vectors are nearest to that of an item.

        Args:
            item: its id, its title, or a part that only one title has.

        Raises:
            ConfigError: There is no such item, or there are several.
            StoreError: There are no vectors, or none of this item.
        """
        store = VectorStore.open(self.workspace.paths.store("item"))
        shown = self.workspace.asking.scenario.item["fields"]
        tables = self.workspace.data.tables
        named = {id: str(id) for id in tables.ids("item")} | titles(tables.items, "item_id", shown)
        id = find(named, str(item))
        rows = [(other, named.get(other, str(other)), cosine) for other, cosine in nearest(store, id, count)]
        return Nearest(named[id], store.spec.encoder, rows)


@dataclass(frozen=True)
class Known(Printed):
    """The answer about one entity with its prompt, if there is one; and what failed.

    Args:
        id: as it was asked for.
    """

    entity: str
    id: EntityId
    failures: Sequence[Failure]
    link: Link | None
    answer: Answer | None

    def require(self) -> tuple[Link, Answer]:
        """Link and answer.

        Raises:
            ConfigError: There is none.
        """
        if self.link is None or self.answer is None:
            raise ConfigError(f"Nothing was asked about {self.entity} {self.id!r} yet, or the answer failed.")
        return self.link, self.answer

    @property
    def messages(self) -> list[tuple[str, str]]:
        """(who says it, what): of the prompt, then the answer."""
        _, answer = self.require()
        return [*((m["role"], m["content"]) for m in answer.messages), ("answer", answer.text)]

    @property
    def summary(self) -> str:
        """Who answered, how, and for how much: a line."""
        link, answer = self.require()
        cost = "no price" if answer.cost is None else f"${answer.cost:.6f}"
        return (
            f"{answer.served_model or answer.model}, {answer.status}, {answer.prompt_tokens} + "
            f"{answer.completion_tokens} tokens, {cost}, {answer.seconds:.1f} s, {answer.created}, "
            f"prompt version {link.prompt_version}" + (f", as of {link.as_of}" if link.as_of else "")
        )

    def __str__(self) -> str:
        return "\n\n".join([*(f"[{who}]\n{text}" for who, text in self.messages), self.summary])


@dataclass(frozen=True)
class StoreView:
    """A vector store beside the data: what share of them it covers.

    Args:
        events: the entity of each event, history and samples alike; `ids`: every known id.
    """

    entity: str
    store: VectorStore
    events: Sequence[EntityId]
    ids: Sequence[EntityId]

    @cached_property
    def coverage_of_events(self) -> float:
        """Share of the events whose entity has a vector."""
        return self.store.coverage(self.events)

    @cached_property
    def coverage_of_ids(self) -> float:
        """Share of the known ids that have one."""
        return self.store.coverage(self.ids)

    @cached_property
    def norms(self) -> tuple[float, float, float]:
        """Least, median and largest length of a vector."""
        least, median, most = np.quantile(norms(self.store), [0, 0.5, 1]) if len(self.store) else (0, 0, 0)
        return float(least), float(median), float(most)

    @property
    def description(self) -> str:
        """What the vectors are made of: a line."""
        manifest = self.store.manifest
        described = {**asdict(self.store.spec), "as_of": manifest.as_of, "generation": manifest.generation}
        told = ", ".join(f"{name} {_plain(value)}" for name, value in described.items() if value not in ("", (), None))
        return f"{self.entity}s: {told}, fingerprint {self.store.fingerprint}"


@dataclass(frozen=True)
class Vectors(Printed):
    """The vector stores of a project."""

    stores: Sequence[StoreView]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a store: entity, vectors, dimension, dtype, encoder, the coverages, norms."""
        rows: list[Mapping[str, Any]] = [
            {
                "entity": each.entity,
                "vectors": len(each.store),
                "dimension": each.store.spec.dimension,
                "dtype": each.store.spec.dtype,
                "encoder": each.store.spec.encoder,
                "coverage_of_events": each.coverage_of_events,
                "coverage_of_ids": each.coverage_of_ids,
                **dict(zip(("least_norm", "median_norm", "largest_norm"), each.norms, strict=True)),
            }
            for each in self.stores
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return "\n".join(each.description for each in self.stores)


@dataclass(frozen=True)
class Nearest(Printed):
    """The nearest neighbours of an item by its vector: (id, title, cosine) each, the nearest first."""

    title: str
    encoder: str
    rows: Sequence[tuple[EntityId, str, float]]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a neighbour: item_id, title, cosine (centred)."""
        return pd.DataFrame(self.rows, columns=pd.Index(["item_id", "title", "cosine"]))

    def __str__(self) -> str:
        return "\n".join([f"Nearest to {self.title}:", *(f"  {title}: {cosine:.3f}" for _, title, cosine in self.rows)])


def _plain(value: object) -> str:
    return " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)
