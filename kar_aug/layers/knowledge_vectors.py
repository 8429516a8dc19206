"""Frozen knowledge vectors of ids, made ready to be compared: no expert network, no training, few numbers an id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import keras, track_weights
from kar_aug.cache.vectors.preparation import Preparation
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.copies import check_known, found, offered
from kar_aug.layers.ids import Kind, as_ids
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.lookup import constant, is_sequence, output_shape, positions, shape_like, values_of
from kar_aug.layers.new_ids import NO_KEY, as_table, matrix_of, placed, with_texts
from kar_aug.layers.one_source import OneSource
from kar_aug.layers.saved_weights import weights_for
from kar_aug.layers.source import Given, check_same_ids, note_loaded, read

_SPARE = "Make room when the layer is made: spare=..."
Array = npt.NDArray[Any]
V = TypeVar("V", bound="KnowledgeVectors")


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeVectors(OneSource, keras.layers.Layer):
    """Looks the knowledge vectors of ids up, ready to be compared with each other: their product is a cosine.

        ready = directions (vector - mean), divided by its length

    mean: of the vectors of all ids that have one; directions: of a PCA of them (`kar_aug.cache.vectors.preparation`).
    Both are fitted when the layer is made. What is trained on is its table alone, one row an id, which is saved with
    the model: that needs no vector store to load, and `prestore` has nothing to do with it. Padding, an id without
    knowledge and one outside the vocabulary are zeros, so that nothing is like them.

    Example:
        >>> known = KnowledgeVectors(items.align(item_ids))
        >>> candidate, events = known(item_id), known(hist_item_id)  # (batch, width), (batch, length, width)

    Args:
        source: what `KnowledgeAugmentation` takes for one of its sources.
        components: numbers a vector. None, and not fewer than there are, keep all of them; and so does a vocabulary of
            which not more ids than these have a vector.
        centre: whether the mean is taken off. Vectors of one encoder are all alike until it is.
        whiten: whether every direction is given the same variance.
        unit: whether vectors have length 1.
        table_dtype: "float32" or "float16": half the memory, about three decimal digits.
        spare: rows kept free for raw ids that `update` adds later.
        source_name: what `refresh` and `export` call the source; by default the layer's name.
        like: a layer whose mean and directions are taken, instead of fitting anew.

    Input shape:
        ids, (batch,), (batch, 1), (batch, length), or of more axes; in a sequence, 0 or "" is padding.
    Output shape:
        (batch, width), or the ids' shape + (width,) for sequences; width is `components`, or all numbers.

    Raises:
        StoreError: A vector holds NaN or a row points past the vectors, or does not fit into float16; or, when it is
            called, it is a copy that was never given knowledge.
        ValueError: When it is called, ids are of another kind than the source's.
    """

    def __init__(
        self,
        source: Any,
        components: int | None = 64,
        centre: bool = True,
        whiten: bool = False,
        unit: bool = True,
        table_dtype: str = "float32",
        spare: int = 0,
        source_name: str | None = None,
        like: KnowledgeVectors | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if table_dtype not in ("float32", "float16"):
            raise ValueError(f"`table_dtype` must be float32 or float16. Received: {table_dtype!r}")
        self.components = None if components is None else checked.whole("components", components)
        self.centre, self.whiten = checked.flag("centre", centre), checked.flag("whiten", whiten)
        self.unit, self.table_dtype = checked.flag("unit", unit), table_dtype
        self.spare = checked.whole("spare", spare, least=0)
        self.source_name = source_name or self.name
        self.supports_masking = True
        if isinstance(source, Mapping):
            self._saved = {name: value for name, value in source.items() if name != "content"}
            note_loaded([self.source_name])
            table, keys, preparation = self._room(source.get("content", ""))
        else:
            given = source if isinstance(source, Given) else read(self.source_name, source, embedded=True)
            preparation = like.preparation if like is not None else self._fitted(given)
            self._saved = self._identity(given, preparation)
            table, keys = self._filled(given, preparation)
        with ops.name_scope(self.name):
            self._table = self._frozen("vectors", as_table(self.source_name, table, table_dtype), table_dtype)
            self._keys = None if keys is None else self._frozen("keys", keys)
            self._mean = self._frozen("mean", preparation.mean)
            directions = preparation.directions
            self._directions = None if directions is None else self._frozen("directions", directions)
        track_weights(self)

    @classmethod
    def of(cls: type[V], augmentation: KnowledgeAugmentation, name: str, **options: Any) -> V:
        """One of a source of an augmentation, whose experts it has no use for. Who asks again gets the same layer, so
        that a model has one table of it.

        Args:
            options: as the constructor takes them.
        """
        made = _MADE.setdefault(augmentation, {})
        asked = (cls, name, *sorted(options.items()))
        if asked not in made:
            given = cls.given_by(augmentation, name)
            layer_name = f"{augmentation.name}_{name}_{cls.suffix}" + (f"_{len(made)}" if made else "")
            made[asked] = cls(given, **{"source_name": name, "name": layer_name, **options})
        return made[asked]

    suffix = "vectors"

    @staticmethod
    def given_by(augmentation: KnowledgeAugmentation, name: str) -> Given:
        """What an augmentation knows of a source."""
        return augmentation.given(name)

    @property
    def vector_width(self) -> int:
        """Length of a ready vector."""
        return int(self._saved["width"])

    @property
    def dimension(self) -> int:
        """Length of a knowledge vector, before it is made ready."""
        return int(self._saved["dimension"])

    @property
    def stores(self) -> dict[str, dict[str, Any]]:
        """{source: {"store": folder, "fingerprint": of its content, "version": of the vectors that it was made of}}, as
        `KnowledgeAugmentation` has it; empty for vectors given as an array.
        """
        said = {name: self._saved.get(name) for name in ("store", "fingerprint", "version")}
        origin = {name: value for name, value in said.items() if value is not None}
        return {self.source_name: origin} if origin else {}

    @property
    def kind(self) -> Kind:
        """Of the ids that it is looked up by (`ids.Kind`)."""
        return self._saved.get("ids") if self._saved["raw"] else int(self._saved["vocabulary"]) - 1

    @property
    def coverage(self) -> float | None:
        """Share of its vocabulary that has knowledge, when the layer was made; None in files of version 0.1."""
        return self._saved.get("coverage")

    @property
    def preparation(self) -> Preparation:
        """What makes a knowledge vector ready."""
        directions = None if self._directions is None else values_of(self._directions)
        return Preparation(values_of(self._mean), directions, self.unit)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        ids = self._ids(inputs)
        places = self._places(ids, is_sequence(ids.shape))
        vectors = ops.rows_at(ops.convert_to_tensor(self._table), ops.reshape(places, [-1]))
        return shape_like(ids, ops.cast(vectors, self.compute_dtype))

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None

    def _ids(self, given: Any) -> Any:
        """Ids as a tensor, of a layer that knows something."""
        check_known(self, self._table)
        return as_ids(self.source_name, given, self.kind)

    def _places(self, ids: Any, padded: bool) -> Any:
        """Per id its row of the table; the last is that of ids that have none, and of padding, where there is some."""
        size = self._saved["vocabulary"] + self.spare
        return positions(ids, size, None if self._keys is None else ops.convert_to_tensor(self._keys), padded)

    def _of_candidates(self, ids: Any) -> Any:
        """Vectors of one id a row, (batch,) or (batch, 1): (batch, width)."""
        places = ops.reshape(self._places(ids, False), [-1])
        return ops.cast(ops.rows_at(ops.convert_to_tensor(self._table), places), self.compute_dtype)

    def _products(self, queries: Any, ids: Any) -> Any:
        """Products of queries, (batch, heads, width), with the vectors of a sequence of ids: (batch, heads, length)."""
        return ops.products_with_rows(queries, ops.convert_to_tensor(self._table), self._places(ids, True))

    def update(self, knowledge: Mapping[Any, Any]) -> None:
        """Add ids, or replace their vectors, made ready as all others were.

        Args:
            knowledge: id as the model reads it -> knowledge vector, (dimension,).

        Raises:
            StoreError: There is no room for an id (`spare`), or a vector is not finite or not of the right length.
                Nothing is changed then.
        """
        vectors = self.preparation(matrix_of(self.source_name, knowledge, self.dimension))
        keys = None if self._keys is None else values_of(self._keys)
        table, keys = placed(
            self.source_name, list(knowledge), vectors, values_of(self._table).copy(), keys, _SPARE, self.kind
        )
        self._table.assign(as_table(self.source_name, table, self.table_dtype))
        if self._keys is not None:
            self._keys.assign(keys)
            self._saved["texts"] = with_texts(self._saved.get("texts", ()), knowledge)

    def refreshed(self: V, tables: Mapping[str, Any]) -> V:
        """This layer with other vectors of the same encoder, made ready as the old ones were.

        Args:
            tables: source -> what the constructor takes.
        """
        if self.source_name not in tables:
            raise ValueError(
                f"Layer {self.name!r} needs vectors of {self.source_name!r}. Received those of: {', '.join(tables)}"
            )
        given = read(self.source_name, tables[self.source_name], embedded=True)
        check_same_ids(self.source_name, self._saved["raw"], self._saved.get("ids"), given)
        if given.table.vectors.shape[1] != self.dimension:
            raise ValueError(
                f"Layer {self.name!r} reads vectors of {self.dimension} numbers. "
                f"Received: {given.table.vectors.shape[1]}"
            )
        layer = type(self)(**{**self.get_config(), "source": given, "like": self})
        layer._saved["version"] = self._saved.get("version") or given.table.version
        layer._learn_from(self)
        return layer

    def _learn_from(self, other: KnowledgeVectors) -> None:
        """Take over what another has learned: nothing, but for layers that do."""

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return output_shape(input_shape, self.vector_width)

    # What a saved model says of the source: room for the weights, which are loaded later.

    def _fitted(self, given: Given) -> Preparation:
        options = {"centre": self.centre, "whiten": self.whiten, "unit": self.unit}
        return Preparation.fitted(given.table, self.components, **options)

    def _identity(self, given: Given, preparation: Preparation) -> dict[str, Any]:
        return {
            "vocabulary": len(given.table.rows),
            "raw": given.keys is not None,
            "dimension": len(preparation.mean),
            "width": preparation.width,
            "reduced": preparation.directions is not None,
            "store": given.table.store,
            "fingerprint": given.table.fingerprint,
            "version": given.table.version,
            "ids": given.ids,
            "coverage": given.table.coverage,
        }

    def _room(self, content: str) -> tuple[Array, Array | None, Preparation]:
        """A saved model's table, keys and preparation: those that a layer of this process holds of the same content. If
        there is none, NaN in the table, until it is loaded.
        """
        like = found(KnowledgeVectors, content)
        if like is not None:
            keys = None if like._keys is None else values_of(like._keys)
            return values_of(like._table), keys, like.preparation
        size, width, dimension = self._saved["vocabulary"] + self.spare, self._saved["width"], self._saved["dimension"]
        keys = np.full(size, NO_KEY, ops.KEYS) if self._saved["raw"] else None
        directions = np.zeros((width, dimension), np.float32) if self._saved["reduced"] else None
        preparation = Preparation(np.zeros(dimension, np.float32), directions, self.unit)
        return np.full((size + 1, width), np.nan, np.float32), keys, preparation

    def held(self) -> list[Array]:
        """What a copy of the layer needs beside its config."""
        weights = (self._table, self._keys, self._mean, self._directions)
        return [values_of(weight) for weight in weights if weight is not None]

    def load_own_variables(self, store: Any) -> None:
        """Keras calls this for .keras and .weights.h5 files."""
        super().load_own_variables(weights_for(self, store, [] if self._keys is None else [self._keys]))

    def _filled(self, given: Given, preparation: Preparation) -> tuple[Array, Array | None]:
        """The table, spare rows and that of unknown ids behind the vocabulary, and the keys of raw ids."""
        free = np.zeros((self.spare + 1, preparation.width), np.float32)
        keys = None if given.keys is None else np.concatenate([given.keys, np.full(self.spare, NO_KEY, ops.KEYS)])
        return np.concatenate([preparation.of_table(given.table), free]), keys

    def _frozen(self, name: str, values: Array, dtype: str | None = None) -> Any:
        dtype = dtype or values.dtype.name
        return self.add_weight(
            name=name, shape=values.shape, dtype=dtype, trainable=False, initializer=constant(values)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "source": {**self._saved, "content": offered(self)},
            "components": self.components,
            "centre": self.centre,
            "whiten": self.whiten,
            "unit": self.unit,
            "table_dtype": self.table_dtype,
            "spare": self.spare,
            "source_name": self.source_name,
        }


_MADE: WeakKeyDictionary[KnowledgeAugmentation, dict[Any, Any]] = WeakKeyDictionary()
