"""How much is known of the ids that a model reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras, tensors_read
from kar_aug.errors import StoreError
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.layers.lookup import keys_of
from kar_aug.models.vectors_as_inputs import read_by


def known_of(model: Any, augmentation: KnowledgeAugmentation) -> dict[str, str]:
    """Source -> of how many ids it knows something, in words. A store that is looked up by its own ids knows something
    of all of them, which says nothing of the model's: of these, the model may say itself what it looks up, too.

    Args:
        model: before the knowledge came to it.
        augmentation: called on the model's inputs.

    Raises:
        StoreError: Nothing is known of what the model looks up.
    """
    said = {name: f"{share:.1%} of its ids" for name, share in augmentation.coverage.items()}
    for source, keys in augmentation.keys().items():
        said[source] = f"{len(keys):,} raw ids"
        for layer in _looking_up(model, augmentation, source):
            known = np.asarray(layer.get_vocabulary(include_special_tokens=False)).tolist()
            share = float(np.isin(keys_of(known), keys).mean()) if known else 1.0
            if not share:
                store = augmentation.stores.get(source, {}).get("store", "the source")
                raise StoreError(
                    f"None of the {len(known):,} ids that layer {layer.name!r} of the model knows "
                    f"({', '.join(map(repr, known[:3]))} ...) has a vector of {source!r} in {store}. Is it the store "
                    "of these, written as the model reads them?",
                    path=store, source=source, entity_id=known[0],
                )  # fmt: skip
            said[source] = f"{share:.1%} of the ids that layer {layer.name!r} knows"
    return said


def _looking_up(model: Any, augmentation: Any, source: str) -> Iterator[Any]:
    """The layers of a model that look the very ids of a source up in a vocabulary."""
    ids = {id(given) for node in augmentation._inbound_nodes for name, given in read_by(node) if name == source}
    for layer in model.layers:
        if isinstance(layer, keras.layers.StringLookup | keras.layers.IntegerLookup) and any(
            id(tensor) in ids for node in layer._inbound_nodes for tensor in tensors_read(node)
        ):
            yield layer
