"""Is it what the behaviour of others says anyway? Items as those see them who rated them, and no text at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kar_aug.compare.controls import Control
from kar_aug.errors import StoreError
from kar_aug.pipeline.workspace import collaborative

if TYPE_CHECKING:
    from kar_aug.pipeline.workspace import Workspace


class Collaborative(Control):
    """Singular vectors of the training part's events, of items: for themselves, and beside the vectors of texts."""

    words = "collaborative vectors"
    entities = ("item",)
    stands_beside = True

    def stores(self, workspace: Workspace, entity: str) -> dict[str, Path]:
        path = collaborative.folder(workspace)
        if not path.exists():
            raise StoreError(f"{path}: no collaborative vectors of these data. Run: kar-aug encode --collaborative")
        return {"collaborative": path}
