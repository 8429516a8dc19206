"""What is done to whole models: add knowledge to one that exists, prestore one for serving, load one from disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kar_aug._keras import keras, tensors_behind
from kar_aug.layers import KnowledgeAugmentation, PrestoredAugmentation
from kar_aug.layers.augmentation import store_locations
from kar_aug.layers.lookup import concatenate

logger = logging.getLogger(__name__)

# The layers that read a model's features all at once, in the order in which they are looked for.
_FEATURE_READERS = ("DNN", "Dense")


def augment(
    model: Any,
    augmentation: KnowledgeAugmentation,
    *,
    at: str | None = None,
    inputs: Mapping[str, str] | None = None,
    trainable: bool = True,
) -> Any:
    """Add knowledge to a functional model that exists; its predictions are unchanged until it is trained on.

    A linear projection of the augmented vectors, zero at first, is added to the input of one layer: which is what
    concatenating them to that input would do, without a new shape for the layer's kernel.

    Args:
        model: a built functional model. It is not copied: the new model shares its layers and weights.
        augmentation: its sources are found among the model's inputs by name.
        at: name of the layer whose input receives the knowledge. By default the model's first `DNN` (DeepCTR's name
            for its deep part) or else its first `Dense` layer.
        inputs: source name -> name of the model's input, where they differ.
        trainable: False freezes the old weights, so that only the new path is trained. It sets `trainable` on
            `model` itself.

    Returns:
        A new, uncompiled model with the inputs of the old one. `model.get_layer("knowledge_projection")` is the
        projection; where it was attached is logged.

    Raises:
        ValueError: The model is not functional, or a name is not found; the message lists what there is.
    """
    if not getattr(model, "inputs", None) or not hasattr(model, "get_layer"):
        raise ValueError("`augment` needs a built functional Keras model: one that knows its inputs and layers.")
    input_of = {tensor.name.split(":")[0]: tensor for tensor in model.inputs}
    ids = {}
    for source in augmentation.sources:
        name = (inputs or {}).get(source, source)
        if name not in input_of:
            raise ValueError(
                f"The model has no input {name!r} for knowledge source {source!r}. It has: {', '.join(input_of)}. "
                "Say which one it is: inputs={'" + source + "': ...}"
            )
        ids[source] = input_of[name]
    layer = model.get_layer(at) if at else _feature_reader(model)
    target = layer.input
    if isinstance(target, (list, tuple)):
        raise ValueError(f"Layer {layer.name!r} has several inputs. Choose one with a single input: at=...")
    if not trainable:
        model.trainable = False
    fields = augmentation(ids)
    joined = concatenate([keras.layers.Flatten()(field) for field in fields.values()], name="knowledge")
    projection = keras.layers.Dense(
        target.shape[-1], use_bias=False, kernel_initializer="zeros", name="knowledge_projection"
    )(joined)
    changed = keras.layers.Add(name="knowledge_added")([target, _of_rank(projection, len(target.shape))])
    used = tensors_behind(model.outputs, stop=target)
    other_inputs = [tensor for tensor in model.inputs if id(tensor) in used]
    rest = keras.Model([target, *other_inputs], model.outputs, name=f"{model.name}_after_knowledge")
    outputs = rest([changed, *other_inputs])
    logger.info("knowledge of %s was added to the input of layer %r", ", ".join(ids), layer.name)
    return keras.Model(model.inputs, outputs, name=f"{model.name}_augmented")


def prestore(model: Any) -> Any:
    """The model for serving: each `KnowledgeAugmentation` replaced by tables of its augmented vectors.

    The other layers are shared with `model`, not copied. Predictions agree to float32 rounding; an id is one look-up.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model.
    """
    if not any(isinstance(layer, KnowledgeAugmentation) for layer in model.layers):
        raise ValueError(f"Model {model.name!r} has no KnowledgeAugmentation layer: there is nothing to prestore.")

    def replace(layer: Any) -> Any:
        return PrestoredAugmentation.of(layer) if isinstance(layer, KnowledgeAugmentation) else layer

    return keras.models.clone_model(model, clone_function=replace)


def load_model(path: Path | str, *, stores: Mapping[str, Path | str] | None = None) -> Any:
    """Load a saved model that holds kar-aug's or DeepCTR's layers.

    Args:
        path: a .keras or .h5 file.
        stores: source name -> folder, for vector stores that are elsewhere now than when the model was made.

    Raises:
        StoreError: A store is missing, or is not the one the model was trained with.
    """
    store_locations.update({name: str(folder) for name, folder in (stores or {}).items()})
    try:
        return keras.models.load_model(str(path), custom_objects=_deepctr_layers())
    finally:
        store_locations.clear()


def _feature_reader(model: Any) -> Any:
    for kind in _FEATURE_READERS:
        for layer in model.layers:
            if type(layer).__name__ == kind and not isinstance(layer.input, (list, tuple)):
                return layer
    raise ValueError(
        f"Model {model.name!r} has neither a DNN nor a Dense layer. Say which layer's input gets the knowledge: "
        f"at=..., one of: {', '.join(layer.name for layer in model.layers)}"
    )


def _of_rank(tensor: Any, rank: int) -> Any:
    """(batch, width) as (batch, 1, ..., width), to be added to a tensor of higher rank."""
    return tensor if rank == 2 else keras.layers.Reshape((*[1] * (rank - 2), tensor.shape[-1]))(tensor)


def _deepctr_layers() -> dict[str, Any]:
    try:
        from kar_aug.backbones import custom_objects
    except Exception:  # not installed, or not for this Keras: then no model of it can be in the file
        return {}
    return custom_objects()
