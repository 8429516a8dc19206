"""The collaborative vectors of a project's items: a store like any other, made of the training part's events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug.cache import StoreSpec, VectorStore
from kar_aug.data.split import in_training
from kar_aug.encode.collaborative import collaborative_vectors

if TYPE_CHECKING:
    from kar_aug.pipeline.workspace import Workspace

_DIMENSION = 64


def folder(workspace: Workspace) -> Path:
    """Where the vectors of the present data lie; those of other data, or of another split, lie elsewhere."""
    return workspace.config.work / "vectors" / f"collaborative-item-{workspace.data_fingerprint}"


def make(workspace: Workspace) -> VectorStore:
    """Make them, if they are not there: of all events of the training part, and of what came before it."""
    path = folder(workspace)
    if not path.exists():
        samples, split = workspace.samples, workspace.data.split
        rows = in_training(split)
        if "drawn" in split:
            rows &= ~split["drawn"].to_numpy(bool)
        item = samples.places["item"][rows]
        vectors = collaborative_vectors(samples.places["user"][rows], item, _worth(split[rows]), _DIMENSION)
        known = np.unique(item)
        spec = StoreSpec("singular vectors of training events", vectors.shape[1], dtype="float32")
        with VectorStore.writer(path, spec) as writer:
            ids: list[Any] = [samples.vocabulary["item"][place] for place in known]
            writer.append(ids, [workspace.data_fingerprint] * len(known), vectors[known])
    return VectorStore.open(path)


def _worth(events: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Ratings, or labels where there are none; what is missing counts as the mean."""
    values = events["rating" if "rating" in events else "label"].astype("float64")
    return np.asarray(values.fillna(values.mean()).fillna(0.0), np.float64)
