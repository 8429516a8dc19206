"""Vectors larger than memory: gathered for each batch by `tf.data`, off the training thread, so that the graph holds
no table.

Example:
    >>> joined = join(dataset, {"item_id": (items, item_vocabulary)})  # for an input "item_id_vectors" beside "item_id"
    >>> joined.element_spec[0]["item_id_vectors"].shape
    TensorShape([None, 1, 8])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.cache.vectors.versions import Versions
from kar_aug.cache.vectors.vocabulary import Vocabulary, rows_of
from kar_aug.errors import StoreError


def join(
    dataset: Any,
    sources: Mapping[str, tuple[Snapshot, Vocabulary]],
    *,
    dimension: int | None = None,
    times: str | Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    parallel: int = 1,
) -> Any:
    """`dataset` with the knowledge vectors of its ids.

    Args:
        dataset: a `tf.data.Dataset` of batches: dictionaries of inputs, alone or first in a tuple with labels.
        sources: id input -> its store, and its vocabulary: `vocabulary[i]` is the id that the model calls i.
        dimension: what the model expects of every vector, checked if given.
        times: the input that says when each row was, for stores of versions: a row gets the last version strictly
            before, and is unknown where there is none. One for all sources, or by source for those that have versions.
            Seconds since 1970 as int64 or float64, or texts in ISO 8601. The input stays among the others.
        versions: id input -> the version (`VectorStore.version`) of which the vectors must be: what the model learnt to
            read, `kar_aug.models.versions_of(model)`. Without it nothing tells vectors of another encoder from these.
        parallel: batches gathered at the same time.

    Returns:
        A dataset whose inputs have two more entries a source: `{name}_vectors`, the ids' shape + (dimension,), in the
        store's type, zeros where an id has no vector; and `{name}_known`, the ids' shape, whether it has one. Two
        batches are prepared ahead.

    Raises:
        StoreError: A store's dimension, or version, is not the expected one; it is not of versions, and times are
            given; or a vocabulary has ids of another kind than its store's, or none that has a vector.
        ValueError: The dataset has no such input, or one of ids that are no integers; or a source is no pair.
        MissingDependencyError: TensorFlow is not installed.
    """
    from kar_aug._helpers.keras import tf

    for name, source in sources.items():
        if not isinstance(source, tuple | list):
            raise ValueError(
                f"`sources` must say by which vocabulary the model counts ids: {{{name!r}: (store, vocabulary)}}, "
                f"where vocabulary[i] is the id that it calls i. Received: {type(source).__name__}"
            )
    for name, (store, _) in sources.items():
        expected = (versions or {}).get(name, store.version)
        if store.version != expected:
            raise StoreError(
                f"{store.path} holds vectors of version {store.version}, but the model learnt to read version "
                f"{expected} of {name}: another encoder's, or of other prompts or another language "
                "model. Train it with these.",
                path=store.path, source=name, left=expected, right=store.version,
            )  # fmt: skip
    time_of = dict.fromkeys(sources, times) if times is None or isinstance(times, str) else times
    gatherers = {
        name: (_Gatherer if time_of.get(name) is None else _VersionGatherer)(name, store, vocabulary, dimension)
        for name, (store, vocabulary) in sources.items()
    }

    _check_inputs(dataset.element_spec, sources, time_of)

    def joined(inputs: Any, *labels: Any) -> Any:
        inputs = dict(inputs)
        for name, gatherer in gatherers.items():
            ids = inputs[name]
            dtype = tf.as_dtype(gatherer.store.spec.dtype)
            read = [ids] if time_of.get(name) is None else [ids, inputs[time_of[name]]]
            vectors, known = tf.numpy_function(gatherer, read, [dtype, tf.bool], stateful=False)
            inputs[f"{name}_vectors"] = tf.ensure_shape(vectors, [*ids.shape, gatherer.store.spec.dimension])
            inputs[f"{name}_known"] = tf.ensure_shape(known, ids.shape)
        return (inputs, *labels) if labels else inputs

    return dataset.map(joined, num_parallel_calls=parallel).prefetch(2)


def _check_inputs(spec: Any, sources: Iterable[str], time_of: Mapping[str, str | None]) -> None:
    """Raise ValueError unless a dataset has the inputs that are read, and integers as ids."""
    inputs = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(inputs, Mapping):
        raise ValueError(f"`join` needs batches of inputs by name, dictionaries. Received: {inputs}")
    for name in [*sources, *(time for time in time_of.values() if time is not None)]:
        if name not in inputs:
            raise ValueError(f"The dataset has no input {name!r}. It has: {', '.join(inputs)}")
    for name in sources:
        if not inputs[name].dtype.is_integer:
            raise ValueError(
                f"The ids of {name!r} must be the model's integers, places in the vocabulary, but come as "
                f"{inputs[name].dtype.name}. Number them before: keras.layers.StringLookup, or a cast."
            )


class _Gatherer:
    """(ids of the model) -> vectors and whether there are any; holds eight bytes an id, and no vector."""

    def __init__(self, name: str, store: Snapshot, vocabulary: Vocabulary, dimension: int | None) -> None:
        if dimension is not None and store.spec.dimension != dimension:
            raise StoreError(
                f"{store.path} holds vectors of {store.spec.dimension} numbers, but the model expects {dimension} of "
                f"{name}. Encode with the encoder that the model was made for.",
                path=store.path, source=name, left=dimension, right=store.spec.dimension,
            )  # fmt: skip
        self.store = store
        self._prepare(vocabulary)

    def _prepare(self, vocabulary: Vocabulary) -> None:
        self._rows = rows_of(self.store, vocabulary)

    def __call__(self, ids: npt.NDArray[Any]) -> tuple[Any, Any]:
        inside = (ids >= 0) & (ids < len(self._rows))
        return self._vectors(np.where(inside, self._rows[np.where(inside, ids, 0)], -1).astype(np.int64))

    def _vectors(self, rows: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        distinct, place = np.unique(rows, return_inverse=True)
        vectors = self.store.vectors_at(distinct)[place.reshape(-1)]
        return vectors.reshape(*rows.shape, self.store.spec.dimension), rows >= 0


class _VersionGatherer(_Gatherer):
    """(ids of the model, their times) -> the same of the versions before."""

    def _prepare(self, vocabulary: Vocabulary) -> None:
        self._versions = Versions(self.store, vocabulary)

    def __call__(self, ids: npt.NDArray[Any], times: npt.NDArray[Any]) -> tuple[Any, Any]:  # type: ignore[override]
        return self._vectors(self._versions.rows(ids, times))
