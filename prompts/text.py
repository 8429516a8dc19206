"""Values of the tables as text that a prompt may hold: one line, of bounded length, that cannot close a <data> mark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from kar_aug.data.cells import mended, text_of

# Of one field: a description of megabytes, which may be an accident, would cost as much as thousands of prompts.
MOST_CHARACTERS = 2000
_BYTES_PER_TOKEN = 3
# Typographic brackets instead of those that could close a <data> mark.
_BRACKETS = str.maketrans({"<": "\u2039", ">": "\u203a"})


def clean(value: Any, most: int = MOST_CHARACTERS) -> str:
    """One line without control characters or angle brackets, at most `most` characters; "" for what is missing.

    Several values have a `|` between them, however the table holds them, as templates expect.

    Raises:
        DataError: It is no value: a struct, a list of lists.
    """
    if type(value) is str:
        return _clean_string(value, most)
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with one gap comes as decimals
    return _clean_string(text_of(value), most)


def clean_row(row: Mapping[str, Any], most: int = MOST_CHARACTERS) -> dict[str, str]:
    """Every value of a row, cleaned."""
    return {
        field: _clean_string(value, most) if type(value) is str else clean(value, most) for field, value in row.items()
    }


def shown(row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The named fields of a row; a missing column is an empty string."""
    return {field: row.get(field, "") for field in fields}


def was_cut(text: str, most: int) -> bool:
    """Whether `clean` shortened a value to this text."""
    return len(text) == most and text.endswith("\u2026")


def careful_tokens(text: str) -> int:
    """Tokens of a text, rather too many than too few: three bytes each. The same on every machine, unlike a tokenizer
    that may or may not be installed, because what is cut must not depend on it.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


@lru_cache(1 << 16)  # dates, words, and the titles of popular items stand in many histories
def _clean_string(text: str, most: int) -> str:
    text = mended(text)
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    text = re.sub(r"\s+", " ", text.translate(_BRACKETS)).strip()
    return text if len(text) <= most else text[: most - 1] + "\u2026"
