"""Where each stage of one kar.toml reads and writes. A stage finds what the one before left, or says how to make it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from kar_aug.cache import Knowledge, TextCache, VectorStore
from kar_aug.config import Config
from kar_aug.data import Tables, load_tables, split_interactions
from kar_aug.data.features import Samples, build_samples
from kar_aug.errors import DataError, StoreError
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.attributes import add_attributes
from kar_aug.pipeline.groups import (
    Clusters,
    cluster,
    cluster_prompts,
    collective_source,
    interaction_vectors,
    mean_vectors,
)
from kar_aug.pipeline.metadata import metadata_scenario, metadata_texts
from kar_aug.prompts import Prompt, Recipe, Scenario, item_prompts, user_prompts
from kar_aug.prompts.entities import users_with_history
from kar_aug.prompts.fallback import fallback_texts
from kar_aug.prompts.histories.select import Vectors, needs_vectors
from kar_aug.prompts.histories.summaries import SUMMARISED, Answers
from kar_aug.prompts.histories.summaries import counts as summary_counts
from kar_aug.prompts.recipe import KAR

SOURCES = ("user", "item")


@dataclass(frozen=True)
class Workspace:
    """The artefacts of a config, by name. Nothing is read before it is asked for.

    Args:
        given: the tables, where they were read already.
    """

    config: Config
    given: Tables | None = field(default=None, repr=False, compare=False)

    @cached_property
    def tables(self) -> Tables:
        """The three tables, fetched or read."""
        if self.given is not None:
            return self.given
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
    def feature_tables(self) -> Tables:
        """The tables, and in them what models read that a language model said as JSON: see `pipeline.attributes`."""
        data, tables = self.config.data, self.tables
        if not any("." in name for name in (*data.user_features, *data.item_features)):
            return tables
        with self.open_cache() as cache:
            answers = partial(cache.knowledge, accept=self.config.generate.accepted)
            users = add_attributes(tables.users, "user", data.user_features, self._recipe, answers)
            items = add_attributes(tables.items, "item", data.item_features, self._recipe, answers)
        return replace(tables, users=users, items=items)

    def _recipe(self, name: str) -> Recipe:
        """A recipe by name, one of the user's own as NAME.toml beside kar.toml."""
        own = self.config.path(f"{name}.toml")
        return Recipe.load(own if own.is_file() else name)

    @cached_property
    def samples(self) -> Samples:
        """What the CTR model is trained and tested on."""
        data = self.config.data
        return build_samples(
            self.feature_tables,
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

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """Per source, the recipe by name or from a file beside kar.toml."""
        prompts = self.config.prompts
        names = {"user": prompts.user_recipe, "item": prompts.item_recipe}
        return {
            source: Recipe.load(self.config.path(name) if name.endswith(".toml") else name)
            for source, name in names.items()
        }

    def knowledge_source(self, source: str) -> str:
        """How the knowledge of a source by its recipe is called in the text cache: "item", "item:tags"."""
        return self.recipes[source].source(source)

    def clusters(self, source: str) -> Clusters | None:
        """The groups of a source, drawn once for the same histories; None if the config wants none."""
        limits = self.config.prompts
        count = self._cluster_count(source)
        if count is None:
            return None
        items = None
        if limits.cluster_by == "vectors":
            path = self.vectors_path(self.knowledge_source("item"))
            if not path.exists():
                raise StoreError("cluster_by = 'vectors' needs the items' vectors. Make them first, without clusters.")
            items = VectorStore.open(path)
        history = self.split.loc[self.split["part"] == "history", ["user_id", "item_id", "label"]]
        seen = hashlib.sha256(history.to_csv(index=False).encode() + (items.fingerprint if items else "").encode())
        name = f"{source}-{count}-{limits.cluster_by}-{seen.hexdigest()[:12]}.parquet"
        path = self.config.work / "clusters" / name
        if path.exists():
            return Clusters.read(source, path)
        if items is None:
            found = interaction_vectors(self.split, source)
        elif source == "item":
            found = items.ids, items.gather(items.ids)
        else:
            found = mean_vectors(self.split, items)
        clusters = cluster(source, *found, count)
        clusters.write(path)
        return clusters

    def _cluster_count(self, source: str) -> int | None:
        limits = self.config.prompts
        return limits.user_clusters if source == "user" else limits.item_clusters

    def prompts(
        self,
        source: str,
        *,
        everyone: bool = False,
        scenario: Scenario | None = None,
        answers: Answers | None = None,
    ) -> Iterator[Prompt]:
        """The prompts of a source, then of its groups. Unless `everyone` is asked for, limited as the config says, and
        of those users only that have samples: under "temporal" others have a history that nothing would be learnt
        from. By another scenario than the config's if one is given: its own question, and no groups.

        Where long histories are summarised, the questions about their parts come before their user's, which waits for
        `answers` to them: those in the text cache, if none are given."""
        with ExitStack() as stack:
            if answers is None and self._asks_for_summaries(source):
                answers = StoredSummaries(stack.enter_context(self.open_cache()), self.config.generate)
            yield from self._own_prompts(source, everyone, scenario, answers)
        clusters, count = self.clusters(source), self._cluster_count(source)
        if scenario is None and clusters is not None and count is not None:
            yield from cluster_prompts(self.scenario, self.tables, self.split, clusters, self.recipes[source], count)

    def _asks_for_summaries(self, source: str) -> bool:
        return source == "user" and self.config.prompts.selection == SUMMARISED

    def _own_prompts(
        self, source: str, everyone: bool, scenario: Scenario | None, answers: Answers | None
    ) -> Iterator[Prompt]:
        limits, recipe = self.config.prompts, self.recipes[source]
        if scenario is not None:
            recipe = Recipe.load(KAR)
            if limits.selection == SUMMARISED:  # in full: the only summaries are those of its own prompts
                limits = replace(limits, selection="recent", max_events=max(1, len(self.split)))
        scenario = scenario or self.scenario
        if source == "item":
            most = None if everyone else limits.max_items
            return item_prompts(scenario, self.tables, self.split, limit=most, recipe=recipe)
        vectors, vectors_version = self._item_vectors() if needs_vectors(limits.selection) else (None, "")
        return user_prompts(
            scenario,
            self.tables,
            self.split if everyone else self._split_with_samples,
            limit=None if everyone else limits.max_users,
            max_events=limits.max_events,
            recipe=recipe,
            min_events=limits.min_events,
            selection=limits.selection,
            vectors=vectors,
            vectors_version=vectors_version,
            answers=answers,
        )

    def fallbacks(self) -> Iterator[Knowledge]:
        """Texts about users with little or no history, who are not asked about."""
        limits, scenario = self.config.prompts, self.scenario
        version = scenario.versions["user"]
        texts = fallback_texts(limits.fallback, scenario, self.tables, self.split, min_events=limits.min_events)
        for text in texts:
            yield Knowledge("user", text.user_id, text.text, "", f"none ({text.kind})", version, None)

    def knowledge_names(self, source: str) -> tuple[str, ...]:
        """The kinds of knowledge that the vectors of a source are made of: its own, and that of groups."""
        own, count = self.knowledge_source(source), self._cluster_count(source)
        return (own,) if count is None else (own, collective_source(own, count))

    def knowledge(self, cache: TextCache, name: str) -> Iterator[Knowledge]:
        """The texts of a kind of knowledge: the answers, then those about users who were not asked about."""
        asked: set[int | str] = set()
        for text in cache.knowledge(name, accept=self.config.generate.accepted):
            asked.add(text.entity_id)
            yield text
        if name == self.knowledge_source("user"):
            yield from (text for text in self.fallbacks() if text.entity_id not in asked)

    def _item_vectors(self) -> tuple[Vectors | None, str]:
        """The items' vectors, and what changes with them; none where they have not been made yet."""
        path = self.vectors_path(self.knowledge_source("item"))
        if not path.exists():
            return None, ""
        store = VectorStore.open(path)
        return dict(zip(store.ids, store.gather(store.ids), strict=True)), store.fingerprint

    def metadata(self, source: str) -> Iterator[Knowledge]:
        """What the prompts of a source show, as plain sentences about the same entities."""
        return metadata_texts(self.prompts(source, scenario=metadata_scenario(self.scenario)))

    def summaries(self, source: str) -> list[int]:
        """How many questions about parts of long histories each level has; [] where none are summarised."""
        if not self._asks_for_summaries(source):
            return []
        limits, split = self.config.prompts, self._split_with_samples
        lengths = split.loc[split["part"] == "history", "user_id"].value_counts()
        asked = users_with_history(split, limits.min_events)[: limits.max_users]
        return summary_counts(lengths.loc[asked].tolist(), limits.max_events)

    def count(self, source: str) -> int:
        """How many prompts a source has, without rendering them; a few fewer where required fields are empty."""
        limits = self.config.prompts
        if source == "item":
            count, limit = len(self.tables.items), limits.max_items
        else:
            count, limit = len(users_with_history(self._split_with_samples, limits.min_events)), limits.max_users
        return (count if limit is None else min(count, limit)) + (self._cluster_count(source) or 0)

    def with_seed(self, seed: int) -> Workspace:
        """The same tables, their users drawn into the parts by another seed."""
        data = replace(self.config.data, seed=seed)
        return Workspace(replace(self.config, data=data), given=self.tables)

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
        """The folder of the vector store that models read: of a source's knowledge by its recipe, mixed with that of
        groups if there are such."""
        names = self.knowledge_names(source)
        if len(names) == 1:
            return self.vectors_path(names[0])
        limits = self.config.prompts
        return self.vectors_path(f"{names[1]}-{limits.cluster_by}-{limits.own_share:g}")

    def vectors_path(self, name: str) -> Path:
        """The folder of the vectors of one kind of knowledge."""
        return self.config.work / "vectors" / name.replace(":", "-")

    def metadata_path(self, source: str) -> Path:
        """The folder of the vector store of a source's metadata."""
        return self.config.work / "vectors" / f"metadata-{source}"

    def stores(self) -> dict[str, VectorStore]:
        """The vector stores that there are, by the id column they belong to.

        Raises:
            StoreError: There is none; the message says which command makes them.
        """
        there = [source for source in SOURCES if self.store_path(source).exists()]
        return {f"{source}_id": VectorStore.open(self.store_path(source)) for source in there or SOURCES}

    @cached_property
    def data_fingerprint(self) -> str:
        """16 hex digits over everything that a model of this data reads."""
        digest = hashlib.sha256()
        samples = self.samples
        for name, values in sorted(samples.inputs.items()):
            digest.update(name.encode() + values.tobytes())
        digest.update(samples.label.tobytes() + "".join(samples.part).encode())
        return digest.hexdigest()[:16]
