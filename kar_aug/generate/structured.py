"""Answers that must fit a JSON schema: how the server is asked for them, and what is asked when one does not fit.

The schema goes with the request as `response_format` and is part of the answer's key. An answer that does not fit is
stored like every other, with the status "invalid"; then the question is asked once more, with that answer and its fault
in the conversation. That is a question of its own, with a key of its own: it may be asked by the same job, a batch, a
file of requests or a later run, whichever comes first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug.config import LanguageModel
from kar_aug.prompts.schema import answer_fault

_FORMAT = "response_format"
_UNSENT = "answer_schema"  # stands in the key where the server does not take the schema
_NAME = "kar_aug_answer"  # not to take a user's own response_format for a recipe's


def parameters_of(model: LanguageModel, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of a question whose answer must fit a schema, if it has one, as they are hashed and kept."""
    if schema is None:
        return model.parameters
    schema = dict(schema)
    if _FORMAT in model.omit:
        return model.parameters | {_UNSENT: schema}
    wanted = {"name": _NAME, "strict": True, "schema": schema}
    return model.parameters | {_FORMAT: {"type": "json_schema", "json_schema": wanted}}


def sent(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the server gets."""
    return {name: value for name, value in parameters.items() if name != _UNSENT}


def schema_of(parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema that an answer to a question with these parameters must fit; None if there is none."""
    form = parameters.get(_FORMAT)
    wanted = form.get("json_schema") if isinstance(form, Mapping) else None
    if isinstance(wanted, Mapping) and wanted.get("name") == _NAME:
        return dict(wanted["schema"])
    schema: Mapping[str, Any] | None = parameters.get(_UNSENT)
    return schema


def repair(
    messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any], answer: str
) -> tuple[Mapping[str, Any], ...]:
    """The question again, after an answer that does not fit: the conversation so far, and what is wrong with it."""
    fault = answer_fault(answer, schema) or "it was no answer"
    wish = (
        f"This does not fit the schema: {fault}. Answer again, with one JSON object and nothing else, by this JSON "
        f"schema: {json.dumps(schema, ensure_ascii=False, sort_keys=True)}"
    )
    return (*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": wish})
