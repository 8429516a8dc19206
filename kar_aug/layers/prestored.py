"""What serves in production: augmented vectors computed once, looked up by id. No expert network is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kar_aug._keras import keras, tf
from kar_aug.layers.augmentation import KnowledgeAugmentation, _constant, _output_shape
from kar_aug.layers.lookup import shape_like


@keras.utils.register_keras_serializable(package="kar_aug")
class PrestoredAugmentation(keras.layers.Layer):
    """The augmented vectors of a trained `KnowledgeAugmentation` as tables: same inputs, same outputs.

    Args:
        tables: source name -> (vocabulary + 1, width) float array; the last row is the default vector, for ids
            without knowledge or outside the vocabulary. Or, as `get_config` writes it, the shapes alone.

    Source:
        KAR, arXiv:2306.10933, section 3.5: augmented vectors are prestored for fast inference.
    """

    def __init__(self, tables: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        arrays = {name: np.zeros(t, "float32") if isinstance(t, list) else np.asarray(t) for name, t in tables.items()}
        self.shapes = {name: list(array.shape) for name, array in arrays.items()}
        with tf.name_scope(self.name):
            self._tables = [
                self.add_weight(name=name, shape=array.shape, trainable=False, initializer=_constant(array))
                for name, array in arrays.items()
            ]

    @classmethod
    def of(cls, augmentation: KnowledgeAugmentation) -> PrestoredAugmentation:
        """Compute the augmented vector of every id of `augmentation` once."""
        tables = {name: augmentation.augmented_vectors(name) for name in augmentation.sources}
        return cls(tables, name=f"{augmentation.name}_prestored")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._look_up(name, ids) for name, ids in inputs.items()}

    def _look_up(self, name: str, ids: Any) -> Any:
        table = tf.convert_to_tensor(self._tables[list(self.shapes).index(name)])
        default = self.shapes[name][0] - 1
        ids = tf.cast(ids, "int32")
        rows = tf.reshape(tf.where((ids >= 0) & (ids < default), ids, default), [-1])
        return shape_like(ids, tf.gather(table, rows))

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _output_shape(shape, self.shapes[name][1]) for name, shape in input_shape.items()}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tables": self.shapes}
