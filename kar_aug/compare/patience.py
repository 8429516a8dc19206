"""When a training has had enough; without TensorFlow, for those who train by something else."""

from __future__ import annotations

from collections.abc import Sequence


def is_over(curve: Sequence[float], guessing: float, patience: int) -> bool:
    """Whether the last epochs brought nothing. What is no better than guessing has not begun to learn.

    Args:
        curve: the validation metric after each epoch so far.
        guessing: what guesses stay below.
        patience: epochs that may bring nothing.
    """
    latest_first = curve[::-1]
    return bool(latest_first) and max(latest_first) > guessing and latest_first.index(max(latest_first)) >= patience
