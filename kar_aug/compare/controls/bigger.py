"""Is it the parameters? The plain backbone with as many as the one with knowledge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kar_aug.compare.controls import Control
from kar_aug.config import TrainingConfig

Widths = tuple[int, ...]


class Bigger(Control):
    """The plain backbone, all its hidden layers widened by the same factor until it has as many parameters."""

    words = "the bigger backbone"
    has_vectors = False
    imitates = True

    def name(self, backbone: str) -> str:
        return f"{backbone}, bigger"

    def resized(
        self,
        settings: TrainingConfig,
        count: Callable[[TrainingConfig], int],
        wanted: int,
        say: Callable[[str], None],
    ) -> TrainingConfig:
        counted: dict[Widths, int] = {}

        def at(widths: Widths) -> int:
            if widths not in counted:
                counted[widths] = count(replace(settings, hidden_units=widths))
            return counted[widths]

        widths = widened(settings.hidden_units, at, wanted)
        if widths is None:
            say("it ignores hidden_units, so that it cannot be made bigger: that control says nothing of it.")
            return settings
        return replace(settings, hidden_units=widths)


def widened(hidden_units: Widths, count: Callable[[Widths], int], wanted: int) -> Widths | None:
    """The least widths, each layer widened by the same factor, with at least `wanted` parameters.

    Args:
        count: widths -> parameters; asked as rarely as can be, for a model is built each time.

    Returns:
        None where wider layers have no more parameters.
    """

    def by(factor: float) -> Widths:
        return tuple(round(units * factor) for units in hidden_units)

    def enough(factor: float) -> bool:
        return count(by(factor)) >= wanted

    if enough(1):
        return hidden_units
    low, high = 1.0, 2.0
    if count(by(high)) <= count(by(low)):
        return None
    while not enough(high):
        low, high = high, 2 * high
    near, step = _solution(lambda factor: count(by(factor)), high, wanted), 2 / max(hidden_units)
    for factor in (near - step, near + step):
        if low < factor < high:
            low, high = (low, factor) if enough(factor) else (factor, high)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return by(high)


def _solution(count: Callable[[float], int], high: float, wanted: int) -> float:
    """About the factor between 1 and `high` that gives `wanted`: the parameters of dense layers are quadratic in it."""
    known = [1.0, (1 + high) / 2, high]
    roots = np.roots(np.polyfit(known, [count(factor) for factor in known], 2) - [0, 0, wanted])
    real = [float(root.real) for root in roots if abs(root.imag) < 1e-6 and 1 <= root.real <= high]
    return max(real, default=high)
