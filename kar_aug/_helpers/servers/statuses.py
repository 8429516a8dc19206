"""What the status of an error response means, whoever asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

BUSY = (408, 409, 425, 429)  # of the client's errors (4xx), those that another try may not meet
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_NO_CREDIT_SAID = re.compile(
    r"credit balance|(insufficient|not enough|out of|no) (credit|balance|funds|quota)|exceeded your current quota"
    r"|key limit exceeded|hard limit|payment required|billing",
    re.IGNORECASE,
)


def without_credit(status: int, body: Any, words: str) -> bool:
    """Whether the account can pay for nothing more. A 429 says so by a code: its words are of limits, too."""
    if status == 429:
        said = body if isinstance(body, Mapping) else {}
        return said.get("code") in _NO_CREDIT or said.get("type") in _NO_CREDIT
    return status == 402 or (status in (400, 403) and bool(_NO_CREDIT_SAID.search(words)))
