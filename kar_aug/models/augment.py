"""Knowledge for a functional model that exists."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any

from kar_aug._helpers.keras import dtype_name, is_ragged, keras, tensors_behind
from kar_aug.backbones.protocol import Injection, key_of
from kar_aug.layers import KnowledgeAdded, KnowledgeAugmentation, MaskedMean, VectorAugmentation
from kar_aug.layers.ids import STRINGS
from kar_aug.layers.lookup import concatenate
from kar_aug.models.coverage import known_of
from kar_aug.models.find import check_model
from kar_aug.models.graph import input_name, maker_of, structure_of, with_changed
from kar_aug.models.places import INTO_A_CLASS, Place, attachment_points, default_place, named_place
from kar_aug.models.vectors_as_inputs import VectorInputs
from kar_aug.registry import INJECTIONS

__all__ = ["attachment_points", "augment"]
logger = logging.getLogger(__name__)


def augment(
    model: Any,
    augmentation: KnowledgeAugmentation | VectorAugmentation,
    *,
    at: str | Mapping[str, str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    trainable: bool = True,
    injection: Injection | str = "fields",
    vectors: str = "table",
) -> Any:
    """Add knowledge to a functional model that exists; its predictions are unchanged until it is trained on.

    A linear projection of what the injection brings, zero at first, is added to what one layer reads: which is what
    concatenating it to that input would do, without a new shape for the layer's kernel. Other layers that read the same
    tensor (the experts of a multi-task model, a cross network beside the deep part) read it with the knowledge, too.

    One id a row gives one vector, which is added at every position of a tensor (batch, list, width). The ids of a list,
    (batch, list), at a place that has these positions, (batch, list, width), are added position by position. At any
    other place a sequence of ids, (batch, length), of any length, gives the mean of its vectors, of those whose id is
    not padding: 0, unless the source's store knows an id 0 and its `mask_zero` is False, or the empty string.

    Example:
        >>> towers = {"user_id": "user_dense", "item_id": "item_dense"}
        >>> model = augment(two_towers, augmentation, at=towers)  # doctest: +SKIP

    Args:
        model: a built functional model. It is not copied: the new model shares its layers and weights, and what was
            set on it as an attribute of your own.
        augmentation: its sources are found among the model's inputs by name. A `VectorAugmentation` has no table; what
            is said below of `vectors="input"` holds for it.
        at: name of the layer whose input receives the knowledge, one of `attachment_points(model)`. By default
            the first of them that reads all inputs that the knowledge is looked up by: a `DNN` (DeepCTR's name for its
            deep part), or else a `Dense`. Or source, or name of an input -> such a layer, for all of them.
        inputs: source, or input that the injection reads -> name of the model's input, where they differ; or a
            `keras.Input` that the model does not have yet, and will; or, for "fields", several of these, which one
            table and one set of experts serve: {"item_id": ["item_id", "hist_item_id"]}.
        trainable: False freezes the old weights, so that only the new path is trained. It sets `trainable` on
            `model` itself.
        injection: what enters, and so how a history is pooled: a name of `kar_aug.registry.INJECTIONS`, or an
            `Injection`. "fields" is the augmented vector of each source, of a history their mean; "attention" weighs
            earlier events by the candidate, in frozen vectors, "similarity" compares it with them in numbers, and
            "state" with sums over them. Several are joined by "+": "fields+attention".
        vectors: "table": they are looked up in the graph; "input": they come with each row, for more of them than
            memory holds. For each input of ids, {name}, the model has {name}_vectors, the ids' shape + (knowledge
            dimension,), and {name}_known, of the ids' shape, more: what `kar_aug.models.join` adds to a dataset. The
            trained weights are those of `augmentation`, copied. For "fields" alone.

    Returns:
        A new, uncompiled model of the same class, with the inputs of the old one, and those that `inputs` adds, and its
        outputs, under their names. Its attribute `knowledge_attached_to` names the layer that receives the knowledge
        (also said, with the share of ids that are known: logged where INFO is, else printed to stderr), or the layers,
        with commas between;
        `model.get_layer("knowledge_projection")` is the projection, and "knowledge_projection_1" that of another place.

    Raises:
        ValueError: The model is not functional, or is of a class that cannot be made of inputs and outputs; or a name
            is not found, or no layer can be chosen by default: the message lists what there is.
        StoreError: Of the raw ids that the model itself looks up (`StringLookup`), the store has none.
    """
    check_model(model, "augment", instead=INTO_A_CLASS)
    if not isinstance(augmentation, KnowledgeAugmentation | VectorAugmentation):
        raise ValueError(
            "`augment` adds a layer: KnowledgeAugmentation({input: store}), or VectorAugmentation. Received: "
            f"{type(augmentation).__name__}"
        )
    maker_of(model)
    names, given = _Names(model, augmentation), dict(inputs or {})
    mean_of = partial(_mean_of, augmentation)  # of the table, if there is one, which knows whether 0 is an id
    if vectors not in ("table", "input"):
        raise ValueError(f'`vectors` must be "table" or "input". Received: {vectors!r}')
    if vectors == "input" and isinstance(augmentation, KnowledgeAugmentation):
        augmentation = VectorAugmentation.of(augmentation)
    vector_inputs = VectorInputs(augmentation) if isinstance(augmentation, VectorAugmentation) else None
    if injection == "fields":
        entering = _fields(model, augmentation, at, given, names, vector_inputs, mean_of)
    elif vector_inputs is not None:
        raise ValueError('Vectors as inputs go with injection="fields". Others look up vectors of their own.')
    else:
        entering = _injected(model, augmentation, at, given, injection)
    said = _said_of(model, augmentation)
    if not trainable:
        model.trainable = False
    changes = {id(place.tensor): partial(_with_knowledge, vectors, names) for place, vectors in entering}
    attached = [place.layer for place, _ in entering]
    _say(f"knowledge of {said} was added to the input of layer {', '.join(map(repr, attached))}")
    own = {id(tensor) for tensor in model.inputs}
    further = {id(each): each for given in given.values() for each in _several(given) if not isinstance(each, str)}
    new = [each for key, each in further.items() if key not in own]
    name = f"{model.name.removesuffix('_augmented')}_augmented"
    augmented = with_changed(model, changes, [*new, *(vector_inputs.inputs if vector_inputs else ())], name)
    augmented.knowledge_attached_to = ", ".join(attached)
    return augmented


def _say(what: str) -> None:
    """Once for whoever calls by hand, who has seldom made loggers speak."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(what)
    else:
        sys.stderr.write(f"{what}\n")


def _said_of(model: Any, augmentation: KnowledgeAugmentation | VectorAugmentation) -> str:
    """Its sources, and of how many ids each knows something: of vectors that come with each row nobody can tell."""
    if isinstance(augmentation, VectorAugmentation):
        return ", ".join(augmentation.sources)
    return ", ".join(f"{name} ({share})" for name, share in known_of(model, augmentation).items())


_SLICES = 'augmentation({"user_id": pairs[:, 0], "item_id": pairs[:, 1]}).'
Entering = list[tuple[Place, list[Any]]]  # where what enters: vectors, (batch, width) or (batch, list, width)


class _Names:
    """Names for new layers, which no layer of the model has."""

    def __init__(self, model: Any, augmentation: KnowledgeAugmentation | VectorAugmentation) -> None:
        self._taken = {layer.name for layer in model.layers}
        if augmentation.name in self._taken and not any(layer is augmentation for layer in model.layers):
            raise ValueError(
                f"Model {model.name!r} has a layer {augmentation.name!r} already. Give this one a name of its own: "
                f"{type(augmentation).__name__}(..., name=...)"
            )

    def __call__(self, name: str) -> str:
        numbered = (f"{name}_{i}" for i in count(1))
        free = next(each for each in chain([name], numbered) if each not in self._taken)
        self._taken.add(free)
        return free


# What each source's ids give


@dataclass(frozen=True)
class Read:
    """An input by which ids of a source come.

    Args:
        name: of the input.
        ids: the input, (batch,), (batch, 1), (batch, length) or of a higher rank.
    """

    source: str
    name: str
    ids: Any


def _fields(
    model: Any, augmentation: Any, at: Any, inputs: Mapping[str, Any], names: _Names, given: VectorInputs | None,
    mean_of: Callable[[str], Callable[..., Any]],
) -> Entering:  # fmt: skip
    """The augmented vectors of each source, at its place. The layer is called once for each place, so that a tower that
    is taken out of the model takes its own ids alone along.
    """
    reads = [read for source in augmentation.sources for read in _reads(model, source, inputs.get(source))]
    for read in reads:
        others = (each for each in reads if each.ids is read.ids and key_of(each.source) != key_of(read.source))
        if (other := next(others, None)) is not None:
            raise ValueError(
                f"Input {read.name!r} is named for {read.source!r} and for {other.source!r}, which have ids of their "
                "own. Where it has a column of each, build the model with the layer from the start: " + _SLICES
            )
    entering = []
    for place, here in _chosen(model, reads, at):
        if given is None:
            fields = _looked_up(augmentation, here)
        else:
            fields = [given.field(read.source, read.name, read.ids) for read in here]
        each = zip(here, fields, strict=True)
        entering.append((place, [_pooled(read, field, place, names, mean_of(read.source)) for read, field in each]))
    return entering


def _looked_up(augmentation: KnowledgeAugmentation, reads: Sequence[Read]) -> list[Any]:
    """The augmented vectors of the ids of some inputs, by one call of the layer."""
    ids: dict[str, list[Any]] = {}
    for read in reads:
        ids.setdefault(read.source, []).append(read.ids)
    found = augmentation({source: several if len(several) > 1 else several[0] for source, several in ids.items()})
    of_source = {source: iter(_several(vectors)) for source, vectors in found.items()}
    return [next(of_source[read.source]) for read in reads]


def _mean_of(augmentation: KnowledgeAugmentation | VectorAugmentation, source: str) -> Callable[..., Any]:
    """What makes the layer that takes the mean of a source's sequences. 0 is padding, but where a store says of an item
    0 what it is.
    """
    if isinstance(augmentation, VectorAugmentation):
        return MaskedMean
    given = augmentation.given(source)
    rows = given.table.rows if given.keys is None else given.table.rows[given.keys == 0]
    known = given.table.store is not None and given.ids != STRINGS and bool((rows[:1] >= 0).any())
    return partial(MaskedMean, mask_zero=augmentation.mask_zero or not known)


def _reads(model: Any, source: str, given: Any) -> list[Read]:
    """The inputs of a source: what `inputs` says, else the one of its name."""
    own = _inputs_of(model)
    default = source if source in own else key_of(source)
    reads = []
    for each in _several(default if given is None else given):
        if isinstance(each, str):
            reads.append(Read(source, each, _input(own, source, each)))
        else:
            reads.append(Read(source, input_name(each), each))
    for read in reads:
        if not any(read.ids is each for each in own.values()) and not _is_input(read.ids):
            raise ValueError(
                f"`inputs` names a tensor for {source!r} that is no input. Where one input has a column of each id, "
                "build the model with the layer from the start: " + _SLICES
            )
        if is_ragged(read.ids):
            raise ValueError(
                f"Input {read.name!r} is ragged, which knowledge is not looked up by: let the model read padded ids "
                "(`ids.to_tensor()`), 0 or the empty string where there is none."
            )
    return reads


def _is_input(tensor: Any) -> bool:
    return isinstance(tensor._keras_history[0], keras.layers.InputLayer)


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _inputs_of(model: Any) -> dict[str, Any]:
    """A model's inputs by name, and by the keys of its dictionary of inputs where these differ."""
    inputs, _ = structure_of(model)
    return {**(inputs if isinstance(inputs, dict) else {}), **{input_name(tensor): tensor for tensor in model.inputs}}


def _input(own: Mapping[str, Any], source: str, name: str) -> Any:
    if name not in own:
        raise ValueError(
            f"The model has no input {name!r} for knowledge source {source!r}. It has: {', '.join(own)}. "
            "Say which one it is: inputs={'" + source + "': ...}"
        )
    return own[name]


def _chosen(model: Any, reads: Sequence[Read], at: Any) -> list[tuple[Place, list[Read]]]:
    """Each place with what is read for it."""
    if at is None:
        return [(default_place(model, {read.name: read.ids for read in reads}), list(reads))]
    if isinstance(at, str):
        return [(named_place(model, at), list(reads))]
    known = {name for read in reads for name in (read.source, read.name)}
    wrong = [name for name in at if name not in known]
    lacking = [read.name for read in reads if read.name not in at and read.source not in at]
    if wrong or lacking:
        raise ValueError(
            f"`at` must name a layer for each source, or input of one: {', '.join(read.name for read in reads)}. "
            + (f"There is none for {lacking[0]!r}." if lacking else f"There is no {wrong[0]!r}.")
        )
    for name, layer in at.items():
        if not isinstance(layer, str):
            raise ValueError(f"`at` names one layer for each source, or input of one. Received for {name!r}: {layer!r}")
    found: dict[int, tuple[Place, list[Read]]] = {}
    for read in reads:
        place = named_place(model, at.get(read.name, at.get(read.source)))
        found.setdefault(id(place.tensor), (place, []))[1].append(read)
    return list(found.values())


def _pooled(read: Read, vectors: Any, place: Place, names: _Names, mean: Callable[..., Any]) -> Any:
    """Vectors of a place's positions, (batch, list, width), or of a row, (batch, width): means of what lies beyond."""
    axes = len(vectors.shape) - 2
    common = place.positions_of(read.ids) if axes else 0
    if axes == common:
        return vectors
    ids = read.ids
    if axes > common + 1:
        kept = tuple(ids.shape)[1 : common + 1]
        ids = keras.layers.Reshape((*kept, -1), name=names(f"{read.name}_flat"))(ids)
        vectors = keras.layers.Reshape((*kept, -1, vectors.shape[-1]), name=names(f"{read.name}_knowledge"))(vectors)
    return mean(name=names(f"{read.name}_knowledge_mean"))([ids, vectors])


# What another injection brings


def _injected(
    model: Any, augmentation: KnowledgeAugmentation, at: Any, inputs: Mapping[str, Any], injection: Injection | str
) -> Entering:
    """What an injection brings, at one place."""
    if at is not None and not isinstance(at, str):
        raise ValueError('A layer for each source, at={...}, goes with injection="fields". Name one layer for this.')
    own = _inputs_of(model)
    named = dict(own)
    for name, given in inputs.items():
        if isinstance(given, list | tuple):
            raise ValueError(f'Several inputs for {name!r} go with injection="fields". Name one for this.')
        named[name] = _input(own, name, given) if isinstance(given, str) else given
    bring: Injection = INJECTIONS.load(injection)() if isinstance(injection, str) else injection
    injected = bring(augmentation, named)
    values = [*injected.vectors(), *injected.dense]
    behind = tensors_behind(values)
    read = {name: tensor for name, tensor in named.items() if id(tensor) in behind}
    place = default_place(model, read) if at is None else named_place(model, at)
    return [(place, [keras.layers.Flatten()(each) for each in values])]


# How it enters


def _with_knowledge(vectors: Sequence[Any], names: _Names, tensor: Any) -> Any:
    """A tensor of the model, with a projection of vectors added: of those of a row, and of those of its positions."""
    projections = []
    for rank in sorted({len(each.shape) for each in vectors}):
        joined = concatenate([each for each in vectors if len(each.shape) == rank], name=names("knowledge"))
        options = {"use_bias": False, "kernel_initializer": "zeros", "name": names("knowledge_projection")}
        projections.append(keras.layers.Dense(tensor.shape[-1], **options)(joined))
    dtype = dtype_name(tensor.dtype)
    return KnowledgeAdded(name=names("knowledge_added"), dtype=dtype)([tensor, *projections])
