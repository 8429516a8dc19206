"""A trained model of a comparison, written for serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kar_aug.compare.arms import Arm, arms, fullest
from kar_aug.compare.book import BOOK, Book, Run
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.tasks import OnEvent
from kar_aug.compare.workers import do
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace


def exported_model(workspace: Workspace, backbone: str, seed: int) -> tuple[Path, dict[str, Any]]:
    """The latest trained model of a backbone with the fullest knowledge, and its stores by id input.

    Raises:
        StoreError: `compare` trained none on this data and knowledge.
    """
    experiment = Experiment(workspace)
    arm, run = _latest(experiment, backbone, seed)
    return _file(experiment, run), _stores(experiment, arm)


def export_model(workspace: Workspace, backbone: str, seed: int, folder: Path) -> None:
    """Write that model as a SavedModel, in a process with the Keras that it was trained on if this one has another.

    Raises:
        StoreError: `compare` trained none on this data and knowledge.
    """
    experiment = Experiment(workspace)
    arm, run = _latest(experiment, backbone, seed)
    stores = {name: store.path for name, store in _stores(experiment, arm).items()}
    task = Exporting(arm, _file(experiment, run), stores, folder, run.keras)
    do([task], experiment, Book(experiment.folder / BOOK), 1, lambda event: None)


@dataclass(frozen=True)
class Exporting:
    """The task.

    Args:
        model: the file of the run.
        stores: id input -> the folder of the vectors that it was trained with.
        folder: what is written.
        keras: which Keras it was trained on.
    """

    arm: Arm
    model: Path
    stores: Mapping[str, Path]
    folder: Path
    keras: str

    def wanted_keras(self) -> str:
        """That of the run."""
        return self.keras

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Load the model, with whatever layers its backbone has of its own, and write it."""
        from kar_aug.cache import VectorStore
        from kar_aug.models import load_model
        from kar_aug.models.export import export
        from kar_aug.registry import BACKBONES, INJECTIONS

        for registry, name in ((BACKBONES, self.arm.backbone), (INJECTIONS, self.arm.injection)):
            registry.load(name)  # its layers are known to Keras from here on
        model = load_model(self.model, stores=self.stores)
        export(model, self.folder, {name: VectorStore.open(path) for name, path in self.stores.items()})


def _latest(experiment: Experiment, backbone: str, seed: int) -> tuple[Arm, Run]:
    arm = fullest(arms(experiment.config), backbone)
    if arm is None:
        raise StoreError('There is no arm with knowledge. Name some in kar.toml: [compare] knowledge = ["both"]')
    book = Book(experiment.folder / BOOK)
    run = book.latest(arm, seed, experiment.data_fingerprint(seed), experiment.knowledge_fingerprint(arm))
    if run is None or not _file(experiment, run).exists():
        raise StoreError(
            f"There is no trained {arm.name} with seed {seed} for this data and knowledge. Run: kar-aug compare"
        )
    return arm, run


def _file(experiment: Experiment, run: Run) -> Path:
    return experiment.folder / f"{run.identity}.keras"


def _stores(experiment: Experiment, arm: Arm) -> dict[str, Any]:
    return {f"{entity}_id": next(iter(experiment.stores(arm, entity).values())) for entity in arm.sources}
