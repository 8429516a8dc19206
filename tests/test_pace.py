"""What a bar says is left: by the recent rate, a standstill and what was done before included."""

from __future__ import annotations

from kar_aug.cli.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_what_is_left_is_told_by_the_recent_rate() -> None:
    clock = Clock()
    pace = Pace(750, clock)
    assert pace.seconds_left is None
    pace.hear(34)  # were there already
    assert pace.seconds_left is None
    for second in range(1, 61):
        clock.seconds = second
        pace.hear(34 + second)
    assert pace.seconds_left == 656
    for burst in range(10):  # 16 answers every 100 seconds, for a thousand seconds: the first minute is forgotten
        clock.seconds = 160 + 100 * burst
        pace.hear(110 + 16 * burst)
    assert pace.seconds_left is not None and 2400 < pace.seconds_left < 4000


def test_a_standstill_makes_it_longer() -> None:
    clock = Clock()
    pace = Pace(750, clock)
    pace.hear(0)
    clock.seconds = 1
    pace.hear(2)
    assert pace.seconds_left == 374
    clock.seconds = 100
    pace.hear(2)
    assert pace.seconds_left == 37_400
    clock.seconds = 400
    assert pace.seconds_left is not None and pace.seconds_left > 100_000
