"""The one place that knows which Keras is running: Keras 3, or tf-keras (TF_USE_LEGACY_KERAS=1); and what it runs on.

Keras 3 runs on TensorFlow, JAX or torch (KERAS_BACKEND). TensorFlow is imported where it is the one, and only then.
The layers use what Keras has in all of them, and `kar_aug.layers._ops.ops`.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from kar_aug.errors import ConfigError, MissingDependencyError


def _running() -> tuple[Any, str]:
    """Keras, and what it runs on."""
    if os.environ.get("TF_USE_LEGACY_KERAS") not in ("true", "True", "1"):  # what TensorFlow asks for
        keras = importlib.import_module("keras")
        backend: str = keras.backend.backend()
        if backend != "tensorflow":
            return keras, backend
    return importlib.import_module("tensorflow").keras, "tensorflow"


try:
    keras, BACKEND = _running()
except ImportError:
    raise MissingDependencyError("tensorflow", "online") from None
if BACKEND == "tensorflow":
    tf: Any = importlib.import_module("tensorflow")

IS_KERAS_3 = hasattr(keras, "ops")
ON_TENSORFLOW = BACKEND == "tensorflow"
# Functions of nested structures of tensors.
nest: Any = tf.nest if ON_TENSORFLOW else keras.tree

# tf-keras reads its older form in files of every format, its newer form only in .keras.
_FORM: dict[str, Any] = {} if IS_KERAS_3 else {"use_legacy_format": True}

__all__ = [
    "BACKEND",
    "IS_KERAS_3",
    "ON_TENSORFLOW",
    "called_again",
    "deserialized",
    "dtype_name",
    "first_argument",
    "is_ragged",
    "keep_as_written",
    "keras",
    "nest",
    "node_of",
    "only_input",
    "serialized",
    "tensors_behind",
    "tensors_made",
    "tensors_read",
    "tf",
    "track_weights",
]


def __getattr__(name: str) -> Any:
    if name != "tf":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise ConfigError(
        f"This part of kar-aug works on TensorFlow alone, but Keras runs on {BACKEND} here. Set the environment "
        "variable KERAS_BACKEND=tensorflow before Keras is imported; models saved as .keras load on either."
    )


def keep_as_written(package: str) -> None:
    """Tell AutoGraph (on TensorFlow; else nothing happens) that no layer of a package branches on what a tensor holds.

    The former Keras has the code of each layer rewritten before its first call, so that it may, and its children's
    too: seconds until a model is built. Those that a user's own file defines still may.
    """
    if not ON_TENSORFLOW:
        return
    with suppress(ImportError, AttributeError):  # TensorFlow may keep its list elsewhere one day: then it takes longer
        from tensorflow.python.autograph.core import config

        config.CONVERSION_RULES = (config.DoNotConvert(package), *config.CONVERSION_RULES)


keep_as_written("kar_aug")


def serialized(layer: Any) -> dict[str, Any]:
    """A layer as a part of another's config."""
    return keras.layers.serialize(layer, **_FORM)


def deserialized(config: Any) -> Any:
    """The layer that `serialized` wrote, with new weights."""
    return keras.layers.deserialize(config, **_FORM)


def dtype_name(dtype: Any) -> str:
    """Of a type of tensors: "float32", "bool", "string"."""
    return str(tf.as_dtype(dtype).name if ON_TENSORFLOW else keras.backend.standardize_dtype(dtype))


def is_ragged(tensor: Any) -> bool:
    """Whether a symbolic tensor has rows of unequal length."""
    if getattr(tensor, "ragged", False):
        return True
    return ON_TENSORFLOW and isinstance(getattr(tensor, "type_spec", None), tf.RaggedTensorSpec)


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
    return list(node.output_tensors if IS_KERAS_3 else nest.flatten(node.outputs))


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
        return list(nest.flatten(node.operation(*args, **kwargs)))
    args, kwargs = (nest.map_structure(read, given) for given in (node.call_args, node.call_kwargs))
    return list(nest.flatten(node.layer(*args, **kwargs)))


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
    inputs = [tensor for node in nodes for tensor in tensors_read(node) if dtype_name(tensor.dtype) != "bool"]
    return inputs[0] if len(nodes) == len(inputs) == 1 else None


def track_weights(layer: Any) -> None:
    """Make TensorFlow's checkpoints see all weights of a layer: Keras 3 leaves out those that a list holds.

    Weights of one name, which layers of the user's own may have, are numbered in their order.
    """
    if IS_KERAS_3 and ON_TENSORFLOW:
        seen: Counter[str] = Counter()
        for weight in layer.weights:
            again = f"_{seen[weight.name]}" if seen[weight.name] else ""
            layer._track_trackable(weight, name=f"weight_{weight.name}{again}", overwrite=True)
            seen[weight.name] += 1
