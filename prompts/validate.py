"""Files of scenarios and recipes, checked when read: an error names the file, the line and the field.

A scenario must say what may be shown and how, ask about its factors, and keep everything that comes from the tables
between one pair of <data> marks. Its templates are rendered once with made-up values, so that what would fail in the
middle of a paid job fails before it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kar_aug.errors import PromptError
from kar_aug.prompts import data as blocks
from kar_aug.prompts.schema import schema_fault
from kar_aug.prompts.structure import RECIPE, SCENARIO, WORDS, first_fault
from kar_aug.prompts.templates import TemplateFault, check_names, render, uses
from kar_aug.prompts.text import careful_tokens

# What a template may read of an event, beside the scenario's user.item_fields and user.event_fields.
EVENT_FIELDS = ("date", "rating", "stars", "verdict", "ago")
DAY_FIELDS = ("date", "events")
ENTITIES = ("user", "item")
# What a template may read wherever it stands.
_COMMON: dict[str, Any] = {"factors": None, "language": None, "words": WORDS}
# Values for a rendering on trial: a number, because templates may count with it; and what is missing.
_TRIALS = ("4711", "")
_BLOCK = blocks.marked(["4711"])  # likewise, of data


@dataclass(frozen=True)
class Document:
    """A TOML file being checked. `kind` and `name` are how errors call it: "Scenario books.toml"."""

    kind: str
    name: str
    content: str

    def parse(self) -> dict[str, Any]:
        """Its content.

        Raises:
            PromptError: It is not TOML.
        """
        try:
            return tomllib.loads(self.content)
        except tomllib.TOMLDecodeError as error:  # says line and column itself
            raise PromptError(f"{self.kind} {self.name}: {error}", file=self.name) from None

    def fail(self, section: str, key: str, message: str, template_line: int | None = None) -> NoReturn:
        """Raise a PromptError that names line and field."""
        line = line_of(self.content, section, key, template_line)
        field = f"{section}.{key}" if section and key else section or key
        where = f"{self.kind} {self.name}{f', line {line}' if line else ''}, {field}"
        raise PromptError(f"{where}: {message}", file=self.name, line=line, field=field)

    def check_structure(self, data: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
        """Check names and types of everything the file says."""
        if fault := first_fault(data, schema):
            self.fail(*fault)

    def check_template(self, section: str, key: str, text: str, known: Mapping[str, Any]) -> None:
        """Check what a template reads."""
        try:
            check_names(text, known)
        except TemplateFault as fault:
            self.fail(section, key, str(fault), fault.line)

    def try_template(self, section: str, key: str, text: str, values: Mapping[str, Any]) -> str:
        """Render a template on trial."""
        try:
            return render(text, values)
        except TemplateFault as fault:
            self.fail(section, key, str(fault), fault.line)


def read_scenario(content: str, name: str) -> dict[str, Any]:
    """A scenario's file, checked.

    Raises:
        PromptError: Something is missing, unknown, of a wrong type, or cannot be rendered; with line and field.
    """
    document = Document("Scenario", name, content)
    data = document.parse()
    document.check_structure(data, SCENARIO)
    _check_factors(document, data["factors"])
    for field in data["item"].get("required", []):
        if field not in data["item"]["fields"]:
            document.fail("item", "required", f"'{field}' is not one of item.fields.")
    if "ratings" in data and not data["ratings"]["low"] < data["ratings"]["high"]:
        document.fail("ratings", "low", "must be below high.")
    for field in data["user"].get("event_fields", []):
        if field in EVENT_FIELDS or field in data["user"].get("item_fields", []):
            said = "says itself" if field in EVENT_FIELDS else "reads of its item, by user.item_fields"
            document.fail(
                "user",
                "event_fields",
                f"'{field}' is what a history {said}. If your column means something else, give it another name: "
                f'[data] columns = {{ interactions = {{ review_{field} = "{field}" }} }}',
            )
    for entity in ENTITIES:
        _check_entity(document, data, entity)
    return data


def read_recipe(content: str, name: str) -> dict[str, Any]:
    """A recipe's file, checked.

    Raises:
        PromptError: Something is missing, unknown, of a wrong type, or cannot be rendered; with line and field.
    """
    document = Document("Recipe", name, content)
    data = document.parse()
    document.check_structure(data, RECIPE)
    if not re.fullmatch("[a-z0-9][a-z0-9-]*", data["name"]):
        document.fail("", "name", "must be of lower-case letters, digits and hyphens: folders are called by it.")
    entities = [entity for entity in ENTITIES if entity in data]
    if not entities:
        document.fail("", "user", "a recipe asks about users, items or both: there is neither [user] nor [item].")
    for entity in entities:
        _check_question(document, data, entity)
    return data


def _check_question(document: Document, data: Mapping[str, Any], entity: str) -> None:
    """The two templates of a recipe's section, rendered with made-up data; without templates, the scenario's own."""
    section = data[entity]
    given = [key for key in ("system", "prompt") if key in section]
    if not given and data["name"] == "kar":
        return
    for key in ("system", "prompt"):
        if key not in given:
            document.fail(entity, "", f"'{key}' is missing in [{entity}].")
    if "schema" in section and (fault := schema_fault(section["schema"])):
        document.fail(f"{entity}.schema", "", fault)
    if "neighbours" in data.get("needs", ()) and entity == "user":
        document.fail("", "needs", "only items have neighbours.")
    known = {**_COMMON, "data": None, **dict.fromkeys(data.get("needs", ()))}
    document.check_template(entity, "system", section["system"], _COMMON)
    document.check_template(entity, "prompt", section["prompt"], known)
    values = {"factors": ["x"], "language": "English", "words": dict.fromkeys(WORDS, "thing")}
    document.try_template(entity, "system", section["system"], values)
    for neighbours in ([], ["4712"]):
        text = _asked_on_trial(document, entity, section, _BLOCK, {**values, "neighbours": neighbours})
        if "4712" in blocks.outside(text):
            document.fail(entity, "prompt", "neighbours must stand between <data> and </data>.")


def _asked_on_trial(
    document: Document, entity: str, section: Mapping[str, Any], block: str, values: Mapping[str, Any]
) -> str:
    """A prompt that gets its data as a block, which it must show."""
    text = document.try_template(entity, "prompt", section["prompt"], {**values, "data": block})
    if text.count(block) != 1:
        document.fail(entity, "prompt", "must show the entity once: {{ data }}")
    return text


def _check_factors(document: Document, factors: Sequence[str]) -> None:
    if not factors:
        document.fail(
            "", "factors", "at least one factor is needed. A question without factors is the recipe 'direct'."
        )
    for factor in factors:
        if not factor.strip():
            document.fail("", "factors", "a factor is empty.")
        if factors.count(factor) > 1:
            document.fail("", "factors", f"'{factor}' stands there twice.")


def _check_entity(document: Document, data: Mapping[str, Any], entity: str) -> None:
    """The templates of an entity: names, factors, data marks, length; rendered with made-up values."""
    section = data[entity]
    shows = "data" if "data" in section else "prompt"  # the template that shows the entity
    document.check_template(entity, "system", section["system"], _COMMON)
    document.check_template(entity, shows, section[shows], {**_COMMON, **_known_of(section, entity)})
    if shows == "data":
        document.check_template(entity, "prompt", section["prompt"], {**_COMMON, "data": None})
    if not any(uses(section[key], "factors") for key in ("system", shows, "prompt")):
        document.fail(entity, "prompt", 'the factors are never asked about. Write: {{ factors | join(", ") }}')
    words = data.get("words", dict.fromkeys(WORDS, "thing"))
    given = {"factors": data["factors"], "language": data.get("language", "English"), "words": words}
    system = document.try_template(entity, "system", section["system"], given)
    text = _shown_on_trial(document, entity, shows, section, given)
    if shows == "data":
        text = _asked_on_trial(document, entity, section, text, given)
    tokens, most = careful_tokens(system) + careful_tokens(text), data.get("limits", {}).get("tokens")
    if most is not None and tokens > most:
        document.fail(
            entity, "prompt", f"the templates alone are about {tokens:,} tokens, more than limits.tokens = {most:,}."
        )


def _known_of(section: Mapping[str, Any], entity: str) -> dict[str, Any]:
    """What the template that shows an entity may read of it."""
    if entity == "item":
        return {"item": section["fields"]}
    return {"profile": section["fields"], "history": None, "day": DAY_FIELDS, "event": _event_fields(section)}


def _event_fields(section: Mapping[str, Any]) -> tuple[str, ...]:
    return (*section.get("item_fields", ()), *section.get("event_fields", ()), *EVENT_FIELDS)


def _shown_on_trial(
    document: Document, entity: str, shows: str, section: Mapping[str, Any], given: Mapping[str, Any]
) -> str:
    """Show made-up entities, and see that all of them stays between the marks. Returns what shows an empty one."""
    text = ""
    for value in _TRIALS:
        row = dict.fromkeys(section["fields"], value)
        day = {"date": "1 Jan 1970", "events": [dict.fromkeys(_event_fields(section), value)]}
        rows: dict[str, Any] = {"profile": row, "history": [day]} if entity == "user" else {"item": row}
        text = document.try_template(entity, shows, section[shows], {**given, **rows})
        if not (blocks.is_block(text) if shows == "data" else blocks.has_one(text)):
            document.fail(entity, shows, "what comes from the tables must stand between <data> and </data>, once.")
        if value and value in blocks.outside(text):
            document.fail(entity, shows, "a value of the tables stands outside of <data> and </data>.")
    return text


def line_of(content: str, section: str, key: str, template_line: int | None = None) -> int | None:
    """The line (1 is the first) of a key in TOML text, of its section if the key is "" or not there.

    Args:
        template_line: a line of the text that the key holds; then the line of the file where that stands.
    """
    lines, current, header_line, quotes = content.splitlines(), "", None, ""
    for number, line in enumerate(lines, 1):
        if quotes:
            quotes = "" if quotes in line else quotes
            continue
        if header := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]", line):
            current = header[1]
            header_line = number if current == (section or key) else header_line
        elif current == section and key and re.match(rf'\s*"?{re.escape(key)}"?\s*=', line):
            return number if template_line is None else _line_inside(lines, number, template_line)
        opened = re.search(r"\"\"\"|'''", line)
        if opened and line.count(opened[0]) % 2:
            quotes = opened[0]
    return header_line


def _line_inside(lines: Sequence[str], number: int, wanted: int) -> int:
    """Lines of a template are lines of the file, but for those that end in a backslash: these go on in the next."""
    if re.search(r"(\"\"\"|''')\\?\s*$", lines[number - 1]):
        number += 1  # the text begins in the line after the quotes
    seen = 1
    while seen < wanted and number < len(lines):
        seen += not lines[number - 1].endswith("\\")
        number += 1
    return number
