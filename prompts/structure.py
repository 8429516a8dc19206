"""What files of scenarios and recipes may say, as JSON schemas, and a schema's errors in words of the file.

A property's `description` is what its value must be, in the words of an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

WORDS = ("item", "items", "verb")
NEEDS = ("neighbours",)
_TEXT = {"type": "string", "description": "a text"}
_TEXTS = {"type": "array", "items": {"type": "string"}, "description": "a list of texts"}
_NUMBER = {"type": "number", "description": "a number"}


def _section(properties: Mapping[str, Any], required: Collection[str] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**properties},
        "required": list(required),
        "additionalProperties": False,
    }


def _whole_number(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "description": "a whole number"}


_TEMPLATES = {"system": _TEXT, "data": _TEXT, "prompt": _TEXT}
_ASKED = ("fields", "system", "prompt")
_QUESTION = _section({"system": _TEXT, "prompt": _TEXT, "schema": {"type": "object"}})
SCENARIO = _section(
    {
        "name": _TEXT,
        "factors": _TEXTS,
        "user": _section({"fields": _TEXTS, "item_fields": _TEXTS, "event_fields": _TEXTS, **_TEMPLATES}, _ASKED),
        "item": _section({"fields": _TEXTS, "required": _TEXTS, **_TEMPLATES}, _ASKED),
        "language": _TEXT,
        "words": _section(dict.fromkeys(WORDS, _TEXT), WORDS),
        "ratings": _section({"low": _NUMBER, "high": _NUMBER, "words": _TEXTS}, ("low", "high")),
        "limits": _section({"characters": _whole_number(10), "tokens": _whole_number(50)}),
        "decisions": {},  # a record of who decided the factors, for people
    },
    ("name", "factors", "user", "item"),
)
RECIPE = _section(
    {
        "name": _TEXT,
        "paper": _TEXT,
        "asks": _TEXT,
        "needs": {**_TEXTS, "items": {"type": "string", "enum": list(NEEDS)}},
        "user": _QUESTION,
        "item": _QUESTION,
    },
    ("name",),
)


class Fault(NamedTuple):
    """What is wrong, and where: in a section ("" for the top of the file), at a key ("" for the whole section)."""

    section: str
    key: str
    message: str


def first_fault(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Fault | None:
    """The first fault in the order of the schema, names that it does not know before all others of their section."""
    from jsonschema import Draft4Validator  # in later drafts 6000.0 is a whole number

    found = [_in_words(error, schema) for error in Draft4Validator(schema).iter_errors(document)]
    sections = ["", *schema["properties"]]

    def place(fault: tuple[int, Fault]) -> tuple[int, int]:
        number, (section, *_) = fault
        return sections.index(section), number

    return min(found, key=place, default=(0, None))[1]


def _in_words(error: Any, schema: Mapping[str, Any]) -> tuple[int, Fault]:
    """(its place in the section, the fault) of an error of jsonschema."""
    names = [part for part in error.absolute_path if isinstance(part, str)]  # numbers are places in lists
    if error.validator in ("additionalProperties", "required"):
        section, known = ".".join(names), list(error.schema["properties"])
        if error.validator == "additionalProperties":
            key = next(name for name in error.instance if name not in known)
            return -1, Fault(section, key, f"there is no such setting. {_hint(key, known)}")
        key = next(name for name in error.schema["required"] if name not in error.instance)
        where = f"[{section}]" if section else "the file"
        return known.index(key), Fault(section, "" if section else key, f"'{key}' is missing in {where}.")
    section, key = ".".join(names[:-1]), names[-1]
    siblings = (schema["properties"][section] if section else schema)["properties"]
    return list(siblings).index(key), Fault(section, key, _wish(error, key, siblings[key]))


def _wish(error: Any, key: str, wanted: Mapping[str, Any]) -> str:
    if error.validator == "minimum":
        return f"must be at least {error.validator_value}."
    if error.validator == "enum":
        return f"'{error.instance}' is unknown. Known: {', '.join(error.validator_value)}"
    return f"'{key}' must be {wanted.get('description', f'a section: [{key}]')}."


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}"
