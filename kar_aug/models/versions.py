"""Whether vectors are of the version that a model learnt to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug._helpers.keras import first_argument, keras
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.errors import StoreError
from kar_aug.layers import GivenVectors, KnowledgeAugmentation, KnowledgeVectors, PrestoredAugmentation
from kar_aug.layers.given_vectors import VECTORS
from kar_aug.models.find import knowledge_layers
from kar_aug.models.graph import input_name

_OF_VECTORS = (KnowledgeAugmentation, PrestoredAugmentation, KnowledgeVectors, GivenVectors)


def learnt_by(layer: Any) -> dict[str, str]:
    """Source -> the version of its vectors (`VectorStore.version`) that a layer with knowledge learnt to read, as far
    as its file says.
    """
    return {name: store["version"] for name, store in layer.stores.items() if "version" in store}


def versions_of(model: Any) -> dict[str, str]:
    """Source -> the version of the vectors (`VectorStore.version`) that a model learnt to read, as far as it says; and
    the same of each input of ids that vectors come beside, for `join(dataset, sources, versions=versions_of(model))`.
    """
    found: dict[str, str] = {}
    for layer in knowledge_layers(model, _OF_VECTORS):
        learnt = learnt_by(layer)
        found |= learnt
        for node in layer._inbound_nodes if isinstance(layer, GivenVectors) else ():
            for name, tensor in first_argument(node).items():
                if name in learnt and isinstance(tensor._keras_history[0], keras.layers.InputLayer):
                    found[input_name(tensor).removesuffix(VECTORS)] = learnt[name]
    return found


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
