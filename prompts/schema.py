"""Answers as JSON: the schema that a recipe wants, and whether an answer fits it.

Schemas are flat, so that every property can become a column: texts, numbers, truth values and lists of texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SIMPLE = ("string", "integer", "number", "boolean")
_SHOWN = 200  # characters of a fault, which may quote the answer


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a recipe's schema; None if it can be used.

    Servers that write by a schema want every property to be required and no other to be allowed: so does kar-aug.
    """
    from jsonschema import Draft202012Validator, SchemaError

    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, Mapping) or not properties:
        return 'must be of type "object", with properties.'
    if schema.get("additionalProperties") is not False:
        return "must say additionalProperties = false."
    required = schema.get("required")
    if not isinstance(required, list) or sorted(map(str, required)) != sorted(properties):
        return f"required must name every property: {', '.join(properties)}."
    for name, kind in properties.items():
        items = kind.get("items", {}) if isinstance(kind, Mapping) and kind.get("type") == "array" else kind
        if not isinstance(items, Mapping) or items.get("type") not in _SIMPLE:
            return f"'{name}' must be one of {', '.join(_SIMPLE)}, or an array of these."
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"is no JSON schema: {error.message[:_SHOWN]}"
    return None


def read_json(text: str) -> Any:
    """The JSON object in an answer; what stands around it (a fence, a sentence) is ignored.

    Raises:
        ValueError: There is none.
    """
    start = text.find("{")
    if start < 0:
        raise ValueError("there is no JSON object in it")
    try:
        return json.JSONDecoder(parse_constant=_no_number).raw_decode(text, start)[0]
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def answer_fault(text: str, schema: Mapping[str, Any]) -> str | None:
    """Why an answer does not fit a schema, in one line; None if it does."""
    from jsonschema import Draft202012Validator

    try:
        value = read_json(text)
    except ValueError as error:
        return f"it is no JSON: {error}"[:_SHOWN]
    errors = Draft202012Validator(schema).iter_errors(value)
    first = min(errors, key=lambda error: (len(error.absolute_path), error.message), default=None)
    if first is None:
        return None
    where = ".".join(map(str, first.absolute_path))
    return " ".join(f"{where + ': ' if where else ''}{first.message}".split())[:_SHOWN]


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
