"""Files of scenarios and recipes, checked when read: an error names the file, the line and the field.

A scenario must say what may be shown and how, ask about its factors, and keep everything that comes from the tables
between one pair of <data> marks. Its templates are rendered once with made-up values, so that what would fail in the
middle of a paid job fails before it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from kar_aug.errors import PromptError
from kar_aug.prompts.schema import schema_fault
from kar_aug.prompts.templates import TemplateFault, check_names, render, uses
from kar_aug.prompts.text import careful_tokens

# What a template may read of an event, beside the scenario's user.item_fields.
EVENT_FIELDS = ("date", "rating", "stars", "verdict", "ago")
DAY_FIELDS = ("date", "events")
WORDS = ("item", "items", "verb")
_DATA = re.compile(r"<data>.*?</data>", re.DOTALL)
# Values for a rendering on trial: a number, because templates may count with it; and what is missing.
_TRIALS = ("4711", "")

# What a scenario may say: section -> key -> (type, whether it must be there).
_SCENARIO: dict[str, dict[str, tuple[type, bool]]] = {
    "": {
        "name": (str, True), "factors": (list, True), "user": (dict, True), "item": (dict, True),
        "language": (str, False), "words": (dict, False), "ratings": (dict, False), "limits": (dict, False),
        "decisions": (object, False),  # a record of who decided the factors, for people
    },
    "user": {"fields": (list, True), "item_fields": (list, False), "system": (str, True), "prompt": (str, True)},
    "item": {"fields": (list, True), "required": (list, False), "system": (str, True), "prompt": (str, True)},
    "words": dict.fromkeys(WORDS, (str, True)),
    "ratings": {"low": (float, True), "high": (float, True), "words": (list, False)},
    "limits": {"characters": (int, False), "tokens": (int, False)},
}  # fmt: skip
_RECIPE: dict[str, dict[str, tuple[type, bool]]] = {
    "": {
        "name": (str, True), "paper": (str, False), "asks": (str, False), "needs": (list, False),
        "user": (dict, False), "item": (dict, False),
    },
    "user": {"system": (str, False), "prompt": (str, False), "schema": (dict, False)},
    "item": {"system": (str, False), "prompt": (str, False), "schema": (dict, False)},
}  # fmt: skip
_NEEDS = ("neighbours",)
_KINDS = {str: "a text", list: "a list of texts", dict: "a section", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Document:
    """A TOML file being checked. `what` is how errors call it: "Scenario books.toml"."""

    what: str
    content: str

    def parse(self) -> dict[str, Any]:
        """Its content.

        Raises:
            PromptError: It is not TOML.
        """
        try:
            return tomllib.loads(self.content)
        except tomllib.TOMLDecodeError as error:  # says line and column itself
            raise PromptError(f"{self.what}: {error}") from None

    def fail(self, section: str, key: str, message: str, template_line: int | None = None) -> NoReturn:
        """Raise a PromptError that names line and field."""
        line = line_of(self.content, section, key, template_line)
        field = f"{section}.{key}" if section and key else section or key
        raise PromptError(f"{self.what}{f', line {line}' if line else ''}, {field}: {message}")

    def check_structure(
        self, data: Mapping[str, Any], structure: Mapping[str, Mapping[str, tuple[type, bool]]]
    ) -> None:
        """Check names and types of everything the file says."""
        for section, keys in structure.items():
            table = data.get(section) if section else data
            if table is None:
                continue
            for key in table:
                if key not in keys:
                    near = difflib.get_close_matches(key, keys, 1)
                    hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(keys)}"
                    self.fail(section, key, f"there is no such setting. {hint}")
            for key, (kind, needed) in keys.items():
                if key not in table:
                    if needed:
                        where = f"[{section}]" if section else "the file"
                        self.fail(section, "" if section else key, f"'{key}' is missing in {where}.")
                elif not _is(table[key], kind):
                    wanted = f"a section: [{key}]" if kind is dict else _KINDS[kind]
                    self.fail(section, key, f"'{key}' must be {wanted}.")

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
    document = Document(f"Scenario {name}", content)
    data = document.parse()
    document.check_structure(data, _SCENARIO)
    _check_factors(document, data["factors"])
    for field in data["item"].get("required", []):
        if field not in data["item"]["fields"]:
            document.fail("item", "required", f"'{field}' is not one of item.fields.")
    if "ratings" in data and not data["ratings"]["low"] < data["ratings"]["high"]:
        document.fail("ratings", "low", "must be below high.")
    for key, least in (("characters", 10), ("tokens", 50)):
        if data.get("limits", {}).get(key, least) < least:
            document.fail("limits", key, f"must be at least {least}.")
    for entity in ("user", "item"):
        _check_entity(document, data, entity)
    return data


def read_recipe(content: str, name: str) -> dict[str, Any]:
    """A recipe's file, checked.

    Raises:
        PromptError: Something is missing, unknown, of a wrong type, or cannot be rendered; with line and field.
    """
    document = Document(f"Recipe {name}", content)
    data = document.parse()
    document.check_structure(data, _RECIPE)
    if not re.fullmatch("[a-z0-9][a-z0-9-]*", data["name"]):
        document.fail("", "name", "must be of lower-case letters, digits and hyphens: folders are called by it.")
    for need in data.get("needs", []):
        if need not in _NEEDS:
            document.fail("", "needs", f"'{need}' is unknown. Known: {', '.join(_NEEDS)}")
    entities = [entity for entity in ("user", "item") if entity in data]
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
    common: dict[str, Any] = {"factors": None, "language": None, "words": WORDS}
    known = {**common, "data": None, **dict.fromkeys(data.get("needs", ()))}
    document.check_template(entity, "system", section["system"], common)
    document.check_template(entity, "prompt", section["prompt"], known)
    values = {"factors": ["x"], "language": "English", "words": dict.fromkeys(WORDS, "thing")}
    document.try_template(entity, "system", section["system"], values)
    for neighbours in ([], ["4712"]):
        data_block = "<data>\n4711\n</data>"
        rows = {"data": data_block, "neighbours": neighbours}
        text = document.try_template(entity, "prompt", section["prompt"], {**values, **rows})
        if text.count(data_block) != 1:
            document.fail(entity, "prompt", "must show the entity once: {{ data }}")
        if "4712" in _DATA.sub("", text):
            document.fail(entity, "prompt", "neighbours must stand between <data> and </data>.")


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
    """The two templates of an entity: names, factors, data marks, length; rendered with made-up values."""
    section = data[entity]
    common: dict[str, Any] = {"factors": None, "language": None, "words": WORDS}
    if entity == "user":
        events = (*section.get("item_fields", ()), *EVENT_FIELDS)
        known = {**common, "profile": section["fields"], "history": None, "day": DAY_FIELDS, "event": events}
    else:
        events, known = (), {**common, "item": section["fields"]}
    document.check_template(entity, "system", section["system"], common)
    document.check_template(entity, "prompt", section["prompt"], known)
    if not uses(section["system"], "factors") and not uses(section["prompt"], "factors"):
        document.fail(entity, "prompt", 'the factors are never asked about. Write: {{ factors | join(", ") }}')
    words = data.get("words", dict.fromkeys(WORDS, "thing"))
    given = {"factors": data["factors"], "language": data.get("language", "English"), "words": words}
    system = document.try_template(entity, "system", section["system"], given)
    for value in _TRIALS:
        row = dict.fromkeys(section["fields"], value)
        day = {"date": "1 Jan 1970", "events": [dict.fromkeys(events, value)]}
        rows: dict[str, Any] = {"profile": row, "history": [day]} if entity == "user" else {"item": row}
        text = document.try_template(entity, "prompt", section["prompt"], {**given, **rows})
        if text.count("<data>") != 1 or text.count("</data>") != 1 or not _DATA.search(text):
            document.fail(entity, "prompt", "what comes from the tables must stand between <data> and </data>, once.")
        if value and value in _DATA.sub("", text):
            document.fail(entity, "prompt", "a value of the tables stands outside of <data> and </data>.")
    most = data.get("limits", {}).get("tokens")
    fixed = careful_tokens(system) + careful_tokens(text)  # the last trial: everything is missing
    if most is not None and fixed > most:
        document.fail(
            entity, "prompt", f"the templates alone are about {fixed:,} tokens, more than limits.tokens = {most:,}."
        )


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


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
