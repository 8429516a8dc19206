"""A scenario renders entities into prompts: one preference-reasoning prompt a user, one factual prompt an item.

Both break their question down by the scenario's factors (factorization prompting, KAR section 3.3): asked
directly, a language model knows the parts of an answer and still fails to compose them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import groupby
from pathlib import Path
from typing import Any

from kar_aug.errors import PromptError
from kar_aug.prompts.prompt import Message, Prompt, version_of
from kar_aug.prompts.templates import TemplateFault, reads_field, render, uses
from kar_aug.prompts.text import MOST_CHARACTERS, careful_tokens, clean_row, shown, was_cut
from kar_aug.prompts.validate import read_scenario

# Bump when rendering itself changes what the model sees, so that old and new answers are told apart.
_RENDERING = 1
_ENGLISH = "English"
Rephrase = Callable[[tuple[Message, ...]], tuple[Message, ...]]


@dataclass(frozen=True)
class Limits:
    """[limits]: most characters of one field, and most tokens of a prompt, by three bytes a token.

    A longer field is cut. Of a longer prompt the oldest events are left out; if that is not enough, it is an error.
    """

    characters: int = MOST_CHARACTERS
    tokens: int = 100_000


@dataclass(frozen=True)
class Ratings:
    """[ratings]: the ends of the scale, and a word for each of its steps, from the lowest."""

    low: float = 1
    high: float = 5
    words: tuple[str, ...] = ("hated", "disliked", "found average", "liked", "loved")

    def stars(self, rating: float) -> str:
        """ "★★★★☆" for 4 of 5."""
        full = max(0, min(round(self.high), round(rating)))
        return "\u2605" * full + "\u2606" * (round(self.high) - full)

    def verdict(self, rating: float) -> str:
        """ "liked" for 4 of 5."""
        share = min(1.0, max(0.0, (rating - self.low) / (self.high - self.low)))
        return self.words[round(share * (len(self.words) - 1))] if self.words else f"{rating:g}"


@dataclass(frozen=True)
class Scenario:
    """Factors, the fields that may be shown, and the templates, as one TOML file holds them.

    Args:
        language: that answers are to be in. Where it is not English, and the templates do not say so themselves with
            {{ language }}, the system message ends with that wish.
        words: how one calls an item, several, and what users do with them: for recipes, which know no domain.
    """

    name: str
    factors: tuple[str, ...]
    user: Mapping[str, Any]
    item: Mapping[str, Any]
    language: str = _ENGLISH
    words: Mapping[str, str] = field(default_factory=lambda: {"item": "item", "items": "items", "verb": "used"})
    ratings: Ratings = Ratings()
    limits: Limits = Limits()

    @classmethod
    def load(cls, name_or_path: str | Path) -> Scenario:
        """A scenario of this package by name ("movies"), or a file by its path.

        Raises:
            PromptError: There is no such scenario, or something in the file is wrong; the error says in which line.
        """
        content = scenario_text(name_or_path)
        data = read_scenario(content, str(name_or_path))
        options: dict[str, Any] = {key: data[key] for key in ("language", "words") if key in data}
        if "ratings" in data:
            options["ratings"] = Ratings(**{**data["ratings"], "words": tuple(data["ratings"].get("words", ()))})
        if "limits" in data:
            options["limits"] = Limits(**data["limits"])
        return cls(data["name"], tuple(data["factors"]), data["user"], data["item"], **options)

    def name_of(self, item: Mapping[str, Any]) -> str:
        """An item's name, where only that is shown: its first required field, or its first."""
        field = next(iter([*self.item.get("required", ()), *self.item["fields"]]), "")
        return self._only(item, [field])[field]

    @cached_property
    def tells_ratings(self) -> bool:
        """Whether a history shows ratings as stars or words."""
        return reads_field(self.user["prompt"], ("stars", "verdict"))

    @cached_property
    def versions(self) -> dict[str, str]:
        """Per entity, 12 hex digits that change with any byte of the scenario that a model could see."""
        return {entity: self._version(entity) for entity in ("user", "item")}

    def user_prompt(
        self,
        user_id: int | str,
        profile: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
        as_of: str,
        rephrase: Rephrase | None = None,
    ) -> Prompt:
        """The preference-reasoning prompt.

        Args:
            profile: the user's row; only the scenario's `user.fields` are shown.
            history: events in order of time, each with date, rating and the scenario's `user.item_fields`. The template
                gets them as days, each with `date` and `events`, because a repeated date costs tokens and says nothing.
            as_of: the time of the last event, kept with the answer.
            rephrase: makes other messages of the scenario's own: a recipe.

        Raises:
            PromptError: A template fails, or the prompt is longer than limits.tokens even without a history.
        """
        row = self._only(profile, self.user["fields"])
        events = [clean_row(event, self.limits.characters) for event in history]

        def messages(first: int) -> tuple[Message, ...]:
            days = [
                {"date": date, "events": list(of_day)}
                for date, of_day in groupby(events[first:], key=lambda event: event["date"])
            ]
            rendered = self._render("user", {"profile": row, "history": days})
            return rephrase(rendered) if rephrase else rendered

        first, rendered = self._fit(messages, len(events), f"user {user_id!r}")
        cut = self._cut(row, *events[first:]) | ({"history"} if first else set())
        return Prompt("user", user_id, rendered, self.versions["user"], as_of, tuple(sorted(cut)))

    def item_prompt(self, item_id: int | str, item: Mapping[str, Any], rephrase: Rephrase | None = None) -> Prompt:
        """The factual-knowledge prompt. Only the scenario's `item.fields` of the item's row are shown.

        Raises:
            PromptError: A template fails, or the prompt is longer than limits.tokens.
        """
        row = self._only(item, self.item["fields"])

        def messages(_: int) -> tuple[Message, ...]:
            rendered = self._render("item", {"item": row})
            return rephrase(rendered) if rephrase else rendered

        _, rendered = self._fit(messages, 0, f"item {item_id!r}")
        return Prompt("item", item_id, rendered, self.versions["item"], None, tuple(sorted(self._cut(row))))

    def _version(self, entity: str) -> str:
        section = dict(getattr(self, entity))
        # What is as it always was is left out: answers of earlier versions keep theirs.
        more: dict[str, Any] = {}
        if self.language != _ENGLISH:
            more["language"] = self.language
        if any(uses(section[key], "words") for key in ("system", "prompt")):
            more["words"] = dict(self.words)
        if entity == "user" and self.tells_ratings:
            more["ratings"] = asdict(self.ratings)
        if self.limits != Limits():
            more["limits"] = asdict(self.limits)
        return version_of(_RENDERING, self.factors, section, *([more] if more else []))

    def _only(self, row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str]:
        """The named fields as clean text; a missing value or column is an empty string."""
        return clean_row(shown(row, fields), self.limits.characters)

    def _cut(self, *rows: Mapping[str, str]) -> set[str]:
        most = self.limits.characters
        return {field for row in rows for field, text in row.items() if was_cut(text, most)}

    def _fit(
        self, messages: Callable[[int], tuple[Message, ...]], events: int, whose: str
    ) -> tuple[int, tuple[Message, ...]]:
        """(how many of the oldest events are left out, the messages): as few as limits.tokens allows."""
        rendered = messages(0)
        if self._tokens(rendered) <= self.limits.tokens:
            return 0, rendered
        low, high = 1, events  # fewer than `low` are too few to leave out; `high` may be enough
        while low < high:
            middle = (low + high) // 2
            if self._tokens(messages(middle)) <= self.limits.tokens:
                high = middle
            else:
                low = middle + 1
        rendered = messages(high)
        if (tokens := self._tokens(rendered)) > self.limits.tokens:
            raise PromptError(
                f"Scenario {self.name}: the prompt of {whose} is about {tokens:,} tokens"
                f"{' even without a history' if events else ''}, more than limits.tokens = {self.limits.tokens:,}. "
                f"Lower limits.characters = {self.limits.characters:,}, show fewer fields, or raise limits.tokens."
            )
        return high, rendered

    @staticmethod
    def _tokens(messages: Sequence[Message]) -> int:
        return sum(careful_tokens(message["content"]) for message in messages)

    def _render(self, entity: str, fields: Mapping[str, Any]) -> tuple[Message, ...]:
        return render_messages(self, f"template of {entity}", getattr(self, entity), fields)


def render_messages(
    scenario: Scenario, what: str, section: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[Message, ...]:
    """The system and the user message of a section's two templates, in the scenario's language and words.

    Raises:
        PromptError: A template fails.
    """
    common = {"factors": scenario.factors, "language": scenario.language, "words": scenario.words}
    try:
        system = render(section["system"], common)
        prompt = render(section["prompt"], {**common, **fields})
    except TemplateFault as fault:
        line = f", line {fault.line}" if fault.line else ""
        raise PromptError(f"Scenario {scenario.name}, {what}{line}: {fault}") from None
    if scenario.language != _ENGLISH and not any(uses(section[key], "language") for key in ("system", "prompt")):
        system += f"\nAnswer in {scenario.language}."
    return {"role": "system", "content": system}, {"role": "user", "content": prompt}


def scenario_names() -> list[str]:
    """The scenarios that come with kar-aug."""
    return sorted(file.name[:-5] for file in _packaged().iterdir() if file.name.endswith(".toml"))


def scenario_text(name_or_path: str | Path) -> str:
    """The file of a scenario, by name or path, as it stands.

    Raises:
        PromptError: There is none, or it cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        try:
            return path.read_text(encoding="utf-8-sig")  # Windows editors put a mark in front
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(f"Scenario {path} cannot be read: {error}") from None
    if str(name_or_path) in scenario_names():
        return _packaged().joinpath(f"{name_or_path}.toml").read_text(encoding="utf-8")
    raise PromptError(
        f"There is no scenario {str(name_or_path)!r}. Give a .toml file's path, or one of: "
        f"{', '.join(scenario_names())}."
    )


def _packaged() -> Traversable:
    return files("kar_aug.prompts").joinpath("scenarios")
