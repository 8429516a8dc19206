"""The strongest control: what a prompt shows of an entity, without any language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kar_aug.cache import Knowledge, KnowledgeTable
from kar_aug.compare.controls import Control
from kar_aug.errors import StoreError

if TYPE_CHECKING:
    from kar_aug.pipeline.workspace import Workspace


class Metadata(Control):
    """The fields that a prompt shows, through the same encoder; of no id that the knowledge does not cover too."""

    words = "metadata text"
    is_text = True
    needs_encoding = True
    in_versions = True

    def folder(self, workspace: Workspace, entity: str) -> Path:
        return workspace.metadata_path(entity)

    def texts(self, workspace: Workspace, entity: str) -> Iterator[Knowledge]:
        return workspace.asking.metadata(entity)

    def stores(self, workspace: Workspace, entity: str) -> dict[str, Path]:
        path = self.folder(workspace, entity)
        if not path.exists():
            raise StoreError(
                f'{path}: metadata is not encoded yet. Run kar-aug encode with "metadata" among the controls.'
            )
        return {"metadata": path, **super().stores(workspace, entity)}

    def table(self, tables: Mapping[str, KnowledgeTable], seed: int) -> KnowledgeTable:
        metadata, knowledge = tables["metadata"], tables["knowledge"]
        return replace(metadata, rows=np.where(knowledge.rows >= 0, metadata.rows, -1).astype(np.int32))
