"""A scenario renders entities into prompts: one preference-reasoning prompt a user, one factual prompt an item.

Both break their question down by the scenario's factors (factorization prompting, KAR section 3.3): asked
directly, a language model knows the parts of an answer and still fails to compose them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

import jinja2
import jinja2.sandbox
import numpy as np
import pandas as pd

from kar_aug.data import Tables
from kar_aug.errors import PromptError

_log = logging.getLogger("kar_aug")
# Bump when rendering itself changes what the model sees, so that old and new answers are told apart.
_RENDERING = 1
# Of one field: a description of megabytes, which may be an accident, would cost as much as thousands of prompts.
MOST_CHARACTERS = 2000
# Typographic brackets instead of those that could close a <data> mark.
_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a"})


# What a scenario must say: (key, section or "", type).
_STRUCTURE: tuple[tuple[str, str, type], ...] = (
    ("name", "", str),
    ("factors", "", list),
    ("user", "", dict),
    ("item", "", dict),
    *(
        (key, source, kind)
        for source in ("user", "item")
        for key, kind in (("fields", list), ("system", str), ("prompt", str))
    ),
)


class Message(TypedDict):
    """One message of a chat, as the OpenAI API takes it."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One question about one entity. The entity's id is for our books; the model never sees it."""

    source: str
    entity_id: int | str
    messages: tuple[Message, ...]
    version: str
    as_of: str | None = None

    @property
    def text(self) -> str:
        """The messages as a person reads them."""
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in self.messages)


@dataclass(frozen=True)
class Scenario:
    """Factors, the fields that may be shown, and the templates, as one TOML file holds them."""

    name: str
    factors: tuple[str, ...]
    user: Mapping[str, Any]
    item: Mapping[str, Any]
    language: str = "English"

    @classmethod
    def load(cls, name_or_path: str | Path) -> Scenario:
        """A scenario of this package by name ("movies"), or a file by its path.

        Raises:
            PromptError: There is no such scenario, or the file lacks something.
        """
        path = Path(name_or_path)
        builtin = files("kar_aug.prompts").joinpath(f"{name_or_path}.toml")
        if path.suffix == ".toml" and path.is_file():
            content = _read(path)
        elif path.suffix != ".toml" and builtin.is_file():
            content = builtin.read_text(encoding="utf-8")
        else:
            known = sorted(f.name[:-5] for f in files("kar_aug.prompts").iterdir() if f.name.endswith(".toml"))
            raise PromptError(
                f"There is no scenario {str(name_or_path)!r}. Give a .toml file's path, or one of: {', '.join(known)}."
            )
        try:
            data = tomllib.loads(content)
            for key, where, kind in _STRUCTURE:
                value: Any = (data[where] if where else data)[key]
                if not isinstance(value, kind) or (
                    isinstance(value, list) and not all(isinstance(v, str) for v in value)
                ):
                    wanted = {"str": "a text", "list": "a list of texts", "dict": f"a section: [{key}]"}[kind.__name__]
                    raise PromptError(f"Scenario {name_or_path}: {where}{'.' if where else ''}{key} must be {wanted}.")
            scenario = cls(
                data["name"], tuple(data["factors"]), data["user"], data["item"], str(data.get("language", "English"))
            )
        except tomllib.TOMLDecodeError as error:
            raise PromptError(f"Scenario {name_or_path}: {error}") from None
        except KeyError as error:
            raise PromptError(f"Scenario {name_or_path}: {error} is missing.") from None
        return scenario

    @cached_property
    def versions(self) -> dict[str, str]:
        """Per source, 12 hex digits that change with any byte of the scenario that a model could see."""
        return {
            source: hashlib.sha256(
                json.dumps([_RENDERING, self.factors, dict(getattr(self, source))], sort_keys=True).encode()
            ).hexdigest()[:12]
            for source in ("user", "item")
        }

    def user_prompt(
        self, user_id: int | str, profile: Mapping[str, Any], history: Sequence[Mapping[str, Any]], as_of: str
    ) -> Prompt:
        """The preference-reasoning prompt.

        Args:
            profile: the user's row; only the scenario's `user.fields` are shown.
            history: events in order of time, each with date, rating and the scenario's `user.item_fields`. The template
                gets them as days, each with `date` and `events`, because a repeated date costs tokens and says nothing.
            as_of: the time of the last event, kept with the answer.
        """
        days = [
            {"date": date, "events": list(events)}
            for date, events in groupby(map(_clean, history), key=lambda event: event["date"])
        ]
        fields = {"profile": _only(profile, self.user["fields"]), "history": days}
        return Prompt("user", user_id, self._render("user", fields), self.versions["user"], as_of)

    def item_prompt(self, item_id: int | str, item: Mapping[str, Any]) -> Prompt:
        """The factual-knowledge prompt. Only the scenario's `item.fields` of the item's row are shown."""
        fields = {"item": _only(item, self.item["fields"])}
        return Prompt("item", item_id, self._render("item", fields), self.versions["item"])

    def _render(self, source: str, fields: Mapping[str, Any]) -> tuple[Message, ...]:
        system, prompt = self._templates[source]
        try:
            return (
                {"role": "system", "content": system.render(factors=self.factors).strip()},
                {"role": "user", "content": prompt.render(factors=self.factors, **fields).strip()},
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise PromptError(f"Scenario {self.name}, template of {source}: {error}") from None

    @cached_property
    def _templates(self) -> dict[str, tuple[jinja2.Template, jinja2.Template]]:
        environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        templates = {}
        for source in ("user", "item"):
            texts = getattr(self, source)
            try:
                templates[source] = (
                    environment.from_string(texts["system"]),
                    environment.from_string(texts["prompt"]),
                )
            except jinja2.TemplateSyntaxError as error:
                raise PromptError(
                    f"Scenario {self.name}, template of {source}, line {error.lineno}: {error.message}"
                ) from None
        return templates


def user_prompts(
    scenario: Scenario, tables: Tables, split: pd.DataFrame, *, limit: int | None = None, max_events: int = 30
) -> Iterator[Prompt]:
    """Prompts of the users who have a history, those with the longest first.

    Args:
        split: what `split_interactions` returned; only its history rows are read.
        limit: how many users to ask about, all if None.
        max_events: how many of the latest history events are shown.
    """
    profiles = _rows(tables.users, "user_id")
    items = _rows(tables.items, "item_id")
    shown = scenario.user.get("item_fields", [])
    history = split[split["part"] == "history"]
    wanted = _most_frequent(history["user_id"], limit)
    # Columns and slices of them: a frame a user would cost more than the prompt.
    history = history.sort_values("user_id", kind="stable")
    ends = np.cumsum(history["user_id"].value_counts(sort=False).sort_index().to_numpy())
    end_of = dict(zip(np.sort(history["user_id"].unique()).tolist(), ends.tolist(), strict=True))
    item_ids = history["item_id"].tolist()
    times = _dates(history["timestamp"])
    dates = (times.dt.day.astype(str) + times.dt.strftime(" %b %Y")).tolist()
    ratings = history["rating" if "rating" in history else "label"].tolist()
    start_of = dict(zip(end_of, [0, *ends[:-1].tolist()], strict=True))
    for user_id in wanted:
        end = end_of[user_id]
        seen = range(max(start_of[user_id], end - max_events), end)
        rows = [
            {**_shown(items.get(item_ids[i], {}), shown), "date": dates[i], "rating": f"{ratings[i]:g}"} for i in seen
        ]
        yield scenario.user_prompt(user_id, profiles.get(user_id, {}), rows, times.iloc[end - 1].isoformat())


def item_prompts(
    scenario: Scenario, tables: Tables, split: pd.DataFrame, *, limit: int | None = None
) -> Iterator[Prompt]:
    """Prompts of the items, those most often in users' histories first; with `limit`, only so many.

    Popularity is counted in the histories alone: which items have knowledge must not tell what was clicked later.
    An item without one of the scenario's `item.required` fields is left out: a language model could only invent.
    """
    rows = _rows(tables.items, "item_id")
    counted = split.loc[split["part"] == "history", "item_id"]
    ordered = _most_frequent(counted[counted.isin(rows.keys())], None)
    seen = set(ordered)
    ordered += [item_id for item_id in tables.items["item_id"].tolist() if item_id not in seen]
    required = scenario.item.get("required", [])
    nameless = []
    for item_id in ordered[:limit]:
        if all(_only(rows[item_id], required).values()):
            yield scenario.item_prompt(item_id, rows[item_id])
        else:
            nameless.append(item_id)
    if nameless:
        _log.warning(
            "%s items are not asked about, because their %s is empty; the first is item_id %s",
            f"{len(nameless):,}",
            " or ".join(required),
            nameless[0],
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"Scenario {path} cannot be read: {error}") from None


def _rows(table: pd.DataFrame, key: str) -> dict[int | str, dict[str, Any]]:
    return table.set_index(key).to_dict("index")  # type: ignore[return-value]


def _most_frequent(ids: pd.Series, limit: int | None) -> list[int | str]:
    counts = ids.value_counts().rename_axis("id").reset_index()
    return counts.sort_values(["count", "id"], ascending=[False, True])["id"].tolist()[:limit]


def _dates(timestamp: pd.Series) -> pd.Series:
    return timestamp if pd.api.types.is_datetime64_any_dtype(timestamp) else pd.to_datetime(timestamp, unit="s")


def _shown(row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    return {field: row.get(field, "") for field in fields}


def _only(row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str]:
    """The named fields as clean text; a missing value or column is an empty string."""
    return _clean(_shown(row, fields))


def _clean(row: Mapping[str, Any]) -> dict[str, str]:
    return {field: _clean_text(value) for field, value in row.items()}


def _clean_text(value: Any) -> str:
    """One line without control characters or angle brackets, so that a value cannot close its <data> mark."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with one gap comes as decimals
    return _clean_string(str(value))


@lru_cache(10_000)  # the titles of popular items stand in many histories
def _clean_string(text: str) -> str:
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    text = re.sub(r"\s+", " ", text.translate(_BRACKETS)).strip()
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "\u2026"
