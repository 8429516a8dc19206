"""What a CTR model is judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score


def auc(label: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> float:
    """Area under the ROC curve; NaN where only one class occurs."""
    return float(roc_auc_score(label, prediction)) if len(np.unique(label)) == 2 else float("nan")


def logloss(label: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> float:
    """Binary cross-entropy in nats."""
    return float(log_loss(label, np.asarray(prediction, np.float64), labels=[0, 1]))


def gauc(label: npt.NDArray[Any], prediction: npt.NDArray[Any], user: npt.NDArray[Any]) -> float:
    """Per-user AUC, weighted by the user's impressions; users with one class only are left out.

    Source:
        Zhou et al. 2018 (DIN), arXiv:1706.06978, equation 7.
    """
    order = np.argsort(user, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    scored = [(len(rows), auc(label[rows], prediction[rows])) for rows in groups]
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
