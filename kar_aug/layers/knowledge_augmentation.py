"""The layer people come for: entity ids in, augmented vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._keras import keras, tf, track_weights
from kar_aug.cache import KnowledgeTable, VectorStore
from kar_aug.errors import StoreError
from kar_aug.layers.hybrid_expert_adaptor import HybridExpertAdaptor
from kar_aug.layers.lookup import (
    constant,
    look_up_distinct,
    output_shape,
    positions,
    sequence_mask,
    shape_like,
    sorted_keys,
)

# What `adaptor=` may be -> (shared experts, dedicated experts, widths, activation) out of the given numbers.
ADAPTORS: dict[str, Any] = {
    "hybrid-expert": lambda shared, dedicated, units: (shared, dedicated, units, "relu"),
    "mixture-of-experts": lambda shared, dedicated, units: (0, shared + dedicated, units, "relu"),
    "mlp": lambda shared, dedicated, units: (0, 1, units, "relu"),
    "none": lambda shared, dedicated, units: (0, 1, units[-1:], "linear"),
}


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeAugmentation(keras.layers.Layer):
    """Looks the knowledge vectors of ids up and adapts them into fields of a CTR model.

    An id without knowledge, or outside its vocabulary, gets its source's learned default vector. Each distinct id of
    a batch is adapted once. The knowledge vectors are frozen, kept in their store's type and cast after the look-up.

    Example:
        >>> augmentation = KnowledgeAugmentation({"user_id": users.align(user_ids), "item_id": items.align(item_ids)})
        >>> fields = augmentation({"user_id": user_id, "item_id": item_id})  # user_id: (batch,) or (batch, 1)
        >>> fields["user_id"].shape
        TensorShape([64, 32])

    Args:
        sources: input name -> its knowledge, any number of them, their dimensions may differ. Each is one of:
            what `VectorStore.align` returned, for the integers of a vocabulary;
            an array (vocabulary, knowledge dimension) in the order of the model's integers;
            a `VectorStore` itself, for its raw ids: strings or integers as the store has them.
        shared_experts, dedicated_experts, expert_units: of the hybrid-expert adaptor.
        adaptor: "hybrid-expert"; "mixture-of-experts", as many experts a source but none shared; "mlp", one expert
            a source; "none", one linear layer of width expert_units[-1].
        embed_tables: save the vectors of stores with the model, which then needs no store to load.
        mask_zero: in sequences, id 0 (or the empty string) is padding: its vector is zeros, and the mask goes on to
            the layers that follow. A mask that the ids bring along is respected either way.
        load_balance: weight of the loss that spreads the gate's choice over the experts: per source, the squared
            coefficient of variation of the experts' total gate weight in a batch (Shazeer et al. 2017,
            arXiv:1701.06538, equation 7). 0 adds no loss.

    Input shape:
        Dictionary of some or all source names to ids, (batch,), (batch, 1) or (batch, length).
    Output shape:
        Dictionary of the same names to (batch, width), or (batch, length, width) for sequences;
        width = expert_units[-1].

    A saved model holds the name and fingerprint of each store, not its vectors; it loads where the store is
    unchanged (`load_model(path, stores=...)` if it moved). Vectors given as an array are saved with the model.

    Raises:
        StoreError: A vector holds NaN or a row points past the vectors; or, on loading, the store is gone or is
            another one than the model was trained with.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        shared_experts: int = 2,
        dedicated_experts: int = 3,
        expert_units: Sequence[int] = (128, 32),
        adaptor: str = "hybrid-expert",
        embed_tables: bool = False,
        mask_zero: bool = False,
        load_balance: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if adaptor not in ADAPTORS:
            raise ValueError(f"`adaptor` must be one of {tuple(ADAPTORS)}. Received: {adaptor!r}")
        self.shared_experts = shared_experts
        self.dedicated_experts = dedicated_experts
        self.expert_units = list(expert_units)
        self.adaptor_name = adaptor
        self.embed_tables = embed_tables
        self.mask_zero = mask_zero
        self.load_balance = load_balance
        self.supports_masking = True
        given = {name: _source(name, source, embed_tables) for name, source in sources.items()}
        tables = {name: table for name, (table, _) in given.items()}
        raw = {name: keys for name, (_, keys) in given.items() if keys is not None}
        self._identity = {name: _identity(table, name in raw) for name, table in tables.items()}
        shared, dedicated, units, activation = ADAPTORS[adaptor](shared_experts, dedicated_experts, list(expert_units))
        self.adaptor = HybridExpertAdaptor(
            list(tables), shared, dedicated, units, activation, name="adaptor", dtype=kwargs.get("dtype")
        )
        # Vectors of a store live outside Keras's weights, so that no checkpoint copies them.
        self._stored = _Hidden(
            {n: tf.constant(np.asarray(t.vectors)) for n, t in tables.items() if t.store and not embed_tables}
        )
        self._build_weights(tables, raw)

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
            name: float(np.mean(np.asarray(rows)[:-1] >= 0))
            for name, rows in zip(self.sources, self._rows, strict=True)
        }

    @property
    def stores(self) -> dict[str, dict[str, Any]]:
        """Per source that came from a store: {"store": its folder, "fingerprint": of its content}."""
        return {
            name: {key: identity[key] for key in ("store", "fingerprint")}
            for name, identity in self._identity.items()
            if identity["store"]
        }

    @property
    def dimensions(self) -> dict[str, int]:
        """Per source, the length of a knowledge vector."""
        return {name: identity["vectors"][1] for name, identity in self._identity.items()}

    def keys(self) -> dict[str, npt.NDArray[np.int64]]:
        """Per source with raw ids, their keys (`lookup.sorted_keys`) in the order of the vocabulary."""
        return dict(zip(self._raw_sources(), (np.asarray(keys) for keys in self._keys), strict=True))

    def _raw_sources(self) -> list[str]:
        return [name for name, identity in self._identity.items() if identity["raw"]]

    def _build_weights(self, tables: Mapping[str, KnowledgeTable], raw: Mapping[str, Any]) -> None:
        """Weights exist from construction: their shapes come from the tables, not from the ids."""
        with tf.name_scope(self.name):
            with tf.name_scope("adaptor"):
                self.adaptor.build({name: (None, table.vectors.shape[1]) for name, table in tables.items()})
            # One row more than the vocabulary has: that of an id outside it.
            self._rows = [
                self._frozen(f"{name}_rows", np.append(table.rows, -1).astype(np.int32))
                for name, table in tables.items()
            ]
            self._keys = [self._frozen(f"{name}_keys", keys) for name, keys in raw.items()]
            self._fingerprints = [
                self._frozen(f"{name}_fingerprint", _as_int64(table.fingerprint)) for name, table in tables.items()
            ]
            self._defaults = [
                self.add_weight(name=f"{name}_default", shape=(self.width,), initializer="zeros") for name in tables
            ]
            self._embedded = [
                self._frozen(f"{name}_vectors", table.vectors)
                for name, table in tables.items()
                if name not in self._stored.value
            ]
        track_weights(self)

    def _frozen(self, name: str, values: npt.NDArray[Any]) -> Any:
        return self.add_weight(
            name=name, shape=values.shape, dtype=values.dtype.name, trainable=False, initializer=constant(values)
        )

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {name: self._augment(name, ids, (mask or {}).get(name)) for name, ids in inputs.items()}

    def compute_mask(self, inputs: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {name: sequence_mask(ids, (mask or {}).get(name), self.mask_zero) for name, ids in inputs.items()}

    def _augment(self, name: str, ids: Any, mask: Any) -> Any:
        if name not in self._identity:
            raise ValueError(f"There is no knowledge source {name!r}. The sources are: {', '.join(self.sources)}")
        ids = tf.convert_to_tensor(ids)
        augmented = look_up_distinct(self._places(name, ids), lambda distinct: self._augment_places(name, distinct))
        return shape_like(ids, augmented, sequence_mask(ids, mask, self.mask_zero))

    def _places(self, name: str, ids: Any) -> Any:
        raw = self._raw_sources()
        keys = tf.convert_to_tensor(self._keys[raw.index(name)]) if name in raw else None
        return positions(ids, self._identity[name]["vocabulary"], keys)

    def _augment_places(self, name: str, places: Any) -> Any:
        vectors, known = self._vectors_at(name, places)
        adapted, gate = self.adaptor.adapt(name, vectors)  # (ids, width), (ids, experts)
        if self.load_balance:
            self.add_loss(self.load_balance * _imbalance(gate, known))
        default = tf.cast(self._defaults[self.sources.index(name)], adapted.dtype)
        return tf.where(known[:, tf.newaxis], adapted, default)

    def _vectors_at(self, name: str, places: Any) -> tuple[Any, Any]:
        """Knowledge vectors at `places` (those without get another's, unused), and which are known."""
        row = tf.gather(tf.convert_to_tensor(self._rows[self.sources.index(name)]), places)
        return tf.cast(tf.gather(self._vectors(name), tf.maximum(row, 0)), self.compute_dtype), row >= 0

    def _vectors(self, name: str) -> Any:
        if name in self._stored.value:
            return self._stored.value[name]
        embedded = [source for source in self.sources if source not in self._stored.value]
        return tf.convert_to_tensor(self._embedded[embedded.index(name)])

    def augmented_vectors(self, name: str, *, batch_size: int = 4096) -> Any:
        """The augmented vector of every id of a source's vocabulary, then the default: (vocabulary + 1, width)."""
        size = self._identity[name]["vocabulary"]
        default = np.asarray(self._defaults[self.sources.index(name)])
        table = np.tile(default.astype(np.float32), (size + 1, 1))
        for start in range(0, size, batch_size):
            end = min(start + batch_size, size)
            vectors, known = self._vectors_at(name, tf.range(start, end))
            table[start:end][np.asarray(known)] = self.adapt(name, vectors[known])
        return table

    def adapt(self, name: str, vectors: Any) -> npt.NDArray[np.float32]:
        """Knowledge vectors of a source, (ids, knowledge dimension), as augmented vectors, (ids, width)."""
        adapted, _ = self.adaptor.adapt(name, tf.cast(vectors, self.compute_dtype))
        return np.asarray(adapted, np.float32)

    def refreshed(self, tables: Mapping[str, Any]) -> KnowledgeAugmentation:
        """This layer with other knowledge: the same sources and trained weights, new vectors and coverage.

        Args:
            tables: for every source what the constructor takes. Dimensions must be the same ones; vectors of another
                encoder would be noise to the experts.
        """
        config = self.get_config()
        layer = type(self)(**{**config, "sources": {name: tables[name] for name in self.sources}})
        if layer.dimensions != self.dimensions:
            raise ValueError(f"The experts read vectors of {self.dimensions}. Received: {layer.dimensions}")
        layer.adaptor.set_weights(self.adaptor.get_weights())
        for new, old in zip(layer._defaults, self._defaults, strict=True):
            new.assign(np.asarray(old))
        return layer

    def gate_usage(self, ids: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Mean gate weight an expert over the ids that have knowledge: source -> (shared + dedicated experts,).

        Not a number where none of the ids has knowledge.
        """
        usage = {}
        for name, values in ids.items():
            places = tf.reshape(self._places(name, tf.convert_to_tensor(values)), [-1])
            vectors, known = self._vectors_at(name, places)
            gate = self.adaptor.gate({name: vectors[known]})[name]
            usage[name] = np.asarray(tf.reduce_mean(tf.cast(gate, "float32"), axis=0))
        return usage

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: output_shape(shape, self.width) for name, shape in input_shape.items()}

    def load_own_variables(self, store: Any) -> None:
        """Keras calls this for .keras and .weights.h5 files."""
        super().load_own_variables(store)
        for name, fingerprint in zip(self.sources, self._fingerprints, strict=True):
            ours = self._identity[name]["fingerprint"]
            if int(np.asarray(fingerprint)) != int(_as_int64(ours)):
                theirs = f"{int(np.asarray(fingerprint)) % 2**64:016x}"
                raise StoreError(
                    f"The weights were trained with {name} from a store with fingerprint {theirs}, but this layer has "
                    f"{self._identity[name]['store']} with {ours}. Build it with the unchanged store, then `refresh`.",
                    path=self._identity[name]["store"], source=name, left=theirs, right=ours,
                )  # fmt: skip

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
            "adaptor": self.adaptor_name,
            "embed_tables": self.embed_tables,
            "mask_zero": self.mask_zero,
            "load_balance": self.load_balance,
        }


class _Hidden:
    """Holds a value where Keras does not look."""

    def __init__(self, value: Any) -> None:
        self.value = value


# Where stores are now, by source name; set by `load_model` while it loads.
store_locations: dict[str, str] = {}


def _source(name: str, source: Any, embedded: bool) -> tuple[KnowledgeTable, Any]:
    """The table of a source, as given by the user or as `get_config` wrote it, and the keys of its raw ids if any."""
    if isinstance(source, Mapping):
        rows = np.full(source["vocabulary"], -1, np.int32)  # the real ones are weights, loaded after this
        keys = np.zeros(source["vocabulary"], np.int64) if source["raw"] else None
        vectors = np.zeros(source["vectors"], source["dtype"]) if embedded else _saved_vectors(name, source)
        return KnowledgeTable(vectors, rows, source["store"], source["fingerprint"]), keys
    keys = None
    if isinstance(source, VectorStore):
        keys, order = sorted_keys(source.ids)
        source = source.align([source.ids[i] for i in order])
    table = source if isinstance(source, KnowledgeTable) else KnowledgeTable.from_array(source)
    _check(name, table)
    return table, keys


def _saved_vectors(name: str, source: Mapping[str, Any]) -> npt.NDArray[Any]:
    if source["store"] is None:
        return np.zeros(source["vectors"], source["dtype"])
    store = VectorStore.open(store_locations.get(name) or str(source["store"]))
    if store.fingerprint != source["fingerprint"]:
        raise StoreError(
            f"The model knows {name} from store {source['store']} with fingerprint {source['fingerprint']}, "
            f"but {store.path} now has {store.fingerprint}. Give load_model the unchanged store, or augment anew.",
            path=store.path, source=name, left=source["fingerprint"], right=store.fingerprint,
        )  # fmt: skip
    return store.vectors


def _check(name: str, table: KnowledgeTable) -> None:
    """Refuse a table whose rows or vectors cannot be right, with the integer id that is wrong."""
    if not len(table.rows) or table.vectors.ndim != 2:
        raise StoreError(f"{name}: a table needs a vocabulary, and vectors of shape (count, dimension).", source=name)
    outside = np.flatnonzero((table.rows >= len(table.vectors)) | (table.rows < -1))
    if len(outside):
        raise StoreError(
            f"{name}: integer id {outside[0]} points to row {table.rows[outside[0]]}, but there are "
            f"{len(table.vectors)} vectors. Align the vocabulary with the store again.",
            source=name, entity_id=int(outside[0]), row=int(table.rows[outside[0]]),
        )  # fmt: skip
    for start in range(0, len(table.vectors), 65536):  # a mapped store is never in memory whole
        finite = np.isfinite(table.vectors[start : start + 65536]).all(axis=1)
        if finite.all():
            continue
        bad = np.flatnonzero(np.isin(table.rows, start + np.flatnonzero(~finite)))
        if len(bad):  # a bad row that no id points to harms nobody
            raise StoreError(
                f"{name}: the vector of integer id {bad[0]} holds NaN or infinity. Encode it again.",
                source=name, entity_id=int(bad[0]),
            )  # fmt: skip


def _identity(table: KnowledgeTable, raw: bool) -> dict[str, Any]:
    """What a saved model says of a table: enough to find it again, or to make room for it."""
    return {
        "store": table.store,
        "fingerprint": table.fingerprint,
        "vocabulary": len(table.rows),
        "raw": raw,
        "vectors": list(table.vectors.shape),
        "dtype": table.vectors.dtype.name,
    }


def _as_int64(fingerprint: str | None) -> npt.NDArray[np.int64]:
    """A fingerprint's 64 bits as a weight can hold them; 0 for none."""
    return np.asarray(int(fingerprint or "0", 16), np.uint64).astype(np.int64)


def _imbalance(gate: Any, known: Any) -> Any:
    """Squared coefficient of variation of the experts' total gate weight over known ids; 0 where there are none."""
    total = tf.reduce_sum(tf.where(known[:, tf.newaxis], tf.cast(gate, "float32"), 0.0), axis=0)
    return tf.math.divide_no_nan(tf.math.reduce_variance(total), tf.square(tf.reduce_mean(total)))
