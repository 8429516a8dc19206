"""What a CTR model is judged by. Not by scikit-learn: its import takes two seconds, and an AUC of few rows a
millisecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def auc(label: Array, prediction: Array, weight: Array | None = None) -> float:
    """Area under the ROC curve; NaN where only one class occurs.

    Args:
        weight: how much each row counts; all the same by default.

    Raises:
        ValueError: A prediction is not a finite number.
    """
    areas, _ = _areas(label, prediction, np.zeros(len(label), np.int8), weight)
    return float(areas[0]) if len(areas) else float("nan")


def logloss(label: Array, prediction: Array, weight: Array | None = None) -> float:
    """Binary cross-entropy in nats.

    Raises:
        ValueError: A prediction is not a finite number.
    """
    _check(prediction)
    least = np.finfo(np.float64).eps
    given = np.clip(np.asarray(prediction, np.float64), least, 1 - least)
    return float(np.average(-np.log(np.where(label > 0, given, 1 - given)), weights=weight))


def gauc(label: Array, prediction: Array, group: Array, weight: Array | None = None) -> float:
    """AUC within each group of rows (a user's, or an impression's), weighted by its rows; groups with one class only
    are left out.

    Raises:
        ValueError: A prediction is not a finite number.

    Source:
        Zhou et al. 2018 (DIN), arXiv:1706.06978, equation 7.
    """
    areas, sizes = _areas(label, prediction, group, weight)
    kept = ~np.isnan(areas)
    return float(np.average(areas[kept], weights=sizes[kept])) if kept.any() else float("nan")


def _areas(label: Array, prediction: Array, group: Array, weight: Array | None) -> tuple[Array, Array]:
    """Of each group of rows, by ascending group, the AUC and the weight: the share of pairs of a click and another row
    of which the click is predicted higher, where equal ones count half.
    """
    _check(prediction)
    order = np.lexsort((prediction, group))
    label, prediction, group = label[order], prediction[order], group[order]
    weight = np.ones(len(order)) if weight is None else np.asarray(weight, np.float64)[order]
    if not len(order):
        return weight, weight
    starts = np.r_[True, group[1:] != group[:-1]]
    ties = np.flatnonzero(starts | np.r_[True, prediction[1:] != prediction[:-1]])  # the first row of equal ones
    clicks, others = (np.add.reduceat(weight * of, ties) for of in (label > 0, label <= 0))
    first = np.searchsorted(ties, np.flatnonzero(starts))  # of each group
    below = np.cumsum(others) - others
    below -= np.repeat(below[first], np.diff(np.r_[first, len(ties)]))
    higher, clicked, rest = (np.add.reduceat(of, first) for of in (clicks * (below + others / 2), clicks, others))
    with np.errstate(invalid="ignore"):  # 0 of 0 pairs
        return higher / (clicked * rest), clicked + rest


def _check(prediction: Array) -> None:
    if not np.isfinite(prediction).all():
        raise ValueError("A model predicts what is no finite number: its training diverged. Lower its learning rate.")


Calibration = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]


def calibration(label: npt.NDArray[Any], prediction: npt.NDArray[Any], bins: int = 10) -> Calibration:
    """Mean prediction, share of clicks and number of rows of up to `bins` equally large groups of rows, from the
    lowest predictions to the highest.
    """
    order = np.argsort(prediction, kind="stable")
    groups = [rows for rows in np.array_split(order, bins) if len(rows)]
    return (
        np.asarray([prediction[rows].mean(dtype=np.float64) for rows in groups]),
        np.asarray([label[rows].mean(dtype=np.float64) for rows in groups]),
        np.asarray([len(rows) for rows in groups], np.int64),
    )


def ece(label: npt.NDArray[Any], prediction: npt.NDArray[Any], bins: int = 10) -> float:
    """Expected calibration error: how far off a predicted click rate is, on average over equally large groups of rows.

    Source:
        Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; groups of equal size.
    """
    predicted, clicked, rows = calibration(label, prediction, bins)
    return float(np.average(np.abs(predicted - clicked), weights=rows)) if len(rows) else float("nan")
