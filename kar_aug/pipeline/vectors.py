"""A project's vectors for systems that serve: brought to a place, and compared with what is there."""

from __future__ import annotations

from pathlib import Path

from kar_aug._helpers.tensorflow import choose_keras
from kar_aug.cache import VectorStore
from kar_aug.errors import ConfigError
from kar_aug.online import Checked, Published, Rows, check, publish
from kar_aug.online.publishing import open_place
from kar_aug.pipeline.comparing import with_what_is_known
from kar_aug.pipeline.workspace import Workspace
from kar_aug.pipeline.workspace.passed_on import VECTORS, note


def export_vectors(
    workspace: Workspace, entity: str, where: Path | str, *, augmented_by: tuple[str, int, str | None] | None,
    kind: str | None = None, whole: bool = False,
) -> Published:  # fmt: skip
    """Bring a place up to date with the vectors of users, or items.

    Args:
        augmented_by: the backbone, seed and arm whose experts' vectors these are; None for the knowledge vectors as
            they were encoded.

    Raises:
        ConfigError: It is no place for vectors.
        StoreError: There are no vectors, or the place cannot be read or written.
    """
    open_place(str(where), f"{entity}_id", kind)  # or what is wrong with it, before anything is made for it
    rows = Rows(_store(workspace, entity, augmented_by), entity)
    note(workspace.config.work, VECTORS, where, entity=entity, kind=kind)  # before: a write that is killed leaves some
    return publish(rows, str(where), kind, whole=whole)


def check_vectors(
    workspace: Workspace, entity: str, where: Path | str, *, augmented_by: tuple[str, int, str | None] | None,
    kind: str | None = None,
) -> Checked:  # fmt: skip
    """Compare a place with them, number by number; see `export_vectors`."""
    open_place(str(where), f"{entity}_id", kind)
    return check(Rows(_store(workspace, entity, augmented_by), entity), str(where), kind)


def _store(workspace: Workspace, entity: str, augmented_by: tuple[str, int, str | None] | None) -> VectorStore:
    if augmented_by is None:
        return VectorStore.open(workspace.paths.store(entity))
    backbone, seed, arm = augmented_by
    if arm is None and backbone not in workspace.config.compare.backbones:
        raise ConfigError(f"{backbone!r} is not among [compare] backbones.")
    choose_keras()  # before anything imports it
    from kar_aug.compare.exporting import augmented_vectors

    workspace = with_what_is_known(workspace)
    return augmented_vectors(workspace, backbone, seed, entity, arm)
