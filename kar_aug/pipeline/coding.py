"""A project's vectors as semantic ids: those of its knowledge, and of what knowledge is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.cache import VectorStore
from kar_aug.codes import CodesReport, SemanticIds, codes_folder, report
from kar_aug.codes.files import MANIFEST, CodesManifest
from kar_aug.errors import EncodingError, StoreError
from kar_aug.pipeline.watch import SILENT, Watch
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.code_features import codes_wanted
from kar_aug.registry import CONTROLS, reads_codes

if TYPE_CHECKING:
    from kar_aug.compare.controls import Control


@dataclass(frozen=True)
class CodedStore(Printed):
    """A vector store whose items all have codes now.

    Args:
        title: what it holds: "items", "metadata of items".
        new: how many items got theirs now.
        report: what the codes keep.
    """

    title: str
    codes: SemanticIds
    new: int
    report: CodesReport

    def __str__(self) -> str:
        return f"{self.title}: {len(self.codes):,} semantic ids in {self.codes.path}, {self.new:,} of them new"


@dataclass(frozen=True)
class Coded(Printed):
    """All of them."""

    stores: Sequence[CodedStore]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a level of a store."""
        return pd.concat([each.report.frame.assign(what=each.title) for each in self.stores], ignore_index=True)

    def __str__(self) -> str:
        return "\n".join(f"{each}\n{each.report}" for each in self.stores)


def make_codes(workspace: Workspace, watch: Watch = SILENT, *, anew: bool = False) -> Coded:
    """Give codes to all items of a project's vector stores that have none; those that have keep theirs.

    Args:
        anew: fit new codebooks, which moves all codes.

    Raises:
        StoreError: There are no vectors; or they are of another version than the codebooks, or [codes] says others.
        EncodingError: There are fewer vectors than codes a level.
    """
    stores = {title: VectorStore.open(path) for path, title in stores_to_code(workspace)}
    found = {title: store for title, store in stores.items() if not store.versioned}
    if not found:
        raise StoreError(f"{workspace.paths.store('item')}: there are no vectors. Make some with: kar-aug encode")
    for title, store in found.items():  # before any codes are made
        is_fitted = is_coded(store.path) and not anew
        if not is_fitted and len(store) < workspace.config.codes.size:
            raise EncodingError(
                f"There are {len(store):,} vectors of {title}, and [codes] size = {workspace.config.codes.size:,}: "
                "lower it, or leave them out ([compare] knowledge).",
                left=workspace.config.codes.size, right=len(store),
            )  # fmt: skip
    return Coded([_coded(workspace, title, store, watch, anew) for title, store in found.items()])


def is_coded(store: Path) -> bool:
    """Whether there are codes of the vectors in a folder."""
    return (codes_folder(store) / MANIFEST).exists()


def is_coded_as_it_is(store: Path) -> bool:
    """Whether the codes of a store are of what it holds now."""
    return CodesManifest.read(codes_folder(store)).fingerprint == VectorStore.open(store).fingerprint


def arms_read_codes(workspace: Workspace) -> bool:
    """Whether there are arms in which knowledge enters as codes."""
    return any(map(reads_codes, workspace.config.compare.injections))


def stores_to_code(workspace: Workspace) -> Iterator[tuple[Path, str]]:
    """The folders of stores that there are, of entities whose knowledge is compared, and of what it is compared with,
    and what they hold. Of items alone, where all models read their codes and no arm adds any.
    """
    compared, in_all_models = workspace.config.compare, codes_wanted(workspace.config.data)
    if in_all_models and not arms_read_codes(workspace):
        if workspace.paths.store("item").exists():
            yield workspace.paths.store("item"), "items"
        return
    wanted = [e for e in ENTITIES if {e, "both"} & {*compared.knowledge} or (in_all_models and e == "item")]
    for entity in wanted:
        if workspace.paths.store(entity).exists():
            yield workspace.paths.store(entity), f"{entity}s"
    for name in compared.controls:
        control = CONTROLS.load(name)()
        for entity in wanted if control.has_vectors else ():
            for path in _of_control(workspace, control, entity):
                yield path, f"{name} of {entity}s"
    for name in compared.stores:
        for entity, folder in compared.store_folders(name).items():
            yield workspace.config.path(folder), f"{name} of {entity}s"


def _of_control(workspace: Workspace, control: Control, entity: str) -> Iterator[Path]:
    """The stores of a control's own, of each split, where seeds have their own; none where they are not made yet."""
    compared, data = workspace.config.compare, workspace.config.data
    for seed in range(compared.seeds if compared.vary_split else 1):
        split = workspace if seed == 0 else workspace.with_seed(data.seed + seed)
        try:
            stores = control.stores(split, entity)
        except StoreError:
            return
        yield from (path for path in stores.values() if path.exists() and path != workspace.paths.store(entity))


def _coded(workspace: Workspace, title: str, store: VectorStore, watch: Watch, anew: bool) -> CodedStore:
    settings, folder = workspace.config.codes, codes_folder(store.path)
    asked = {"levels": settings.levels, "size": settings.size, "seed": settings.seed}
    done = 0
    with watch.bar(f"semantic ids of {title}", len(store)) as show:

        def count(items: int) -> None:
            nonlocal done
            done += items
            show(done, "")

        if anew or not is_coded(store.path):
            before, codes = 0, SemanticIds.make(store, folder, on_progress=count, **asked)
        else:
            known = SemanticIds.open(folder)
            made = {name: getattr(known.manifest, name) for name in asked}
            if made != asked:
                raise StoreError(
                    f"The codes in {folder} were made with {_words(made)}, and [codes] says {_words(asked)}. Set "
                    "it back, or make new ones, which moves all: kar-aug codes --anew",
                    path=folder, left=made, right=asked,
                )  # fmt: skip
            before, codes = len(known), known.update(store, count)
    coded = CodedStore(title, codes, len(codes) - before, report(codes, store))
    watch.result(str(coded))
    return coded


def _words(settings: dict[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in settings.items())
