"""`compare` on lists: from the user's tables to a report and a served list."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("what it shares with click models is tested on the legacy API", allow_module_level=True)

from support.workspaces import opened

from kar_aug.compare import Comparison, compare, leading
from kar_aug.compare.arms import arms
from kar_aug.compare.batches import Batches
from kar_aug.compare.book import BOOK, Book, Run
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.list_metrics import of_lists
from kar_aug.compare.reranking import Reranking
from kar_aug.compare.scoring import Scoring
from kar_aug.compare.statistics import bootstrap
from kar_aug.config import CompareConfig, Config, DataConfig
from kar_aug.data.lists import with_scores
from kar_aug.errors import ConfigError
from kar_aug.pipeline.comparing import Compared
from kar_aug.pipeline.workspace import Workspace
from kar_aug.registry import BACKBONES, RERANKERS, backbones_with

CHOSEN = {
    "task": "rerank", "backbones": ["kar:PRM"], "knowledge": ["item"], "controls": ["shuffled"], "seeds": 1,
    "epochs": 2, "learning_rate": 0.02, "batch_size": 16, "embedding_dim": 4, "hidden_units": [8], "dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(own_tables: Path, truth: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    work = shutil.copytree(truth, tmp_path_factory.mktemp("lists") / "work")
    return opened(own_tables, work, {"lists": "kar", "history_length": 5, "past_length": 5}, **CHOSEN)


@pytest.fixture(scope="module")
def comparison(workspace: Workspace) -> Comparison:
    return compare(workspace)


@pytest.mark.slow
def test_a_comparison_of_lists_is_paired_by_list_and_says_that_they_are_synthetic(
    workspace: Workspace, comparison: Comparison, tmp_path: Path
) -> None:
    names = [arm.name for arm in comparison.arms]
    assert names == ["kar:PRM", "kar:PRM + item knowledge", "kar:PRM + shuffled vectors"]
    assert [rival.name for rival in comparison.rivals] == ["the initial order", "popularity of the item"]
    (verdict, against_shuffled) = leading(comparison)
    assert verdict.metric == "MAP@7" and verdict.lists is not None and verdict.lists.low <= verdict.gain.mean
    assert verdict.gain.mean == pytest.approx(verdict.lists.mean, abs=1e-6) and against_shuffled.lists is not None
    run = comparison.runs[verdict.arm][0]
    assert np.isnan(run.auc) and 0 < run.metrics["map@7"] <= 1 and run.metrics["click@1"] == run.metrics["hr@1"]
    done = Compared(workspace, comparison, None, {})
    report = done.write(tmp_path / "report.html")
    html, text = report.read_text(), (tmp_path / "results.md").read_text()
    assert "Test MAP@7" in html and "validation MAP@7" in html and "NDCG@7" in html and "DeLong" not in html
    assert "Re-ranking with and without knowledge (synthetic lists)" in html and "AUC" not in html
    assert "training rows of the item" in html and "MAP@7 gain" in html and "one list may be in several" in html
    assert text.count("The lists are synthetic") == 1 and "the initial order" in text and "CLICK@7" in text
    assert set(done.table()["lists"]) == {"synthetic"}, "results.csv alone says it, too"
    assert list(done.verdicts.frame)[-3:] == ["bootstrap", "low", "high"]


def test_predictions_in_the_book_are_those_that_the_metrics_are_of(comparison: Comparison) -> None:
    arm = comparison.arms[1]
    objective, samples = comparison.objective, comparison.experiment.samples(0)
    assert isinstance(objective, Reranking)
    prediction = comparison.prediction(arm, 0)
    lists = objective.read(samples)
    of_each = objective.per_list(lists, "test", prediction, "NDCG@3")
    assert of_each.mean() == pytest.approx(comparison.runs[arm][0].metrics["ndcg@3"])
    assert Batches(lists, lists.of("test"), ["item_id"]).size == 8192 // lists.size, "memory goes by items"
    by_sample = dict(zip(samples.of("test").tolist(), prediction.tolist(), strict=True))
    members, label = next(lists.blocks("test"))
    scores = np.asarray([[by_sample.get(int(place), 0.0) for place in row] for row in members])
    np.testing.assert_allclose(of_lists(label, scores, "NDCG", 3), of_each[: len(label)])


def test_a_rerun_trains_nothing_and_another_loss_trains_all(workspace: Workspace, comparison: Comparison) -> None:
    left: list[int] = []

    class Enough(Exception):
        pass

    def stop(total: int, done: int) -> None:
        left.append(total - done)
        raise Enough

    for loss in ("softmax", "bce"):
        config = workspace.changed(compare=CompareConfig(**{**vars(workspace.config.compare), "loss": loss}))
        with pytest.raises(Enough):
            compare(config, on_start=stop)
    assert left == [0, 3]


def test_the_bootstrap_is_sure_of_what_all_lists_say_and_unsure_of_noise() -> None:
    found = bootstrap(np.full(50, 0.1))
    assert (found.low, found.high, found.p) == (pytest.approx(0.1), pytest.approx(0.1), 0.001)
    noise = bootstrap(np.random.default_rng(0).normal(size=400))
    assert noise.low < 0 < noise.high and noise.p > 0.05


def test_lists_must_be_named_and_models_be_those_of_lists() -> None:
    with pytest.raises(ConfigError, match=r'\[data\] lists = "impressions"'):
        Config(DataConfig(dataset="movielens-100k"), compare=CompareConfig(task="rerank"))
    assert CompareConfig(task="rerank").backbones == ("DLCM", "PRM", "SetRank", "MIR")
    with pytest.raises(ConfigError, match="there is no re-ranker 'DeepFM'"):
        CompareConfig(task="rerank", backbones=("DeepFM",))
    with pytest.raises(ConfigError, match="there is no backbone 'PRM'"):
        CompareConfig(backbones=("PRM",))
    assert backbones_with("deepctr:AFM") is BACKBONES and backbones_with("kar:PRM") is RERANKERS
    with pytest.raises(ConfigError, match="metric must be"):
        CompareConfig(metric="AUC")
    with pytest.raises(ConfigError, match="there is no re-ranker 'prm'"):
        CompareConfig(task="rerank", backbones=("PRM", "kar:prm"))


def test_scores_of_another_split_are_of_the_items_of_its_lists(own_tables: Path, tmp_path: Path) -> None:
    from kar_aug.compare.models import build
    from kar_aug.compare.saved import save

    data = {"lists": "kar", "history_length": 5, "past_length": 0}
    chosen = {"backbones": ["DeepFM"], "vary_split": True, "embedding_dim": 2, "hidden_units": [4]}
    experiment = Experiment(opened(own_tables, tmp_path, data, **chosen))
    arm, settings, samples = arms(experiment.config)[0], experiment.config.training, experiment.samples(1)
    run = Run("made", arm, 1, asdict(settings), "", {}, "", {}, 0.5, 0.7, 0.5, 0.0, (0.5,), 0, 0.0, 0.0, {}, "")
    experiment.folder.mkdir()
    save(build(arm, samples, {}, settings, 1)[0], experiment.folder, "made")  # training changes not of what
    path = tmp_path / "scores.parquet"
    Scoring(run, path).work(experiment, Book(experiment.folder / BOOK), lambda event: None)
    for seed in (0, 1):
        split = experiment.split(seed)
        scored = with_scores(split, pd.read_parquet(path), "scores")["initial_score"].notna()
        assert scored[split["impression_id"].notna()].all() == (seed == 1)


@pytest.mark.slow
def test_a_list_is_served_padded_with_raw_ids(workspace: Workspace, comparison: Comparison, tmp_path: Path) -> None:
    import tensorflow as tf

    from kar_aug.compare import export_model

    export_model(workspace, "kar:PRM", 0, tmp_path / "serving")
    serve = tf.saved_model.load(str(tmp_path / "serving")).signatures["serving_default"]
    note = json.loads((tmp_path / "serving" / "assets.extra" / "kar_aug.json").read_text())
    assert [(raw["name"], raw["shape"]) for raw in note["inputs"]] == [("item_id", ["rows", "items"])]
    samples = comparison.experiment.samples(0)
    objective = comparison.objective
    assert isinstance(objective, Reranking)
    members, _ = next(objective.read(samples).blocks("test"))
    ids = np.asarray(
        [[samples.vocabulary["item"][samples.places["item"][samples.rows[m]]] for m in row] for row in members]
    )
    (served,) = serve(item_id=tf.constant(ids, tf.int64)).values()
    test = samples.of("test")
    kept = np.full(len(samples), np.nan, np.float32)
    kept[test] = comparison.prediction(comparison.arms[1], 0)
    np.testing.assert_allclose(served.numpy(), kept[members], atol=1e-5)
    (alone,) = serve(item_id=tf.constant(ids[:1, :1], tf.int64)).values()
    assert alone.shape == (1, 1)
    if find_spec("tf2onnx"):
        export_model(workspace, "kar:PRM", 0, tmp_path / "onnx", kind="onnx")
        (given,) = (
            pytest.importorskip("onnxruntime")
            .InferenceSession(tmp_path / "onnx/model.onnx")
            .run(None, {"item_id": ids})
        )
        np.testing.assert_allclose(given, served.numpy(), atol=1e-5)
    export_model(workspace, "kar:PRM", 0, tmp_path / "tflite", kind="tflite")
    lite = tf.lite.Interpreter(str(tmp_path / "tflite" / "model.tflite")).get_signature_runner("serving_default")
    np.testing.assert_allclose(lite(item_id=ids)["scores"], served.numpy(), atol=1e-5)
    (longer,) = serve(item_id=tf.constant(np.concatenate([ids[:1]] * 4, axis=1), tf.int64)).values()
    assert longer.shape == (1, 4 * ids.shape[1]) and (longer.numpy()[0, 10:] < longer.numpy()[0, :10].min()).all()
