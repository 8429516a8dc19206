"""What the language model is asked, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.errors import ConfigError
from kar_aug.generate.cost import Counter, token_counter
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.watch import SILENT, Show, Watch
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Prompt
from kar_aug.prompts.histories.blocks import is_of_blocks, owner
from kar_aug.prompts.histories.summaries import KNOWLEDGE as SUMMARIES
from kar_aug.prompts.statistics import Statistics, difference

ASKED = "asked"
_counter = cache(token_counter)  # which may fetch a tokenizer's tables: once is enough


@dataclass(frozen=True)
class Prompts:
    """The prompts about users, or items, and about their groups: those that `generate` asks, rendered as one goes
    through them. Summaries of long histories that are still to be asked for have a text in their place.

    Args:
        entity: "user" or "item".
    """

    workspace: Workspace
    entity: str
    watch: Watch = SILENT

    @property
    def knowledge(self) -> str:
        """How the answers are called: "item", "item:tags"."""
        return self.workspace.paths.knowledge(self.entity)

    def __iter__(self) -> Iterator[Prompt]:
        return self._rendered()

    def of(self, id: int | str | None = None) -> Prompt:
        """The prompt about one entity, whether it would be asked or not: by its id, also as typed; the first if None.

        Raises:
            ConfigError: There is no such entity, or nothing to ask about it.
        """
        for prompt in self._rendered(everyone=True):
            if prompt.knowledge != SUMMARIES and (id is None or _is_about(prompt, id)):
                return prompt
        raise ConfigError(self._why_none(id))

    def _why_none(self, id: int | str | None) -> str:
        """Why there is no prompt about an entity."""
        if self.entity == "user":
            return f"There is no user {id!r} with a history."
        if id is not None and str(id) in set(self.workspace.tables.items["item_id"].map(str)):
            empty = " or ".join(self.workspace.asking.scenario.item.get("required", []))
            return f"Item {id!r} is not asked about: its {empty} is empty."
        return f"There is no item {id!r} in the items table."

    def difference(self, id: int | str | None, other: str) -> Difference:
        """What changed in the prompt about one entity (the first if None) since another version of it.

        Args:
            other: a scenario by name or file, or "asked": the prompt that was last answered.

        Raises:
            ConfigError: Nothing was asked about the entity yet.
        """
        new = self.of(id)
        return Difference(self._asked(new) if other == ASKED else self._by_scenario(new, other), new)

    def tokens(self, prompt: Prompt) -> int:
        """How many tokens a prompt has for this model."""
        return self._count(prompt.messages)

    @property
    def counted(self) -> str:
        """How tokens are counted: exactly, or estimated from characters."""
        return _counter(self.workspace.config.generate.model)[1]

    def statistics(self) -> Statistics:
        """The tokens of all prompts, and what was shortened in them."""
        asking = self.workspace.asking
        total = asking.count(self.entity) + sum(asking.summaries(self.entity))
        with self.watch.bar(f"prompts of {self.entity}s", total) as show:
            return Statistics.of(_shown(self, show), self._count)

    @property
    def frame(self) -> pd.DataFrame:
        """All prompts, a row each: entity_id, knowledge, version, as_of, tokens, shortened, text."""
        rows = [
            (p.entity_id, p.knowledge, p.version, p.as_of, self.tokens(p), ", ".join(p.cut), p.text) for p in self
        ]  # fmt: skip
        columns = ["entity_id", "knowledge", "version", "as_of", "tokens", "shortened", "text"]
        return pd.DataFrame(rows, columns=pd.Index(columns))

    @property
    def _count(self) -> Counter:
        return _counter(self.workspace.config.generate.model)[0]

    def _rendered(self, *, everyone: bool = False) -> Iterator[Prompt]:
        with self.workspace.paths.open_cache(reading=True) as cache:
            answers = StoredSummaries(cache, self.workspace.config.generate, stand_in=True)
            yield from self.workspace.asking.prompts(self.entity, everyone=everyone, answers=answers)

    def _by_scenario(self, prompt: Prompt, scenario: str) -> Prompt:
        """The same entity's prompt by another scenario."""
        other = self.workspace.changed(prompts=replace(self.workspace.config.prompts, scenario=scenario))
        return Prompts(other, self.entity).of(str(prompt.entity_id))

    def _asked(self, prompt: Prompt) -> Prompt:
        """The same entity's prompt as it was last answered."""
        with self.workspace.paths.open_cache(reading=True) as cache:
            link = cache.linked(prompt.knowledge, [prompt.entity_id]).get(prompt.entity_id)
            answer = cache.get(link.key) if link else None
        if link is None or answer is None:
            raise ConfigError(f"Nothing was asked about {prompt.knowledge} {prompt.entity_id!r} yet.")
        messages: tuple[Any, ...] = tuple(answer.messages)
        return Prompt(prompt.knowledge, prompt.entity_id, messages, link.prompt_version, link.as_of)


@dataclass(frozen=True)
class Difference(Printed):
    """Two versions of one prompt."""

    old: Prompt
    new: Prompt

    @property
    def lines(self) -> list[str]:
        """ "- " those that went, "+ " those that came, "  " a few around them; none if the model sees the same."""
        return list(difference(self.old.messages, self.new.messages))

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _is_about(prompt: Prompt, id: int | str) -> bool:
    """Whether an id as typed is a prompt's; of a block, its own or its user's."""
    ids = {prompt.entity_id} | ({owner(prompt.entity_id)[0]} if is_of_blocks(prompt.knowledge) else set())
    return str(id) in map(str, ids)


def _shown(prompts: Iterable[Prompt], show: Show) -> Iterator[Prompt]:
    for number, prompt in enumerate(prompts, 1):
        yield prompt
        show(number, "")
