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
