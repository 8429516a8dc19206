"""Whom somebody means by an id: the one that the tables' reading makes of the same letters."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from kar_aug.errors import KarError
from kar_aug.pipeline.workspace import Workspace

Id = int | str
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,19})(\.0+)?\s*")


def all_forms(workspace: Workspace, entity: str, ids: Collection[Any]) -> list[Id]:
    """Each as it was given; and whole numbers as a number and as its digits, for tables and caches may hold either.

    "007", "7.0" and " 7" are user 7 where the tables' ids are numbers, and nobody else's than their own where these are
    text.
    """
    forms: dict[tuple[type, Id], Id] = {}
    for id in ids:
        text = str(id)
        forms[str, text] = text
        if (found := _WHOLE.fullmatch(text)) is None:
            continue
        number = int(found[1])
        is_written_so = str(number) == text or (isinstance(id, float) and not isinstance(id, bool))
        if is_written_so or _are_numbers(workspace, entity):
            forms |= {(int, number): number, (str, str(number)): str(number)}
    return list(forms.values())


def _are_numbers(workspace: Workspace, entity: str) -> bool:
    try:
        known = workspace.data.all_tables().ids(entity)
    except (KarError, OSError):
        return False
    return bool(known) and not isinstance(known[0], str)
