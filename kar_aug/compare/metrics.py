"""What a CTR model is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

Array = npt.NDArray[Any]


def auc(label: Array, prediction: Array, weight: Array | None = None) -> float:
    """Area under the ROC curve; NaN where only one class occurs.

    Args:
        weight: how much each row counts; all the same by default.
    """
    if len(np.unique(label)) < 2:
        return float("nan")
    return float(roc_auc_score(label, prediction, sample_weight=weight))


def logloss(label: Array, prediction: Array, weight: Array | None = None) -> float:
    """Binary cross-entropy in nats."""
    return float(log_loss(label, np.asarray(prediction, np.float64), labels=[0, 1], sample_weight=weight))


def gauc(label: Array, prediction: Array, group: Array, weight: Array | None = None) -> float:
    """AUC within each group of rows (a user's, or an impression's), weighted by its rows; groups with one class only
    are left out.

    Source:
        Zhou et al. 2018 (DIN), arXiv:1706.06978, equation 7.
    """
    weight = np.ones(len(label)) if weight is None else weight
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    scored = [(weight[rows].sum(), auc(label[rows], prediction[rows], weight[rows])) for rows in groups]
    kept = [(size, value) for size, value in scored if not np.isnan(value)]
    return float(np.average([v for _, v in kept], weights=[s for s, _ in kept])) if kept else float("nan")


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
