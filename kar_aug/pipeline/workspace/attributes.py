"""What a language model said as JSON, as columns of the tables: categorical features that a CTR model reads.

A column is called after the recipe and the property, "attributes.country". Values are lower case; what the model does
not know, and entities without an answer, are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from kar_aug.cache import Knowledge
from kar_aug.data.cells import SEPARATOR
from kar_aug.errors import DataError, PromptError
from kar_aug.prompts import Recipe
from kar_aug.prompts.schema import answer_fault, read_json

_UNKNOWN = ("", "unknown", "none", "null", "n/a")


def add_attributes(
    table: pd.DataFrame,
    entity: str,
    features: Sequence[str],
    recipe: Callable[[str], Recipe],
    answers: Callable[[str], Iterable[Knowledge]],
) -> pd.DataFrame:
    """The table with those of the features that are no column of it, but "RECIPE.PROPERTY".

    Args:
        entity: "user" or "item", whose table it is.
        recipe: by its name.
        answers: of an entity by a recipe ("item:attributes"), as `TextCache.knowledge` gives them.

    Raises:
        DataError: The recipe gives no such property, or nobody was asked by it.
        PromptError: There is no such recipe, or it does not ask about the entity.
    """
    wanted: dict[str, list[str]] = {}
    for feature in features:
        if feature not in table and "." in feature:
            name, _, column = feature.partition(".")
            wanted.setdefault(name, []).append(column)
    for name, columns in wanted.items():
        found = attributes(recipe(name), entity, answers)
        for column in columns:
            if column not in found:
                known = ", ".join(map(str, found.columns)) or "none"
                raise DataError(f"{entity}s: the recipe '{name}' gives no '{column}'. It gives: {known}")
            table = table.assign(**{f"{name}.{column}": table[f"{entity}_id"].map(found[column]).astype(object)})
    return table


def answers_fingerprint(
    entity: str,
    features: Sequence[str],
    recipe: Callable[[str], Recipe],
    answers: Callable[[str], Iterable[Knowledge]],
) -> str:
    """16 hex digits over what `add_attributes` would read, whatever the table is; "" if that is nothing."""
    digest, read = hashlib.sha256(), False
    for name in sorted({feature.partition(".")[0] for feature in features if "." in feature}):
        try:
            asked = recipe(name)
            knowledge, schema = asked.knowledge(entity), asked.schema(entity)
        except PromptError:  # a column whose name has a dot
            continue
        digest.update(json.dumps([name, schema], sort_keys=True, default=str).encode())
        for answer in answers(knowledge):
            digest.update(json.dumps([answer.entity_id, answer.text]).encode())
        read = True
    return digest.hexdigest()[:16] if read else ""


def attributes(recipe: Recipe, entity: str, answers: Callable[[str], Iterable[Knowledge]]) -> pd.DataFrame:
    """The properties of a recipe's schema by entity; several values in a cell are separated by `|`.

    Raises:
        DataError: Nobody was asked by this recipe yet.
    """
    schema = recipe.schema(entity)
    if schema is None:
        raise DataError(f"The recipe '{recipe.name}' asks about {entity}s for free text, which gives no columns.")
    ids: list[int | str] = []
    rows: list[dict[str, str | None]] = []
    for answer in answers(recipe.knowledge(entity)):
        if answer_fault(answer.text, schema) is None:  # a cut-off answer may be accepted as text
            ids.append(answer.entity_id)
            said = read_json(answer.text)
            rows.append({name: _cell(said[name]) for name in schema["properties"]})
    if not rows:
        raise DataError(
            f"Nothing is known of {entity}s by the recipe '{recipe.name}' yet. Ask: kar-aug generate --only {entity} "
            f"--{entity}-recipe {recipe.name}"
        )
    return pd.DataFrame(rows, index=pd.Index(ids, dtype=object), columns=list(schema["properties"]), dtype=object)


def _cell(value: Any) -> str | None:
    values = value if isinstance(value, list) else [value]
    named = (" ".join(str(v).lower().replace(SEPARATOR, "/").split()) for v in values)
    kept = list(dict.fromkeys(name for name in named if name not in _UNKNOWN))
    return SEPARATOR.join(kept) or None
