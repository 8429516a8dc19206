"""The layer people come for: entity ids in, augmented vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kar_aug._keras import keras, tf
from kar_aug.cache import KnowledgeTable, VectorStore
from kar_aug.errors import StoreError
from kar_aug.layers.adaptor import HybridExpertAdaptor
from kar_aug.layers.lookup import look_up_distinct, shape_like


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeAugmentation(keras.layers.Layer):
    """Looks the knowledge vectors of ids up and adapts them into fields of a CTR model.

    An id without knowledge, or outside its vocabulary, gets its source's learned default vector. Each distinct id of
    a batch is adapted once. The knowledge vectors are frozen, kept in their store's type and cast after the look-up.

    Example:
        >>> augmentation = KnowledgeAugmentation({"user_id": users.align(user_ids), "item_id": items.align(item_ids)})
        >>> fields = augmentation({"user_id": user_id, "item_id": item_id})  # {"user_id": (batch, 32), ...}

    Args:
        sources: input name -> its knowledge: what `VectorStore.align` returned, or an array
            (vocabulary, knowledge dimension) in the order of the model's ids.
        shared_experts, dedicated_experts, expert_units: of the hybrid-expert adaptor.

    Input shape:
        Dictionary of some or all source names to integer ids, (batch,), (batch, 1) or (batch, length).
    Output shape:
        Dictionary of the same names to (batch, width), or (batch, length, width) for sequences;
        width = expert_units[-1].

    A saved model holds the name and fingerprint of each store, not its vectors; it loads where the store is
    unchanged (`load_model(path, stores=...)` if it moved). Vectors given as an array are saved with the model.

    Raises:
        StoreError: On loading, the store is gone or is another one than the model was trained with.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        shared_experts: int = 2,
        dedicated_experts: int = 3,
        expert_units: Sequence[int] = (128, 32),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shared_experts = shared_experts
        self.dedicated_experts = dedicated_experts
        self.expert_units = list(expert_units)
        tables = {name: _table(name, source) for name, source in sources.items()}
        self._identity = {name: _identity(table) for name, table in tables.items()}
        self.adaptor = HybridExpertAdaptor(
            list(tables), shared_experts, dedicated_experts, expert_units, name="adaptor"
        )
        # Vectors of a store live outside Keras's weights, so that no checkpoint copies them.
        self._stored = _Hidden({name: tf.constant(np.asarray(t.vectors)) for name, t in tables.items() if t.store})
        self._initial = _Hidden(tables)
        self._build_weights()

    @property
    def width(self) -> int:
        """Width of an augmented vector."""
        return self.expert_units[-1]

    @property
    def sources(self) -> list[str]:
        """Input names, in order."""
        return list(self._identity)

    @property
    def coverage(self) -> dict[str, float]:
        """Per source, the share of its vocabulary that has knowledge."""
        return {
            name: float(np.mean(np.asarray(rows) >= 0)) for name, rows in zip(self.sources, self._rows, strict=True)
        }

    def _build_weights(self) -> None:
        """Weights exist from construction: their shapes come from the tables, not from the ids."""
        tables = self._initial.value
        with tf.name_scope(self.name):
            with tf.name_scope("adaptor"):
                self.adaptor.build({name: (None, table.vectors.shape[1]) for name, table in tables.items()})
            self._rows = [
                self.add_weight(
                    name=f"{name}_rows", shape=(len(table.rows),), dtype="int32", trainable=False,
                    initializer=_constant(table.rows),
                )
                for name, table in tables.items()
            ]  # fmt: skip
            self._defaults = [
                self.add_weight(name=f"{name}_default", shape=(self.width,), initializer="zeros") for name in tables
            ]
            self._embedded = [
                self.add_weight(
                    name=f"{name}_vectors", shape=table.vectors.shape, dtype=table.vectors.dtype.name, trainable=False,
                    initializer=_constant(table.vectors),
                )
                for name, table in tables.items()
                if not table.store
            ]  # fmt: skip
        del self._initial.value  # Keras holds the values now

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._augment(name, ids) for name, ids in inputs.items()}

    def _augment(self, name: str, ids: Any) -> Any:
        if name not in self._identity:
            raise ValueError(f"There is no knowledge source {name!r}. The sources are: {', '.join(self.sources)}")
        return shape_like(ids, look_up_distinct(ids, lambda distinct: self._augment_distinct(name, distinct)))

    def _augment_distinct(self, name: str, ids: Any) -> Any:
        vectors, known = self._vectors_of(name, ids)
        adapted = self.adaptor({name: vectors})[name]  # (ids, width)
        default = tf.cast(self._defaults[self.sources.index(name)], adapted.dtype)
        return tf.where(known[:, tf.newaxis], adapted, default)

    def _vectors_of(self, name: str, ids: Any) -> tuple[Any, Any]:
        """Knowledge vectors of `ids` (those without get another's, unused), and which are known."""
        rows = tf.convert_to_tensor(self._rows[self.sources.index(name)])
        inside = (ids >= 0) & (ids < tf.shape(rows, out_type=ids.dtype)[0])
        row = tf.gather(rows, tf.where(inside, ids, 0))
        known = inside & (row >= 0)
        return tf.cast(tf.gather(self._vectors(name), tf.where(known, row, 0)), self.compute_dtype), known

    def _vectors(self, name: str) -> Any:
        if name in self._stored.value:
            return self._stored.value[name]
        embedded = [source for source in self.sources if source not in self._stored.value]
        return tf.convert_to_tensor(self._embedded[embedded.index(name)])

    def augmented_vectors(self, name: str, *, batch_size: int = 4096) -> Any:
        """The augmented vector of every id of a source's vocabulary, then the default: (vocabulary + 1, width)."""
        size = int(self._rows[self.sources.index(name)].shape[0])
        batches = [
            np.asarray(self._augment_distinct(name, tf.range(start, min(start + batch_size, size))))
            for start in range(0, size, batch_size)
        ]
        return np.concatenate([*batches, np.asarray(self._defaults[self.sources.index(name)])[np.newaxis]])

    def gate_usage(self, ids: Mapping[str, Any]) -> dict[str, Any]:
        """Mean gate weight an expert over the ids that have knowledge: source -> (shared + dedicated experts,)."""
        usage = {}
        for name, values in ids.items():
            vectors, known = self._vectors_of(name, tf.reshape(tf.cast(values, "int32"), [-1]))
            usage[name] = np.asarray(self.adaptor.gate({name: vectors[known]})[name]).mean(axis=0)
        return usage

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _output_shape(shape, self.width) for name, shape in input_shape.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KnowledgeAugmentation:
        return cls(**config)  # Keras's own would turn a StoreError into a page of TypeErrors

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sources": self._identity,
            "shared_experts": self.shared_experts,
            "dedicated_experts": self.dedicated_experts,
            "expert_units": self.expert_units,
        }


class _Hidden:
    """Holds a value where Keras does not look."""

    def __init__(self, value: Any) -> None:
        self.value = value


# Where stores are now, by source name; set by `load_model` while it loads.
store_locations: dict[str, str] = {}


def _table(name: str, source: Any) -> KnowledgeTable:
    """A source as given by the user, or as `get_config` wrote it."""
    if isinstance(source, KnowledgeTable):
        return source
    if not isinstance(source, Mapping):
        return KnowledgeTable.from_array(source)
    rows = np.full(source["vocabulary"], -1, np.int32)  # the real ones are weights, loaded after this
    if source["store"] is None:
        return KnowledgeTable(np.zeros(source["vectors"], source["dtype"]), rows)
    store = VectorStore.open(store_locations.get(name) or str(source["store"]))
    if store.fingerprint != source["fingerprint"]:
        raise StoreError(
            f"The model knows {name} from store {source['store']} with fingerprint {source['fingerprint']}, "
            f"but {store.path} now has {store.fingerprint}. Give load_model the unchanged store, or augment anew."
        )
    return KnowledgeTable(store.vectors, rows, source["store"], source["fingerprint"])


def _identity(table: KnowledgeTable) -> dict[str, Any]:
    """What a saved model says of a table: enough to find it again, or to make room for it."""
    return {
        "store": table.store,
        "fingerprint": table.fingerprint,
        "vocabulary": len(table.rows),
        "vectors": list(table.vectors.shape),
        "dtype": table.vectors.dtype.name,
    }


def _constant(values: Any) -> Any:
    return lambda shape, dtype=None, **_: tf.constant(np.asarray(values), dtype=dtype)


def _output_shape(shape: Any, width: int) -> tuple[Any, ...]:
    shape = tuple(shape)
    return (shape[0], width) if len(shape) == 1 or shape[1] == 1 else (*shape, width)
