"""What a trained model predicts where some users' knowledge vectors are others, all else being equal."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache import KnowledgeTable
from kar_aug.cache.vectors.index import EntityId
from kar_aug.compare.book import BOOK, Book, Run
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.exporting import sound_run
from kar_aug.compare.saved import restored
from kar_aug.compare.tasks import OnEvent
from kar_aug.compare.workers import do
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Predicted:
    """Click probabilities of all samples of some users: by the name of what was substituted, (samples,).

    Args:
        arm: the name of the model.
    """

    arm: str
    by_name: Mapping[str, npt.NDArray[np.float32]]


def predict_with(
    workspace: Workspace, backbone: str, users: Sequence[EntityId], vectors: Mapping[str, Array]
) -> Predicted:
    """Predict by the latest trained model of a backbone with the fullest knowledge.

    Args:
        vectors: name -> (users, dimension), as the user store has them.

    Raises:
        StoreError: `compare` trained none on this data and knowledge, or it knows nothing of users.
    """
    if workspace.config.compare.task != "ctr":
        raise StoreError('Models of lists predict no clicks: these are compared under task = "ctr".')
    experiment, run = sound_run(workspace, backbone, 0)
    if "user" not in run.arm.entities:
        raise StoreError(f"{run.arm.name} knows nothing of users.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.npz"
        task = Substituting(run, tuple(users), dict(vectors), path)
        do([task], experiment, Book(experiment.folder / BOOK), 1, lambda event: None)
        with np.load(path) as found:
            return Predicted(run.arm.name, {name: found[str(place)] for place, name in enumerate(vectors)})


@dataclass(frozen=True)
class Substituting:
    """The task: to predict with each of these vectors, and write what comes of it."""

    run: Run
    users: tuple[EntityId, ...]
    vectors: Mapping[str, Array]
    path: Path

    def wanted_keras(self) -> str:
        """That of the run."""
        return self.run.keras

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Build the model again; give it the vectors one after the other."""
        from kar_aug.compare.training import predict
        from kar_aug.models.change import refresh

        model, samples = restored(experiment, self.run), experiment.samples(self.run.seed)
        tables = experiment.tables(self.run.arm, self.run.seed)
        place = {id: number for number, id in enumerate(samples.vocabulary["user"])}
        places = np.array([place[user] for user in self.users])
        rows = np.flatnonzero(np.isin(samples.places["user"][samples.rows], places))
        found = {}
        for number, vectors in enumerate(self.vectors.values()):
            changed = refresh(model, {**tables, "user": _substituted(tables["user"], places, vectors)})
            found[str(number)] = predict(changed, samples, rows)
        np.savez(self.path, **found)  # type: ignore[arg-type]


def _substituted(table: KnowledgeTable, places: Array, vectors: Array) -> KnowledgeTable:
    """The table in which the ids at some places of the vocabulary have these vectors."""
    rows = table.rows.copy()
    rows[places] = len(table.vectors) + np.arange(len(places))
    both = np.concatenate([table.vectors, np.asarray(vectors, table.vectors.dtype)])
    return replace(table, vectors=both, rows=rows, store=None, fingerprint=None)
