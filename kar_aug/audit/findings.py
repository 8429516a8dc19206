"""What an audit reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_ASK_AGAIN = (
    "ask again, so that prompts are those of today's split (kar-aug generate), and encode; after a change of protocol "
    "or history in another workdir, where nobody keeps older knowledge"
)
# What was found -> what to do about it.
REMEDIES = {
    "as-of": _ASK_AGAIN,
    "prompt": _ASK_AGAIN,
    "imported": "these texts were brought in: bring in earlier ones in their place (kar-aug cache import), or compare "
    "without them ([compare] knowledge)",
    "history": "the split or the samples were not made by this kar-aug from this data: make them again",
    "part": "the split or the samples were not made by this kar-aug from this data: make them again",
    "label": "leave the column out of user_features or item_features",
    "order": "if no ranker put them so, take position and initial_score out: the order is drawn then",
    "fitted": "the samples were not made by this kar-aug from this data: make them again",
    "statistic": "leave the column out, or compute it from events before the test part only",
    "vectors": "encode again: kar-aug encode",
    "attack": "read these values, and mend them where they come from; or let prompts not show the field: "
    "[prompts] leave_out",
    "damaged": "take them out, and ask again: kar-aug cache verify --exclude damaged",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that cannot be known.

    Args:
        kind: one of `REMEDIES`.
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
    """What was checked on how many things ("1,234 samples"), and what came of it.

    Args:
        leaks: what makes a comparison worthless.
        unproved: what may be clean, or not.
        warnings: what is no leak, and worth a person's look.
    """

    name: str
    count: int
    unit: str
    leaks: tuple[Finding, ...] = ()
    unproved: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()

    @property
    def result(self) -> str:
        """One word; "nothing" where there was nothing to check."""
        if self.leaks:
            return "LEAK"
        if self.unproved or self.warnings:
            return "unproved" if self.unproved else "look"
        return "ok" if self.count else "nothing"


def found(*findings: Finding | None) -> tuple[Finding, ...]:
    """Those that are about something."""
    return tuple(finding for finding in findings if finding is not None and finding.count)


def shown(value: Any) -> str:
    """A value of a table as a person wrote it: 5, 'B00X'."""
    return repr(value.item() if isinstance(value, np.generic) else value)
