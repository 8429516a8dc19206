"""Statistics against known values and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exhaustive import examples

from kar_aug.compare import metrics
from kar_aug.compare.statistics import delong, detectable, estimate, holm, paired_t, relative_improvement, wilcoxon


def test_the_interval_of_a_mean_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    # t with 4 degrees of freedom, 97.5%: 2.776445
    assert found.mean == 3 and found.sd == pytest.approx(1.5811388)
    assert found.half == pytest.approx(2.776445 * 1.5811388 / 5**0.5, rel=1e-6)


def test_one_seed_has_a_mean_and_nothing_else() -> None:
    found = estimate([0.7])
    assert found.mean == 0.7 and np.isnan([found.sd, found.half, paired_t([0.7]), wilcoxon([0.7])]).all()


def test_the_paired_t_test_gives_students_sleep_data_their_known_p() -> None:
    # Student 1908: extra hours of sleep, second drug less first, ten patients; t = 4.0621, p = 0.002833
    extra = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert paired_t(extra) == pytest.approx(0.002833, abs=1e-6)
    assert paired_t([0.0, 0.0]) == 1 and paired_t([0.1, 0.1]) == 0


def test_the_gain_that_seeds_would_show_is_shown_by_four_of_five_such() -> None:
    random = np.random.default_rng(0)
    spread = random.normal(0, 0.002, 5)
    sd = float(np.std(spread, ddof=1))
    gain = detectable(list(spread))
    shown = [paired_t(list(random.normal(gain, sd, 5))) < 0.05 for _ in range(2000)]
    assert 0.75 < np.mean(shown) < 0.9
    assert detectable(list(spread), tests=6) > gain and np.isnan(detectable([0.1]))


def test_five_gains_of_five_cannot_be_better_than_one_in_sixteen_by_wilcoxon() -> None:
    assert wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 2**5)
    assert wilcoxon([0.0, 0.0, 0.0]) == 1


def test_holms_correction_by_hand() -> None:
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.04 * 1, each at least the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    kept = holm([0.01, float("nan"), 0.02])
    assert kept[0] == pytest.approx(0.02) and np.isnan(kept[1]) and kept[2] == pytest.approx(0.02)


def _brute_force(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """DeLong's definition: the kernel of every pair of a click and another row."""
    clicked = label > 0
    placements = []
    for prediction in (first, second):
        difference = prediction[clicked][:, None] - prediction[~clicked][None, :]
        kernel = (difference > 0) + 0.5 * (difference == 0)
        placements.append((kernel.mean(axis=1), kernel.mean(axis=0), kernel.mean()))
    clicks, others = clicked.sum(), (~clicked).sum()
    s10 = np.cov(placements[0][0], placements[1][0]) / clicks
    s01 = np.cov(placements[0][1], placements[1][1]) / others
    covariance = s10 + s01
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return placements[0][2], placements[1][2], float(np.sqrt(max(variance, 0)))


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 60), st.integers(1, 8))
def test_delong_in_n_log_n_equals_delong_pair_by_pair(seed: int, rows: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    label = np.r_[1, 1, 0, 0, random.integers(0, 2, rows - 4)]
    first, second = random.integers(0, levels + 1, (2, rows)) / levels  # few levels: many ties
    found = delong(label, first, second)
    assert (found.first, found.second, found.error) == pytest.approx(_brute_force(label, first, second), abs=1e-9)
    assert found.first == pytest.approx(metrics.auc(label, first))
    assert 0 <= found.p <= 1 and delong(label, second, first).p == pytest.approx(found.p)


def test_delong_sees_a_difference_that_is_there_and_none_between_equals() -> None:
    random = np.random.default_rng(0)
    label = random.integers(0, 2, 4000)
    good, bad = label + random.normal(0, 1, 4000), label + random.normal(0, 3, 4000)
    assert delong(label, good, bad).p < 1e-6
    assert delong(label, good, good).p == 1
    assert np.isnan(delong(np.ones(3), good[:3], bad[:3]).p)


def test_relative_improvement_counts_from_chance() -> None:
    assert relative_improvement(0.71, 0.70) == pytest.approx(0.05)
    assert np.isnan(relative_improvement(0.49, 0.497)), "worse than guessing is no base"


def test_calibration_by_hand() -> None:
    prediction, label = np.asarray([0.1, 0.3, 0.6, 0.8]), np.asarray([0, 1, 1, 1])
    predicted, clicked, rows = metrics.calibration(label, prediction, bins=2)
    assert predicted == pytest.approx([0.2, 0.7]) and clicked.tolist() == [0.5, 1.0] and rows.tolist() == [2, 2]
    assert metrics.ece(label, prediction, bins=2) == pytest.approx((0.3 + 0.3) / 2)
