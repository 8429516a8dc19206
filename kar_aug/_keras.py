"""The one place that knows which Keras is running: Keras 3, or tf-keras (TF_USE_LEGACY_KERAS=1).

The layers use only what `tf.keras` has in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kar_aug.errors import MissingDependencyError

try:
    import tensorflow as tf
except ImportError:
    raise MissingDependencyError("tensorflow", "online") from None

keras: Any = tf.keras
IS_KERAS_3 = hasattr(keras, "ops")

# tf-keras reads its older form in files of every format, its newer form only in .keras.
_FORM: dict[str, Any] = {} if IS_KERAS_3 else {"use_legacy_format": True}

__all__ = [
    "IS_KERAS_3",
    "called_again",
    "deserialized",
    "first_argument",
    "keras",
    "node_of",
    "only_input",
    "serialized",
    "tensors_behind",
    "tensors_made",
    "tensors_read",
    "tf",
    "track_weights",
]


def serialized(layer: Any) -> dict[str, Any]:
    """A layer as a part of another's config."""
    return keras.layers.serialize(layer, **_FORM)


def deserialized(config: Any) -> Any:
    """The layer that `serialized` wrote, with new weights."""
    return keras.layers.deserialize(config, **_FORM)


def node_of(tensor: Any) -> Any:
    """The call of a layer that made a symbolic tensor."""
    layer, node_index, _ = tensor._keras_history
    return layer._inbound_nodes[node_index]


def tensors_read(node: Any) -> list[Any]:
    """The symbolic tensors that a call of a layer reads; none for an input of a model."""
    return list(node.input_tensors if IS_KERAS_3 else node.keras_inputs)


def first_argument(node: Any) -> Any:
    """What a call of a layer was given, with symbolic tensors in it."""
    args, kwargs = (node.arguments.args, node.arguments.kwargs) if IS_KERAS_3 else (node.call_args, node.call_kwargs)
    return args[0] if args else kwargs["inputs"]


def tensors_made(node: Any) -> list[Any]:
    """The symbolic tensors that a call of a layer returned."""
    return list(node.output_tensors if IS_KERAS_3 else tf.nest.flatten(node.outputs))


def called_again(node: Any, instead: Mapping[int, Any]) -> list[Any]:
    """The layer of a call, called once more with the same arguments.

    Args:
        instead: `id` of a symbolic tensor -> the one to be read in its place.

    Returns:
        What `tensors_made` of the new call is, in the order of the former.
    """

    def read(argument: Any) -> Any:
        return instead.get(id(argument), argument)

    if IS_KERAS_3:
        args, kwargs = node.arguments.convert(read)
        return list(tf.nest.flatten(node.operation(*args, **kwargs)))
    args, kwargs = (tf.nest.map_structure(read, given) for given in (node.call_args, node.call_kwargs))
    return list(tf.nest.flatten(node.layer(*args, **kwargs)))


def tensors_behind(outputs: Iterable[Any], *, read: Callable[[Any], Iterable[Any]] = tensors_read) -> set[int]:
    """`id`s of the symbolic tensors that `outputs` are computed from, and of these themselves.

    Args:
        read: which of the tensors that a call reads are followed.
    """
    behind: set[int] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in behind:
            behind.add(id(tensor))
            waiting.extend(read(node_of(tensor)))
    return behind


def only_input(layer: Any, used: set[int]) -> Any:
    """The one symbolic tensor, its mask aside, that `layer` reads where its output is among `used`; None if there are
    more or none.
    """
    nodes = [node for node in layer._inbound_nodes if any(id(tensor) in used for tensor in tensors_made(node))]
    inputs = [tensor for node in nodes for tensor in tensors_read(node) if tf.as_dtype(tensor.dtype) != tf.bool]
    return inputs[0] if len(nodes) == len(inputs) == 1 else None


def track_weights(layer: Any) -> None:
    """Make TensorFlow's checkpoints see all weights of a layer: Keras 3 leaves out those that a list holds.

    Weights of one name, which layers of the user's own may have, are numbered in their order.
    """
    if IS_KERAS_3:
        seen: Counter[str] = Counter()
        for weight in layer.weights:
            again = f"_{seen[weight.name]}" if seen[weight.name] else ""
            layer._track_trackable(weight, name=f"weight_{weight.name}{again}", overwrite=True)
            seen[weight.name] += 1
