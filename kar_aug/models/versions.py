"""Whether vectors are of the version that a model learnt to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug.cache.vectors.store import VectorStore
from kar_aug.errors import StoreError


def learnt_by(layer: Any) -> dict[str, str]:
    """Source -> the version of its vectors (`VectorStore.version`) that a layer with knowledge learnt to read, as far
    as its file says.
    """
    return {name: store["version"] for name, store in layer.stores.items() if "version" in store}


def check_versions(layer: Any, tables: Mapping[str, Any]) -> None:
    """Raise StoreError if a table, or a store, is of another version than its source learnt, as far as both say."""
    for name, learnt in learnt_by(layer).items():
        table = tables.get(name)
        now = table.version if isinstance(table, VectorStore) else getattr(table, "version", None)
        if now is not None and learnt != now:
            raise StoreError(
                f"The model was trained with vectors of {name!r} of version {learnt}, and these are of "
                f"version {now}: another encoder's, or of other prompts or another language model. Train it with "
                "them, or say any_version=True.",
                source=name, left=learnt, right=now,
            )  # fmt: skip
