"""Models whose vectors come with each row: from disk while they are trained, from a feature store when they serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kar_aug._helpers.keras import first_argument, keras, nest, tensors_behind, tensors_made
from kar_aug.cache.vectors.files import StoreSpec
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.errors import StoreError
from kar_aug.layers import GivenVectors, KnowledgeAugmentation, VectorAugmentation
from kar_aug.layers.given_vectors import KNOWN, VECTORS, VERSION
from kar_aug.layers.lookup import is_sequence
from kar_aug.models.augmented import augmented_store, fingerprint
from kar_aug.models.find import check_model, knowledge_layers
from kar_aug.models.graph import input_name, with_changed, without_idle

_INTO_A_CLASS = (
    "Of a model with a `call` of its own, which nobody else can give vectors, make a second one with "
    "VectorAugmentation.of(layer) in the place of its KnowledgeAugmentation, and hand the vectors on in `call`; "
    "`augmented_store` writes them by id."
)


class VectorInputs:
    """A model's inputs of vectors, {name}_vectors and {name}_known, as `kar_aug.models.join` fills them: a pair for
    each input of ids.

    Args:
        layer: what reads them.
        versions: whether {name}_version, strings, comes in place of {name}_known.
    """

    def __init__(self, layer: GivenVectors, *, versions: bool = False) -> None:
        self._layer, self._flag = layer, VERSION if versions else KNOWN
        self._dtype = "string" if versions else "bool"
        self._made: dict[tuple[str, int], tuple[Any, Any]] = {}

    @property
    def inputs(self) -> list[Any]:
        """Those that were asked for so far."""
        return [tensor for pair in self._made.values() for tensor in pair]

    def field(self, source: str, name: str, ids: Any) -> Any:
        """The field of a source, of vectors that come beside the ids of an input of that name."""
        if (source, id(ids)) not in self._made:
            if any(read == id(ids) for _, read in self._made):  # by another source, which took the input's name
                name = source
            shape = tuple(ids.shape)[1:]
            dimension = self._layer.dimensions[source]
            vectors = keras.Input((*shape, dimension), name=f"{name}{VECTORS}", dtype="float32")
            self._made[source, id(ids)] = vectors, keras.Input(shape, name=f"{name}{self._flag}", dtype=self._dtype)
        vectors, flag = self._made[source, id(ids)]
        return self._layer({source: vectors, f"{source}{self._flag}": flag})[source]


class Split(NamedTuple):
    """A model in two parts.

    Args:
        tables: source -> its augmented vectors by id, for a feature store (`kar_aug.online.publish`), or `join`.
        ranker: the rest of the model, which takes these vectors as inputs.
    """

    tables: dict[str, VectorStore]
    ranker: Any


def split(
    model: Any, folder: Path | str, stores: Mapping[str, VectorStore] | None = None, *, versions: bool = False,
    any_version: bool = False,
) -> Split:  # fmt: skip
    """Take a trained model apart: its augmented vectors by id, and a ranker that is given them with each request, so
    that no table is in its graph. Predictions agree to rounding.

    For each input of ids that knowledge was looked up by, the ranker has {name}_vectors, in the shape of the ids with
    the width behind, and {name}_known, whether there is one. An input that nothing else read is gone.

    Args:
        model: a functional model with a `KnowledgeAugmentation`. The ranker shares its other layers.
        folder: of the stores of augmented vectors, one a source; what is there already stays (see `augmented_store`).
        stores: source -> the store of knowledge vectors, by default that which the model was trained with; whoever is
            in it has an augmented vector. A source that was given an array has those of the model's integers.
        versions: {name}_version, strings, in place of {name}_known: the version of each vector, as `publish` writes it
            beside it (empty where there is none). Vectors of another version are as if there were none.
        any_version: take `stores` of another version, as `refresh` has it.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model's own graph.
        StoreError: A store is gone, or of another version than the model learnt to read; or there is one of another
            adaptor's vectors in `folder`.
    """
    tables: dict[str, VectorStore] = {}

    def reading(layer: KnowledgeAugmentation) -> GivenVectors:
        for name in layer.sources:
            store = (stores or {}).get(name)
            tables[name] = _augmented(layer, name, store, Path(folder) / name, any_version=any_version)
        given = GivenVectors({name: tables[name] for name in layer.sources}, name=f"{layer.name}_augmented")
        given.set_weights(list(layer.defaults.values()))
        return given

    return Split(tables, _fed(model, reading, "ranker", versions=versions))


def vectors_as_inputs(model: Any, *, versions: bool = False) -> Any:
    """The model with knowledge vectors as inputs in place of its tables, and with its experts: what it predicts of the
    vectors that `join` brings, it predicted of their ids.

    Args:
        versions: as `split` has it, of knowledge vectors.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model's own graph.
    """
    return _fed(model, VectorAugmentation.of, "of_vectors", versions=versions)


def _fed(model: Any, reading: Callable[[KnowledgeAugmentation], GivenVectors], suffix: str, *, versions: bool) -> Any:
    """The model with fields of vectors that are given in place of those that are looked up."""
    check_model(model, "split or vectors_as_inputs", instead=_INTO_A_CLASS)
    layers = [layer for layer in model.layers if isinstance(layer, KnowledgeAugmentation)]
    if not layers:
        nested = knowledge_layers(model, (KnowledgeAugmentation,))
        where = (
            f"but one in a model inside it, {nested[0].name!r}: take that one apart"
            if nested
            else "and nothing to give vectors to"
        )
        raise ValueError(f"Model {model.name!r} has no KnowledgeAugmentation in its own graph, {where}.")
    used = tensors_behind(model.outputs)
    changes: dict[int, Callable[[Any], Any]] = {}
    inputs: list[VectorInputs] = []
    instead: dict[int, Any] = {}
    for layer in layers:
        instead[id(layer)] = reading(layer)
        given = VectorInputs(instead[id(layer)], versions=versions)
        inputs.append(given)
        for node in layer._inbound_nodes:
            made = tensors_made(node)
            if any(id(tensor) in used for tensor in made):
                for (source, ids), tensor in zip(read_by(node), made, strict=True):
                    if layer.mask_zero and is_sequence(ids.shape):
                        raise ValueError(
                            f"Layer {layer.name!r} masks the padding of {source!r}, and vectors that are given say "
                            "nothing of padding. Train the model with mask_zero=False, or keep its tables: prestore."
                        )
                    field = given.field(source, _name_of(ids, source), ids)
                    changes[id(tensor)] = lambda _, field=field: field  # type: ignore[misc]
    further = [tensor for each in inputs for tensor in each.inputs]

    def in_place(layer: Any) -> Any:
        if id(layer) not in instead and knowledge_layers(layer, (KnowledgeAugmentation,)):
            raise ValueError(
                f"Layer {layer.name!r}, an attribute of model {model.name!r}, has a KnowledgeAugmentation inside that "
                "cannot be given vectors. Take the attribute off the model."
            )
        return instead.get(id(layer), layer)

    return without_idle(with_changed(model, changes, further, f"{model.name}_{suffix}", instead=in_place), used)


def read_by(node: Any) -> list[tuple[str, Any]]:
    """(source, ids) of a call of the layer, in the order of what it returns."""
    given = first_argument(node)
    names = {source: nest.map_structure(lambda _, source=source: source, ids) for source, ids in given.items()}
    return list(zip(nest.flatten(names), nest.flatten(given), strict=True))


def _name_of(ids: Any, source: str) -> str:
    """That of the input that ids are, or else of their source."""
    return input_name(ids) if isinstance(ids._keras_history[0], keras.layers.InputLayer) else source


def _augmented(
    layer: KnowledgeAugmentation, name: str, store: VectorStore | None, folder: Path, *, any_version: bool
) -> VectorStore:
    """The augmented vectors of a source, by id."""
    place = layer.stores.get(name, {}).get("store")
    if store is None and place is not None:
        store = VectorStore.open(place)
    if store is not None:
        return augmented_store(layer, name, store, folder, any_version=any_version)
    known = np.flatnonzero(layer.table(name).rows >= 0)
    vectors = layer.augmented_vectors(name)[known]
    if len(layer.keys().get(name, ())):
        raise StoreError(f"Of {name!r} the model has vectors alone, not the ids: give split its store.", source=name)
    with VectorStore.writer(
        folder, StoreSpec(f"adaptor {fingerprint(layer, name)}", layer.width, dtype="float32")
    ) as writer:
        writer.append(known, [""] * len(known), vectors)
    return VectorStore.open(folder)
