"""Recipes: ways of asking that the literature found to matter, each a few lines of data that fit any scenario.

A recipe takes from the scenario how an entity is shown (its data block), and asks its own question about it. "kar" has
no templates: its question is the scenario's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kar_aug.errors import PromptError
from kar_aug.prompts.prompt import Message, version_of
from kar_aug.prompts.scenario import Fields, Scenario, render_messages
from kar_aug.prompts.validate import read_recipe

KAR = "kar"
DIRECT = "direct"


@dataclass(frozen=True)
class Recipe:
    """One way of asking.

    Args:
        paper: where it comes from; asks: what it asks, in a few words.
        sections: "user", "item" -> its two templates, and the JSON schema of its answers if it has one.
        needs: "neighbours", where the question shows which items the same people liked.
    """

    name: str
    paper: str
    asks: str
    sections: Mapping[str, Mapping[str, Any]]
    needs: tuple[str, ...] = ()

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """A recipe of this package by name ("tags"), or a file by its path.

        Raises:
            PromptError: There is no such recipe, or something in the file is wrong; the error says in which line.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml" and path.is_file():
            try:
                content = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise PromptError(f"Recipe {path} cannot be read: {error}", file=str(path)) from None
        elif str(name_or_path) in recipe_names():
            content = _folder().joinpath(f"{name_or_path}.toml").read_text(encoding="utf-8")
        else:
            raise PromptError(
                f"There is no recipe {str(name_or_path)!r}. Give a .toml file's path, or one of: "
                f"{', '.join(recipe_names())}."
            )
        return cls._of(content, str(name_or_path))

    @classmethod
    def step(cls, name: str) -> Recipe:
        """A question that is asked on the way to another: see `recipes/steps`."""
        return cls._of(_folder().joinpath("steps", f"{name}.toml").read_text(encoding="utf-8"), name)

    @classmethod
    def _of(cls, content: str, name: str) -> Recipe:
        data = read_recipe(content, name)
        sections: dict[str, Any] = {entity: data[entity] for entity in ("user", "item") if entity in data}
        return cls(data["name"], data.get("paper", ""), data.get("asks", ""), sections, tuple(data.get("needs", ())))

    def knowledge(self, entity: str) -> str:
        """How this recipe's knowledge of users or items is called where answers are kept.

        Raises:
            PromptError: The recipe does not ask about them.
        """
        self._section(entity)
        return entity if self.name == KAR else f"{entity}:{self.name}"

    def schema(self, entity: str) -> Mapping[str, Any] | None:
        """The JSON schema that answers must fit; None where they are free text."""
        schema: Mapping[str, Any] | None = self._section(entity).get("schema")
        return schema

    def version(self, scenario: Scenario, entity: str) -> str:
        """12 hex digits that change with any byte of the recipe or the scenario that a model could see."""
        section = self._section(entity)
        if not section:
            return scenario.versions[entity]
        return version_of(self.name, dict(section), scenario.versions[entity], dict(scenario.words))

    def ask(
        self, scenario: Scenario, entity: str, data: str, fields: Fields | None = None, neighbours: Sequence[str] = ()
    ) -> tuple[Message, ...]:
        """The recipe's question about a data block.

        Args:
            fields: what the scenario's own question may read beside the data.
            neighbours: names of items, cleaned, for recipes that need them.

        Raises:
            PromptError: A template fails, or the scenario marks no data.
        """
        section = self._section(entity)
        if not section:
            return scenario.ask(entity, data, fields)
        if not data:
            raise PromptError(
                f"Scenario {scenario.name}: {entity}.prompt has no <data> marks, which recipes need.",
                file=scenario.name,
                field=f"{entity}.prompt",
            )
        shown = {"data": data, "neighbours": list(neighbours)}
        return render_messages(scenario, f"recipe {self.name}, template of {entity}", section, shown)

    def _section(self, entity: str) -> Mapping[str, Any]:
        if entity not in self.sections:
            known = ", ".join(recipe_names(entity))
            raise PromptError(
                f"Recipe {self.name!r} does not ask about {entity}s. Those that do: {known}.", file=self.name
            )
        return self.sections[entity]


def recipe_names(entity: str | None = None) -> list[str]:
    """The recipes that come with kar-aug; with `entity`, those that ask about users, or items."""
    names = sorted(file.name[:-5] for file in _folder().iterdir() if file.name.endswith(".toml"))
    return [name for name in names if entity is None or entity in Recipe.load(name).sections]


def _folder() -> Any:
    return files("kar_aug.prompts").joinpath("recipes")
