"""Where each stage of one kar.toml reads and writes. A stage finds what the one before left, or says how to make it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from kar_aug.cache import Knowledge, TextCache, VectorStore
from kar_aug.config import Config
from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.features import Samples, build_samples
from kar_aug.metadata import metadata_scenario, metadata_texts
from kar_aug.prompts import Prompt, Scenario, item_prompts, user_prompts

SOURCES = ("user", "item")


@dataclass(frozen=True)
class Workspace:
    """The artefacts of a config, by name. Nothing is read before it is asked for."""

    config: Config

    @cached_property
    def tables(self) -> Tables:
        """The three tables, fetched or read."""
        data = self.config.data
        if data.dataset is not None:
            from kar_aug.datasets import movielens_100k

            return movielens_100k(self.config.work / "data")
        paths = [self.config.path(name) if name else None for name in (data.interactions, data.items, data.users)]
        return load_tables(paths[0] or Path(), *paths[1:])

    @cached_property
    def split(self) -> pd.DataFrame:
        """The interactions with their parts."""
        data = self.config.data
        return split_interactions(
            self.tables.interactions,
            history=data.history,
            click_above=data.click_above,
            validation=data.validation,
            test=data.test,
            seed=data.seed,
        )

    @cached_property
    def samples(self) -> Samples:
        """What the CTR model is trained and tested on."""
        data = self.config.data
        return build_samples(
            self.tables,
            self.split,
            user_features=data.user_features,
            item_features=data.item_features,
            history_length=data.history_length,
        )

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario, by name or from a file beside kar.toml."""
        name = self.config.prompts.scenario
        return Scenario.load(self.config.path(name) if name.endswith(".toml") else name)

    def prompts(self, source: str, *, everyone: bool = False, scenario: Scenario | None = None) -> Iterator[Prompt]:
        """The prompts of a source, limited as the config says unless `everyone` is asked for; by another scenario than
        the config's if one is given."""
        limits, scenario = self.config.prompts, scenario or self.scenario
        if source == "item":
            return item_prompts(scenario, self.tables, self.split, limit=None if everyone else limits.max_items)
        return user_prompts(
            scenario,
            self.tables,
            self.split,
            limit=None if everyone else limits.max_users,
            max_events=limits.max_events,
        )

    def metadata(self, source: str) -> Iterator[Knowledge]:
        """What the prompts of a source show, as plain sentences about the same entities."""
        return metadata_texts(self.prompts(source, scenario=metadata_scenario(self.scenario)))

    def count(self, source: str) -> int:
        """How many prompts a source has, without rendering them; a few fewer where required fields are empty."""
        limits = self.config.prompts
        if source == "item":
            count, limit = len(self.tables.items), limits.max_items
        else:
            history = self.split["part"] == "history"
            count, limit = self.split.loc[history, "user_id"].nunique(), limits.max_users
        return count if limit is None else min(count, limit)

    @property
    def cache_address(self) -> Path | str:
        """The text cache: a file, or a postgresql:// URL."""
        where = self.config.generate.cache
        if where is None:
            return self.config.work / "answers.sqlite"
        return where if "://" in where else self.config.path(where)

    def open_cache(self) -> TextCache:
        """The text cache."""
        return TextCache(self.cache_address)

    def store_path(self, source: str) -> Path:
        """The folder of a source's vector store."""
        return self.config.work / "vectors" / source

    def metadata_path(self, source: str) -> Path:
        """The folder of the vector store of a source's metadata."""
        return self.config.work / "vectors" / f"metadata-{source}"

    def stores(self) -> dict[str, VectorStore]:
        """The vector stores, by the id column they belong to."""
        return {f"{source}_id": VectorStore.open(self.store_path(source)) for source in SOURCES}

    @cached_property
    def data_fingerprint(self) -> str:
        """16 hex digits over everything that a model of this data reads."""
        digest = hashlib.sha256()
        samples = self.samples
        for name, values in sorted(samples.inputs.items()):
            digest.update(name.encode() + values.tobytes())
        digest.update(samples.label.tobytes() + "".join(samples.part).encode())
        return digest.hexdigest()[:16]
