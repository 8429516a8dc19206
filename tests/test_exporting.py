"""A model of a comparison, exported: fed with raw tables it predicts what it did, and TensorFlow alone serves it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from support.commands import fresh, without
from support.every_kind import READ, tables
from support.exhaustive import table
from support.requests import request
from support.training import step_by_step

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("a comparison chooses the Keras of its processes itself", allow_module_level=True)

from kar_aug import Project
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.cli import main
from kar_aug.compare import export_model
from kar_aug.compare.arms import Arm, arms, fullest
from kar_aug.compare.book import BOOK, Book
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.tasks import Training
from kar_aug.compare.workers import do
from kar_aug.data.encodings import encoding_of
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace

# Some of them, for a model of 40 inputs takes minutes to build.
SOME = replace(
    READ,
    user_features=(),
    item_features=("genres",),
    context=("hour", "device", "tags"),
    numeric={"price": "standard", "discount": "log", "share": "minmax", "position": "buckets"},
    event_features=("rating", "genres", "tags", "since"),  # genres of items, tags of interactions: several an event
    sequences={},
)
BACKBONES = ("DeepFM", "plain_keras:build")
PLAIN = "DeepFM, plain"
PLAIN_KERAS = """
import keras
from kar_aug.backbones import embed, on_keras

@on_keras("3")
def build(features, settings, augmentation, injection):
    embedded = embed(features, settings)
    known = injection(augmentation, embedded.inputs)
    read = [*embedded.fields, *embedded.dense, *known.vectors(), *known.dense]
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(read))
    return keras.Model(embedded.inputs, keras.layers.Dense(1, "sigmoid")(hidden))
"""
# What production does: TensorFlow, and nothing of ours, of DeepCTR's, or of pandas.
SERVE = f"""{without("kar_aug", "deepctr", "pandas")}
import numpy as np, tensorflow as tf
for folder in sys.argv[1:]:
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    for number in range(2):
        sent = np.load(f"{{folder}}/request{{number}}.npz")
        features = {{n: tf.constant(sent[n].astype(object) if sent[n].dtype.kind == "U" else sent[n]) for n in sent}}
        np.save(f"{{folder}}/answer{{number}}.npy", serve(**features)["ctr"].numpy())
"""


class Exported(NamedTuple):
    folder: Path
    expected: np.ndarray  # what the run predicted for the test rows
    found: np.ndarray  # what the export says of them
    new: np.ndarray  # and of new items that are shown to a new user

    @property
    def note(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "assets.extra/kar_aug.json").read_text()))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The tables of every kind, and knowledge of most items."""
    given, folder = tables(str, "dates"), tmp_path_factory.mktemp("project")
    (folder / "plain_keras.py").write_text(PLAIN_KERAS)
    read = {
        name: value
        for name, value in asdict(SOME).items()
        if name not in ("first_values", "tells_since", "weight", "lists")
    }
    which = {"backbones": BACKBONES, "knowledge": ("item",), "controls": (), "seeds": 1, "jobs": 1}
    which["injections"] = ("fields+similarity+state",)
    training = {"epochs": 1, "embedding_dim": 4, "expert_hidden": 4, "hidden_units": (8,), "batch_size": 256}
    settings = {
        "workdir": str(folder / "work"),
        "data": {**read, "protocol": "temporal", "validation": 0.2, "test": 0.3},
        "compare": {**which, **training},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        project = Project(settings, interactions=given.interactions, items=given.items, users=given.users)
        ids = project.workspace.tables.ids("item")[:-3]
        with VectorStore.writer(project.workspace.store_path("item"), StoreSpec("random", 6)) as writer:
            writer.append(ids, ["k"] * len(ids), np.random.default_rng(0).normal(size=(len(ids), 6)))
        yield project


@pytest.fixture(scope="module")
def exported(project: Project, request: pytest.FixtureRequest) -> dict[str, Exported]:
    """By backbone, and one of them plain: trained, exported, and asked in a process of its own. Those that are asked
    about, that is.
    """
    workspace = project.workspace
    tested = {item.callspec.params.get("backbone") for item in request.session.items if hasattr(item, "callspec")}
    names = [name for name in (*BACKBONES, PLAIN) if name == "DeepFM" or name in tested]
    folders = {name: workspace.config.work / f"serving{number}" for number, name in enumerate(names)}
    experiment = Experiment(workspace)
    book, config = Book(experiment.folder / BOOK), experiment.config
    chosen = {name: Arm("DeepFM") if name == PLAIN else fullest(arms(config), name) for name in names}
    trainings = [Training(arm, 0, config.training) for arm in chosen.values() if arm is not None]
    with step_by_step():  # what is checked is what becomes of them
        do(trainings, experiment, book, 1, lambda event: None)
    for backbone, path in folders.items():
        export_model(workspace, backbone, 0, path, "DeepFM" if backbone == PLAIN else None)
        _write_requests(path, workspace)
    done = fresh(workspace.config.work, "-c", SERVE, *map(str, folders.values()))
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for training, (backbone, path) in zip(trainings, folders.items(), strict=True):
        answers = [np.load(path / f"answer{number}.npy")[:, 0] for number in range(2)]
        found[backbone] = Exported(path, book.prediction(training.identity(experiment)), *answers)
    return found


def _write_requests(path: Path, workspace: Workspace) -> None:
    """One of all test rows; and one of a user whom nobody knows, with one row for three candidates."""
    samples = workspace.samples
    inputs = json.loads((path / "assets.extra/kar_aug.json").read_text())["inputs"]
    sent = request(workspace.data.split, samples.rows[samples.of("test")].tolist(), inputs)
    new = {"user_id": np.asarray(["nobody"], object), "item_id": np.asarray(["i1", "nothing", "i9"], object)}
    for number, values in enumerate((sent, {name: new.get(name, array[-1:]) for name, array in sent.items()})):
        kept = {name: array.astype("U") if array.dtype == object else array for name, array in values.items()}
        np.savez(path / f"request{number}.npz", **kept)


@pytest.mark.parametrize("backbone", table([*BACKBONES, PLAIN], "DeepFM"))
def test_raw_tables_are_predicted_as_in_the_comparison(exported: dict[str, Exported], backbone: str) -> None:
    expected, found = exported[backbone].expected, exported[backbone].found
    assert len(expected) > 50 and np.ptp(expected) > 1e-3, "models that tell rows apart"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backbone", table(BACKBONES, "DeepFM"))
def test_a_new_user_and_new_items_have_a_probability(exported: dict[str, Exported], backbone: str) -> None:
    new = exported[backbone].new
    assert new.shape == (3,) and ((new > 0) & (new < 1)).all() and len(set(new)) == 3


def test_onnx_is_fed_with_raw_tables_likewise(exported: dict[str, Exported], project: Project, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    folder = project.export(tmp_path / "out", "DeepFM", format="onnx")
    assert json.loads((folder / "kar_aug.json").read_text())["inputs"] == exported["DeepFM"].note["inputs"]
    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for number, expected in enumerate((exported["DeepFM"].found, exported["DeepFM"].new)):
        sent = np.load(exported["DeepFM"].folder / f"request{number}.npz")
        features = {name: sent[name].astype(object) if sent[name].dtype.kind == "U" else sent[name] for name in sent}
        (found,) = session.run(["ctr"], features)
        np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-5)
    events = {raw["name"]: raw["missing"] for raw in exported["DeepFM"].note["inputs"] if "events" in raw["shape"]}
    assert events
    none = {name: features[name][:, :0] for name in events}  # of who met nothing yet, as a caller has it
    one = {name: features[name][:, :1].copy() for name in events}
    for name, missing in events.items():
        one[name][:] = np.nan if missing == "NaN" else missing
    (padded,), (empty,) = (session.run(["ctr"], features | sent) for sent in (one, none))
    np.testing.assert_allclose(empty, padded, rtol=0, atol=1e-6)


def test_tflite_is_fed_with_raw_tables_likewise(
    exported: dict[str, Exported], project: Project, tmp_path: Path
) -> None:
    import tensorflow as tf

    folder = project.export(tmp_path / "out", "DeepFM", format="tflite")
    assert json.loads((folder / "kar_aug.json").read_text())["inputs"] == exported["DeepFM"].note["inputs"]
    with pytest.warns(UserWarning, match="LiteRT"):
        runner = tf.lite.Interpreter(str(folder / "model.tflite")).get_signature_runner("serving_default")
    for number, expected in enumerate((exported["DeepFM"].found, exported["DeepFM"].new)):
        sent = np.load(exported["DeepFM"].folder / f"request{number}.npz")
        given = {name: sent[name].astype(object) if sent[name].dtype.kind == "U" else sent[name] for name in sent}
        np.testing.assert_allclose(runner(**given)["ctr"][:, 0], expected, rtol=0, atol=1e-5)


def test_an_export_says_what_to_send_and_what_is_inside(exported: dict[str, Exported], project: Project) -> None:
    note, samples = exported["DeepFM"].note, project.workspace.samples
    assert note["stores"] == {"item": VectorStore.open(project.workspace.store_path("item")).fingerprint}
    assert [raw["name"] for raw in note["inputs"]][:2] == ["user_id", "item_id"] and note["outputs"][0]["name"] == "ctr"
    assert all(raw["meaning"] and raw["missing"] is not None for raw in note["inputs"])
    kept = json.loads((exported["DeepFM"].folder / "assets.extra/encodings.json").read_text())
    assert {name: encoding_of(data) for name, data in kept.items()} == samples.encodings


def test_an_arm_that_is_not_kept_is_told_with_those_that_are(project: Project, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no arm 'DeepFM, bigger' to export. There are: 'DeepFM', 'DeepFM \+ item"):
        project.export(tmp_path / "serving", arm="DeepFM, bigger")


def test_a_project_is_not_taken_for_the_folder_of_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    for output in ("", ".", "kar.toml", folder):
        done = CliRunner().invoke(main, ["export", "--output", str(output)])
        assert done.exit_code == 2 and re.search("No place is named|is not empty|is a file", done.stderr), done.output
        assert done.stderr.count("\n") == 1, done.stderr
    assert {path.name for path in folder.iterdir()} - {".kar"} == before


def test_what_the_inputs_mean_is_kept_beside_the_runs(exported: dict[str, Exported], project: Project) -> None:
    samples = project.workspace.samples
    kept = json.loads((project.config.work / f"runs/inputs-{samples.fingerprint}.json").read_text())
    assert {name: encoding_of(kept["encodings"][place]) for name, place in kept["of"].items()} == samples.encodings
    assert [feature["name"] for feature in kept["features"]] == [feature.name for feature in samples.features]
