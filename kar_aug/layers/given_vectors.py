"""Vectors that come with each row, in the place of a table that is looked up by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras, track_weights
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.lookup import output_shape, shape_like

# Beside the vectors of a source: whether there is one, or of which version it is.
VECTORS = "_vectors"  # what the names of inputs end in, which stand beside those of ids
KNOWN, VERSION = "_known", "_version"


@keras.utils.register_keras_serializable(package="kar_aug")
class GivenVectors(keras.layers.Layer):
    """Augmented vectors as they come with the request, from a feature store say: the fields of a CTR model.

    Where a row has none, or one of another version, its field is its source's default vector.

    Args:
        sources: source name -> the length of its vectors, or a `VectorStore`, which says their version, too.
        versions: source name -> the version (`VectorStore.version`) of which its vectors must be, where no store says.

    Input shape:
        Dictionary of, for each of some or all sources: {name}, its vectors, (batch, length of a vector), (batch, 1,
        length of a vector), or of more axes; and {name}_known, whether there is one, in the shape of ids, (batch,) or
        (batch, 1); or {name}_version, of which version each is, as strings; or neither, where all rows have one.
    Output shape:
        Dictionary of the same sources to (batch, width) for one vector a row, else to the vectors' shape with the width
        last.

    Raises:
        ValueError: When it is called: the versions of vectors are given, and the layer knows none.
    """

    def __init__(self, sources: Mapping[str, Any], versions: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._take(sources, versions)
        self._make_defaults()
        track_weights(self)

    def _take(self, sources: Mapping[str, Any], versions: Mapping[str, str] | None) -> None:
        checked.by_name("sources", sources, "{'item_id': store}")
        checked.by_name("versions", versions or {}, "{'item_id': version}")
        of_stores = {n: s.version for n, s in sources.items() if isinstance(s, VectorStore)}
        self.dimensions = {name: _dimension(source) for name, source in sources.items()}
        self.versions = {**of_stores, **(versions or {})}

    def _make_defaults(self) -> None:
        """They exist from construction: their shapes come from the sources."""
        with ops.name_scope(self.name):
            self._defaults = [
                self.add_weight(name=f"{name}_default", shape=(self.width_of(name),), initializer="zeros")
                for name in self.sources
            ]

    @property
    def sources(self) -> list[str]:
        """Names, in order."""
        return list(self.dimensions)

    @property
    def stores(self) -> dict[str, dict[str, Any]]:
        """Per source of whose vectors the version is known, {"version": it}."""
        return {name: {"version": version} for name, version in self.versions.items()}

    def width_of(self, name: str) -> int:
        """Of a source's field."""
        return self.dimensions[name]

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._field(name, inputs) for name in inputs if name in self.dimensions}

    def _field(self, name: str, inputs: Mapping[str, Any]) -> Any:
        vectors = ops.cast(ops.convert_to_tensor(inputs[name]), self.compute_dtype)
        known = self._known(name, inputs, vectors)
        flat, is_there = ops.reshape(vectors, [-1, vectors.shape[-1]]), ops.reshape(known, [-1, 1])
        flat = ops.where(
            is_there, flat, ops.zeros_like(flat)
        )  # whatever stands for "none", NaN too, reaches no gradient
        default = self._defaults[self.sources.index(name)]
        fields = ops.where(is_there, self._made_of(name, flat, is_there[:, 0]), ops.cast(default, self.compute_dtype))
        return shape_like(known, fields)

    def _known(self, name: str, inputs: Mapping[str, Any], vectors: Any) -> Any:
        """Whether each vector is there, and of the right version: of the shape of ids."""
        if f"{name}{VERSION}" in inputs:
            if name not in self.versions:
                raise ValueError(
                    f"Layer {self.name!r} does not know of which version the vectors of {name!r} must be. Make it with "
                    f"versions={{{name!r}: store.version}}."
                )
            return ops.convert_to_tensor(inputs[f"{name}{VERSION}"]) == self.versions[name]
        if f"{name}{KNOWN}" in inputs:
            return ops.cast(ops.convert_to_tensor(inputs[f"{name}{KNOWN}"]), "bool")
        return ops.ones_like(vectors[..., 0], "bool")

    def _made_of(self, name: str, vectors: Any, known: Any) -> Any:
        """The fields of vectors, (rows, dimension), of those that are known: (rows, width)."""
        return vectors

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: output_shape(tuple(shape)[:-1], self.width_of(name))
            for name, shape in input_shape.items()
            if name in self.dimensions
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sources": self.dimensions, "versions": self.versions}


def _dimension(source: Any) -> int:
    if isinstance(source, VectorStore):
        return source.spec.dimension
    vectors = getattr(source, "vectors", source)  # of a `KnowledgeTable`
    return int(source) if isinstance(source, int) else int(np.shape(vectors)[-1])
