"""What all runs of a comparison read: samples, knowledge, settings; and the fingerprints that say which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kar_aug._version import __version__
from kar_aug.cache import KnowledgeTable, VectorStore
from kar_aug.compare import controls
from kar_aug.compare.arms import BASE, Arm
from kar_aug.config import CompareConfig
from kar_aug.data.features import Samples
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import Workspace

# Settings that choose what is run, and change no run.
_CHOICES = (
    "backbones",
    "knowledge",
    "controls",
    "adaptors",
    "injections",
    "stores",
    "seeds",
    "vary_split",
    "tune",
    "jobs",
)


class Experiment:
    """Samples and knowledge by seed and arm, as one kar.toml says. Read when first asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._splits = {workspace.config.data.seed: workspace}
        self._stores: dict[tuple[str, str], VectorStore] = {}

    @property
    def config(self) -> CompareConfig:
        """[compare]."""
        return self.workspace.config.compare

    @property
    def folder(self) -> Path:
        """Where runs are kept."""
        return self.workspace.config.work / "runs"

    def samples(self, seed: int) -> Samples:
        """Rows and parts of a seed: the same ones for all unless `vary_split`."""
        return self._split(seed).samples

    def data_fingerprint(self, seed: int) -> str:
        """Of those samples."""
        return self._split(seed).data_fingerprint

    def _split(self, seed: int) -> Workspace:
        first = self.workspace.config.data.seed
        wanted = first + seed if self.config.vary_split else first
        if wanted not in self._splits:
            self._splits[wanted] = self.workspace.with_seed(wanted)
        return self._splits[wanted]

    def store(self, knowledge: str, source: str) -> VectorStore:
        """The vectors of one kind of knowledge of "user" or "item".

        Raises:
            StoreError: They are not there; the message says which command makes them.
        """
        if (knowledge, source) not in self._stores:
            if knowledge in self.config.stores:
                path = self.workspace.config.path(self.config.store_folders(knowledge)[source])
            elif knowledge == "metadata":
                path = self.workspace.metadata_path(source)
                if not path.exists():
                    raise StoreError(
                        f'{path}: metadata is not encoded yet. Run kar-aug encode with "metadata" among the controls.'
                    )
            else:
                path = self.workspace.store_path(source)
            self._stores[knowledge, source] = VectorStore.open(path)
        return self._stores[knowledge, source]

    def tables(self, arm: Arm, seed: int) -> dict[str, KnowledgeTable]:
        """What the layer of an arm looks up: id input -> vectors. Controls are drawn anew for each seed."""
        samples = self.samples(seed)
        found = {}
        for source in arm.sources:
            vocabulary = samples.vocabulary[source]
            table = self.store(arm.knowledge, source).align(vocabulary)
            if arm.knowledge == "shuffled":
                table = controls.shuffled(table, seed)
            elif arm.knowledge == "random":
                table = controls.random(table, seed)
            elif arm.knowledge == "metadata":
                table = controls.covering(table, self.store("both", source).align(vocabulary))
            found[f"{source}_id"] = table
        return found

    def knowledge_fingerprint(self, arm: Arm, imitated: Arm | None = None) -> dict[str, str]:
        """Per store that decides an arm's result, its fingerprint."""
        kinds = [arm.knowledge] + (["both"] if arm.knowledge == "metadata" else [])
        found = {f"{kind} {source}": self.store(kind, source).fingerprint for kind in kinds for source in arm.sources}
        if imitated is not None:  # whose size a bigger backbone has
            found |= {
                f"size of {source}": str(self.store("both", source).spec.dimension) for source in imitated.sources
            }
        return found

    def identity(self, arm: Arm, seed: int, settings: CompareConfig, imitated: Arm | None, *further: Any) -> str:
        """16 hex digits over all that decides a run's result, the code included."""
        training = {name: value for name, value in asdict(settings).items() if name not in _CHOICES}
        knowledge = self.knowledge_fingerprint(arm, imitated)
        if arm.knowledge in (BASE, "bigger"):  # no adaptor in it
            training = {name: v for name, v in training.items() if "expert" not in name or arm.knowledge == "bigger"}
        content = [
            asdict(arm),
            asdict(imitated) if imitated else None,
            seed,
            training,
            knowledge,
            self.data_fingerprint(seed),
            code_version(),
            *further,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_version() -> str:
    """The version, and 8 hex digits over the source of all that a run's result depends on: layers, backbones,
    training, metrics. Whoever changes one of them gets new runs."""
    digest = hashlib.sha256()
    for package, names in _CODE:
        spec = find_spec(package)  # importing them would import TensorFlow
        assert spec is not None and spec.submodule_search_locations
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in [folder / name for name in names] or sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


_CODE: Sequence[tuple[str, Sequence[str]]] = (
    ("kar_aug.layers", ()),
    ("kar_aug.backbones", ()),
    ("kar_aug.compare", ("controls.py", "experiment.py", "metrics.py", "models.py", "training.py")),
)
