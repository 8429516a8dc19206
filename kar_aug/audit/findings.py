"""What an audit reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("as-of", "prompt", "history", "label", "part", "statistic", "vectors")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that cannot be known.

    Args:
        kind: one of `KINDS`.
        count: how many samples, entities or columns it is about.
        text: what it is, in a sentence.
        example: one of them, in words.
    """

    kind: str
    count: int
    text: str
    example: str = ""


@dataclass(frozen=True)
class Check:
    """What was checked on how many things ("1,234 samples"), and what came of it."""

    name: str
    count: int
    unit: str
    leaks: tuple[Finding, ...] = ()
    unproved: tuple[Finding, ...] = ()


def found(*findings: Finding | None) -> tuple[Finding, ...]:
    """Those that are about something."""
    return tuple(finding for finding in findings if finding is not None and finding.count)


def shown(value: Any) -> str:
    """A value of a table as a person wrote it: 5, 'B00X'."""
    return repr(value.item() if isinstance(value, np.generic) else value)
