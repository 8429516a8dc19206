"""A fixed training of a few arms, and what it came to when RESULTS_VERSION was last raised.

Runs are told apart by their data, settings and knowledge, and by RESULTS_VERSION: whoever changes what a training comes
to and does not raise it would find old numbers beside new ones in one report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exhaustive import table

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

from kar_aug.cache import KnowledgeTable
from kar_aug.compare import Arm, metrics
from kar_aug.compare.experiment import RESULTS_VERSION
from kar_aug.compare.models import parameters
from kar_aug.compare.training import predict, train
from kar_aug.config import Config, TrainingConfig
from kar_aug.data.samples import Samples
from kar_aug.pipeline.workspace import Workspace

VERSION = 3
BOTH = ("user", "item")
LIKE = Arm("DeepFM", "both", BOTH, "hybrid-expert", "fields")
# Arm -> LogLoss of the test part, its AUC, and how many parameters were trained.
GOLDEN: dict[Arm, tuple[float, float, int]] = {
    Arm("DeepFM"): (0.67045, 0.48445, 1019),
    LIKE: (0.77562, 0.26721, 1969),
    Arm("DeepFM", "bigger"): (0.63084, 0.74911, 2009),
    Arm("DIN", "both", BOTH, "mlp", "events"): (0.68646, 0.61550, 7362),
    Arm("FiBiNET", "item", ("item",), "hybrid-expert", "events"): (0.75364, 0.28863, 8645),
}
SETTINGS = TrainingConfig(
    embedding_dim=4, expert_hidden=8, hidden_units=(16, 8), batch_size=64, learning_rate=0.01, epochs=2
)


@pytest.fixture(scope="module")
def samples(own_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    changes: dict[str, Any] = {"data": {"event_values": 1}}  # as when the numbers came about
    changes["workdir"] = str(tmp_path_factory.mktemp("golden"))  # what is prepared is not left among the tables
    return Workspace(Config.load(own_tables / "kar.toml", changes)).samples


@pytest.fixture(scope="module")
def tables(samples: Samples) -> dict[str, KnowledgeTable]:
    """A vector an id but for every tenth, of numbers that no library draws."""
    found = {}
    for entity in BOTH:
        ids = np.arange(len(samples.vocabulary[entity]))
        vectors = np.sin(ids[:, None] * np.arange(1, 7) + len(entity)).astype(np.float32)
        found[entity] = KnowledgeTable(vectors, np.where(ids % 10 == 0, -1, ids).astype(np.int32))
    return found


@pytest.mark.parametrize(
    "arm", table(GOLDEN, LIKE, Arm("DIN", "both", BOTH, "mlp", "events")), ids=lambda arm: arm.name
)
def test_a_training_comes_to_what_it_did(arm: Arm, samples: Samples, tables: dict[str, KnowledgeTable]) -> None:
    found = result(arm, samples, tables)
    assert RESULTS_VERSION == VERSION and found == pytest.approx(GOLDEN[arm], abs=2e-3), (
        f"{arm.name} comes to {found}, and came to {GOLDEN[arm]}. Is that meant? Then raise RESULTS_VERSION in "
        "kar_aug/compare/experiment.py, so that no run of before is taken for one of now, and VERSION and the numbers "
        "here."
    )


def result(arm: Arm, samples: Samples, tables: dict[str, Any]) -> tuple[float, float, int]:
    imitated = LIKE if arm.imitates else None
    used = tables if imitated else {name: table for name, table in tables.items() if arm.entities}
    trained = train(arm, 0, samples, used, SETTINGS, imitated)
    test = samples.of("test")
    label, prediction = samples.label[test], predict(trained.model, samples, test)
    return metrics.logloss(label, prediction), metrics.auc(label, prediction), parameters(trained.model)
