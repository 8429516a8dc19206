"""A trained model of a comparison, written for serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kar_aug._helpers.formats import SAVED_MODEL
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.compare.arms import Arm, arms, fullest
from kar_aug.compare.book import BOOK, Book, Run
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.saved import experts_of, file_of, is_kept, restored
from kar_aug.compare.tasks import OnEvent
from kar_aug.compare.workers import do
from kar_aug.data.lists import Lists
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace


def trained_model(workspace: Workspace, backbone: str, seed: int) -> tuple[Path, dict[str, Any]]:
    """The latest trained model of a backbone with the fullest knowledge, and its stores by source.

    Raises:
        StoreError: `compare` trained none on this data and knowledge.
    """
    experiment = Experiment(workspace)
    arm = _fullest(experiment, backbone)
    _, path = _latest(experiment, arm, seed)
    return path, _stores(experiment, arm)


def export_model(
    workspace: Workspace, backbone: str, seed: int, folder: Path, arm: str | None = None, kind: str = SAVED_MODEL
) -> None:
    """Write that model as a SavedModel, or in another format, fed with raw ids and raw values, in a process with the
    Keras that it was trained on if this one has another.

    Args:
        arm: another one, by its name in the tables of results: the plain backbone, or one with knowledge.
        kind: one of `kar_aug._helpers.formats.FORMATS`.

    Raises:
        StoreError: `compare` trained none on this data and knowledge, or this is damaged.
    """
    experiment, run = sound_run(workspace, backbone, seed, arm)
    do([Exporting(run, folder, kind)], experiment, Book(experiment.folder / BOOK), 1, lambda event: None)


@dataclass(frozen=True)
class Exporting:
    """The task: to write the model of a run into a folder."""

    run: Run
    folder: Path
    kind: str = SAVED_MODEL

    def wanted_keras(self) -> str:
        """That of the run."""
        return self.run.keras

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Build it again, and write it with all that makes its inputs of raw columns."""
        from kar_aug.compare.models import input_names
        from kar_aug.models.change import refresh
        from kar_aug.models.export import export
        from kar_aug.models.preprocessing import Preprocessing

        model, samples = restored(experiment, self.run), experiment.samples(self.run.seed)
        served = experiment.served_tables(self.run.arm, self.run.seed)
        model = model if served is None else refresh(model, served)
        read = experiment.objective.read(samples)
        lists = read if isinstance(read, Lists) else None
        preprocessing = Preprocessing(samples, input_names(model), experiment.workspace.data.inputs, lists)
        stores = _stores(experiment, self.run.arm)
        export(model, self.folder, stores, preprocessing=preprocessing, format=self.kind)


def augmented_vectors(
    workspace: Workspace, backbone: str, seed: int, entity: str, arm: str | None = None
) -> VectorStore:
    """The augmented vectors by the experts of that model, of all users or items that have knowledge.

    Where there is no model for this data and knowledge, it is the latest for other ones: experts read the vectors of
    whoever came after the training, as long as these are of the version that they learnt to read.

    Raises:
        StoreError: `compare` trained none, or none that read vectors of this version; or it has no experts of this
            entity.
    """
    experiment = Experiment(workspace)
    chosen = _chosen(experiment, backbone, arm, entity)
    run, is_of_now = _trained_ever(experiment, chosen, seed)
    if entity in chosen.entities:
        experiment.store(chosen, entity)
    experiment.check_vectors()
    folder = workspace.config.work / "vectors" / "augmented" / f"{run.identity}-{entity}"
    task = Augmenting(run, entity, folder, is_of_now)
    do([task], experiment, Book(experiment.folder / BOOK), 1, lambda event: None)
    return VectorStore.open(folder)


@dataclass(frozen=True)
class Augmenting:
    """The task: to bring the augmented vectors of a run up to date.

    Args:
        is_of_now: whether the run is one on this data and knowledge, so that its model can be built again.
    """

    run: Run
    entity: str
    folder: Path
    is_of_now: bool = True

    def wanted_keras(self) -> str:
        """That of the run."""
        return self.run.keras

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Send all knowledge through the experts of the model."""
        from kar_aug.layers import KnowledgeAugmentation
        from kar_aug.models.augmented import augmented_store
        from kar_aug.models.find import knowledge_layers

        arm = self.run.arm
        model = restored(experiment, self.run) if self.is_of_now else experts_of(experiment, self.run)
        layers = knowledge_layers(model, (KnowledgeAugmentation,))
        layer = next((layer for layer in layers if self.entity in layer.sources), None)
        if layer is None or self.entity not in arm.entities:
            raise StoreError(
                f"{arm.name} has no experts for knowledge of {self.entity}s, and so no augmented vectors. "
                "Name another arm, or export the knowledge vectors themselves (raw)."
            )
        store = experiment.store(arm, self.entity)
        if not self.is_of_now:
            _check_version(layer, self.entity, store, arm)
        augmented_store(layer, self.entity, store, self.folder)


def _check_version(layer: Any, entity: str, store: VectorStore, arm: Arm) -> None:
    """Raise StoreError unless the experts were trained with vectors of the version that a store has now."""
    learnt = layer.stores.get(entity, {}).get("version")
    if learnt != store.version:
        raise StoreError(
            f"The latest {arm.name} was trained with vectors of "
            + (f"version {learnt}" if learnt else "a version that its file does not say")
            + f", and {store.path} has version {store.version} now, which its experts cannot read. "
            "Run: kar-aug compare",
            path=store.path, left=learnt, right=store.version,
        )  # fmt: skip


def sound_run(workspace: Workspace, backbone: str, seed: int, arm: str | None = None) -> tuple[Experiment, Run]:
    """The latest run of an arm by its name, or of a backbone with the fullest knowledge; its vectors are sound."""
    experiment = Experiment(workspace)
    run, _ = _latest(experiment, _chosen(experiment, backbone, arm), seed)
    experiment.check_vectors()
    return experiment, run


def _chosen(experiment: Experiment, backbone: str, arm: str | None, entity: str | None = None) -> Arm:
    return _fullest(experiment, backbone, entity) if arm is None else _named(experiment, arm)


def _named(experiment: Experiment, name: str) -> Arm:
    kept = {arm.name: arm for arm in arms(experiment.config) if is_kept(arm)}
    if name not in kept:
        raise StoreError(f"There is no arm {name!r} to export. There are: {', '.join(map(repr, kept))}")
    return kept[name]


def _fullest(experiment: Experiment, backbone: str, entity: str | None = None) -> Arm:
    arm = fullest(arms(experiment.config), backbone, entity)
    if arm is None:
        raise StoreError('There is no arm with knowledge. Name some in kar.toml: [compare] knowledge = ["both"]')
    return arm


def _latest(experiment: Experiment, arm: Arm, seed: int) -> tuple[Run, Path]:
    book = Book(experiment.folder / BOOK)
    run = book.latest(arm, seed, experiment.data_fingerprint(seed), experiment.knowledge_fingerprint(arm))
    path = None if run is None else file_of(experiment.folder, run.identity)
    if run is None or path is None:
        raise StoreError(
            f"There is no trained {arm.name} with seed {seed} for this data and knowledge. Run: kar-aug compare"
        )
    return run, path


def _trained_ever(experiment: Experiment, arm: Arm, seed: int) -> tuple[Run, bool]:
    """The latest run of an arm on this data and knowledge, or else on any; and whether it is the former."""
    try:
        return _latest(experiment, arm, seed)[0], True
    except StoreError:
        run = Book(experiment.folder / BOOK).newest(arm, seed)
        if run is None or file_of(experiment.folder, run.identity) is None:
            raise
        return run, False


def _stores(experiment: Experiment, arm: Arm) -> dict[str, Any]:
    stores = {entity: experiment.store(arm, entity) for entity in arm.entities}
    return {**stores, **({f"item.{arm.beside}": experiment.store(arm.companion, "item")} if arm.beside else {})}
