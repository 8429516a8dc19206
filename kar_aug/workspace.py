"""Where each stage of one kar.toml reads and writes. A stage finds what the one before left, or says how to make it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from kar_aug.cache import Knowledge, TextCache, VectorStore
from kar_aug.config import Config
from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.errors import DataError
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
            from kar_aug.datasets import load

            return load(data.dataset, self.config.path(data.path) if data.path else None, self.config.work / "data")
        paths = [self.config.path(name) if name else None for name in (data.interactions, data.items, data.users)]
        return load_tables(paths[0] or Path(), *paths[1:], columns=data.columns)

    @cached_property
    def split(self) -> pd.DataFrame:
        """The interactions with their parts.

        Raises:
            DataError: A part has no events.
        """
        data = self.config.data
        split = split_interactions(
            self.tables.interactions,
            protocol=data.protocol,
            history=data.history,
            history_share=data.history_share,
            click_above=data.click_above,
            validation=data.validation,
            test=data.test,
            seed=data.seed,
        )
        for part in ("train", "validation", "test"):
            if not (split["part"] == part).any():
                raise DataError(f"The {part} part has no events: there are too few to split by {data.protocol}.")
        return split

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
        """The prompts of a source; unless `everyone` is asked for, limited as the config says, and of those users only
        that have samples: under "temporal" others have a history that nothing would be learnt from. By another
        scenario than the config's if one is given."""
        limits, scenario = self.config.prompts, scenario or self.scenario
        if source == "item":
            return item_prompts(scenario, self.tables, self.split, limit=None if everyone else limits.max_items)
        return user_prompts(
            scenario,
            self.tables,
            self.split if everyone else self._split_with_samples,
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
            split = self._split_with_samples
            count, limit = split.loc[split["part"] == "history", "user_id"].nunique(), limits.max_users
        return count if limit is None else min(count, limit)

    def blind(self) -> Workspace:
        """The same, where events end with the histories: no prompt that it renders can know a sample."""
        blind = Workspace(self.config)
        history = self.split[self.split["part"] == "history"]
        seen = self.tables if history.empty else replace(self.tables, interactions=history)
        vars(blind).update(tables=seen, split=history, scenario=self.scenario)  # as if they had been read
        return blind

    @property
    def _split_with_samples(self) -> pd.DataFrame:
        sampled = self.split.loc[self.split["part"] != "history", "user_id"].unique()
        return self.split[self.split["user_id"].isin(sampled)]

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
