"""What is asked about whom, and what is known of them then: prompts, groups, texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from kar_aug.cache import Knowledge, TextCache, VectorStore
from kar_aug.data import Tables
from kar_aug.errors import ConfigError, StoreError
from kar_aug.generate.intake import accepted
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.workspace.data import Data
from kar_aug.pipeline.workspace.groups import Clusters, cluster_prompts, kept_clusters
from kar_aug.pipeline.workspace.metadata import metadata_scenario, metadata_texts
from kar_aug.pipeline.workspace.paths import Paths
from kar_aug.pipeline.workspace.versions import versions
from kar_aug.prompts import Prompt, Recipe, Scenario, item_prompts, user_prompts
from kar_aug.prompts.entities import users_with_history
from kar_aug.prompts.fallback import fallback_texts
from kar_aug.prompts.histories.blocks import block_prompts, is_of_blocks, users_by_events
from kar_aug.prompts.histories.blocks import count as count_blocks
from kar_aug.prompts.histories.select import Vectors, needs_vectors
from kar_aug.prompts.histories.summaries import SUMMARISED, Answers
from kar_aug.prompts.histories.summaries import counts as summary_counts
from kar_aug.prompts.prompt import version_with
from kar_aug.prompts.recipe import KAR


@dataclass(frozen=True)
class Asking:
    """Prompts about the entities of some data, by the scenario, recipes and limits of [prompts]; and their texts."""

    paths: Paths
    data: Data

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario, by name or from a file beside kar.toml."""
        name = self.paths.config.prompts.scenario
        return Scenario.load(self.paths.config.path(name) if name.endswith(".toml") else name)

    @cached_property
    def tables(self) -> Tables:
        """The tables as prompts may show them: without the columns that [prompts] leave_out names.

        Raises:
            ConfigError: The scenario shows no such column, or asks about nothing without it.
        """
        names, tables = self.paths.config.prompts.leave_out, self.data.tables
        shows = dict.fromkeys(
            [*self.scenario.user["fields"], *self.scenario.user["item_fields"], *self.scenario.item["fields"]]
        )
        for name in names:
            if name not in shows or name in self.scenario.item.get("required", ()):
                why = "asks about nothing without" if name in shows else "shows no"
                raise ConfigError(
                    f"[prompts] leave_out: the scenario {self.scenario.name} {why} {name!r}. "
                    f"It shows: {', '.join(shows)}.",
                    setting="[prompts] leave_out",
                )
        if not names:
            return tables
        left = {each: getattr(tables, each).drop(columns=list(names), errors="ignore") for each in ("users", "items")}
        return replace(tables, **left)

    def version(self, version: str) -> str:
        """The version of a prompt, where columns are left out of it."""
        names = sorted(self.paths.config.prompts.leave_out)
        return version_with(version, {"leave_out": names} if names else {})

    # What is asked

    def prompts(
        self,
        entity: str,
        *,
        everyone: bool = False,
        scenario: Scenario | None = None,
        answers: Answers | None = None,
        every: int = 1,
    ) -> Iterator[Prompt]:
        """The prompts of users, or items, then of their groups. Unless `everyone` is asked for, limited as the config
        says, and of those users only that have samples: under "temporal" others have a history that nothing would be
        learnt from. By another scenario than the config's if one is given: its own question, and no groups. `every` is
        of how many users, or items, one is shown, where they are asked about one by one.

        Where long histories are summarised, the questions about their parts come before their user's, which waits for
        `answers` to them: those in the text cache, if none are given.
        """
        prompts = self._prompts(entity, everyone, scenario, answers, every)
        if not self.paths.config.prompts.leave_out:
            yield from prompts
        for prompt in prompts:
            yield replace(prompt, version=self.version(prompt.version))

    def _prompts(
        self, entity: str, everyone: bool, scenario: Scenario | None, answers: Answers | None, every: int
    ) -> Iterator[Prompt]:
        with ExitStack() as stack:
            if answers is None and self._asks_for_summaries(entity):
                answers = StoredSummaries(
                    stack.enter_context(self.paths.open_cache(reading=True)), self.paths.config.generate
                )
            yield from self._own_prompts(entity, everyone, scenario, answers, every)
        clusters, count = self.clusters(entity), self.paths.groups(entity)
        if scenario is None and clusters is not None and count is not None:
            recipe = self.paths.recipes[entity]
            yield from cluster_prompts(self.scenario, self.tables, self.data.split, clusters, recipe, count)

    def _own_prompts(
        self, entity: str, everyone: bool, scenario: Scenario | None, answers: Answers | None, every: int
    ) -> Iterator[Prompt]:
        limits, recipe = self.paths.config.prompts, self.paths.recipes[entity]
        tables, split = self.tables, self.data.split
        if scenario is not None:
            recipe = Recipe.load(KAR)
            if limits.selection == SUMMARISED:  # in full: the only summaries are those of its own prompts
                limits = replace(limits, selection="recent", max_events=max(1, len(split)))
        scenario = scenario or self.scenario
        if self.paths.in_versions(entity):
            return block_prompts(
                scenario,
                tables,
                self.data.timeline,
                self._users_of_blocks(everyone),
                size=limits.max_events,
                recipe=recipe,
                unfinished=limits.unfinished_block,
                room=self.data.room,
            )
        if entity == "item":
            most = None if everyone else limits.max_items
            whole = everyone or limits.whole_catalogue
            return item_prompts(scenario, tables, split, limit=most, recipe=recipe, whole_catalogue=whole, every=every)
        vectors, vectors_version = self._item_vectors() if needs_vectors(limits.selection) else (None, "")
        return user_prompts(
            scenario,
            tables,
            split if everyone else self.data.split_with_samples,
            limit=None if everyone else limits.max_users,
            max_events=limits.max_events,
            recipe=recipe,
            min_events=limits.min_events,
            selection=limits.selection,
            vectors=vectors,
            vectors_version=vectors_version,
            answers=answers,
            room=self.data.room,
            every=every,
        )

    def _users_of_blocks(self, everyone: bool = False) -> list[int | str]:
        limits = self.paths.config.prompts
        users = users_by_events(self.data.timeline, limits.min_events)
        if everyone:
            return users
        sampled = set(self.data.split_with_samples["user_id"].unique().tolist())
        return [user for user in users if user in sampled][: limits.max_users]

    def prompts_as_if(self, users: pd.DataFrame) -> Iterator[Prompt]:
        """The prompts of some users as if their rows were these: in the order of their histories' lengths, by the user
        recipe and the latest events alone (summaries and other selections are not told of).
        """
        limits, split = self.paths.config.prompts, self.data.split
        yield from user_prompts(
            self.scenario,
            replace(self.tables, users=users),
            split[split["user_id"].isin(users["user_id"])],
            max_events=limits.max_events,
            recipe=self.paths.recipes["user"],
            min_events=limits.min_events,
        )

    def _item_vectors(self) -> tuple[Vectors | None, str]:
        """The items' vectors, and what changes with them; none where they have not been made yet."""
        path = self.paths.vectors(self.paths.knowledge("item"))
        if not path.exists():
            return None, ""
        store = VectorStore.open(path)
        return dict(zip(store.ids, store.gather(store.ids), strict=True)), store.fingerprint

    def count(self, entity: str) -> int:
        """How many prompts there are, without rendering them; a few fewer where required fields are empty."""
        limits = self.paths.config.prompts
        if entity == "item":
            count, limit = len(self.data.tables.items) - self.without_events, limits.max_items
        elif self.paths.in_versions(entity):
            lengths = self.data.timeline["user_id"].value_counts().loc[self._users_of_blocks()].tolist()
            return count_blocks(lengths, limits.max_events, unfinished=limits.unfinished_block)
        else:
            users = users_with_history(self.data.split_with_samples, limits.min_events)
            count, limit = len(users), limits.max_users
        return (count if limit is None else min(count, limit)) + (self.paths.groups(entity) or 0)

    @property
    def without_events(self) -> int:
        """Items of the catalogue that are not asked about, since they have no event."""
        if self.paths.config.prompts.whole_catalogue:
            return 0
        return int((~self.data.tables.items["item_id"].isin(self.data.split["item_id"])).sum())

    def summaries(self, entity: str) -> list[int]:
        """How many questions about parts of long histories each level has; [] where none are summarised."""
        if not self._asks_for_summaries(entity):
            return []
        limits, split = self.paths.config.prompts, self.data.split_with_samples
        lengths = split.loc[split["part"] == "history", "user_id"].value_counts()
        asked = users_with_history(split, limits.min_events)[: limits.max_users]
        return summary_counts(lengths.loc[asked].tolist(), limits.max_events)

    def _asks_for_summaries(self, entity: str) -> bool:
        return entity == "user" and self.paths.config.prompts.selection == SUMMARISED

    def clusters(self, entity: str) -> Clusters | None:
        """The groups of users, or items, drawn once for the same histories; None if the config wants none."""
        count, by = self.paths.groups(entity), self.paths.config.prompts.cluster_by
        if count is None:
            return None
        items = None
        if by == "vectors":
            path = self.paths.vectors(self.paths.knowledge("item"))
            if not path.exists():
                raise StoreError("cluster_by = 'vectors' needs the items' vectors. Make them first, without clusters.")
            items = VectorStore.open(path)
        return kept_clusters(entity, count, self.data.split, items, self.paths.config.work / "clusters")

    def blind(self) -> Asking:
        """The same, where events end with the histories: no prompt that it renders can know a sample."""
        return Asking(self.paths, self.data.blind())

    # What is known

    def knowledge(self, cache: TextCache, name: str) -> Iterator[Knowledge]:
        """The texts of a kind of knowledge: the answers, then those about users who were not asked about. Of one that
        is asked for in blocks several a user, each of another moment.
        """
        if is_of_blocks(name):
            yield from versions(cache.knowledge(name, accept=accepted(self.paths.config.generate)))
            return
        asked: set[int | str] = set()
        for text in cache.knowledge(name, accept=accepted(self.paths.config.generate)):
            asked.add(text.entity_id)
            yield text
        if name == self.paths.knowledge("user"):
            yield from (text for text in self.fallbacks() if text.entity_id not in asked)

    def fallbacks(self) -> Iterator[Knowledge]:
        """Texts about users with little or no history, who are not asked about."""
        limits, scenario, split = self.paths.config.prompts, self.scenario, self.data.split
        version = self.version(scenario.versions["user"])
        texts = fallback_texts(limits.fallback, scenario, self.tables, split, min_events=limits.min_events)
        for text in texts:
            yield Knowledge("user", text.user_id, text.text, "", f"none ({text.kind})", version, None)

    def metadata(self, entity: str) -> Iterator[Knowledge]:
        """What the prompts show, as plain sentences about the same entities, and of the same versions."""
        texts = metadata_texts(self.prompts(entity, scenario=metadata_scenario(self.scenario)))
        return versions(texts) if self.paths.in_versions(entity) else texts
