"""The tests of both Keras APIs, on Keras 3: TensorFlow chooses one at its import, so that they need another process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kar_aug._helpers.keras import IS_KERAS_3


@pytest.mark.skipif(IS_KERAS_3, reason="this is that process")
def test_what_is_to_hold_on_both_holds_on_keras_3(pytestconfig: pytest.Config) -> None:
    chosen = "both_keras"
    if pytestconfig.option.markexpr:
        chosen += f" and ({pytestconfig.option.markexpr})"
    tests = Path(__file__).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TF_USE_LEGACY_KERAS"] = "0"
    files = [str(file) for file in sorted(tests.glob("test_*.py")) if "mark.both_keras" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, *files]
    done = subprocess.run(command, env=environment, cwd=tests.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 50, done.stdout
