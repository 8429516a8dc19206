"""Is a difference more than chance? Intervals, paired tests over seeds, DeLong's test, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special  # `stats` takes a second to import, which each process of a comparison would pay

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds. `sd`: standard deviation of one value; `half`: half the width of the mean's 95% interval, by
    Student's t. Both are NaN for a single seed.
    """

    mean: float
    sd: float
    half: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95% interval of values that differ by seed alone."""
    given = np.asarray(values, np.float64)
    if len(given) < 2:
        return Estimate(float(given.mean()), float("nan"), float("nan"))
    sd = float(given.std(ddof=1))
    return Estimate(float(given.mean()), sd, float(special.stdtrit(len(given) - 1, 0.975) * sd / np.sqrt(len(given))))


def paired_t(differences: Sequence[float]) -> float:
    """Two-sided p-value that paired differences have mean 0, by Student's t; NaN for a single one."""
    found = estimate(differences)
    if np.isnan(found.sd):
        return float("nan")
    if found.sd == 0:
        return 1.0 if found.mean == 0 else 0.0
    t = abs(found.mean) / (found.sd / np.sqrt(len(differences)))
    return float(2 * special.stdtr(len(differences) - 1, -t))


def detectable(differences: Sequence[float], tests: int = 1) -> float:
    """The mean difference that would be shown in four of five comparisons with as many seeds, which differ as much:
    what is smaller is likely to be missed. NaN for a single seed.

    Args:
        tests: so many are corrected for, by dividing the 5% (Bonferroni; Holm's correction shows a little more).
    """
    found, count = estimate(differences), len(differences)
    if np.isnan(found.sd):
        return float("nan")
    errors = special.stdtrit(count - 1, 1 - 0.025 / tests) + special.stdtrit(count - 1, 0.8)
    return float(errors * found.sd / np.sqrt(count))


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test. Five seeds cannot give less than 0.0625; NaN for one."""
    given = np.asarray(differences, np.float64)
    if len(given) < 2:
        return float("nan")
    if not given.any():
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(given).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for having tested so many: step down from the least (Holm 1979). NaNs stay, and do not
    count.
    """
    given = np.asarray(p_values, np.float64)
    corrected = np.full(len(given), np.nan)
    tested = [int(place) for place in np.argsort(given, kind="stable") if not np.isnan(given[place])]
    largest = 0.0
    for rank, place in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * float(given[place])))
        corrected[place] = largest
    return [float(p) for p in corrected]


@dataclass(frozen=True)
class DeLong:
    """Two AUCs on the same rows, the standard error of their difference, and a two-sided p-value."""

    first: float
    second: float
    error: float
    p: float


def delong(label: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> DeLong:
    """DeLong's test of two correlated AUCs, in O(n log n).

    It takes rows for independent. Those of one user are not: with few rows a user that matters little, with many the
    p-value is too small. NaN where only one class occurs.

    Args:
        label: (rows,) 0 or 1.
        first, second: (rows,) predictions of two models.

    Source:
        DeLong et al. 1988, Biometrics 44(3); by midranks as Sun and Xu 2014, IEEE Signal Processing Letters 21(11).
    """
    clicked = np.asarray(label) > 0
    if clicked.all() or not clicked.any():
        return DeLong(*[float("nan")] * 4)
    aucs, of_clicked, of_others = zip(*(_placements(np.asarray(p), clicked) for p in (first, second)), strict=True)
    contrast = np.asarray([1.0, -1.0])
    variance = sum(
        float(contrast @ np.cov(np.stack(parts)) @ contrast) / len(parts[0])
        for parts in (of_clicked, of_others)
        if len(parts[0]) > 1
    )
    error = float(np.sqrt(max(variance, 0.0)))
    difference = aucs[0] - aucs[1]
    if error == 0:
        return DeLong(aucs[0], aucs[1], 0.0, 1.0 if difference == 0 else 0.0)
    return DeLong(aucs[0], aucs[1], error, float(2 * special.ndtr(-abs(difference) / error)))


def _placements(prediction: Array, clicked: npt.NDArray[np.bool_]) -> tuple[float, Array, Array]:
    """The AUC; for each click the share of non-clicks that it is above; for each non-click that of clicks above it."""
    clicks, others = prediction[clicked], prediction[~clicked]
    ranks = _ranks(np.concatenate([clicks, others]))
    of_clicks = (ranks[: len(clicks)] - _ranks(clicks)) / len(others)
    of_others = 1 - (ranks[len(clicks) :] - _ranks(others)) / len(clicks)
    return float(of_clicks.mean()), of_clicks, of_others


def _ranks(values: Array) -> Array:
    """From 1 on; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


@dataclass(frozen=True)
class Bootstrapped:
    """A mean of paired differences, its 95% interval (`low`, `high`), and a two-sided p-value that it is 0."""

    mean: float
    low: float
    high: float
    p: float


def bootstrap(differences: npt.ArrayLike, draws: int = 1000, seed: int = 0) -> Bootstrapped:
    """What the mean of paired differences would be, were their rows drawn anew: percentiles over `draws` drawings.

    The p-value is twice the share of means on the other side of 0, and never below 1 / draws.

    Args:
        differences: (rows,) what one has more than the other; rows are taken for independent.

    Source:
        Efron and Tibshirani 1993, chapter 13.
    """
    given = np.asarray(differences, np.float64)
    random = np.random.default_rng([seed, 29])
    means = np.asarray([given[random.integers(0, len(given), len(given))].mean() for _ in range(draws)])
    low, high = np.quantile(means, [0.025, 0.975])
    beyond = 2 * min(float((means <= 0).mean()), float((means >= 0).mean()))
    return Bootstrapped(float(given.mean()), float(low), float(high), min(1.0, max(beyond, 1 / draws)))


def relative_improvement(auc: float, base: float) -> float:
    """By how much a model beats chance more than another does: (auc - 0.5) / (base - 0.5) - 1. An AUC of 0.5 is what
    guessing gives, so 0.70 -> 0.71 is 5%, not 1.4%. NaN where the base is no better than that.

    Source:
        RelaImpr, as Zhou et al. 2018 (DIN), arXiv:1706.06978, section 5.3, report it.
    """
    return (auc - 0.5) / (base - 0.5) - 1 if base > 0.5 else float("nan")
