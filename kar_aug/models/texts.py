"""The texts by which a model looks vectors up: for runtimes that know no hash, while layers keep hashes alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from kar_aug._helpers.keras import dtype_name, first_argument, nest
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.codes import SemanticIds
from kar_aug.errors import StoreError
from kar_aug.layers import KnowledgeCodes, KnowledgeVectors, PrestoredAugmentation
from kar_aug.layers.ids import STRINGS
from kar_aug.layers.lookup import keys_of
from kar_aug.layers.new_ids import NO_KEY
from kar_aug.models.find import knowledge_layers


def texts_of(model: Any, stores: Mapping[str, VectorStore]) -> list[str]:
    """All of a model whose knowledge is in tables: as their stores have them, and what `update` added.

    Args:
        stores: source -> its store, by default that which the model says. Of codes, that has the texts as well.

    Raises:
        StoreError: No store is found that has all ids which the model knows.
    """
    texts: list[str] = []
    for layer in knowledge_layers(model, (PrestoredAugmentation, KnowledgeVectors, KnowledgeCodes)):
        for name, keys in layer.keys().items():
            kind = layer.kinds.get(name)
            if kind == STRINGS or (kind is None and _reads_texts(layer, name)):
                own = [*_of_store(layer, name, stores), *layer.added_texts.get(name, ())]
                _check_complete(layer, name, keys[keys != NO_KEY], own)
                texts.extend(own)
    return texts


def _of_store(layer: Any, name: str, stores: Mapping[str, VectorStore]) -> list[str]:
    """Those that a store has; none where it is nowhere to be found."""
    found: list[VectorStore | SemanticIds] = [stores[name]] if name in stores else []
    place, of_codes = layer.stores.get(name, {}).get("store"), isinstance(layer, KnowledgeCodes)
    if place is not None and (of_codes or not found):
        with suppress(StoreError):
            found.append(SemanticIds.open(place) if of_codes else VectorStore.open(place))
    return [id for each in found for id in each.ids if isinstance(id, str)]


def _reads_texts(layer: Any, name: str) -> bool:
    """Whether a source's ids come as texts: of a layer of version 0.1, whose file does not say it."""
    given = [first_argument(node) for node in layer._inbound_nodes]
    ids = nest.flatten([each[name] if isinstance(each, Mapping) and name in each else each for each in given])
    return any(dtype_name(tensor.dtype) == "string" for tensor in ids)


def _check_complete(layer: Any, name: str, keys: Any, texts: list[str]) -> None:
    unknown = int((~np.isin(keys, keys_of(texts))).sum())
    if unknown:
        raise StoreError(
            f"Layer {layer.name!r} knows {unknown:,} of the {len(keys):,} texts of {name!r} by their hashes alone, and "
            f"a file that is read without TensorFlow needs the texts. Give `export` the store that has them: "
            f"stores={{{name!r}: VectorStore.open(...)}}; or bring the model up to date, if they are in none any more: "
            f"refresh(model, {{{name!r}: store}}).",
            source=name, left=len(keys), right=unknown,
        )  # fmt: skip
