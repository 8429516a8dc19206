"""The layer people come for: entity ids in, augmented vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import IS_KERAS_3, deserialized, keras, serialized, track_weights
from kar_aug.cache.vectors.parts import Parts
from kar_aug.cache.vectors.table import KnowledgeTable
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.adaptor import Adaptor, AdaptorSettings
from kar_aug.layers.ids import Kind, as_ids, check_named, check_symbolic
from kar_aug.layers.layer_adaptor import LayerAdaptor
from kar_aug.layers.lookup import (
    constant,
    is_several,
    look_up_distinct,
    of_each,
    output_shape,
    sequence_mask,
    shape_like,
    values_of,
)
from kar_aug.layers.saved_weights import weights_for
from kar_aug.layers.source import Given, Source, check_same_ids, read
from kar_aug.registry import ADAPTORS


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
        adaptor: what turns knowledge vectors into augmented vectors, one of:
            a name of `registry.ADAPTORS`: "hybrid-expert"; "mixture-of-experts", as many experts a source but none
            shared; "mlp", one expert a source; "none", one linear layer of width expert_units[-1]; or one that another
            package adds, or "module:attribute" (`AdaptorSettings` says what it is);
            a Keras layer, in: (n, knowledge dimension), out: (n, width), of which each source gets one of its own;
            source name -> such a layer; an `Adaptor`.
        embed_tables: save the vectors of stores with the model, which then needs no store to load.
        mask_zero: in sequences, id 0 (or the empty string) is padding: its vector is zeros, and the mask goes on to
            the layers that follow. A mask that the ids bring along is respected either way.
        load_balance: weight of the loss that spreads the gate's choice over the experts: per source, the squared
            coefficient of variation of the experts' total gate weight in a batch (Shazeer et al. 2017,
            arXiv:1701.06538, equation 7). 0 adds no loss.

    Input shape:
        Dictionary of some or all source names to ids: (batch,), (batch, 1), (batch, length), or of more axes, such as
        (batch, list, length). The ids of several inputs that are of one source are a list:
        {"item_id": [item_id, hist_item_id]}; an id that is in both is adapted once. Two sources in one input are two
        slices of it: {"user_id": pairs[:, 0], "item_id": pairs[:, 1]}.
    Output shape:
        Dictionary of the same names to (batch, width) for one id a row, else to the ids' shape + (width,); a list where
        a list came. Width is the adaptor's, expert_units[-1] unless it is a layer of your own.

    A saved model holds the name and fingerprint of each store, not its vectors; it loads where the store is
    unchanged (`load_model(path, stores=...)` if it moved). Vectors given as an array are saved with the model. What
    `clone_model` or `from_config` makes knows what the layer knows whose config it is, while that lives.

    Raises:
        StoreError: A vector holds NaN or a row points past the vectors; or, on loading, the store is gone or is
            another one than the model was trained with; or, when it is called, it is a copy that was never given
            knowledge, or its weights were set to those of a layer with another store.
        ValueError: When it is called: ids are of another kind than the source's, or come in a type that cannot tell all
            of them apart (float32 above 16,777,216), or are ragged.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        shared_experts: int = 2,
        dedicated_experts: int = 3,
        expert_units: Sequence[int] = (128, 32),
        adaptor: Any = "hybrid-expert",
        embed_tables: bool = False,
        mask_zero: bool = False,
        load_balance: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(sources, Mapping):
            raise ValueError(
                f"`sources` must say by which input ids come: {{'item_id': store}}. Received: {type(sources).__name__}"
            )
        super().__init__(**kwargs)
        self.shared_experts = checked.whole("shared_experts", shared_experts, least=0)
        self.dedicated_experts = checked.whole("dedicated_experts", dedicated_experts, least=0)
        self.expert_units = checked.wholes("expert_units", expert_units)
        self.adaptor_name = adaptor if isinstance(adaptor, str) else None
        self.embed_tables = checked.flag("embed_tables", embed_tables)
        self.mask_zero = checked.flag("mask_zero", mask_zero)
        self.load_balance = checked.weight("load_balance", load_balance)
        self.supports_masking = True
        settings = AdaptorSettings(
            list(sources), shared_experts, dedicated_experts, self.expert_units, kwargs.get("dtype")
        )
        self.adaptor = adaptor_for(adaptor, settings)
        if load_balance:
            self.adaptor.check_gate()
        given = {name: read(name, source, embed_tables) for name, source in sources.items()}
        self._sources = {name: Source(name, found.identity, codes=found.table.codes) for name, found in given.items()}
        self._make_weights(given)

    def _make_weights(self, given: Mapping[str, Given]) -> None:
        """Weights exist from construction: their shapes come from the tables, not from the ids. One kind after the
        other, which is their order in every file.
        """
        records = [(self._sources[name], found) for name, found in given.items()]
        with ops.name_scope(self.name):
            build_adaptor(self.adaptor, self.name, {source.name: source.dimension for source, _ in records})
            for source, found in records:
                rows = np.append(found.table.rows, -1).astype(np.int32)
                source.rows = self._frozen(f"{source.name}_rows", rows)
            for source, found in records:
                if found.keys is not None:
                    source.keys = self._frozen(f"{source.name}_keys", found.keys)
            for source, found in records:
                source.fingerprint = self._frozen(f"{source.name}_fingerprint", found.fingerprint)
            for source, _ in records:
                name = f"{source.name}_default"
                source.default = self.add_weight(name=name, shape=(self.width,), initializer="zeros")
            for source, found in records:
                stored = source.identity.store is not None and not self.embed_tables
                constants = ops.held if stored else partial(self._frozen, f"{source.name}_vectors")
                source.vectors = constants(found.table.vectors)
        track_weights(self)

    def _frozen(self, name: str, values: npt.NDArray[Any] | Parts) -> Any:
        return self.add_weight(
            name=name, shape=values.shape, dtype=values.dtype.name, trainable=False, initializer=constant(values)
        )

    @property
    def width(self) -> int:
        """Width of an augmented vector."""
        return self.adaptor.width

    @property
    def sources(self) -> list[str]:
        """Input names, in order."""
        return list(self._sources)

    @property
    def coverage(self) -> dict[str, float]:
        """Per source, the share of its vocabulary that has knowledge."""
        return {name: source.coverage for name, source in self._sources.items()}

    @property
    def stores(self) -> dict[str, dict[str, Any]]:
        """Per source that came from a store: {"store": its folder, "fingerprint": of its content}, and the "version"
        (`VectorStore.version`) that the experts learnt to read, but in files that do not say; this alone of a source
        that was refreshed by an array.
        """
        origins = {name: source.identity.origin for name, source in self._sources.items()}
        return {name: origin for name, origin in origins.items() if origin}

    @property
    def dimensions(self) -> dict[str, int]:
        """Per source, the length of a knowledge vector."""
        return {name: source.dimension for name, source in self._sources.items()}

    @property
    def kinds(self) -> dict[str, Kind]:
        """Per source, the kind of its ids (`ids.Kind`)."""
        return {name: source.kind for name, source in self._sources.items()}

    @property
    def defaults(self) -> dict[str, npt.NDArray[Any]]:
        """Per source, the learned vector of ids without knowledge, (width,)."""
        return {name: values_of(source.default) for name, source in self._sources.items()}

    def keys(self) -> dict[str, npt.NDArray[np.int64]]:
        """Per source with raw ids, their keys (`lookup.sorted_keys`) in the order of the vocabulary."""
        return {name: values_of(source.keys) for name, source in self._sources.items() if source.identity.raw}

    def given(self, name: str) -> Given:
        """What is known of a source: its table, and of raw ids their keys and kind."""
        return self._source(name).given

    def table(self, name: str) -> KnowledgeTable:
        """A source's knowledge vectors, as they were given; of raw ids in the order of their `keys`."""
        return self.given(name).table

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> dict[str, Any]:
        check_named(self, inputs, self.sources)
        return {name: self._augment(name, ids, (mask or {}).get(name)) for name, ids in inputs.items()}

    def compute_mask(self, inputs: Mapping[str, Any], mask: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {name: of_each(self._mask, ids, (mask or {}).get(name)) for name, ids in inputs.items()}

    def _mask(self, ids: Any, mask: Any) -> Any:
        return sequence_mask(ids, mask, self.mask_zero)

    def _augment(self, name: str, given: Any, mask: Any) -> Any:
        source, several = self._source(name), is_several(given)
        source.check()
        ids = [as_ids(name, each, source.kind) for each in (given if several else [given])]
        masks = mask if several and mask else [mask] * len(ids)
        places = [source.places(each) for each in ids]
        augmented = look_up_distinct(places, source.identity.vocabulary, partial(self._augment_places, source))
        shaped = [
            shape_like(each, vectors, self._mask(each, own))
            for each, vectors, own in zip(ids, augmented, masks, strict=True)
        ]
        return shaped if several else shaped[0]

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise ValueError(f"There is no knowledge source {name!r}. The sources are: {', '.join(self.sources)}")
        return self._sources[name]

    def _augment_places(self, source: Source, places: Any) -> Any:
        vectors, known = source.vectors_at(places, self.compute_dtype)
        adapted, gate = self.adaptor.adapt(source.name, vectors)  # (ids, width), (ids, experts)
        if self.load_balance:
            self.add_loss(self.load_balance * imbalance(gate, known))
        return source.if_right(ops.where(known[:, None], adapted, ops.cast(source.default, adapted.dtype)))

    def augmented_vectors(self, name: str, *, batch_size: int = 2048, spare: int = 0) -> npt.NDArray[np.float32]:
        """The augmented vector of every id of a source's vocabulary, then the default: (vocabulary + 1, width).

        Args:
            spare: how often the default comes more, for ids that are still to come.
        """
        source = self._source(name)
        source.check()
        rows, vectors = values_of(source.rows), ops.convert_to_tensor(source.vectors)
        known = np.flatnonzero(rows >= 0)
        table = np.empty((len(rows) + spare, self.width), np.float32)
        table[:] = values_of(source.default)
        if source.adapt is None:
            source.adapt = ops.compiled(lambda vectors, rows: self._adapted(name, ops.rows_at(vectors, rows)))
        adapt = source.adapt

        def fill(start: int) -> None:
            places = known[start : start + batch_size]
            table[places] = values_of(adapt(vectors, ops.convert_to_tensor(rows[places])))

        ops.for_each(fill, range(0, len(known), batch_size))
        return table

    def adapt(self, name: str, vectors: Any) -> npt.NDArray[np.float32]:
        """Knowledge vectors of a source, (ids, knowledge dimension), as augmented vectors, (ids, width)."""
        return values_of(self._adapted(name, vectors))

    def _adapted(self, name: str, vectors: Any) -> Any:
        adapted, _ = self.adaptor.adapt(name, ops.cast(vectors, self.compute_dtype))
        return ops.cast(adapted, "float32")

    def refreshed(self, tables: Mapping[str, Any]) -> KnowledgeAugmentation:
        """This layer with other knowledge: the same sources and trained weights, new vectors and coverage.

        Args:
            tables: for every source what the constructor takes. Dimensions must be the same ones; vectors of another
                encoder would be noise to the experts. Ids must be what they were: places, or raw ids of a store.

        Raises:
            ValueError: A source is missing, or has vectors of another dimension, or ids of another kind.
        """
        lacking = [name for name in self.sources if name not in tables]
        if lacking:
            raise ValueError(
                f"Layer {self.name!r} needs knowledge of {lacking[0]!r}. Received that of: {', '.join(tables)}"
            )
        sources = {name: tables[name] for name in self.sources}
        layer = type(self)(
            **{**self.get_config(), "sources": sources, "adaptor": self.adaptor_name or self.adaptor.copied()}
        )
        for name, former in self._sources.items():
            check_same_ids(name, former.identity.raw, former.identity.ids, layer.given(name))
        if layer.dimensions != self.dimensions:
            raise ValueError(f"The experts read vectors of {self.dimensions}. Received: {layer.dimensions}")
        layer.adaptor.set_weights(self.adaptor.get_weights())
        for name, source in layer._sources.items():
            source.learn_from(self._sources[name])
        return layer

    def gate_usage(self, ids: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Mean gate weight an expert over the ids that have knowledge: source -> (shared + dedicated experts,).

        Not a number where none of the ids has knowledge.

        Raises:
            ValueError: The adaptor has no gate (`adaptor.has_gate`): it is made of layers of your own.
        """
        usage = {}
        for name, values in ids.items():
            source = self._source(name)
            source.check()
            places = ops.reshape(source.places(as_ids(name, values, source.kind)), [-1])
            vectors, known = source.vectors_at(places, self.compute_dtype)
            gate = self.adaptor.gate({name: vectors[known]})[name]
            usage[name] = values_of(ops.mean(ops.cast(gate, "float32"), axis=0))
        return usage

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: output_shape(shape, self.width) for name, shape in input_shape.items()}

    def compute_output_spec(self, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Keras 3 asks this while a graph is made, instead of `call`."""
        check_named(self, inputs, self.sources)
        check_symbolic(inputs, {name: self._source(name).kind for name in inputs})
        return super().compute_output_spec(inputs, *args, **kwargs)

    def load_own_variables(self, store: Any) -> None:
        """Keras calls this for .keras and .weights.h5 files."""
        keys = [source.keys for source in self._sources.values() if source.keys is not None]
        super().load_own_variables(weights_for(self, store, keys))
        for source in self._sources.values():
            source.check()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KnowledgeAugmentation:
        # Keras's own would turn a StoreError into a page of TypeErrors.
        return cls(**{**config, "adaptor": adaptor_of_config(config["adaptor"])})

    def get_config(self) -> dict[str, Any]:
        named = self.adaptor_name in ADAPTORS.names()
        return {
            **super().get_config(),
            "sources": {name: asdict(source.saved) for name, source in self._sources.items()},
            "shared_experts": self.shared_experts,
            "dedicated_experts": self.dedicated_experts,
            "expert_units": self.expert_units,
            "adaptor": self.adaptor_name if named else serialized(self.adaptor),
            "embed_tables": self.embed_tables,
            "mask_zero": self.mask_zero,
            "load_balance": self.load_balance,
        }


def adaptor_for(adaptor: Any, settings: AdaptorSettings) -> Adaptor:
    """What `adaptor=` stands for, unbuilt."""
    if isinstance(adaptor, str):
        if adaptor not in ADAPTORS:
            raise ValueError(f"`adaptor` must be one of {ADAPTORS.names()}. Received: {adaptor!r}")
        adaptor = ADAPTORS.load(adaptor)(settings)
    if isinstance(adaptor, Adaptor):
        return adaptor
    options = {"name": "adaptor", "dtype": settings.dtype}
    if isinstance(adaptor, keras.layers.Layer):
        return LayerAdaptor.copies_of(adaptor, settings.sources, **options)
    if isinstance(adaptor, Mapping):
        return LayerAdaptor(adaptor, **options)
    raise ValueError(f"`adaptor` must be a name, a Keras layer, or a layer for each source. Received: {adaptor!r}")


def build_adaptor(adaptor: Adaptor, layer: str, dimensions: Mapping[str, int]) -> None:
    """Make an adaptor's weights, unless it has them, in the name scope of its layer."""
    if not adaptor.built:
        # Keras 3 names weights by its own scopes, and adds the adaptor's itself.
        with keras.name_scope(layer) if IS_KERAS_3 else ops.name_scope("adaptor"):
            adaptor.build({name: (None, dimension) for name, dimension in dimensions.items()})


def adaptor_of_config(adaptor: Any) -> Any:
    """What a config has for `adaptor=`, as the constructor takes it."""
    if isinstance(adaptor, Mapping):
        return deserialized(adaptor)
    if adaptor not in ADAPTORS.names():  # a file must not choose what is imported
        raise ValueError(f"`adaptor` must be one of {ADAPTORS.names()}. Received: {adaptor!r}")
    return adaptor


def imbalance(gate: Any, known: Any) -> Any:
    """Squared coefficient of variation of the experts' total gate weight over known ids; 0 where there are none."""
    total = ops.sum(ops.where(known[:, None], ops.cast(gate, "float32"), 0.0), axis=0)
    return ops.divide_no_nan(ops.var(total), ops.square(ops.mean(total)))
