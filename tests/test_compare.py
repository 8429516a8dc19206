from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.exhaustive import left_out, table
from support.workspaces import COUNTING, LEARNING, opened

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

from kar_aug.cache import KnowledgeTable, StoreSpec, VectorStore
from kar_aug.compare import (
    Arm,
    Comparison,
    Event,
    Verdict,
    by_slice,
    compare,
    conclusions,
    doubts,
    headlines,
    leading,
    metrics,
    slices,
    workers,
)
from kar_aug.compare.arms import arms, decisive, fullest, pairs
from kar_aug.compare.book import BOOK
from kar_aug.compare.controls.bigger import widened
from kar_aug.compare.controls.random import Random
from kar_aug.compare.controls.shuffled import Shuffled
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.exporting import trained_model
from kar_aug.compare.models import build, build_imitation, parameters
from kar_aug.compare.patience import is_over
from kar_aug.compare.sanity import Rival, chance
from kar_aug.compare.statistics import Estimate
from kar_aug.compare.training import predict
from kar_aug.compare.verdicts import told
from kar_aug.config import CompareConfig, Config, fitting_batch
from kar_aug.data.samples import Samples
from kar_aug.errors import ConfigError, DataError, KarError, StoreError
from kar_aug.pipeline.comparing import Compared
from kar_aug.pipeline.workspace import Workspace
from kar_aug.report import rows

SMALL = {
    "backbones": ["DeepFM"], "seeds": 1, "epochs": 1, "jobs": 1, "embedding_dim": 4, "hidden_units": [8],
    "batch_size": 1024,
}  # fmt: skip
BASE = Arm("DeepFM")
BOTH = Arm("DeepFM", "both", ("user", "item"), "hybrid-expert", "fields")


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


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_those_of_scikit_learn(weighted: bool) -> None:
    from sklearn.metrics import log_loss, roc_auc_score  # a second, in each process that collects these tests

    random = np.random.default_rng(0)
    label, group = random.integers(0, 2, 500).astype("float32"), random.integers(0, 100, 500)
    prediction = (random.integers(0, 20, 500) / 20).astype("float32")  # many are equal, some 0
    weight = random.random(500).astype("float32") if weighted else None
    ones = np.ones(500) if weight is None else weight
    of = {"sample_weight": weight}
    assert metrics.auc(label, prediction, weight) == pytest.approx(roc_auc_score(label, prediction, **of), rel=1e-12)
    expected = log_loss(label, prediction.astype("float64"), **of)
    assert metrics.logloss(label, prediction, weight) == pytest.approx(expected, rel=1e-12)
    groups = [rows for rows in (group == number for number in range(100)) if len(set(label[rows])) == 2]
    areas = [roc_auc_score(label[rows], prediction[rows], sample_weight=ones[rows]) for rows in groups]
    expected = np.average(areas, weights=[ones[rows].sum() for rows in groups])
    assert 50 < len(groups) < 100 and metrics.gauc(label, prediction, group, weight) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [metrics.auc, metrics.logloss])
def test_predictions_of_a_training_that_diverged_are_no_metric(metric: Any) -> None:
    with pytest.raises(ValueError, match="its training diverged"):
        metric(np.asarray([0, 1]), np.asarray([0.5, np.nan]))


def fill(path: Path, ids: list[Any], vectors: np.ndarray) -> None:
    with VectorStore.writer(path, StoreSpec("truth", vectors.shape[1])) as writer:
        writer.append(ids, ["k"] * len(ids), vectors)


@pytest.fixture
def workspace(own_tables: Path, truth: Path, tmp_path: Path) -> Workspace:
    """Vectors, and nothing trained."""
    return opened(own_tables, Path(shutil.copytree(truth, tmp_path / "work")))


@pytest.fixture
def finished(own_tables: Path, trained: Path, tmp_path: Path) -> Workspace:
    """With two seeds of the arms without controls in the book."""
    return opened(own_tables, Path(shutil.copytree(trained, tmp_path / "work")), **LEARNING)


def test_a_batch_that_nobody_gave_fits_the_log(workspace: Workspace) -> None:
    small = Experiment(changed(workspace, batch_size=None))
    rows = len(small.samples(0).of("train"))
    assert rows < 51_200 and small.training.batch_size == fitting_batch(rows)
    given = Experiment(changed(workspace, batch_size=fitting_batch(rows)))
    assert small.identity(BASE, 0, small.training, None) == given.identity(BASE, 0, given.training, None)


def changed(workspace: Workspace, **changes: Any) -> Workspace:
    return Workspace(replace(workspace.config, compare=replace(workspace.config.compare, **changes)))


def run(workspace: Workspace, **changes: Any) -> tuple[Comparison, int]:
    """The comparison, and how many units were done for it."""
    done: list[Event] = []
    found = compare(changed(workspace, **changes), on_event=lambda event: done.append(event) if event.done else None)
    return found, len(done)


def missing(workspace: Workspace, **changes: Any) -> int:
    """How many units a comparison would do."""
    found: list[int] = []

    def stop(total: int, done: int) -> None:
        found.append(total - done)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compare(changed(workspace, **changes), on_start=stop)
    return found[0]


def users_of(samples: Samples, part: str) -> set[int]:
    return set(samples.read(samples.of(part), {"user"})["user"].tolist())


def test_augmented_vectors_are_those_of_an_arm_that_knows_of_the_entity() -> None:
    among = arms(CompareConfig(backbones=("DIN",), knowledge=("user", "item"), controls=()))
    chosen = {entity: fullest(among, "DIN", entity) for entity in ("user", "item", None)}
    assert {entity: arm.entities for entity, arm in chosen.items() if arm} == {
        "user": ("user",), "item": ("item",), None: ("user",)
    }  # fmt: skip


def test_every_arm_is_one_setting() -> None:
    config = CompareConfig(
        backbones=("DIN",), knowledge=("item", "both"), adaptors=("hybrid-expert", "mlp"), stores={"plots": "p"},
        controls=("metadata", "shuffled", "random", "bigger"),
    )  # fmt: skip
    names = [arm.name for arm in arms(config)]
    assert names == [
        "DIN",
        "DIN + item knowledge",
        "DIN + knowledge",
        "DIN + item knowledge (mlp)",
        "DIN + knowledge (mlp)",
        "DIN + metadata text",
        "DIN + shuffled vectors",
        "DIN + random vectors",
        "DIN, bigger",
        "DIN + plots",
    ]
    _, against = pairs(arms(config))
    named = [(ours.name, theirs.name) for ours, theirs in against]
    assert ("DIN + knowledge", "DIN + metadata text") in named
    assert ("DIN + item knowledge", "DIN + plots") in named, "a text about items is set against knowledge of items"


def test_injections_are_arms_of_what_knows_items_and_controls_enter_by_each() -> None:
    config = CompareConfig(
        backbones=("DIN",), knowledge=("user", "both"), injections=("events", "fields"), controls=("shuffled",)
    )
    assert [arm.name for arm in arms(config)] == [
        "DIN",
        "DIN + user knowledge",
        "DIN + knowledge (events)",
        "DIN + knowledge",
        "DIN + shuffled vectors (events)",
        "DIN + shuffled vectors",
    ]
    tested = [(ours.name, theirs.name) for ours, theirs in pairs(arms(config))[1]]
    assert tested == [
        ("DIN + knowledge (events)", "DIN + shuffled vectors (events)"),
        ("DIN + knowledge", "DIN + shuffled vectors"),
    ], "what is compared differs in the vectors alone"


def test_what_compares_items_is_no_arm_with_knowledge_of_users() -> None:
    config = CompareConfig(
        backbones=("DIN",), knowledge=("both",), injections=("fields", "similarity", "fields+similarity"),
        controls=("metadata",),
    )  # fmt: skip
    assert {arm.name: arm.entities for arm in arms(config)[1:]} == {
        "DIN + knowledge": ("user", "item"),
        "DIN + item knowledge (similarity)": ("item",),
        "DIN + knowledge (fields+similarity)": ("user", "item"),
        "DIN + metadata text": ("user", "item"),
        "DIN + metadata text (similarity)": ("item",),
        "DIN + metadata text (fields+similarity)": ("user", "item"),
    }
    assert [arm.way[0] for arm in decisive(arms(config), "DIN")] == ["fields", "similarity", "fields+similarity"]


@pytest.mark.parametrize("backbone", table(["DeepFM", "DIN", "FiBiNET"], "DIN"))
def test_knowledge_of_the_events_reaches_every_backbone(workspace: Workspace, backbone: str) -> None:
    experiment = Experiment(workspace)
    samples, settings = experiment.samples(0), workspace.config.compare.training
    arm = Arm(backbone, "item", ("item",), "hybrid-expert", "events")
    test = samples.read(samples.of("test"))
    seen = test["hist_item"][:, 0]
    row = np.flatnonzero((seen > 0) & (seen != test["item"]))[0]
    table = experiment.tables(arm, 0)["item"]
    forgotten = replace(table, rows=np.where(np.arange(len(table.rows)) == seen[row], -1, table.rows))
    predicted = [
        predict(build(arm, samples, {"item": known}, settings, seed=0)[0], samples, samples.of("test")[row : row + 1])
        for known in (table, forgotten)
    ]
    assert predicted[0] != predicted[1], "the model never saw what is known of the clicked item"


BY_LENGTH = """
from kar_aug.backbones import on_keras

@on_keras("2")
def build(features, settings, augmentation, injection):
    import tf_keras as keras
    inputs = {f.name: keras.Input((f.length or 1,), name=f.name) for f in features}
    read = keras.layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(read))
"""


def test_a_model_whose_inputs_are_not_shaped_as_its_features_is_told_what_they_are(
    own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "by_length.py").write_text(BY_LENGTH)
    monkeypatch.syspath_prepend(str(tmp_path))
    told = {"item_features": ["genres"], "event_features": ["genres"], "history_length": 5, "past_length": 0}
    arm = Arm("by_length:build")
    several, first = (opened(own_tables, tmp_path, {**told, "event_values": most}) for most in (2, 1))
    with pytest.raises(
        ConfigError, match=r"'hist_genres' of shape \(5,\) a row, .* is \(5, 2\): each of 5 events has"
    ) as e:
        build(arm, Experiment(several).samples(0), {}, several.config.compare.training, 0)
    for way in ("`feature.shape` and not by `feature.length`", "kar_aug.backbones.embed", "event_values = 1"):
        assert way in str(e.value)
    assert build(arm, Experiment(first).samples(0), {}, first.config.compare.training, 0)[0].count_params() > 5


def test_shuffled_knowledge_has_the_same_vectors_for_other_ids() -> None:
    table = KnowledgeTable(np.arange(100.0).reshape(50, 2), np.r_[-1, np.arange(50)].astype(np.int32))
    mixed = Shuffled().table({"knowledge": table}, 0)
    assert mixed.rows[0] == -1 and sorted(mixed.rows) == sorted(table.rows)
    assert (mixed.rows[1:] == table.rows[1:]).mean() < 0.2
    assert (Shuffled().table({"knowledge": table}, 1).rows != mixed.rows).any(), "each seed has its own"
    np.testing.assert_array_equal(Shuffled().table({"knowledge": table}, 0).rows, mixed.rows)


def test_random_vectors_have_the_lengths_of_those_they_stand_for() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float16) * np.arange(6)[:, None]
    table = KnowledgeTable(vectors.astype(np.float16), np.asarray([-1, 3, 5, -1, 0], np.int32))
    drawn = Random().table({"knowledge": table}, 0)
    assert (drawn.rows >= 0).tolist() == [False, True, True, False, True]
    before, after = (t.vectors[t.rows[t.rows >= 0]].astype(float) for t in (table, drawn))
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), rtol=2e-3)
    assert not np.allclose(before[0], after[0])


def test_a_bigger_backbone_has_as_many_parameters_as_the_one_with_knowledge(workspace: Workspace) -> None:
    experiment = Experiment(workspace)
    samples, tables, settings = experiment.samples(0), experiment.tables(BOTH, 0), experiment.config.training
    plain, _ = build(BASE, samples, {}, settings, 0)
    augmented, _ = build(BOTH, samples, tables, settings, 0)
    bigger = build_imitation(Arm("DeepFM", "bigger"), BOTH, samples, tables, settings, 0)
    assert parameters(augmented) <= parameters(bigger) < 1.02 * parameters(augmented)
    assert parameters(bigger) > 1.2 * parameters(plain)


def mlp(widths: tuple[int, ...]) -> int:
    """Parameters of dense layers after 50 inputs."""
    return sum((before + 1) * after for before, after in zip((50, *widths), (*widths, 1), strict=True))


@pytest.mark.parametrize(("units", "more"), [((16,), 300), ((128, 64), 200_000), ((7, 5, 3), 1000), ((64,), 0)])
def test_widths_are_the_least_that_have_as_many_parameters(units: tuple[int, ...], more: int) -> None:
    asked: list[tuple[int, ...]] = []

    def count(widths: tuple[int, ...]) -> int:
        asked.append(widths)
        return mlp(widths)

    found = widened(units, count, mlp(units) + more)
    assert found is not None
    steps = {tuple(round(u * f) for u in units) for f in np.linspace(1, 60, 20_000)}
    assert found == min((s for s in steps if mlp(s) >= mlp(units) + more), key=mlp)
    assert len(set(asked)) <= 14, "a model is built for each"


def test_a_backbone_that_ignores_its_widths_is_not_made_bigger_and_says_so(workspace: Workspace) -> None:
    experiment = Experiment(workspace)
    samples, settings = experiment.samples(0), experiment.config.training
    arm, like = Arm("deepctr:AFM", "bigger"), replace(BOTH, backbone="deepctr:AFM")
    said: list[str] = []
    model = build_imitation(arm, like, samples, experiment.tables(like, 0), settings, 0, said.append)
    assert parameters(model) == parameters(build(arm.base, samples, {}, settings, 0)[0])
    assert said == [
        "deepctr:AFM: it ignores hidden_units, so that it cannot be made bigger: that control says nothing of it."
    ]


def test_metadata_knows_of_no_id_that_the_knowledge_does_not(workspace: Workspace) -> None:
    with VectorStore.writer(workspace.store_path("item"), StoreSpec("truth", 4)) as writer:
        writer.delete([3])
    experiment = Experiment(workspace)
    metadata = experiment.tables(Arm("DeepFM", "metadata", ("user", "item"), "hybrid-expert", "fields"), 0)["item"]
    place = experiment.samples(0).vocabulary["item"].index(3)
    assert metadata.rows[place] == -1 and (metadata.rows >= 0).sum() == len(workspace.tables.items) - 1


def test_metadata_is_what_the_prompt_shows_as_a_sentence(workspace: Workspace) -> None:
    texts = {text.entity_id: text for text in workspace.asking.metadata("item")}
    assert texts[0].text == f"title: Movie 0 (1950). genres: {workspace.tables.items['genres'][0].replace('|', ', ')}."
    user = next(iter(workspace.asking.metadata("user")))
    prompt = next(p for p in workspace.asking.prompts("user") if p.entity_id == user.entity_id)
    assert user.text.startswith("gender: ") and user.as_of == prompt.as_of
    assert user.text.count(" rated ") == prompt.text.count(" rated ") > 5


def test_true_knowledge_raises_auc_and_the_comparison_says_where(own_tables: Path, trained: Path) -> None:
    comparison, done = run(opened(own_tables, trained, **LEARNING, controls=["metadata"], seeds=2))
    assert done == 0 and len(comparison.runs) == 3
    assert comparison.estimate(BOTH).mean > 0.8
    assert comparison.coverage(BOTH) == {"user": 1.0, "item": 1.0}
    against = {verdict.against.knowledge: verdict for verdict in leading(comparison)}
    assert set(against) == {"base", "metadata"} and 0 <= against["metadata"].delong <= 1
    made_of, told = headlines(comparison)
    plain, full = (comparison.estimate(arm).mean for arm in (BASE, BOTH))
    start = (
        f"DeepFM, fields: AUC {plain:.4f} without knowledge, {full:.4f} with that of users and items. Step by step: "
    )
    assert made_of.startswith(f"{start}what metadata says ") and ", what the language model adds " in made_of
    not_shown = r"{} \(up in \d of 2 seeds\)"
    plain, metadata = (f"(?:{not_shown.format(rival)}|{rival})" for rival in ("the plain backbone", "metadata text"))
    assert re.fullmatch(
        rf"Knowledge: (not )?shown to beat {plain}(, |; not shown to beat ){metadata}(, which may be chance)?\.", told
    ), told
    first_alone = replace(comparison, runs={arm: found[:1] for arm, found in comparison.runs.items()})
    (said,) = [each for each in headlines(first_alone) if "seed" in each]
    assert said.startswith("One seed cannot tell a gain from chance: raise ")
    found = by_slice(comparison, BOTH)
    assert {"training rows of the item", "has knowledge of"} <= {s.group for s in found}
    assert all(0 < s.share <= 1 for s in found), "slices of fewer than 10 clicks or 10 others are left out"
    gate = comparison.runs[BOTH][0].gate
    assert set(gate) == {"user", "item"} and sum(gate["user"]) == pytest.approx(1, abs=1e-5)
    table = comparison.table()
    assert len(table) == 6 and table["auc"].between(0, 1).all()


def test_over_a_backbone_that_beats_nothing_no_gain_is_called_one(own_tables: Path, trained: Path) -> None:
    found, _ = run(opened(own_tables, trained, **LEARNING, controls=["metadata"], seeds=2))
    strong = replace(found, rivals=[Rival("gradient boosting", 0.97, 0.1, 0.97)])
    first = headlines(strong)[0]
    assert first.startswith(
        f"DeepFM (AUC {found.estimate(BASE).mean:.4f}) does not beat gradient boosting (0.9700): to be"
    )
    assert first.endswith("with kar-aug inspect --data, and train it better: [compare] learning_rate, epochs, tune.")
    guessed = {arm: [replace(run, auc=0.48) for run in runs] for arm, runs in found.runs.items()}
    lost = replace(found, runs=guessed, rivals=[Rival("popularity", 0.5), Rival("gradient boosting", 0.44)])
    assert doubts(lost) == headlines(lost)[:1]
    told = {row[0]: row[1] for row in rows(lost, ("model", "relative"))}
    assert told[BOTH.name] == "—" and told[BASE.name] == "", "by how much more than guessing, of what is less"
    assert "Neither popularity nor gradient boosting beats guessing: what is read may" in doubts(lost)[0]
    assert {verdict.word for verdict in leading(strong)} == {"nothing can be told"}
    assert not any("to beat " in sentence for sentence in conclusions(strong))
    # Where ids and numbers know little and the text much, the arm that beats all rivals is set against its controls.
    between = (max(run.auc for run in found.runs[BASE]) + min(run.auc for run in found.runs[BOTH])) / 2
    telling = replace(found, rivals=[Rival("gradient boosting", between, 0.1, between)])
    assert [verdict.word == "nothing can be told" for verdict in leading(telling)] == [True, False]
    said = headlines(telling)
    assert said[1].startswith(f"DeepFM + knowledge (AUC {found.estimate(BOTH).mean:.4f}) beats guessing and all that")
    assert re.match("Knowledge: .*shown to beat metadata text", said[2]) and not any("plain" in each for each in said)
    alone = replace(found, runs={**found.runs, BASE: guessed[BASE]}, rivals=lost.rivals)
    assert doubts(alone)[0].endswith("inspect --data.")
    assert doubts(alone)[1].startswith("DeepFM + knowledge (AUC ")
    once = replace(found, runs={**found.runs, BOTH: [found.runs[BOTH][0], guessed[BOTH][1]]})
    assert [each for each in doubts(once) if "learnt nothing" in each] == [
        "DeepFM + knowledge: seed 1 (AUC 0.4800) learnt nothing, and other seeds did, so its mean, and what is told by "
        "it, is of no use. A smaller [compare] learning_rate may help, or tune."
    ]
    assert not any("learnt nothing" in each for each in [*doubts(found), *doubts(lost)])
    knowing = replace(found, rivals=[Rival("gradient boosting", 0.99, 0.1, 0.99)])
    assert headlines(knowing)[0].startswith("AUC 0.9900 of gradient boosting: nearly every answer is known")
    assert [rival.name for rival in found.rivals] == ["popularity of the item", "gradient boosting"]


@pytest.mark.usefixtures("step_by_step")
def test_a_log_of_clicks_alone_is_an_error_until_negatives_are_drawn_which_is_said(
    own_tables: Path, tmp_path: Path
) -> None:
    events = pd.read_parquet(own_tables / "interactions.parquet")
    events[events["rating"] > 3].drop(columns="rating").assign(label=1).to_parquet(tmp_path / "clicks.parquet")
    settings = {"data": {"interactions": "clicks.parquet"}, "compare": {**SMALL, "knowledge": [], "controls": []}}
    with pytest.raises(DataError, match=r"The train part holds only clicks .* negatives = 4"):
        compare(Workspace(Config.of(settings, folder=tmp_path)))
    half = events.sort_values("timestamp").assign(label=lambda rows: rows["rating"] > 3).reset_index(drop=True)
    half.loc[half.index[len(half) * 4 // 5 :], "label"] = False
    half.drop(columns="rating").astype({"label": int}).to_parquet(tmp_path / "half.parquet")
    temporal = {"interactions": "half.parquet", "protocol": "temporal"}
    with pytest.raises(DataError, match=r"The \w+ part holds no clicks .* Others hold both \(train"):
        compare(Workspace(Config.of({**settings, "data": temporal}, folder=tmp_path)))
    settings["data"]["negatives"] = 3
    found = compare(Workspace(Config.of(settings, folder=tmp_path)))
    assert 0.6 < found.drawn < 0.8 and "of the rows are negatives that were drawn" in headlines(found)[0]


@pytest.mark.parametrize(("rows", "least"), [(40, 0.7), (4000, 0.52), left_out(4_000_000, 0.505)])
def test_the_fewer_rows_the_more_chance_can_do(rows: int, least: float) -> None:
    label = (np.arange(rows) % 2).astype(np.float32)
    guesses = [metrics.auc(label, np.random.default_rng(seed).random(rows)) for seed in range(20 if rows < 5000 else 1)]
    assert max(guesses) < chance(label) == pytest.approx(least, abs=0.08 if rows < 100 else 0.01)


def test_what_knowledge_cost_stands_beside_the_gain_that_was_shown(own_tables: Path, trained: Path) -> None:
    found, _ = run(opened(own_tables, trained, **LEARNING, controls=["metadata"], seeds=2))

    def price(knowledge: float) -> list[str]:
        shown = {BASE: (0.7, 0.701), BOTH: (knowledge, knowledge + 0.0011)}
        runs = {
            arm: [replace(each, auc=auc) for each, auc in zip(all_of, shown.get(arm, (0.7, 0.7)), strict=True)]
            for arm, all_of in found.runs.items()
        }
        comparison = replace(found, runs=runs, rivals=[Rival("popularity", 0.6, 0.1, 0.6)])
        return Compared(opened(own_tables, trained), comparison, None, {}, dollars=0.4).price

    assert price(0.72) == [f"The knowledge cost 0.4000 US dollars: 0.0200 for each +0.001 of {BOTH.name}."]
    assert price(0.7) == ["The knowledge cost 0.4000 US dollars: no gain was shown that it would be the price of."]
    assert price(0.4) == price(0.7), "a loss has no price"


def test_the_word_of_a_verdict_follows_the_corrected_t_test() -> None:
    def word(mean: float, t: float) -> str:
        return Verdict(BOTH, BASE, Estimate(mean, 0.001, 0.0011), 5, 5, t, 0.06, 0.5).word

    assert [word(0.004, 0.01), word(0.004, 0.2), word(-0.004, 0.01)] == ["yes", "not shown", "no, worse"]
    assert word(0.004, float("nan")) == "one seed cannot tell"
    text = Verdict(BOTH, BASE, Estimate(0.0004, 0.001, 0.0011), 3, 5, 0.61, 0.6, 0.5).text
    assert text == "DeepFM + knowledge beats DeepFM: not shown, AUC +0.0004 ± 0.0011 (p = 0.610, up in 3 of 5 seeds)"
    assert "(p < 0.001, up in" in Verdict(BOTH, BASE, Estimate(0.004, 0.001, 0.0011), 5, 5, 0.0002, 0.06, 0.5).text
    verdict = Verdict(BOTH, BASE, Estimate(0.0004, 0.001, 0.0011), 3, 5, 0.61, 0.6, 0.5, detectable=0.0021)
    assert verdict.text.endswith("3 of 5 seeds); with 5 seeds like these only gains of 0.0021 and more show")
    assert replace(verdict, detectable=0.57).text.endswith(
        "with 5 seeds like these no gain shows, however large: take more"
    )


def test_each_way_that_knowledge_enters_is_told_in_one_sentence() -> None:
    def arm(backbone: str, knowledge: str) -> Arm:
        return Arm(backbone, knowledge, ("item",), "hybrid-expert", "similarity")

    def verdict(arm: Arm, against: Arm, mean: float, t: float, up: int, weakness: str = "") -> Verdict:
        return Verdict(arm, against, Estimate(mean, 0.001, 0.0011), up, 5, t, t, t, weakness)

    ours = arm("DeepFM", "item")
    found = [
        verdict(ours, ours.base, 0.004, 0.01, 5),
        verdict(ours, arm("DeepFM", "shuffled"), 0.004, 0.01, 5),
        verdict(ours, arm("DeepFM", "metadata"), 0.001, 0.2, 3),
        verdict(ours, arm("DeepFM", "plots"), -0.004, 0.01, 0),
    ]
    assert [*told(found)] == [
        "Item knowledge (similarity): shown to beat the plain backbone, shuffled vectors; not shown to beat metadata "
        "text (up in 3 of 5 seeds), which may be chance; worse than plots."
    ]
    din = arm("DIN", "item")
    both = [
        *found,
        verdict(din, din.base, 0.0, 0.7, 2),
        verdict(din, arm("DIN", "shuffled"), -0.004, 0.01, 0),
        verdict(din, arm("DIN", "metadata"), 0.0, 0.7, 2),
    ]
    assert [*told(both)] == [
        "Item knowledge (similarity): shown to beat the plain backbone (on 1 of 2 backbones: DeepFM), shuffled vectors "
        "(on 1 of 2 backbones: DeepFM; worse on DIN); not shown to beat metadata text, which may be chance; worse than "
        "plots."
    ]
    assert [*told([verdict(din, din.base, 0.004, 0.01, 5, "guessing")])] == []
    blind = arm("kar:PRM", "item")
    fair = [verdict(blind, blind.base, 0.004, 0.01, 5), verdict(blind, Arm("PRM"), -0.004, 0.01, 0)]
    assert [*told(fair)] == [
        "Item knowledge (similarity): shown to beat the plain backbone; worse than the same with the user's profile "
        "and past."
    ]


@pytest.mark.parametrize(
    ("curve", "over"),
    [
        ([], False),
        ([0.7, 0.69], False),
        ([0.7, 0.69, 0.68], True),
        ([0.7, 0.69, 0.7], False),  # as good as the best: the later one is kept
        ([0.5, 0.49, 0.48, 0.47], False),  # nothing learnt yet
        ([0.49, 0.6, 0.59, 0.59], True),
    ],
)
def test_a_training_is_over_once_as_many_epochs_as_it_has_patience_brought_nothing(
    curve: list[float], over: bool
) -> None:
    assert is_over(curve, guessing=0.52, patience=2) == over


def test_slices_go_from_cold_to_warm_and_miss_no_row() -> None:
    assert slices.bounds(np.asarray([0, 0, 1, 2, 3, 4, 5, 6])) == [(0, 0), (1, 2), (3, 4), (5, 6)]
    assert slices.bounds(np.asarray([1, 20, 20, 20, 20, 20])) == [(1, 19), (20, 20)], "most have the most"
    assert slices.bounds(np.asarray([0, 0, 0])) == [], "one group tells nothing"


def test_what_is_cold_is_a_slice_however_few_rows_it_is() -> None:
    common = np.repeat([300, 600, 900], 1000)
    found = slices.bounds(np.asarray([3, 19, 20, 99, 250, *common]))
    assert found == [(3, 19), (20, 99), (100, 299), (300, 599), (600, 900)]
    assert slices.bounds(np.asarray([30, 40, *common]))[0] == (30, 299), "no row lies between"
    assert slices.bounds(np.repeat([150, 200, 300], 9)) == [(150, 199), (200, 299), (300, 300)]


def test_finished_runs_are_reused_and_only_missing_ones_trained(finished: Workspace) -> None:
    first, done = run(finished, seeds=2)
    assert done == 0
    assert missing(finished, seeds=3) == 2
    second, done = run(finished, seeds=3, knowledge=())
    assert done == 1 and second.runs[BASE][:2] == first.runs[BASE]
    assert missing(finished, controls=("shuffled",)) == 1
    assert missing(finished, expert_hidden=8) == 1, "the plain backbone has no experts"
    with VectorStore.writer(finished.store_path("item"), StoreSpec("truth", 4)) as writer:
        writer.append([0], ["other"], np.ones((1, 4)))
    assert missing(finished) == 1, "new knowledge is nothing to the plain backbone"


def test_a_run_with_the_same_seed_gives_the_same_result_bit_for_bit(finished: Workspace) -> None:
    first, _ = run(finished)
    (finished.config.work / "runs" / BOOK).unlink()
    again, done = run(finished)
    assert done == 2
    for arm in (BASE, BOTH):
        assert first.runs[arm][0].auc == again.runs[arm][0].auc
        assert first.runs[arm][0].curve == again.runs[arm][0].curve


def test_seeds_start_from_other_weights(workspace: Workspace) -> None:
    experiment = Experiment(workspace)
    samples = experiment.samples(0)
    one, other = (build(BASE, samples, {}, experiment.config.training, seed)[0] for seed in (0, 1))
    same = [np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True) if a.any()]
    assert same and not any(same)


@pytest.mark.usefixtures("step_by_step")
def test_each_seed_may_draw_its_own_test_users(workspace: Workspace) -> None:
    comparison, _ = run(workspace, seeds=2, vary_split=True, epochs=1, knowledge=())
    users = [users_of(comparison.experiment.samples(seed), "test") for seed in (0, 1)]
    assert users[0] != users[1] and comparison.pooled(BASE) is None
    assert comparison.runs[BASE][0].data != comparison.runs[BASE][1].data
    for seed in (0, 1):
        assert len(comparison.prediction(BASE, seed)) == len(comparison.clicked(seed))


@pytest.mark.usefixtures("step_by_step")
def test_a_search_tries_as_often_for_each_arm_and_is_not_done_twice(workspace: Workspace) -> None:
    comparison, done = run(workspace, tune=2, epochs=1)
    assert done == 2 * 2 + 2
    with sqlite3.connect(workspace.config.work / "runs" / BOOK) as connection:
        trials = connection.execute("SELECT arm, count(*), max(auc) FROM trials GROUP BY arm").fetchall()
    assert [count for _, count, _ in trials] == [2, 2]
    best = {auc for *_, auc in trials}
    assert {max(comparison.runs[arm][0].curve) for arm in (BASE, BOTH)} == best, "the best on validation is trained"
    again, done = run(workspace, tune=2, epochs=1)
    assert done == 0 and again.runs == comparison.runs
    with sqlite3.connect(workspace.config.work / "runs" / BOOK) as connection:
        connection.execute("DELETE FROM trials WHERE number = 1 AND arm LIKE '%base%'")
    resumed, done = run(workspace, tune=2, epochs=1)
    assert done >= 1 and resumed.runs == comparison.runs, "a search that goes on proposes the same again"
    path, _ = trained_model(workspace, "DeepFM", 0)
    assert path.stem == comparison.runs[BOTH][0].identity


@pytest.mark.usefixtures("step_by_step")
def test_another_store_is_an_arm_against_knowledge_of_the_same_sources(workspace: Workspace, tmp_path: Path) -> None:
    ids = workspace.tables.items["item_id"].tolist()
    fill(tmp_path / "plots", ids[:20], np.random.default_rng(0).normal(size=(20, 6)))
    comparison, _ = run(
        workspace,
        knowledge=("item",),
        stores={"plots": str(tmp_path / "plots")},
        epochs=1,
        controls=("bigger",),
    )
    (plots,) = (arm for arm in comparison.arms if arm.kind == "store")
    assert plots.name == "DeepFM + plots" and 0 < comparison.coverage(plots)["item"] < 1
    assert {BASE, plots} <= {v.against for v in leading(comparison)}


def test_a_flipped_byte_in_the_vectors_stops_a_comparison_before_anything_is_trained(
    own_tables: Path, truth: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(truth, work)
    file = next((work / "vectors" / "item").glob("*.vectors.npy"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match=rf"{file.name} is damaged"):
        compare(opened(own_tables, work, **SMALL))
    assert not (work / "runs" / BOOK).exists()
    unchecked = Experiment(opened(own_tables, work, **SMALL, check_vectors=False))
    unchecked.tables(BOTH, 0)
    unchecked.check_vectors()


def test_what_is_missing_is_said_before_anything_is_trained(workspace: Workspace) -> None:
    for file in workspace.metadata_path("user").iterdir():
        file.unlink()
    workspace.metadata_path("user").rmdir()
    with pytest.raises(StoreError, match='kar-aug encode with "metadata"'):
        run(workspace, controls=("metadata",))
    with pytest.raises(StoreError, match="Run: kar-aug compare"):
        trained_model(workspace, "DeepFM", 0)
    shutil.rmtree(workspace.store_path("user"))
    with pytest.raises(StoreError, match=r'of users .* some of items\. .* \[compare\] knowledge = \["item"\]'):
        run(workspace, knowledge=("both",))


_SCRIPT = """
import sys
from pathlib import Path
tables, workdir, tests = sys.argv[1:]
sys.path.insert(0, tests)
from support.workspaces import opened
from kar_aug.compare import compare
counted = {"protocol": "counting:counted"}
workspace = opened(Path(tables), Path(workdir), counted, knowledge=[], jobs=2, seeds=3, epochs=6, patience=6)
compare(workspace, on_event=lambda event: print(event.done, flush=True))  # in no `if __name__ == "__main__"`
"""


def test_killed_runs_leave_whole_rows_no_processes_and_the_rest_to_do(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, split = tmp_path / "script.py", tmp_path / "split"
    script.write_text(_SCRIPT)
    (tmp_path / "counting.py").write_text(COUNTING)
    monkeypatch.setenv("COUNTED", str(split))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting", raising=False)  # another test's
    arguments = [workspace.config.folder, workspace.config.work, Path(__file__).parent]
    command = [sys.executable, str(script), *map(str, arguments)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout is not None
    for line in first.stdout:
        if "True" in line:
            break
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _alive(first.pid):
        time.sleep(0.2)
    assert not _alive(first.pid), "the processes end with the one that started them"
    with sqlite3.connect(workspace.config.work / "runs" / BOOK) as connection:
        kept = connection.execute("SELECT count(*) FROM runs JOIN predictions USING (identity)").fetchone()[0]
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] == kept
    assert 1 <= kept < 3
    counted = Workspace(replace(workspace.config, data=replace(workspace.config.data, protocol="counting:counted")))
    here, done = run(counted, knowledge=(), seeds=3, epochs=6, patience=6)
    assert done == 3 - kept and here.seeds == 3, "side by side or here, it is the same run"
    assert split.read_text() == "split\n", "all four processes read what the first had prepared"


def _alive(session: int) -> bool:
    """Whether any process of a session is left."""
    return subprocess.run(["pgrep", "-s", str(session)], capture_output=True, check=False).returncode == 0


def test_a_process_that_dies_is_one_clear_error() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=os.abort)
    process.start()
    theirs.close()
    error = workers._receive(ours, process)
    assert isinstance(error, KarError) and "signal 6" in str(error)


def test_no_epoch_trains_on_validation_or_test_users(workspace: Workspace) -> None:
    samples = workspace.samples
    users = {part: users_of(samples, part) for part in ("train", "validation", "test")}
    assert not users["train"] & users["test"] and not users["train"] & users["validation"]
