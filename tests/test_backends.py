"""The layers on all that Keras 3 runs on, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.same_numbers import build, numbers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_all_backends_come_to_what_tensorflow_comes_to_and_do_without_it(backend: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "numbers.npz", **numbers(build()))
    without = tmp_path / "without" / "tensorflow.py"
    without.parent.mkdir()
    without.write_text("raise ImportError('TensorFlow is not to be imported')\n")
    on(backend, "support.same_numbers", str(tmp_path / "numbers.npz"), first=str(without.parent))


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_keras_finds_in_every_layer_what_it_asks_of_its_own(backend: str) -> None:
    on(backend, "support.asked_by_keras")


def on(backend: str, module: str, *given: str, first: str = "") -> None:
    """Run a module where Keras 3 runs on this; it must end well."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = filter(None, [first, str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_USE_LEGACY_KERAS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", module, *given],
        env={**environment, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
