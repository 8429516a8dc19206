"""The backbones that benchmarks train on GPUs, by Keras 3, are those that `compare` trains, by DeepCTR."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.events import FEATURES, SETTINGS

from kar_aug._helpers.keras import keras
from kar_aug.backbones.protocol import nothing
from kar_aug.registry import BACKBONES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("backbone", ["DeepFM", "DIN", "FiBiNET"])
def test_given_the_same_weights_both_predict_the_same(backbone: str, tmp_path: Path) -> None:
    keras.backend.clear_session()  # or layers are numbered on
    random = np.random.default_rng(0)
    model = BACKBONES.load(backbone)(FEATURES, SETTINGS, None, nothing)
    for weight in model.weights:
        drawn = random.normal(0, 0.3, weight.shape)
        weight.assign(np.abs(drawn) if "variance" in weight.name else drawn)
    rows = {each.name: random.integers(0, each.vocabulary_size, (16, each.length or 1)) for each in FEATURES}
    events = np.arange(5) < random.integers(0, 6, (16, 1))  # some have no past
    rows = {name: values * (events if name.startswith("hist_") else 1) for name, values in rows.items()}
    inputs = {f"input/{name}": values for name, values in rows.items()}
    weights = {re.sub(r":0$", "", weight.name): weight.numpy() for weight in model.weights}
    predicted = model.predict(rows, verbose=0)
    assert predicted.std() > 0.05
    np.savez(tmp_path / "given.npz", predicted=predicted, **inputs, **weights)
    done = subprocess.run(
        [sys.executable, "-m", "support.as_deepctr", backbone, str(tmp_path / "given.npz")],
        env={
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "TF_USE_LEGACY_KERAS": "0",
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT / "tests"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
            ),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
