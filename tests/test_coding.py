"""A project's vectors as semantic ids: the stage, its command, and the arms of a comparison that read them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support.requests import request
from support.workspaces import LEARNING, opened

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("a comparison chooses the Keras of its processes itself", allow_module_level=True)

from kar_aug import ConfigError, DataError, EncodingError, Project, StoreError, VectorStore, Watch
from kar_aug._helpers.keras import tf
from kar_aug.cache import StoreSpec
from kar_aug.cli import main
from kar_aug.codes import Pieces, SemanticIds
from kar_aug.compare import compare, export_model
from kar_aug.compare.arms import Arm, arms
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.models import build, input_names
from kar_aug.config import CodesConfig, CompareConfig
from kar_aug.data.features import HISTORY
from kar_aug.pipeline.coding import make_codes
from kar_aug.pipeline.forgetting import forget
from kar_aug.pipeline.workspace import Data, Paths, Workspace
from kar_aug.pipeline.workspace.code_features import add_codes

SMALL = CodesConfig(levels=2, size=2)
CODES = Arm("DeepFM", "item", ("item",), "hybrid-expert", "codes")


@pytest.fixture
def workspace(own_tables: Path, truth: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(truth, tmp_path / "work")
    read = {"knowledge": ["item"], "controls": ["metadata", "shuffled"], "injections": ["codes"], **LEARNING}
    workspace = opened(own_tables, tmp_path / "work", {"item_ids": False}, **read)
    return workspace.changed(codes=SMALL)


def test_all_stores_of_a_comparison_get_codes_and_none_twice(workspace: Workspace) -> None:
    made = make_codes(workspace)
    assert [each.title for each in made.stores] == ["items", "metadata of items"], "users are not compared"
    assert [each.new for each in made.stores] == [40, 40] and "items: 40 semantic ids in " in str(made)
    assert made.frame["what"].tolist()[:2] == ["items"] * 2 and len(made.frame) == 4
    path = workspace.store_path("item")
    with VectorStore.writer(path, StoreSpec("truth", 4)) as writer:
        writer.append([77], ["k"], np.eye(1, 4))
    assert [each.new for each in make_codes(workspace).stores] == [1, 0]
    with pytest.raises(StoreError, match=r"made with levels 2, size 2, seed 0, and \[codes\] says levels 3, size 2"):
        make_codes(workspace.changed(codes=replace(SMALL, levels=3)))
    anew = make_codes(workspace.changed(codes=replace(SMALL, levels=3)), anew=True)
    assert {each.codes.levels for each in anew.stores} == {3}
    users = CompareConfig(knowledge=("user", "item"))
    with pytest.raises(EncodingError, match=r"60 vectors of users, and \[codes\] size = 64: lower it, or leave"):
        make_codes(workspace.changed(codes=CodesConfig(size=64), compare=users), anew=True)


def test_the_command_says_what_codes_keep(own_tables: Path, truth: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own_tables, tmp_path / "project"))
    shutil.copytree(truth, folder / ".kar")
    done = CliRunner().invoke(main, ["-c", str(folder / "kar.toml"), "codes", "--levels", "1", "--size", "2"])
    assert done.exit_code == 0, done.output
    assert "Semantic ids of items" in done.output and "40 items: 0.0% have their codes alone" in done.output
    refused = CliRunner().invoke(main, ["-c", str(folder / "kar.toml"), "codes"])
    assert refused.exit_code == 2 and "kar-aug codes --anew" in refused.output


def test_codes_are_an_injection_among_others() -> None:
    config = CompareConfig(
        backbones=("DIN",), knowledge=("item",), injections=("codes", "fields+codes"), controls=("shuffled",)
    )
    found = arms(config)
    assert [arm.name for arm in found] == [
        "DIN",
        "DIN + item knowledge (codes)",
        "DIN + item knowledge (fields+codes)",
        "DIN + shuffled vectors (codes)",
        "DIN + shuffled vectors (fields+codes)",
    ]
    assert [arm.reads_codes for arm in found] == [False, True, True, True, True]


def test_a_comparison_says_that_codes_are_missing_or_old_before_it_trains(workspace: Workspace) -> None:
    with pytest.raises(StoreError, match=r"item.codes holds no codes. Make them with: kar-aug codes"):
        compare(workspace)
    make_codes(workspace)
    before = Experiment(workspace).knowledge_fingerprint(CODES)
    assert before.keys() == {"item item", "codes of item item"}
    with VectorStore.writer(workspace.store_path("item"), StoreSpec("truth", 4)) as writer:
        writer.append([77], ["k"], np.eye(1, 4))
    with pytest.raises(StoreError, match="Bring them up to date"):
        compare(workspace)
    make_codes(workspace)
    assert Experiment(workspace).knowledge_fingerprint(CODES)["codes of item item"] != before["codes of item item"]


def test_shuffled_codes_are_as_frequent_and_random_ones_no_items(workspace: Workspace) -> None:
    make_codes(workspace)
    experiment = Experiment(workspace)

    def codes(arm: Arm, seed: int = 0) -> np.ndarray:
        table = experiment.tables(arm, seed)["item"]
        assert table.codes is not None
        return np.asarray(table.codes.values[table.rows[table.rows >= 0]])

    own = codes(CODES)
    ids = [id for id in experiment.samples(0).vocabulary["item"] if id is not None]
    np.testing.assert_array_equal(own, SemanticIds.of(VectorStore.open(workspace.store_path("item"))).codes_of(ids))
    shuffled = codes(replace(CODES, knowledge="shuffled"))
    assert sorted(map(tuple, shuffled.tolist())) == sorted(map(tuple, own.tolist()))
    assert (shuffled != own).any() and (codes(replace(CODES, knowledge="shuffled"), 1) != shuffled).any()
    drawn = codes(replace(CODES, knowledge="random"))
    assert drawn.shape == own.shape and set(drawn.ravel().tolist()) == {1, 2}
    assert len(set(map(tuple, drawn.tolist()))) > len(set(map(tuple, own.tolist())))


@pytest.mark.parametrize("backbone", ["DIN", "FiBiNET", "deepctr:DCN"])
def test_codes_find_a_place_in_every_backbone(workspace: Workspace, backbone: str) -> None:
    make_codes(workspace)
    experiment = Experiment(workspace.changed(data=replace(workspace.config.data, item_ids=True)))
    arm = replace(CODES, backbone=backbone)
    model, layer = build(arm, experiment.samples(0), experiment.tables(arm, 0), experiment.config.training, 0)
    assert layer is None and {"item", "hist_item"} <= set(input_names(model))


@pytest.mark.slow
def test_a_model_that_knows_items_by_codes_alone_learns_what_they_say_and_is_served_with_raw_ids(
    workspace: Workspace, tmp_path: Path
) -> None:
    make_codes(workspace)
    features = [feature.name for feature in workspace.samples.features]
    assert "item_id" not in features and HISTORY not in features
    found = compare(workspace.changed(compare=replace(workspace.config.compare, seeds=1)))
    by_name = {arm.name: found.estimate(arm).mean for arm in found.arms}
    knowing = by_name["DeepFM + item knowledge (codes)"]
    assert knowing > 0.75 > max(by_name["DeepFM"], by_name["DeepFM + shuffled vectors (codes)"])
    export_model(workspace, "DeepFM", 0, tmp_path / "serving")
    shutil.rmtree(workspace.config.work / "vectors")  # no vectors, and no codes: all are in the model
    note = json.loads((tmp_path / "serving/assets.extra/kar_aug.json").read_text())
    samples = workspace.samples
    sent = request(workspace.data.split, samples.rows[samples.of("test")].tolist(), note["inputs"])
    serve = tf.saved_model.load(str(tmp_path / "serving")).signatures["serving_default"]
    answer = serve(**{name: tf.constant(values) for name, values in sent.items()})["ctr"].numpy()[:, 0]
    knowing_arm = next(arm for arm in found.arms if arm.name.endswith("knowledge (codes)"))
    np.testing.assert_allclose(answer, found.prediction(knowing_arm, 0), atol=1e-6)


def in_all_models(workspace: Workspace, *features: str, **compare: Any) -> Workspace:
    """The same where all models read semantic ids; and with other settings of [compare]."""
    data = replace(workspace.config.data, item_features=features or ("codes",), event_features=None)
    return workspace.changed(data=data, compare=replace(workspace.config.compare, **compare))


def test_codes_as_features_of_items_are_read_by_all_models_of_candidates_and_events(workspace: Workspace) -> None:
    reading = in_all_models(workspace)
    with pytest.raises(StoreError, match=r"item.codes holds no codes. Make them with: kar-aug codes"):
        _ = reading.samples
    codes = {each.title: each.codes for each in make_codes(reading).stores}["items"]
    samples, pieces = in_all_models(workspace).samples, Pieces(codes.levels, codes.size)
    assert [f.name for f in samples.features if "codes" in f.name and not f.sequence] == [
        f"codes.{piece}" for piece in pieces.names
    ]
    ids = samples.vocabulary["item"][1:]
    for piece, values in zip(pieces.names, pieces.of(codes.codes_of(ids)).T, strict=True):
        known = samples.encodings[f"codes.{piece}"].as_dict()["values"]
        expected = [known.index(value) + 2 if value in known else 1 for value in values.tolist()]
        assert samples.columns[f"codes.{piece}"].values[1:].tolist() == expected
        (told,) = [f for f in samples.features if f.name == f"hist_codes.{piece}"]
        assert told.embedding == f"codes.{piece}", "events and candidate share an embedding"
    assert Experiment(in_all_models(workspace)).data_fingerprint(0) == samples.fingerprint
    one = in_all_models(workspace, "codes.level_2").samples.features
    assert [f.name for f in one if "codes" in f.name] == ["codes.level_2", "hist_codes.level_2"]
    with pytest.raises(DataError, match=r"no piece 'codes.level_3' of codes of 2 levels. There are: codes.level_1, "):
        _ = in_all_models(workspace, "codes.level_3").samples


def test_codes_as_features_follow_the_bundle_and_never_a_state_of_before(workspace: Workspace) -> None:
    make_codes(in_all_models(workspace))
    before = in_all_models(workspace).samples.fingerprint
    with VectorStore.writer(workspace.store_path("item"), StoreSpec("truth", 4)) as writer:
        writer.append([77], ["k"], np.eye(1, 4))
    with pytest.raises(StoreError, match="Bring them up to date, which moves none: kar-aug codes"):
        _ = in_all_models(workspace).samples
    make_codes(in_all_models(workspace))
    assert in_all_models(workspace).samples.fingerprint == before, "an item that is in no table changes nothing"
    anew = workspace.changed(codes=replace(SMALL, levels=3))
    make_codes(in_all_models(anew), anew=True)
    assert in_all_models(anew).samples.fingerprint != before
    forget(in_all_models(anew), {"item": [5]})
    left = Workspace(in_all_models(anew).config).samples
    assert 5 not in left.vocabulary["item"], "and no codes are to be brought up to date"


def test_a_project_that_makes_codes_reads_them_from_then_on(workspace: Workspace) -> None:
    make_codes(workspace)
    project = Project(in_all_models(workspace.changed(codes=replace(SMALL, levels=3))).config)
    before, tables = project.workspace.samples.fingerprint, project.workspace.tables
    project.codes(anew=True)
    assert project.workspace.samples.fingerprint != before and project.workspace.tables is tables
    assert project.workspace.samples.fingerprint == Workspace(project.config).samples.fingerprint


def test_a_log_without_a_table_of_items_has_codes_and_a_column_of_that_name_is_the_users_own(
    workspace: Workspace,
) -> None:
    make_codes(workspace)
    tables = workspace.tables
    config = in_all_models(workspace).config

    def codes(**changed: Any) -> list[list[int]]:
        samples = Data(Paths(config), replace(tables, **changed)).samples
        return [column.values.tolist() for name, column in samples.columns.items() if name.startswith("codes")]

    few = tables.items[tables.items["item_id"] % 2 == 0]
    assert codes() == codes(items=pd.DataFrame({"item_id": []})) == codes(items=few)
    assert len(codes()) == 3 and len(codes(items=tables.items.assign(codes="a|b"))) == 1
    texts = {
        name: frame.assign(item_id=frame["item_id"].map("m{}".format))
        for name, frame in vars(tables).items()
        if name != "users"
    }
    with pytest.raises(StoreError, match=r"None of the 40 items has codes in .*, which has those of 0, 1, 2 ... Are"):
        codes(**texts)


def test_codes_are_read_where_they_are_named_and_made_of_items_alone_where_no_arm_adds_any(
    workspace: Workspace,
) -> None:
    of_events = in_all_models(workspace, "genres", injections=("similarity",), knowledge=("both",), controls=())
    config = of_events.config.data

    def reading(**data: Any) -> Workspace:
        return Workspace(of_events.changed(data=replace(config, **data)).config)

    told = reading(event_features=("codes.level_2", "label"))
    few = CodesConfig(levels=2, size=3)
    with VectorStore.writer(workspace.store_path("user"), VectorStore.open(workspace.store_path("user")).spec) as users:
        users.delete(list(range(2, 60)))
    made = make_codes(told.changed(codes=few))
    assert [each.title for each in made.stores] == ["items"], "two users have no three codes, and nobody reads any"
    names = [f.name for f in told.samples.features]
    assert [name for name in names if "codes" in name] == ["hist_codes.level_2"]
    kar = reading(inputs="kar", item_features=("genres", "codes.level_1"))
    assert kar.data.codes is None and "codes" not in str([f.name for f in kar.samples.features])
    with pytest.raises(DataError, match=r"no piece 'codes.level1' of codes of 2 levels. There are: codes.level_1, "):
        _ = reading(item_features=("codes.level1",)).samples


def test_items_that_only_have_codes_leave_large_numbers_of_others_as_they_are(workspace: Workspace) -> None:
    make_codes(workspace)
    tables, config = workspace.tables, in_all_models(workspace, "brand", "codes").config
    brand = 2**60 + tables.items["item_id"] % 2
    few = tables.items.assign(brand=brand)[tables.items["item_id"] < 30]
    samples = Data(Paths(config), replace(tables, items=few)).samples
    assert samples.encodings["brand"].as_dict()["values"] == [2**60, 2**60 + 1]
    large = {
        name: frame.assign(item_id=frame["item_id"] + 2**60) for name, frame in vars(tables).items() if name != "users"
    }
    with VectorStore.writer(workspace.store_path("item").with_name("large"), StoreSpec("truth", 4)) as writer:
        writer.append([2**60 + i for i in range(40)], ["k"] * 40, np.random.default_rng(0).normal(size=(40, 4)))
    codes = SemanticIds.make(VectorStore.open(workspace.store_path("item").with_name("large")), levels=2, size=2)
    empty = pd.DataFrame({"item_id": []})
    added = add_codes(empty, pd.Index(large["items"]["item_id"]), ["codes.level_1"], codes)
    assert added["item_id"].tolist() == large["items"]["item_id"].tolist()


def test_a_model_whose_layers_cannot_be_called_after_its_features_says_which(workspace: Workspace) -> None:
    data = replace(workspace.config.data, item_features=("Größe",), item_ids=True)
    tables = replace(workspace.tables, items=workspace.tables.items.assign(Größe=3))
    samples = Data(Paths(workspace.changed(data=data).config), tables).samples
    with pytest.raises(
        ConfigError, match="DeepFM cannot be built: no layer of TensorFlow can be called after 'Größe': "
    ):
        build(Arm("DeepFM"), samples, {}, workspace.config.compare.training, 0)


def test_behaviour_waits_for_codes_that_all_models_read(own_tables: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own_tables, tmp_path / "project"))
    config = (folder / "kar.toml").read_text().replace('["genres"]', '["genres", "codes"]')
    (folder / "kar.toml").write_text(config.replace("controls = []", 'controls = ["collaborative"]'))
    lines = [json.dumps({"item_id": i, "text": f"Thing {i % 7} of its kind {i % 3}"}) for i in range(40)]
    (folder / "texts.jsonl").write_text("\n".join(lines))

    def ran(*words: str) -> str:
        done = CliRunner().invoke(main, ["-c", str(folder / "kar.toml"), *words])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    ran("cache", "import", str(folder / "texts.jsonl"))
    encode = ("encode", "--encoder", "kar_aug.testing:hash_encoder")
    assert "collaborative vectors: none yet." in ran(*encode) and "Then again: kar-aug encode" in ran(*encode)
    ran("codes", "--levels", "2", "--size", "4")
    assert "items' collaborative vectors: 40 " in ran(*encode)


@pytest.mark.slow
def test_a_plain_model_that_reads_codes_learns_what_they_say_and_is_served_without_them(
    workspace: Workspace, tmp_path: Path
) -> None:
    make_codes(in_all_models(workspace))
    reading = in_all_models(workspace, seeds=1, injections=("similarity",), controls=("shuffled",))
    said: list[str] = []
    found = Project(reading.config, watch=Watch(on_note=said.append)).compare()
    assert any("All models read semantic ids of items, the plain ones too" in note for note in said)
    assert "All models read semantic ids" in found.provenance["semantic ids"]
    comparison = found.comparison
    assert comparison.estimate(Arm("DeepFM")).mean > 0.75
    found.write(tmp_path / "report.html")
    assert "All models read semantic ids of items, the plain ones too" in (tmp_path / "results.md").read_text("utf-8")
    assert "by codes.level_1" in (tmp_path / "report.html").read_text("utf-8")
    export_model(reading, "DeepFM", 0, tmp_path / "serving", arm="DeepFM")
    shutil.rmtree(workspace.config.work / "vectors")
    note = json.loads((tmp_path / "serving/assets.extra/kar_aug.json").read_text())
    assert not [each["name"] for each in note["inputs"] if "codes" in each["name"]], "they are in the model, by id"
    samples = reading.samples
    sent = request(reading.data.split, samples.rows[samples.of("test")].tolist(), note["inputs"])
    serve = tf.saved_model.load(str(tmp_path / "serving")).signatures["serving_default"]
    answer = serve(**{name: tf.constant(values) for name, values in sent.items()})["ctr"].numpy()[:, 0]
    np.testing.assert_allclose(answer, comparison.prediction(Arm("DeepFM"), 0), atol=1e-6)


def test_who_is_forgotten_has_no_semantic_id(workspace: Workspace) -> None:
    make_codes(workspace)
    done = forget(workspace, {"item": [5]})
    assert done.counts["semantic ids"] == 2, "of knowledge and of metadata"
    found = SemanticIds.open(workspace.store_path("item").with_name("item.codes"))
    assert len(found) == 39 and not found.codes_of([5]).any()
    SemanticIds.of(VectorStore.open(workspace.store_path("item")))  # they are of all that is left: no command is due
    with VectorStore.writer(workspace.store_path("item"), StoreSpec("truth", 4)) as writer:
        writer.append([77], ["k"], np.eye(1, 4))
    forget(workspace, {"item": [6]})
    with pytest.raises(StoreError, match="Bring them up to date"):  # as before: 77 has none
        SemanticIds.of(VectorStore.open(workspace.store_path("item")))


def test_a_project_makes_codes(own_tables: Path, truth: Path, tmp_path: Path) -> None:
    shutil.copytree(truth, tmp_path / "work")
    changes = {"workdir": str(tmp_path / "work"), "codes": {"levels": 1, "size": 2}}
    assert len(Project.open(own_tables / "kar.toml", **changes).codes().stores) == 2
