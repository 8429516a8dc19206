"""Where everything of a project lies.

Answers and vectors are kept apart by how they were asked for: what knowledge is called ("item" by the scenario's own
question, "item:tags" by a recipe) decides where it is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kar_aug.cache import TextCache, VectorStore
from kar_aug.config import ENTITIES, Config
from kar_aug.generate.judging import judge_older
from kar_aug.pipeline.workspace.groups import collective_knowledge
from kar_aug.prompts import Recipe
from kar_aug.prompts.histories.blocks import BLOCKS, blocks_knowledge

_log = logging.getLogger("kar_aug")
ENGINES = "engines"  # of the workdir: rows of runs by `kar_aug.engines`, gone with them


@dataclass(frozen=True)
class Paths:
    """Names, files and folders, by config alone. Nothing is opened before it is asked for."""

    config: Config

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """Per entity, the recipe by name or from a file beside kar.toml."""
        prompts = self.config.prompts
        return {"user": self.recipe(prompts.user_recipe), "item": self.recipe(prompts.item_recipe)}

    def recipe(self, name: str) -> Recipe:
        """A recipe of kar-aug by name, or one of the user's own: the path of a .toml file."""
        return Recipe.load(self.config.path(name) if name.endswith(".toml") else name)

    def knowledge(self, entity: str) -> str:
        """How the knowledge of an entity by its recipe is called in the text cache: "item", "item:tags",
        "user:kar:blocks-30".
        """
        own = self.recipes[entity].knowledge(entity)
        return blocks_knowledge(own, self.config.prompts.max_events) if self.in_versions(entity) else own

    def in_versions(self, entity: str) -> bool:
        """Whether there are versions of what is known of an entity, each of another moment."""
        return entity == "user" and self.config.prompts.selection == BLOCKS

    def groups(self, entity: str) -> int | None:
        """How many groups of users, or items, are asked about; None if the config wants none."""
        prompts = self.config.prompts
        return prompts.user_clusters if entity == "user" else prompts.item_clusters

    def all_knowledge(self, entity: str) -> tuple[str, ...]:
        """The knowledge that the vectors of an entity are made of: its own, and that of groups."""
        own, count = self.knowledge(entity), self.groups(entity)
        return (own,) if count is None else (own, collective_knowledge(own, count))

    @property
    def cache(self) -> Path | str:
        """The text cache: a file, or a postgresql:// URL."""
        where = self.config.generate.cache
        if where is None:
            return self.config.work / "answers.sqlite"
        return where if "://" in where else self.config.path(where)

    def open_cache(self, *, reading: bool = False) -> TextCache:
        """The text cache, open; perhaps only to be read, where nothing is made and nothing need be writable. Answers
        that an older kar-aug has read by other rules are read again first, where they can be written.
        """
        cache = TextCache(self.cache, reading=reading)
        if not cache.database.read_only and (changed := judge_older(cache, self.config.generate)):
            _log.warning("%s stored answers are read otherwise than by the kar-aug that stored them", f"{changed:,}")
        return cache

    def vectors(self, knowledge: str) -> Path:
        """The folder of the vectors of one kind of knowledge."""
        return self.config.work / "vectors" / knowledge.replace(":", "-")

    def store(self, entity: str) -> Path:
        """The folder of the vector store that models read: of an entity's knowledge by its recipe, mixed with that of
        groups if there are such.
        """
        names = self.all_knowledge(entity)
        if len(names) == 1:
            return self.vectors(names[0])
        prompts = self.config.prompts
        return self.vectors(f"{names[1]}-{prompts.cluster_by}-{prompts.own_share:g}")

    def metadata(self, entity: str) -> Path:
        """The folder of the vector store of an entity's metadata."""
        blocks = f"-blocks-{self.config.prompts.max_events}" if self.in_versions(entity) else ""
        return self.config.work / "vectors" / f"metadata-{entity}{blocks}"

    def stores(self) -> dict[str, VectorStore]:
        """The vector stores that there are, by the id column they belong to.

        Raises:
            StoreError: There is none; the message says which command makes them.
        """
        there = [entity for entity in ENTITIES if self.store(entity).exists()]
        return {f"{entity}_id": VectorStore.open(self.store(entity)) for entity in there or ENTITIES}
