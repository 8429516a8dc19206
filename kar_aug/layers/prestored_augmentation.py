"""What serves in production: augmented vectors computed once, looked up by id. No expert network is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import keras, track_weights
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.copies import check_known, found, offered
from kar_aug.layers.ids import Kind, as_ids, check_named, check_symbolic
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.lookup import constant, of_each, output_shape, positions, sequence_mask, shape_like, values_of
from kar_aug.layers.new_ids import NO_KEY, as_table, matrix_of, placed, with_texts
from kar_aug.layers.saved_weights import weights_for
from kar_aug.layers.source import note_loaded


@keras.utils.register_keras_serializable(package="kar_aug")
class PrestoredAugmentation(keras.layers.Layer):
    """The augmented vectors of a trained `KnowledgeAugmentation` as tables: same inputs, same outputs, same errors.

    Args:
        tables: source name -> (vocabulary + 1, width) float array; the last row is the default vector, for ids
            without knowledge or outside the vocabulary. Or, as `get_config` writes it, the shapes alone.
        keys: for sources with raw ids, source name -> (vocabulary,) ascending keys (`lookup.sorted_keys`).
        table_dtype: "float32" or "float16": half the memory, about three decimal digits, and nothing above 65,504.
        mask_zero: as `KnowledgeAugmentation` has it.
        texts: source name -> its ids that `update` added, where these are texts.
        stores, coverage, kinds: what the properties of `KnowledgeAugmentation` say, kept with the model. Coverage is
            that of the moment: `update` does not count. Both are empty, and kinds of ids are not checked, in models
            that version 0.1 saved.

    Raises:
        StoreError: A vector does not fit into float16.

    Source:
        KAR, arXiv:2306.10933, section 3.5: augmented vectors are prestored for fast inference.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        keys: Mapping[str, Any] | None = None,
        table_dtype: str = "float32",
        mask_zero: bool = False,
        stores: Mapping[str, Any] | None = None,
        coverage: Mapping[str, float] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if table_dtype not in ("float32", "float16"):
            raise ValueError(f"`table_dtype` must be float32 or float16. Received: {table_dtype!r}")
        checked.by_name("tables", tables, "{'item_id': array}")
        # What a config has are shapes: until the tables are loaded, nothing is known, and never zeros.
        arrays = {n: np.full(t, np.nan, "float32") if isinstance(t, list) else np.asarray(t) for n, t in tables.items()}
        raw = {name: np.zeros(k, ops.KEYS) if isinstance(k, list) else k for name, k in (keys or {}).items()}
        self.shapes = {name: list(array.shape) for name, array in arrays.items()}
        self.key_shapes = {name: list(array.shape) for name, array in raw.items()}
        self.table_dtype = table_dtype
        self.mask_zero = checked.flag("mask_zero", mask_zero)
        self.supports_masking = True
        self.stores = {name: dict(store) for name, store in (stores or {}).items()}
        self.coverage = dict(coverage or {})
        self.kinds = dict(kinds or {})
        self.added_texts = {name: list(added) for name, added in (texts or {}).items()}
        self._augmentation = _Hidden(None)
        with ops.name_scope(self.name):
            self._tables = [
                self._frozen(name, as_table(name, array, table_dtype), table_dtype) for name, array in arrays.items()
            ]
            self._keys = [self._frozen(f"{name}_keys", array, np.dtype(ops.KEYS).name) for name, array in raw.items()]
        track_weights(self)

    def _frozen(self, name: str, values: Any, dtype: str) -> Any:
        return self.add_weight(
            name=name, shape=values.shape, dtype=dtype, trainable=False, initializer=constant(values)
        )

    @classmethod
    def of(
        cls, augmentation: KnowledgeAugmentation, *, table_dtype: str = "float32", spare: int = 0
    ) -> PrestoredAugmentation:
        """Compute the augmented vector of every id of `augmentation` once; `spare` rows a source wait for new ids."""
        tables, keys = {name: augmentation.augmented_vectors(name, spare=spare) for name in augmentation.sources}, {}
        for name, own in augmentation.keys().items():
            keys[name] = np.concatenate([own, np.full(spare, NO_KEY, ops.KEYS)])
        layer = cls(
            tables,
            keys,
            table_dtype,
            augmentation.mask_zero,
            augmentation.stores,
            augmentation.coverage,
            augmentation.kinds,
            name=f"{augmentation.name}_prestored",
        )
        layer._augmentation.value = augmentation
        return layer

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> dict[str, Any]:
        check_named(self, inputs, list(self.shapes))
        check_known(self, self._tables[0])
        return {
            name: of_each(partial(self._look_up, name), ids, (mask or {}).get(name)) for name, ids in inputs.items()
        }

    def compute_mask(self, inputs: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {name: of_each(self._mask, ids, (mask or {}).get(name)) for name, ids in inputs.items()}

    def _mask(self, ids: Any, mask: Any) -> Any:
        return sequence_mask(ids, mask, self.mask_zero)

    def _look_up(self, name: str, ids: Any, mask: Any) -> Any:
        ids = as_ids(name, ids, self.kinds.get(name))
        table = ops.convert_to_tensor(self._tables[list(self.shapes).index(name)])
        keys = self._keys_of(name)
        places = positions(ids, self.shapes[name][0] - 1, None if keys is None else ops.convert_to_tensor(keys))
        vectors = ops.cast(ops.rows_at(table, ops.reshape(places, [-1])), self.compute_dtype)
        return shape_like(ids, vectors, self._mask(ids, mask))

    def keys(self) -> dict[str, npt.NDArray[np.int64]]:
        """Per source with raw ids, their keys, as `KnowledgeAugmentation` has them; `new_ids.NO_KEY` of spare rows."""
        return {name: values_of(self._keys_of(name)) for name in self.key_shapes}

    def _keys_of(self, name: str) -> Any:
        return self._keys[list(self.key_shapes).index(name)] if name in self.key_shapes else None

    def update(
        self, knowledge: Mapping[str, Mapping[Any, Any]], augmentation: KnowledgeAugmentation | None = None
    ) -> None:
        """Add ids, or replace their vectors, from new knowledge vectors; no other weight changes.

        Example:
            >>> serving.get_layer("knowledge_augmentation_prestored").update({"item_id": {1683: vector}})

        Args:
            knowledge: source -> {id as the model reads it: knowledge vector, (knowledge dimension,)}.
            augmentation: the trained layer that adapts them. Known where `prestore` was called in this process;
                to be given for a model that was loaded.

        Raises:
            StoreError: There is no room for an id (`prestore(model, spare=...)` makes some), an id is of another kind,
                or a vector is not finite or not of the right length. Nothing is changed then.
        """
        augmentation = augmentation or self._augmentation.value
        if augmentation is None:
            raise ValueError("This model was loaded: give `update` the trained KnowledgeAugmentation as well.")
        for name, table, keys in [self._updated(*item, augmentation) for item in knowledge.items()]:
            self._tables[list(self.shapes).index(name)].assign(as_table(name, table, self.table_dtype))
            if keys is not None:
                self._keys_of(name).assign(keys)
                self.added_texts[name] = with_texts(self.added_texts.get(name, ()), knowledge[name])

    def _updated(self, name: str, vectors: Mapping[Any, Any], augmentation: KnowledgeAugmentation) -> tuple[Any, ...]:
        """The table of a source, and its keys if any, with the knowledge of more ids."""
        if name not in self.shapes:
            raise ValueError(f"There is no knowledge source {name!r}. The sources are: {', '.join(self.shapes)}")
        matrix = matrix_of(name, vectors, augmentation.dimensions[name])
        rows = values_of(self._tables[list(self.shapes).index(name)]).copy()
        keys = values_of(self._keys_of(name)) if name in self.key_shapes else None
        kind = self.kinds.get(name)
        return name, *placed(name, list(vectors), augmentation.adapt(name, matrix), rows, keys, _SPARE, kind)

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: output_shape(shape, self.shapes[name][1]) for name, shape in input_shape.items()}

    def compute_output_spec(self, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Keras 3 asks this while a graph is made, instead of `call`."""
        check_named(self, inputs, list(self.shapes))
        check_symbolic(inputs, self.kinds)
        return super().compute_output_spec(inputs, *args, **kwargs)

    def held(self) -> list[npt.NDArray[Any]]:
        """What a copy of the layer needs beside its config: tables, then keys."""
        return [values_of(weight) for weight in (*self._tables, *self._keys)]

    def load_own_variables(self, store: Any) -> None:
        """Keras calls this for .keras and .weights.h5 files."""
        super().load_own_variables(weights_for(self, store, self._keys))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PrestoredAugmentation:
        config = dict(config)
        note_loaded(config["tables"])
        like = found(cls, config.pop("content", ""))
        if like is not None:
            arrays = iter(like.held())
            config |= {kind: dict(zip(config[kind], arrays, strict=False)) for kind in ("tables", "keys")}
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tables": self.shapes,
            "keys": self.key_shapes,
            "table_dtype": self.table_dtype,
            "mask_zero": self.mask_zero,
            "stores": self.stores,
            "coverage": self.coverage,
            "kinds": self.kinds,
            "texts": self.added_texts,
            "content": offered(self),
        }


class _Hidden:
    """Holds a value where Keras does not look."""

    def __init__(self, value: Any) -> None:
        self.value = value


_SPARE = "Make room when prestoring: prestore(model, spare=...)."
