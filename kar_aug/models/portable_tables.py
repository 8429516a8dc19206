"""What Keras's own layers of raw values look up or hold beside their weights, as other runtimes can have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kar_aug._helpers.keras import IS_KERAS_3, keras, tf
from kar_aug.layers.lookup import positions, sorted_keys
from kar_aug.models.find import knowledge_layers

_KINDS = (keras.layers.StringLookup, keras.layers.IntegerLookup)


@contextmanager
def tables_by_places(model: Any) -> Iterator[list[str]]:
    """Inside the block, look-ups in the model (StringLookup and IntegerLookup) are traced as searches in sorted tables
    in place of hash tables, and the numbers of a Normalization as constants: tensors would be asked for as inputs, as
    Keras 3's of a regulariser of activities, which no answer needs. A SavedModel has no such hash tables: TFLite knows
    none of integers.

    Yields:
        The texts that they know.
    """
    layers = [layer for layer in knowledge_layers(model, _KINDS) if getattr(layer, "lookup_table", None) is not None]
    former = [layer.lookup_table for layer in layers]
    sorted_tables = [_SortedTable(table) for table in former]
    changes: list[tuple[Any, str, Any, Any]] = []
    for layer, before, now in zip(layers, former, sorted_tables, strict=True):
        changes.append((layer, "lookup_table", before, now))
    for layer in knowledge_layers(model, (keras.layers.Normalization,)):
        for name in ("mean", "variance"):
            if (held := getattr(layer, name, None)) is not None:
                changes.append((layer, name, held, np.asarray(held)))
    if IS_KERAS_3:
        for layer in knowledge_layers(model, (keras.layers.Layer,)):
            if (regularizer := layer.activity_regularizer) is not None:
                changes.append((layer, "activity_regularizer", regularizer, None))
    for layer, name, _, now in changes:
        object.__setattr__(layer, name, now)  # Keras does not track it
    for layer, table in zip(layers, former, strict=True):
        object.__setattr__(layer, "_trackable_children", _children_but(layer, table))
    try:
        yield [text for table in sorted_tables for text in table.known if isinstance(text, str)]
    finally:
        for layer, name, before, _ in changes:
            object.__setattr__(layer, name, before)
        for layer in layers:
            object.__delattr__(layer, "_trackable_children")


def _children_but(layer: Any, table: Any) -> Callable[..., dict[str, Any]]:
    """What TensorFlow saves along with a layer, but for one."""
    children = layer._trackable_children  # of its class

    def without(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: child for name, child in children(*args, **kwargs).items() if child is not table}

    return without


class _SortedTable:
    """What a hash table says, by a search."""

    def __init__(self, table: Any) -> None:
        keys, values = (np.asarray(each) for each in table.export())
        self.known = [key.decode() if isinstance(key, bytes) else int(key) for key in keys]
        self._keys, order = sorted_keys(self.known)
        other = "\0 none of them" if table.key_dtype == tf.string else int(max(self.known, default=0)) + 1
        default = np.asarray(table.lookup(tf.constant([other], table.key_dtype)))
        self._values = np.concatenate([values[order], default])

    def lookup(self, keys: Any) -> Any:
        """As the table has it."""
        return tf.gather(tf.constant(self._values), positions(keys, len(self._keys), tf.constant(self._keys)))

    def size(self) -> Any:
        """How many it knows."""
        return tf.constant(len(self._keys), tf.int64)
