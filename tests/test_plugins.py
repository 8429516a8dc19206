"""Backbones, an injection and a control of a package that is not ours, in a comparison like any of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import fresh
from support.training import step_by_step

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("a comparison chooses the Keras of its processes itself", allow_module_level=True)

# What somebody else's package holds. One file of theirs each would do as well; the lines are those of its setup.cfg.
PACKAGE = {
    "theirs/__init__.py": "",
    "theirs/two_tower.py": """
import keras  # Keras 3, whatever TensorFlow was told

from kar_aug.backbones import embed, on_keras


@keras.saving.register_keras_serializable(package="theirs")
class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, values):
        return keras.ops.multiply(values, self.scale)


@on_keras("3")
def build(features, settings, augmentation, injection):
    embedded = embed(features, settings)
    known = injection(augmentation, embedded.inputs)
    vectors = embedded.vectors
    user = keras.layers.Concatenate()([vectors["hist_item_id"], *embedded.dense])
    item = keras.layers.Concatenate()([vectors["item_id"], *known.vectors(), *known.dense])
    towers = [keras.layers.Dense(settings.hidden_units[-1])(tower) for tower in (user, item)]
    met = Scaled()(keras.layers.Dot(1)(towers))
    return keras.Model(embedded.inputs, keras.layers.Dense(1, "sigmoid")(met))
""",
    "theirs/wide.py": """
from kar_aug.backbones import deepctr, deepctr_columns, on_keras


@on_keras("2")
def build(features, settings, augmentation, injection):
    columns = deepctr_columns(features, settings)
    return deepctr("WDL", columns, columns, augmentation=augmentation, injection=injection, keys=features)
""",
    "theirs/likeness.py": """
import tensorflow as tf

from kar_aug.backbones import Injected
from kar_aug.backbones.injections.events import Events


class Likeness:
    def __call__(self, augmentation, inputs):
        known = Events(["item"])(augmentation, inputs).events["item"]
        return Injected(dense=[tf.keras.layers.Dot(1, normalize=True)([known.candidate, known.pooled[0]])])
""",
    "theirs/negated.py": """
from dataclasses import replace

from kar_aug.compare.controls import Control


class Negated(Control):
    words = "negated vectors"

    def table(self, tables, seed):
        return replace(tables["knowledge"], vectors=-tables["knowledge"].vectors)
""",
    "theirs-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1\n",
    "theirs-1.dist-info/entry_points.txt": """
[kar_aug.backbones]
two-tower = theirs.two_tower:build
[kar_aug.injections]
likeness = theirs.likeness:Likeness
[kar_aug.controls]
negated = theirs.negated:Negated
""",
}
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.compare import compare, export_model
from kar_aug.config import Config
from kar_aug.pipeline.workspace import Workspace

if __name__ == "__main__":
    workspace = Workspace(Config.load("kar.toml"))
    for entity in ("user", "item"):
        ids = workspace.tables.ids(entity)
        if not workspace.store_path(entity).exists():
            with VectorStore.writer(workspace.store_path(entity), StoreSpec("random", 4)) as writer:
                writer.append(ids, ["k"] * len(ids), np.random.default_rng(0).normal(size=(len(ids), 4)))
    done = []
    found = compare(workspace, on_event=lambda event: event.done and done.append(event.arm.name))
    again = []
    compare(workspace, on_event=lambda event: event.done and again.append(event.arm.name))
    assert not again, "nothing is trained twice"
    if "export" in sys.argv:
        export_model(workspace, "two-tower", 0, Path("serving"))
    runs = [run for runs in found.runs.values() for run in runs]
    print(json.dumps({"done": done, "keras": [run.keras for run in runs], "auc": [run.auc for run in runs]}))
"""
ARMS = [
    "two-tower",
    "two-tower + knowledge (fields+likeness)",
    "two-tower + negated vectors (fields+likeness)",
    "theirs.wide:build",
    "theirs.wide:build + knowledge (fields+likeness)",
    "theirs.wide:build + negated vectors (fields+likeness)",
]


@pytest.fixture
def project(own_tables: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(own_tables, tmp_path / "project"))
    settings = (folder / "kar.toml").read_text()
    settings = settings.replace('backbones = ["DeepFM"]', 'backbones = ["two-tower", "theirs.wide:build"]')
    settings = settings.replace("controls = []", 'controls = ["negated"]\ninjections = ["fields+likeness"]')
    settings = settings.replace("[data]", "[data]\nevent_features = []")  # the fewer inputs, the sooner it is built
    settings = settings.replace("batch_size = 1024", "batch_size = 128")  # enough steps that no two arms predict alike
    (folder / "kar.toml").write_text(settings.replace("epochs = 2", "epochs = 1"))
    for name, content in PACKAGE.items():
        path = tmp_path / "installed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def run(project: Path, *arguments: str) -> dict[str, Any]:
    """In a process that is new: entry points are read once."""
    (project / "script.py").write_text(SCRIPT)
    with step_by_step():
        done = fresh(project, "script.py", *arguments, PYTHONPATH=str(project.parent / "installed"))
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_others_wrote_is_compared_side_by_side_and_exported(project: Path) -> None:
    found = run(project, "export")
    assert sorted(found["done"]) == sorted(ARMS)
    assert found["keras"] == ["3"] * 3 + ["2"] * 3
    assert all(0 < auc < 1 for auc in found["auc"]) and len(set(found["auc"])) == 6
    assert (project / "serving" / "saved_model.pb").exists()
    file = project.parent / "installed" / "theirs" / "wide.py"
    file.write_text(file.read_text().replace('"WDL"', '"FNN"'))
    settings = (project / "kar.toml").read_text()  # one arm less to train
    (project / "kar.toml").write_text(settings.replace('controls = ["negated"]', "controls = []"))
    assert run(project)["done"] == ARMS[3:5], "what they changed is trained anew, and nothing else, in whatever process"
