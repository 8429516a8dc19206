"""The demonstration, small: real data, real language model, real encoder, real training; killed and started again."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.commands import kar_aug, use_one_core

pytestmark = pytest.mark.exhaustive  # .ci/run runs it beside the storms, which wait

# Fewer slots than questions, so that there is a moment when some are answered and others are not.
ASKED = 9
DEMO = ["demo", "--users", "3", "--items", "6", "--concurrency", "4", "--seeds", "1", "--epochs", "1"]
DEMO += ["--max-tokens", "8"]


def answers(folder: Path) -> int:
    """How many are stored. Asked often, so by one statement that only reads."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/.kar/demo/answers.sqlite?mode=rw", uri=True)) as texts:
            return int(texts.execute("SELECT count(*) FROM answers WHERE status IN ('ok', 'truncated')").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or in the making
        return 0


def runs(folder: Path) -> list[tuple[str, str]]:
    """Which models were trained, and when."""
    with closing(sqlite3.connect(folder / ".kar/demo/runs/runs.sqlite")) as book:
        return book.execute("SELECT identity, created FROM runs ORDER BY identity").fetchall()


def test_killed_and_started_again_it_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kar_aug", *DEMO]
    silent = subprocess.DEVNULL
    first = subprocess.Popen(command, cwd=tmp_path, stdout=silent, stderr=silent, preexec_fn=use_one_core)
    deadline = time.monotonic() + 600  # a busy machine
    while answers(tmp_path) < 1 and time.monotonic() < deadline:
        time.sleep(0.005)  # the answers of all come within seconds of the first
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = answers(tmp_path)
    assert 1 <= kept < ASKED

    second = kar_aug(tmp_path, *DEMO, one_core=True)
    assert second.returncode == 0, second.stderr
    asked, cached = (sum(map(int, re.findall(rf"(\d+) {word}", second.stderr))) for word in ("asked", "already cached"))
    assert cached == kept and asked == ASKED - kept
    for way, knowledge in (("", "knowledge"), (" (similarity)", "item knowledge")):  # of films alone, which it compares
        for vectors in (knowledge, "metadata text", "shuffled vectors"):
            assert re.search(rf"DeepFM \+ {vectors}{re.escape(way)}.*0\.[67]\d{{3}}", second.stdout), second.stdout
        assert f"DeepFM + {knowledge}{way} beats DeepFM: one seed cannot tell, AUC" in second.stdout
    assert (tmp_path / ".kar/demo/report.html").read_text().count("<svg") == 5  # gains, three more, the map

    trained = runs(tmp_path)
    third = kar_aug(tmp_path, *DEMO, one_core=True)
    assert "0 asked" in third.stderr
    table = re.findall(row := r"^ DeepFM .*0\..*", second.stdout, re.MULTILINE)
    assert len(table) == 7
    assert table == re.findall(row, third.stdout, re.MULTILINE), "runs are reused"
    assert runs(tmp_path) == trained, "nothing is trained again"
