"""benchmarks/ladder_lists.py trains without TensorFlow: what it says again of `compare` is what `compare` does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ladder_lists

    yield ladder_lists
    sys.modules.pop("ladder_lists")


def test_every_arm_and_pair_of_the_re_ranking_page_is_there(lists: Any) -> None:
    arms = {(each.backbone, each.arm(vectors)) for each in lists.families(lists.BACKBONES) for vectors in each.vectors}
    assert len(arms) == 44
    of_pairs = {arm for backbone in lists.BACKBONES for pair in lists.pairs(backbone) for arm in pair}
    assert of_pairs == arms


def test_a_run_that_was_cut_off_is_told(lists: Any) -> None:
    def run(arm: str, seed: int, value: float) -> dict[str, Any]:
        return {"backbone": "PRM", "arm": arm, "seed": seed, "test": dict.fromkeys(lists.SHOWN, value)}

    runs = [run("fair, plain", seed, 0.6 + 0.001 * seed) for seed in range(3)]
    runs += [run("fair, similarity: text", seed, 0.63 + 0.002 * seed) for seed in range(3)]
    told = lists.report(runs, "Head.", {"the initial order": {"map@7": 0.37}})
    assert "| fair, plain | 0.6010 ± 0.0010 |" in told
    assert "| fair, similarity: text | fair, plain | +5.2%, 3 of 3," in told
    assert "| the initial order | 0.3700 |" in told
    assert "kar" not in told and "shuffled" not in told
