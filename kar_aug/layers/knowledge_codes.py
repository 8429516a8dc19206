"""Semantic ids of ids, as integers for embeddings: what is known of an item in a few small numbers, and no vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.keras import keras, track_weights
from kar_aug.cache.vectors.table import KnowledgeTable, RowCodes
from kar_aug.codes.bundle import SemanticIds
from kar_aug.codes.pieces import BUCKETS, Pieces
from kar_aug.errors import StoreError
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.copies import found, nothing_known, offered
from kar_aug.layers.ids import Kind, as_ids, kind_of
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.lookup import constant, positions, sorted_keys, values_of
from kar_aug.layers.new_ids import NO_KEY, placed, with_texts
from kar_aug.layers.one_source import OneSource

_SPARE = "Make room when the layer is made: spare=..."
_NOT_YET = -1  # in all of a table, until it is loaded
Array = npt.NDArray[Any]


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeCodes(OneSource, keras.layers.Layer):
    """Looks the semantic ids of ids up, piece by piece: each level, and hashed prefixes (`kar_aug.codes.Pieces`).

    Nothing is trained, and no vector is there: the table, one row of small integers an id, is saved with the model. An
    id without codes, or outside the vocabulary, is 0 in each piece, which is an integer of its own.

    Example:
        >>> item_codes = SemanticIds.make(items, levels=2, size=4)
        >>> layer = KnowledgeCodes(item_codes.align(item_ids))
        >>> pieces = dict(zip(layer.piece_names, layer(item_id)))
        >>> vectors = keras.layers.Embedding(layer.vocabulary_sizes[0], 32)(pieces["level_1"])

    Args:
        source: what `SemanticIds.align` or `.attach` returned, for the integers of a vocabulary; or `SemanticIds`
            itself, for its raw ids.
        buckets: that prefixes of one length are hashed into.
        spare: rows kept free for raw ids that `update` adds later.
        source_name: what `refresh` and `export` call the source; by default the layer's name.

    Input shape:
        ids, (batch,), (batch, 1), (batch, length), or of more axes.
    Output shape:
        A list, one a piece, of int32 of the ids' shape.

    Raises:
        StoreError: The source has no codes; or, when it is called, it is a copy that was never given any.
        ValueError: When it is called, ids are of another kind than the source's.
    """

    def __init__(
        self, source: Any, buckets: int = BUCKETS, spare: int = 0, source_name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.buckets, self.spare = checked.whole("buckets", buckets), checked.whole("spare", spare, least=0)
        self.source_name = source_name or self.name
        self.supports_masking = True
        if isinstance(source, Mapping):
            self._saved = {name: value for name, value in source.items() if name != "content"}
            pieces, keys = self._room(source.get("content", ""))
        else:
            self._saved, pieces, keys = self._given(source)
        with ops.name_scope(self.name):
            self._table = self._frozen("pieces", pieces)
            self._keys = None if keys is None else self._frozen("keys", keys)
        track_weights(self)

    @classmethod
    def of(cls, augmentation: KnowledgeAugmentation, name: str, **options: Any) -> KnowledgeCodes:
        """Those of a source of an augmentation, whose table they were attached to. Who asks again gets the same layer.

        Raises:
            StoreError: There are none.
        """
        made = _MADE.setdefault(augmentation, {})
        asked = (name, *sorted(options.items()))
        if asked not in made:
            given = augmentation.given(name)
            if given.keys is not None:
                raise StoreError(
                    f"The codes of {name!r} go by the integers of a vocabulary: give the augmentation "
                    "codes.attach(store.align(vocabulary), vocabulary).",
                    source=name,
                )
            layer_name = f"{augmentation.name}_{name}_codes" + (f"_{len(made)}" if made else "")
            made[asked] = cls(given.table, **{"source_name": name, "name": layer_name, **options})
        return made[asked]

    @property
    def pieces(self) -> Pieces:
        """What of the codes is looked up."""
        return Pieces(self._saved["levels"], self._saved["size"], self.buckets)

    @property
    def piece_names(self) -> list[str]:
        """Of the outputs: "level_1" ..., "prefix_2" ..."""
        return self.pieces.names

    @property
    def vocabulary_sizes(self) -> list[int]:
        """Of each output, how many integers it may be: for its embedding."""
        return self.pieces.vocabulary_sizes

    @property
    def stores(self) -> dict[str, dict[str, Any]]:
        """{source: {"store": folder of the codes, "fingerprint", "version"}}; empty where nobody said."""
        names = ("store", "fingerprint", "version")
        return {self.source_name: {n: self._saved[n] for n in names}} if self._saved["store"] else {}

    @property
    def kind(self) -> Kind:
        """Of the ids that it is looked up by (`ids.Kind`)."""
        return self._saved["ids"] if self._saved["raw"] else int(self._saved["vocabulary"]) - 1

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> list[Any]:
        self._check_known()
        ids = as_ids(self.source_name, inputs, self.kind)
        size = self._saved["vocabulary"] + self.spare
        places = positions(ids, size, None if self._keys is None else ops.convert_to_tensor(self._keys))
        rows = ops.rows_at(ops.convert_to_tensor(self._table), ops.reshape(places, [-1]))  # (ids, pieces)
        return [ops.reshape(rows[:, piece], ops.sizes_of(ids)) for piece in range(rows.shape[1])]

    def compute_mask(self, inputs: Any, mask: Any = None) -> list[None]:
        return [None] * len(self.piece_names)

    # No `compute_output_shape`: Keras 3 would take it to say that the outputs are floats.

    def _check_known(self) -> None:
        values = None if getattr(self, "is_known", False) else ops.value_now(self._table)
        if values is None:
            return
        if np.asarray(values)[-1, 0] == _NOT_YET:
            raise nothing_known(f"Layer {self.name!r}")
        self.is_known = True

    def update(self, codes: SemanticIds, ids: Any) -> None:
        """Add ids, or give them the codes that they have in a bundle: those of the same codebooks.

        Raises:
            ValueError: The layer goes by the integers of a vocabulary, and not by raw ids.
            StoreError: There is no room for an id (`spare`), or the codebooks are others. Nothing is changed then.
        """
        if self._keys is None:
            raise ValueError(
                f"Layer {self.name!r} goes by the integers of a vocabulary, and codes by raw ids. Give it the codes of "
                "the vocabulary: refresh(model, {source: codes.align(vocabulary)})."
            )
        self._check_version(codes.version)
        new = list(ids)
        pieces, table = self.pieces.of(codes.codes_of(new)), values_of(self._table).copy()
        table, keys = placed(self.source_name, new, pieces, table, values_of(self._keys), _SPARE, self.kind)
        self._table.assign(table)
        self._keys.assign(keys)
        self._saved["texts"] = with_texts(self._saved.get("texts", ()), new)

    def refreshed(self, tables: Mapping[str, Any]) -> KnowledgeCodes:
        """This layer with the codes of more items, by the same codebooks.

        Args:
            tables: source -> what the constructor takes.

        Raises:
            ValueError: There is none of this source.
            StoreError: It has no codes, or those of other codebooks.
        """
        if self.source_name not in tables:
            raise ValueError(
                f"Layer {self.name!r} needs codes of {self.source_name!r}. Received those of: {', '.join(tables)}"
            )
        layer = type(self)(**{**self.get_config(), "source": tables[self.source_name]})
        self._check_version(layer._saved["version"])
        return layer

    def _check_version(self, version: str) -> None:
        if version != self._saved["version"]:
            raise StoreError(
                f"The model learnt codes of {self.source_name!r} of codebooks {self._saved['version']}, and these are "
                f"of {version}: they mean something else. Bring the codes that it was trained with up to date, or "
                "train it again.",
                source=self.source_name, left=self._saved["version"], right=version,
            )  # fmt: skip

    def _given(self, source: Any) -> tuple[dict[str, Any], Array, Array | None]:
        """What is saved of a source, its pieces by id, spare rows and that of unknown ids behind them, and its keys."""
        ids: Kind = None
        if isinstance(source, SemanticIds):
            keys, order = sorted_keys(source.ids)
            ids = kind_of(source.ids)
            table = source.align([source.ids[place] for place in order])
            keys = np.concatenate([keys, np.full(self.spare, NO_KEY, ops.KEYS)])
        else:
            table, keys = source, None
        codes = table.codes if isinstance(table, KnowledgeTable) else None
        if codes is None:
            raise StoreError(
                f"There are no codes of {self.source_name!r}. Make some (kar-aug codes), and attach them to its table: "
                "SemanticIds.of(store).attach(store.align(vocabulary), vocabulary).",
                source=self.source_name,
            )
        saved = {
            "vocabulary": len(table.rows),
            "raw": keys is not None,
            "ids": ids,
            "levels": codes.values.shape[1],
            "size": codes.size,
            "version": codes.version,
            "store": codes.store,
            "fingerprint": codes.fingerprint,
        }
        pieces = Pieces(codes.values.shape[1], codes.size, self.buckets).of(_by_id(table.rows, codes, self.spare))
        return saved, pieces, keys

    def _room(self, content: str) -> tuple[Array, Array | None]:
        """A saved model's pieces and keys: those that a layer of this process holds of the same content, or room."""
        like = found(KnowledgeCodes, content)
        if like is not None:
            return values_of(like._table), None if like._keys is None else values_of(like._keys)
        size = self._saved["vocabulary"] + self.spare
        keys = np.full(size, NO_KEY, ops.KEYS) if self._saved["raw"] else None
        return np.full((size + 1, len(self.piece_names)), _NOT_YET, np.int32), keys

    def held(self) -> list[Array]:
        """What a copy of the layer needs beside its config."""
        return [values_of(weight) for weight in (self._table, self._keys) if weight is not None]

    def _frozen(self, name: str, values: Array) -> Any:
        return self.add_weight(
            name=name, shape=values.shape, dtype=values.dtype.name, trainable=False, initializer=constant(values)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "source": {**self._saved, "content": offered(self)},
            "buckets": self.buckets,
            "spare": self.spare,
            "source_name": self.source_name,
        }


def _by_id(rows: npt.NDArray[np.int32], codes: RowCodes, spare: int) -> npt.NDArray[np.int32]:
    """Codes of a vocabulary, then of free rows and of unknown ids: zeros."""
    by_id = np.zeros((len(rows) + spare + 1, codes.values.shape[1]), np.int32)
    by_id[np.flatnonzero(rows >= 0)] = codes.values[rows[rows >= 0]]
    return by_id


_MADE: WeakKeyDictionary[KnowledgeAugmentation, dict[Any, KnowledgeCodes]] = WeakKeyDictionary()
