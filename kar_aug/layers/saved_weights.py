"""What a .keras or .weights.h5 file has of a layer's own weights, on whatever Keras 3 ran where it was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import IS_KERAS_3
from kar_aug.layers.lookup import checked_keys
from kar_aug.layers.new_ids import NO_KEY


def weights_for(layer: Any, store: Any, keys: Sequence[Any] = ()) -> Any:
    """A file's weights as a layer's `load_own_variables` expects them here.

    On TensorFlow a layer counts the weights of the layers within it as its own (`track_weights`), on JAX and torch it
    does not; these layers load theirs themselves, too. And on JAX integers may have 32 bits.

    Args:
        store: as `load_own_variables` is given it: numbers from "0" on -> arrays.
        keys: those of the weights that are keys of raw ids, of which the largest number marks a free row.

    Raises:
        StoreError: A key does not fit.
    """
    if not IS_KERAS_3:
        return store
    inner = {id(weight) for each in layer._flatten_layers(include_self=False) for weight in each.weights}
    trainable, others = layer._trainable_variables, layer._non_trainable_variables
    saved = _saved(layer, store, inner)
    if saved is None:
        return store  # which Keras refuses in its own words
    weights: list[Any] = []
    for weight in (*trainable, *others):
        if id(weight) in inner:
            weights.append(weight)  # as it is: it is loaded by the layer whose it is
        else:
            value = saved.pop(0)
            weights.append(_as_own(np.asarray(value)) if any(weight is each for each in keys) else value)
    return {str(place): weight for place, weight in enumerate(weights)}


def _saved(layer: Any, store: Any, inner: set[int]) -> list[Any] | None:
    """The weights in a file that are the layer's alone, in their order; None if there are too many, or too few."""
    own = [
        [w for w in some if id(w) not in inner] for some in (layer._trainable_variables, layer._non_trainable_variables)
    ]
    within = {id(w): w for each in layer._flatten_layers(include_self=False) for w in each._trainable_variables}
    count = len(store.keys())
    names = [str(place) for place in range(count)]
    if count == len(own[0]) + len(own[1]) + len(inner):
        names = names[: len(own[0])] + names[len(own[0]) + len(within) :][: len(own[1])]
    return [store[name] for name in names] if len(names) == len(own[0]) + len(own[1]) else None


def _as_own(keys: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    free = keys == np.iinfo(keys.dtype).max
    return np.where(free, NO_KEY, checked_keys(np.where(free, 0, keys).astype(np.int64)))
