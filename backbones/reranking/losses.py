"""What models of lists are trained for. Each is a loss of Keras: labels and scores, (batch, size), to (batch,).

Labels are 1 for a click, else 0, and below 0 where a list is padded, of which nothing is read.

    bce             mean over items of log(1 + exp(s)) - y s: each item for itself
    softmax         - sum (y / sum y) log softmax(s): clicks against all others
    listmle         of the clicked in the order of before, mean of log sum over it and all behind it of exp(s) - s:
                    the likelihood of the best order, as far as it is known
    attention-rank  cross-entropy of softmax(s) with the best attention: equal shares for what was clicked

A list without a click says nothing but to bce: of the others its loss is 0.

Source:
    softmax: ListNet's top one (Cao et al. 2007). listmle: Xia et al. 2008, of the first places alone (Xia et al. 2009,
    "Statistical consistency of top-k ranking"): among what was not clicked no order is known. attention-rank: Ai et al.
    2018 (arXiv:1804.05936), equation 8, for labels of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kar_aug.layers._ops import ops

_LEAST = 1e-7  # of what a logarithm is taken
_HIDDEN = -1e30  # the score of what is not there


def bce(labels: Any, scores: Any) -> Any:
    """Pointwise binary cross-entropy of sigmoid(scores)."""
    there, clicked, scores = _parts(labels, scores)
    scores = scores * there
    each = ops.maximum(scores, 0.0) - scores * clicked + ops.log1p(ops.exp(-ops.abs(scores)))
    return ops.sum(each * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1.0)


def softmax(labels: Any, scores: Any) -> Any:
    """Listwise softmax cross-entropy."""
    there, clicked, scores = _parts(labels, scores)
    hidden = ops.where(there > 0, scores, _HIDDEN)
    logs = hidden - _log_sum(hidden)[:, None]
    return -ops.sum(ops.where(clicked > 0, logs, 0.0), axis=1) / ops.maximum(ops.sum(clicked, axis=1), 1.0)


def listmle(labels: Any, scores: Any) -> Any:
    """The negative log-likelihood of an order with the clicked first, over the places of these."""
    there, clicked, scores = _parts(labels, scores)
    size = int(labels.shape[1])
    best = ops.top_k(clicked + there, size)[1]  # of equals the first comes first
    there, clicked, scores = (ops.take_along(each, best) for each in (there, clicked, scores))
    places = ops.arange(size)
    behind = (places[None, :] >= places[:, None])[None] & (there[:, None] > 0)  # (batch, size, size)
    totals = _log_sum(ops.where(behind, scores[:, None], _HIDDEN))
    each = ops.where(clicked > 0, totals - scores, 0.0)
    return ops.sum(each, axis=1) / ops.maximum(ops.sum(clicked, axis=1), 1.0)


def attention_rank(labels: Any, scores: Any) -> Any:
    """Cross-entropy of the attention that scores give with the best one."""
    there, clicked, scores = _parts(labels, scores)
    given = ops.softmax(ops.where(there > 0, scores, _HIDDEN))
    clicks = ops.sum(clicked, axis=1)
    best = clicked / ops.maximum(clicks, 1.0)[:, None]
    each = best * ops.log(ops.maximum(given, _LEAST)) + (1 - best) * ops.log(ops.maximum(1 - given, _LEAST))
    return ops.where(clicks > 0, -ops.sum(each * there, axis=1), 0.0)


LOSSES: Mapping[str, Callable[[Any, Any], Any]] = {
    "bce": bce,
    "softmax": softmax,
    "listmle": listmle,
    "attention-rank": attention_rank,
}


def _parts(labels: Any, scores: Any) -> tuple[Any, Any, Any]:
    """Where there are items, where clicks, (batch, size) of 0 and 1, and the scores, in float32."""
    labels, scores = ops.cast(labels, "float32"), ops.cast(scores, "float32")
    return ops.cast(labels >= 0, "float32"), ops.cast(labels > 0, "float32"), scores


def _log_sum(values: Any) -> Any:
    """Log of the sum of exp over the last axis."""
    most = ops.stop_gradient(ops.max(values, axis=-1))
    return most + ops.log(ops.sum(ops.exp(values - most[..., None]), axis=-1))
