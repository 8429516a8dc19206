"""What prompts are like: how many tokens they have, what was shortened in them, and how two versions of one differ."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kar_aug.prompts.prompt import Message, Prompt

QUANTILES = (0.5, 0.9, 0.99)


@dataclass
class Statistics:
    """Tokens a prompt, and how many prompts had each field, or their history, shortened."""

    tokens: list[int] = field(default_factory=list)
    cut: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, prompts: Iterable[Prompt], count: Callable[[Sequence[Any]], int]) -> Statistics:
        """Those of a stream of prompts; only numbers are kept."""
        statistics = cls()
        for prompt in prompts:
            statistics.tokens.append(count(prompt.messages))
            statistics.cut.update(prompt.cut)
        return statistics

    def quantile(self, share: float) -> int:
        """So many tokens or fewer have this share of the prompts."""
        return int(np.quantile(self.tokens, share, method="inverted_cdf")) if self.tokens else 0


def difference(old: Sequence[Message], new: Sequence[Message]) -> Iterator[str]:
    """Lines of the messages: "- " those that went, "+ " those that came, "  " a few around them, "..." between."""

    def lines(messages: Sequence[Message]) -> list[str]:
        return [line for m in messages for line in (f"[{m['role']}]", *m["content"].splitlines(), "")]

    for line in list(difflib.unified_diff(lines(old), lines(new), n=1, lineterm=""))[2:]:
        yield "..." if line.startswith("@@") else f"{line[:1]} {line[1:]}"
