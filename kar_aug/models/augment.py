"""Knowledge for a functional model that exists."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kar_aug._keras import keras, only_input, tensors_behind, tf
from kar_aug.backbones.protocol import Injection
from kar_aug.layers import KnowledgeAugmentation
from kar_aug.layers.lookup import concatenate
from kar_aug.registry import INJECTIONS

logger = logging.getLogger(__name__)

# The layers that read a model's features all at once, in the order in which they are looked for.
_FEATURE_READERS = ("DNN", "Dense")


def augment(
    model: Any,
    augmentation: KnowledgeAugmentation,
    *,
    at: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    trainable: bool = True,
    injection: Injection | str = "fields",
) -> Any:
    """Add knowledge to a functional model that exists; its predictions are unchanged until it is trained on.

    A linear projection of what the injection brings, zero at first, is added to the input of one layer: which is what
    concatenating it to that input would do, without a new shape for the layer's kernel.

    Args:
        model: a built functional model. It is not copied: the new model shares its layers and weights.
        augmentation: its sources are found among the model's inputs by name.
        at: name of the layer whose input receives the knowledge, one of `attachment_points(model)`. By default
            the first of them: the model's first `DNN` (DeepCTR's name for its deep part) or else its first `Dense`.
        inputs: source, or input that the injection reads -> name of the model's input, where they differ; or a
            `keras.Input` that the model does not have yet, and will.
        trainable: False freezes the old weights, so that only the new path is trained. It sets `trainable` on
            `model` itself.
        injection: what enters: a name of `kar_aug.registry.INJECTIONS`, or an `Injection`. "fields" is the augmented
            vector of each source.

    Returns:
        A new, uncompiled model with the inputs of the old one, and those that `inputs` adds. Its attribute
        `knowledge_attached_to` names the layer that receives the knowledge (also logged);
        `model.get_layer("knowledge_projection")` is the projection.

    Raises:
        ValueError: The model is not functional, or a name is not found; the message lists what there is.
    """
    if not getattr(model, "inputs", None) or not hasattr(model, "get_layer"):
        raise ValueError("`augment` needs a built functional Keras model: one that knows its inputs and layers.")
    named = _named_inputs(model, augmentation, inputs or {}, needed=injection == "fields")
    points = attachment_points(model)
    if at is None and not any(reader for _, reader in points):
        raise ValueError(
            f"Model {model.name!r} has neither a DNN nor a Dense layer. Say which layer's input gets the knowledge: "
            f"at=..., one of: {', '.join(name for name, _ in points)}"
        )
    if at is not None and at not in [name for name, _ in points]:
        raise ValueError(
            f"Knowledge cannot be added to the input of {at!r}: there is no such layer, or it does not read one float "
            f"tensor. Choose one of: {', '.join(name for name, _ in points)}"
        )
    layer = model.get_layer(at or points[0][0])
    target = only_input(layer, tensors_behind(model.outputs))
    if not trainable:
        model.trainable = False
    bring: Injection = INJECTIONS.load(injection)() if isinstance(injection, str) else injection
    injected = bring(augmentation, named)
    values = [*injected.vectors(), *injected.dense]
    joined = concatenate([keras.layers.Flatten()(each) for each in values], name="knowledge")
    projection = keras.layers.Dense(
        target.shape[-1], use_bias=False, kernel_initializer="zeros", name="knowledge_projection"
    )(joined)
    changed = keras.layers.Add(name="knowledge_added")([target, _of_rank(projection, len(target.shape))])
    used = tensors_behind(model.outputs, stop=target)
    other_inputs = [tensor for tensor in model.inputs if id(tensor) in used]
    rest = keras.Model([target, *other_inputs], model.outputs, name=f"{model.name}_after_knowledge")
    outputs = rest([changed, *other_inputs])
    logger.info("knowledge of %s was added to the input of layer %r", ", ".join(augmentation.sources), layer.name)
    further = [given for given in (inputs or {}).values() if not isinstance(given, str)]
    augmented = keras.Model([*model.inputs, *further], outputs, name=f"{model.name}_augmented")
    augmented.knowledge_attached_to = layer.name
    return augmented


def _named_inputs(
    model: Any, augmentation: KnowledgeAugmentation, inputs: Mapping[str, Any], *, needed: bool
) -> dict[str, Any]:
    """The model's inputs, and those of `inputs`, as the injection calls them.

    Args:
        needed: whether there must be one of each source.
    """
    input_of = {tensor.name.split(":")[0]: tensor for tensor in model.inputs}
    named = dict(input_of)
    for source in [*inputs, *(name for name in augmentation.sources if name not in inputs)]:
        given = inputs.get(source, source)
        if not isinstance(given, str):
            named[source] = given
        elif given in input_of:
            named[source] = input_of[given]
        elif needed or source in inputs:
            raise ValueError(
                f"The model has no input {given!r} for knowledge source {source!r}. It has: {', '.join(input_of)}. "
                "Say which one it is: inputs={'" + source + "': ...}"
            )
    return named


def attachment_points(model: Any) -> list[tuple[str, bool]]:
    """Layers of a functional model to whose input `augment` can add knowledge: (name, whether it is a feature reader).

    The feature readers, `DNN` then `Dense`, come first; the first of all is what `augment` takes by default.
    """
    used = tensors_behind(model.outputs)
    points = [layer for layer in model.layers if _reads_one_float_tensor(layer, used)]
    kinds = [*_FEATURE_READERS, None]
    kind_of = {id(p): kind if (kind := type(p).__name__) in _FEATURE_READERS else None for p in points}
    points.sort(key=lambda layer: kinds.index(kind_of[id(layer)]))  # stable: the model's order within a kind
    return [(layer.name, kind_of[id(layer)] is not None) for layer in points]


def _reads_one_float_tensor(layer: Any, used: set[int]) -> bool:
    tensor = None if isinstance(layer, keras.layers.InputLayer) else only_input(layer, used)
    if tensor is None or len(tensor.shape) < 2 or tensor.shape[-1] is None:
        return False
    return bool(tf.as_dtype(tensor.dtype).is_floating)


def _of_rank(tensor: Any, rank: int) -> Any:
    """(batch, width) as (batch, 1, ..., width), to be added to a tensor of higher rank."""
    return tensor if rank == 2 else keras.layers.Reshape((*[1] * (rank - 2), tensor.shape[-1]))(tensor)
