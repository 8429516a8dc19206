"""What an order of a list is judged by: a number a list, for many padded lists at once.

Of the labels in the order of the scores, l[1], l[2], ..., and a scope k, or the length of the list if that is less:

    MAP    mean of (clicks among the first i) / i over the clicked places i <= k
    NDCG   sum (2^l[i] - 1) / log2(i + 1) over i <= k, divided by what the best order has
    MRR    1 / i of the first clicked place i <= k
    HR     1 if one of the first k is clicked
    CLICK  clicks among the first k

MAP, NDCG and CLICK are those that KAR reports (arXiv:2306.10933, section 4.1), as the authors' code computes them
(`evaluate_rerank`): MAP is divided by the clicks among the first k and not by all that there are; CLICK is what was
clicked in the log and no estimate by a model of clicks. A list without a click has 0 of each. Equal scores stay in the
order of before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = ("MAP", "NDCG", "MRR", "HR", "CLICK")
SCOPES = (1, 3, 5, 7)
Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]


def ranked(label: Array, score: Array) -> Numbers:
    """The labels in the order of the scores.

    Args:
        label: (lists, length), -1 after the last item of a list.
        score: (lists, length); of what comes after the last item anything.
    """
    hidden = np.where(label < 0, np.inf, -np.asarray(score, np.float64))
    # Two keys: what is not there comes last, also behind a score of -inf.
    order = np.lexsort((hidden, label < 0), axis=1)
    return np.take_along_axis(np.asarray(label, np.float64), order, axis=1)


def of_lists(label: Array, score: Array, name: str, scope: int) -> Numbers:
    """One of `NAMES` for each list, (lists,).

    Args:
        label, score: as in `ranked`.
        scope: k.
    """
    return _METRICS[name](ranked(label, score), scope)


def _map(label: Numbers, scope: int) -> Numbers:
    clicked = label[:, :scope] > 0
    precision = np.cumsum(clicked, axis=1) / np.arange(1, clicked.shape[1] + 1)
    return np.asarray((precision * clicked).sum(axis=1) / np.maximum(clicked.sum(axis=1), 1))


def _ndcg(label: Numbers, scope: int) -> Numbers:
    best = _gain(-np.sort(-label, axis=1), scope)
    return np.asarray(_gain(label, scope) / np.where(best > 0, best, 1.0), np.float64)


def _gain(label: Numbers, scope: int) -> Numbers:
    first = np.maximum(label[:, :scope], 0)
    return np.asarray(((2**first - 1) / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1))


def _mrr(label: Numbers, scope: int) -> Numbers:
    clicked = label[:, :scope] > 0
    return np.where(clicked.any(axis=1), 1 / (clicked.argmax(axis=1) + 1), 0.0)


def _hr(label: Numbers, scope: int) -> Numbers:
    return np.asarray((label[:, :scope] > 0).any(axis=1), np.float64)


def _click(label: Numbers, scope: int) -> Numbers:
    return np.asarray(np.maximum(label[:, :scope], 0).sum(axis=1))


_METRICS = {"MAP": _map, "NDCG": _ndcg, "MRR": _mrr, "HR": _hr, "CLICK": _click}
