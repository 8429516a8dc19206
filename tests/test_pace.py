"""What a person sees: what a bar says is left, by the recent rate, a standstill and what was done before included; and
lines in a narrow terminal.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest

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
    pace.hear(10)
    assert pace.seconds_left == 74
    clock.seconds = 100
    pace.hear(10)
    assert pace.seconds_left == 7_400
    clock.seconds = 400
    assert pace.seconds_left is not None and pace.seconds_left > 20_000


def test_the_first_of_many_tell_nothing_of_what_is_left() -> None:
    clock = Clock()
    many, few = Pace(150, clock), Pace(12, clock)
    for pace in (many, few):
        pace.hear(0)
    clock.seconds = 24  # of eight that are asked side by side the first two are there, and the others nearly
    for pace in (many, few):
        pace.hear(2)
    assert many.seconds_left is None and few.seconds_left == 120
    clock.seconds = 28
    many.hear(8)
    assert many.seconds_left == 497


WIDE = """
from kar_aug.cli.progress import say, sentence, table
table("Models", ("model", "coverage", "AUC", "LogLoss", "GAUC", "seconds"),
      [("DeepFM + shuffled vectors (similarity)", "30% / 52%", "0.7638 (sd 0.0007)", "0.5747", "0.6955", "24.0")])
for write in (sentence, say):
    write("  It draws initial weights, dropout and the order of the data anew, so that " + "each " * 19 + "differs.")
"""


@pytest.mark.slow
def test_in_a_terminal_of_80_columns_neither_numbers_nor_words_are_cut() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WIDE], stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the end, on Linux
        while part := os.read(ours, 1 << 16):
            written += part
    assert process.wait() == 0
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    assert re.search(r"0\.7638 \(sd 0\.0007\) +0\.5747 +0\.6955 +24\.0", "\n".join(lines))
    assert {word for line in lines[5:] for word in line.split()} >= {"initial", "differs."}
    assert all(line.startswith("  ") for line in lines if "each" in line), "what goes on begins below its beginning"
