"""Behaviour as vectors: what items have in common by who liked them, and nothing else.

The rival that every text must meet: used in the same place, is a text worth anything beside it?
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_ITERATIONS = 5


def collaborative_vectors(
    user: npt.NDArray[np.integer[Any]],
    item: npt.NDArray[np.integer[Any]],
    worth: npt.NDArray[np.floating[Any]],
    dimension: int = 64,
    seed: int = 0,
) -> npt.NDArray[np.float32]:
    """The truncated singular value decomposition of events: R = U S V', an item is its row of V sqrt(S).

    R holds what an event was worth less what the user's events are worth on average, so that items are alike which the
    same users liked better than others; or ones, where all events are worth the same. Singular vectors are those of
    Halko, Martinsson and Tropp (2011, arXiv:0909.4061), as scikit-learn has them.

    Args:
        user, item: places of an event, (events,) each.
        worth: its rating, say, (events,).
        dimension: numbers an item; fewer where there are not as many items or users.

    Returns:
        (1 + the highest place of an item, dimension); zeros for items without events.
    """
    from scipy.sparse import csr_matrix
    from sklearn.utils.extmath import randomized_svd

    events = np.bincount(user)
    centred = worth - (np.bincount(user, worth) / np.maximum(events, 1))[user]
    values = centred if np.abs(centred).max(initial=0.0) > 0 else np.ones(len(user))
    matrix = csr_matrix((values, (item, user)))
    wanted = min(dimension, *matrix.shape)
    vectors, strengths, _ = randomized_svd(matrix, wanted, n_iter=_ITERATIONS, random_state=seed)
    return np.asarray(vectors * np.sqrt(strengths), np.float32)
