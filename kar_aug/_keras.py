"""The one place that knows which Keras is running: Keras 3, or tf-keras (TF_USE_LEGACY_KERAS=1).

The layers use only what `tf.keras` has in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

__all__ = ["IS_KERAS_3", "deserialized", "keras", "only_input", "serialized", "tensors_behind", "tf", "track_weights"]


def serialized(layer: Any) -> dict[str, Any]:
    """A layer as a part of another's config."""
    return keras.layers.serialize(layer, **_FORM)


def deserialized(config: Any) -> Any:
    """The layer that `serialized` wrote, with new weights."""
    return keras.layers.deserialize(config, **_FORM)


def tensors_behind(outputs: Sequence[Any], *, stop: Any = None) -> set[int]:
    """`id`s of the symbolic tensors that `outputs` are computed from, on any way that does not lead through `stop`."""
    behind: set[int] = set()
    waiting = list(outputs)
    while waiting:
        tensor = waiting.pop()
        if tensor is stop or id(tensor) in behind:
            continue
        behind.add(id(tensor))
        layer, node_index, _ = tensor._keras_history
        node = layer._inbound_nodes[node_index]
        waiting.extend(node.input_tensors if IS_KERAS_3 else node.keras_inputs)
    return behind


def only_input(layer: Any, used: set[int]) -> Any:
    """The one symbolic tensor that `layer` reads where its output is among `used`; None if there are more or none."""
    nodes = [
        node
        for node in layer._inbound_nodes
        if any(id(tensor) in used for tensor in (node.output_tensors if IS_KERAS_3 else tf.nest.flatten(node.outputs)))
    ]
    inputs = [tensor for node in nodes for tensor in (node.input_tensors if IS_KERAS_3 else node.keras_inputs)]
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
