from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kar_aug._keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

from kar_aug import compare as stage
from kar_aug import metrics
from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.config import Config
from kar_aug.report import write_report
from kar_aug.workspace import Workspace


def test_gauc_by_hand() -> None:
    # user 1: AUC 1 (2 rows), user 2: AUC 1/2 (4 rows: of 4 pairs two are in order), user 3: one class, left out
    label = np.asarray([1, 0, 1, 1, 0, 0, 1])
    prediction = np.asarray([0.9, 0.1, 0.9, 0.1, 0.5, 0.4, 0.7])
    user = np.asarray([1, 1, 2, 2, 2, 2, 3])
    assert metrics.gauc(label, prediction, user) == pytest.approx((2 * 1 + 4 * 0.5) / 6)


def test_metrics_of_one_class_are_nan_and_logloss_is_exact() -> None:
    assert np.isnan(metrics.auc(np.ones(3), np.asarray([0.1, 0.2, 0.3])))
    assert np.isnan(metrics.gauc(np.ones(2), np.ones(2), np.asarray([1, 1])))
    expected = -(np.log(0.8) + np.log(0.9)) / 2
    assert metrics.logloss(np.asarray([1, 0]), np.asarray([0.8, 0.1], "float32")) == pytest.approx(expected)


@pytest.fixture
def workspace(own_tables: Path, tmp_path: Path) -> Workspace:
    """The own tables, with knowledge that says each user's taste and each item's genre."""
    config = Config.load(own_tables / "kar.toml")
    workspace = Workspace(replace(config, workdir=str(tmp_path / "work")))
    tables = workspace.tables
    truth = {"user": tables.users["gender"] == "F", "item": tables.items["genres"] == "Drama"}
    for source, frame in (("user", tables.users), ("item", tables.items)):
        with VectorStore.writer(workspace.store_path(source), StoreSpec("truth", 4)) as writer:
            vectors = np.eye(4)[truth[source].astype(int)]
            writer.append(frame[f"{source}_id"].tolist(), ["k"] * len(frame), vectors)
    return workspace


def run(workspace: Workspace, **changes: Any) -> tuple[stage.Comparison, list[bool]]:
    reused: list[bool] = []
    comparison = stage.compare(
        workspace.samples,
        workspace.stores(),
        replace(workspace.config.compare, **changes),
        workspace.config.work / "runs",
        data_fingerprint=workspace.data_fingerprint,
        on_run=lambda run, again: reused.append(again),
    )
    return comparison, reused


def test_knowledge_of_the_truth_raises_auc_on_users_never_seen(workspace: Workspace) -> None:
    comparison, _ = run(workspace, epochs=40, patience=40, learning_rate=0.01)
    assert comparison.of(stage.Arm("DeepFM", True))[0].auc > 0.85
    assert comparison.row_coverage == {"user_id": 1.0, "item_id": 1.0}


def test_finished_runs_are_reused_and_only_missing_ones_trained(workspace: Workspace) -> None:
    first, reused = run(workspace)
    assert reused == [False, False]
    second, reused = run(workspace)
    assert reused == [True, True] and second.runs == first.runs
    _, reused = run(workspace, seeds=2)
    assert reused == [True, True, False, False]
    _, reused = run(workspace, learning_rate=0.01)
    assert reused == [False, False]


def test_a_run_with_the_same_seed_gives_the_same_result(workspace: Workspace) -> None:
    first, _ = run(workspace)
    for path in (workspace.config.work / "runs").iterdir():
        path.unlink()
    again, _ = run(workspace)
    for a, b in zip(first.runs, again.runs, strict=True):
        assert a.auc == pytest.approx(b.auc, abs=1e-6) and a.curve == pytest.approx(b.curve, abs=1e-6)


def test_new_knowledge_retrains_the_augmented_arm_only(workspace: Workspace) -> None:
    run(workspace)
    with VectorStore.writer(workspace.store_path("item"), StoreSpec("truth", 4)) as writer:
        writer.append([0], ["other"], np.ones((1, 4)))
    _, reused = run(workspace)
    assert reused == [True, False]


def test_half_a_run_file_is_made_again(workspace: Workspace) -> None:
    run(workspace)
    path = next((workspace.config.work / "runs").glob("*.json"))
    path.write_text(path.read_text()[:50])
    assert sorted(run(workspace)[1]) == [False, True]


def test_no_epoch_trains_on_validation_or_test_users(workspace: Workspace) -> None:
    samples = workspace.samples
    users = {part: set(samples.of(part)[0]["user_id"].tolist()) for part in ("train", "validation", "test")}
    assert not users["train"] & users["test"] and not users["train"] & users["validation"]


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [v for name, v in attributes if name in ("src", "href", "data") and v and not v.startswith("#")]


def test_the_report_is_one_file_with_table_and_plot(workspace: Workspace, tmp_path: Path) -> None:
    comparison, _ = run(workspace)
    path = tmp_path / "report.html"
    write_report(comparison, path, knowledge={"language model": "<m>"}, reproduce="kar-aug compare", title="T")
    html = path.read_text()
    references = _References()
    references.feed(html)
    assert references.found == []
    assert html.count("<svg") == 2 and "DeepFM + knowledge" in html and "&lt;m&gt;" in html
    assert f"{comparison.runs[0].auc:.4f}" in html
