"""What all runs of a comparison read: samples, knowledge, settings; and the fingerprints that say which."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._version import __version__
from kar_aug.cache import KnowledgeTable, VectorStore
from kar_aug.codes import SemanticIds
from kar_aug.compare.arms import Arm
from kar_aug.compare.objectives import Objective, objective
from kar_aug.compare.versions import GivenVersions
from kar_aug.config import CompareConfig, TrainingConfig
from kar_aug.data.samples import Samples
from kar_aug.pipeline.workspace import Workspace
from kar_aug.registry import ADAPTORS, CONTROLS, INJECTIONS, backbones_with

# Raised by whoever changes what a training comes to: its numbers are of another kind then, and runs of before are not
# reused. A test trains a few arms and compares them with what they came to when this was last raised.
RESULTS_VERSION = 3


class Experiment:
    """Samples and knowledge by seed and arm, as one kar.toml says. Read when first asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._splits = {workspace.config.data.seed: workspace}
        self._stores: dict[Path, VectorStore] = {}
        self._given: dict[tuple[Any, ...], GivenVersions] = {}
        self._codes: dict[Path, SemanticIds] = {}

    @property
    def config(self) -> CompareConfig:
        """[compare]."""
        return self.workspace.config.compare

    @cached_property
    def objective(self) -> Objective:
        """What models are trained for and judged by."""
        return objective(self.workspace.config)

    @cached_property
    def training(self) -> TrainingConfig:
        """How an arm is trained, unless it is tuned; with the batch that fits the rows, or lists, of the first seed."""
        return self.config.training.fitted(len(self.objective.read(self.samples(0)).of("train")))

    @property
    def folder(self) -> Path:
        """Where runs are kept."""
        return self.workspace.config.work / "runs"

    def samples(self, seed: int) -> Samples:
        """Rows and parts of a seed: the same ones for all unless `vary_split`."""
        return self._split(seed).samples

    def split(self, seed: int) -> pd.DataFrame:
        """The split that those samples are of."""
        return self._split(seed).data.split

    def samples_of(self, arm: Arm, seed: int) -> Samples:
        """The same as an arm reads them: with numbers of versions for keys, where what it knows has such."""
        samples = self.samples(seed)
        for entity in arm.entities:
            given = self.given(arm, entity, seed)
            samples = samples if given is None else given.samples
        return samples

    def data_fingerprint(self, seed: int) -> str:
        """Of those samples."""
        return self._split(seed).data_fingerprint

    def _split(self, seed: int) -> Workspace:
        first = self.workspace.config.data.seed
        wanted = first + seed if self.config.vary_split else first
        if wanted not in self._splits:
            self._splits[wanted] = self.workspace.with_seed(wanted)
        return self._splits[wanted]

    def stores(self, arm: Arm, entity: str, seed: int = 0) -> dict[str, VectorStore]:
        """The vector stores that decide what an arm knows of "user" or "item", by names of its own; the first is the
        one whose vectors it has.

        Raises:
            StoreError: They are not there; the message says which command makes them.
        """
        return {name: self._open(path) for name, path in arm.addition.stores(self._split(seed), entity).items()}

    def store(self, arm: Arm, entity: str) -> VectorStore:
        """The one whose vectors it has."""
        return next(iter(self.stores(arm, entity).values()))

    def _open(self, path: Path) -> VectorStore:
        if path not in self._stores:
            self._stores[path] = VectorStore.open(path)
        return self._stores[path]

    def check_vectors(self) -> None:
        """Compare the stores that were opened so far, and their codes, with their checksums, unless [compare] says not
        to.

        Raises:
            StoreError: One is damaged; the message names the file.
        """
        if self.config.check_vectors:
            for store in self._stores.values():
                store.verify()
            for codes in self._codes.values():
                codes.verify()

    def tables(self, arm: Arm, seed: int) -> dict[str, KnowledgeTable]:
        """What the layer of an arm looks up: source -> vectors. Controls are drawn anew for each seed.

        What stands beside the vectors of items is a source of its own, "item.collaborative" (see `protocol.key_of`).
        """
        found = {entity: self._table(arm, entity, seed, self.given(arm, entity, seed)) for entity in arm.entities}
        if arm.beside:
            given = self.given(arm, "item", seed)
            found[f"item.{arm.beside}"] = self._table(arm.companion, "item", seed, given)
        return found

    def served_tables(self, arm: Arm, seed: int) -> dict[str, KnowledgeTable] | None:
        """What a layer of an arm with versions is to look up where it is served: the last of each id, by its place in
        the vocabulary. None where there are no versions.
        """
        if all(self.given(arm, entity, seed) is None for entity in arm.entities):
            return None
        last = {entity: self._last(arm, entity, seed) for entity in arm.entities}
        if arm.beside:
            last[f"item.{arm.beside}"] = self._last(arm.companion, "item", seed)
        return last

    def given(self, arm: Arm, entity: str, seed: int) -> GivenVersions | None:
        """Which version each sample is given of an entity; None where what an arm knows of it has none."""
        stores = self.stores(arm, entity, seed)
        if arm.beside and entity == "item":  # which is looked up by the same numbers
            stores |= self.stores(arm.companion, entity, seed)
        if not any(store.versioned for store in stores.values()):
            return None
        key = (seed, entity, *stores, *(store.path for store in stores.values()))
        if key not in self._given:
            self._given[key] = GivenVersions(self.samples(seed), entity, stores)
        return self._given[key]

    def _table(self, arm: Arm, entity: str, seed: int, given: GivenVersions | None) -> KnowledgeTable:
        if given is None:
            return self._last(arm, entity, seed)
        return arm.addition.table({name: given.tables[name] for name in self.stores(arm, entity, seed)}, seed)

    def _last(self, arm: Arm, entity: str, seed: int) -> KnowledgeTable:
        ids = self.samples(seed).vocabulary[entity]
        tables = {name: store.align(ids) for name, store in self.stores(arm, entity, seed).items()}
        for name, codes in self.codes(arm, entity, seed).items():
            tables[name] = codes.attach(tables[name], ids)
        return arm.addition.table(tables, seed)

    def codes(self, arm: Arm, entity: str, seed: int = 0) -> dict[str, SemanticIds]:
        """The semantic ids of its stores, by the same names; none of an arm that reads none.

        Raises:
            StoreError: They are not there, or of an earlier state of the store.
        """
        stores = self.stores(arm, entity, seed) if arm.reads_codes else {}
        for store in stores.values():
            if store.path not in self._codes:
                self._codes[store.path] = SemanticIds.of(store)
        return {name: self._codes[store.path] for name, store in stores.items()}

    def knowledge_fingerprint(self, arm: Arm, imitated: Arm | None = None) -> dict[str, str]:
        """Per store that decides an arm's result, its fingerprint, and that of its codes where these are read; of an
        arm that another is made after, the size.
        """
        found = {
            f"{name} {entity}": store.fingerprint
            for entity in arm.entities
            for name, store in self.stores(arm, entity).items()
        }
        found |= {
            f"codes of {name} {entity}": codes.fingerprint
            for entity in arm.entities
            for name, codes in self.codes(arm, entity).items()
        }
        if arm.beside:
            found |= self.knowledge_fingerprint(arm.companion)
        if imitated is None:
            return found
        sizes = {entity: self.store(imitated, entity).spec.dimension for entity in imitated.entities}
        return {**found, **{f"size of {entity}": str(size) for entity, size in sizes.items()}}

    def identity(self, arm: Arm, seed: int, settings: TrainingConfig, imitated: Arm | None, *further: Any) -> str:
        """16 hex digits over all that decides a run's result, whatever others have written for it included."""
        training = asdict(settings)
        if not arm.entities and imitated is None:  # no adaptor in it
            training = {name: value for name, value in training.items() if "expert" not in name}
        content = [
            _as_dict(arm),
            _as_dict(imitated) if imitated else None,
            seed,
            training,
            self.knowledge_fingerprint(arm, imitated),
            self.data_fingerprint(seed),
            RESULTS_VERSION,
            _code_of_others(arm),
            *self.objective.identity,
            *further,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _as_dict(arm: Arm) -> dict[str, Any]:
    return {name: value for name, value in asdict(arm).items() if value or name != "beside"}


def code_version() -> str:
    """What a report says of the code that its results come from."""
    return f"{__version__}, results {RESULTS_VERSION}"


def _code_of_others(arm: Arm) -> dict[str, str]:
    """The files that an arm's names lead to outside of kar-aug, which no `RESULTS_VERSION` watches."""
    kinds = (
        (backbones_with(arm.backbone), arm.backbone),
        (CONTROLS, arm.knowledge),
        (CONTROLS, arm.beside),
        (INJECTIONS, arm.injection),
        (ADAPTORS, arm.adaptor),
    )
    return {name: digest for registry, name in kinds if (digest := registry.fingerprint(name))}
