"""A functional model's graph, built once more with some of its tensors changed. No layer is copied, none is nested."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kar_aug._helpers.keras import called_again, keras, nest, node_of, tensors_behind, tensors_made, tensors_read

_ASKED = {"self", "inputs", "outputs", "name", "trainable"}  # by the constructor of a functional model
# What Keras sets on a model once it is compiled, or trained; and what `augment` itself does.
_LATER = {"loss", "loss_weights", "optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting"}
_LATER |= {"compiled_loss", "compiled_metrics", "steps_per_execution", "jit_compile", "knowledge_attached_to"}
_LOSSES, _METRICS = "AddLoss", "AddMetric"  # tf-keras's layers of what `model.add_loss` and `add_metric` were given


def with_changed(
    model: Any,
    changes: Mapping[int, Callable[[Any], Any]],
    further: Sequence[Any],
    name: str,
    like: Any = None,
    instead: Callable[[Any], Any] = lambda layer: layer,
) -> Any:
    """The model with other tensors in the place of some; its layers, and what else it shares with them, are the same.

    It is of the same class, with the same structure of inputs and outputs and the same names of these, and with the
    attributes that were set on the model since it was made. Whatever reads a changed tensor reads the change; an output
    of the model that is itself such a tensor stays what it was.

    Args:
        changes: `id` of a symbolic tensor of the model -> what takes it to the one that is read in its place.
        further: inputs that the changes bring along; a dictionary of inputs has them under their names.
        like: the model whose class, and attributes, it gets; by default `model`.
        instead: takes a layer to the one in its place, or to itself: for layers that attributes are, or hold in lists,
            tuples and dictionaries.

    Raises:
        ValueError: The model's class cannot be made of inputs and outputs alone.
    """
    like = model if like is None else like
    make = maker_of(like)
    told = [layer for layer in model.layers if type(layer).__name__ in (_LOSSES, _METRICS)]
    told_of = {id(layer): tensors_read(layer._inbound_nodes[-1])[0] for layer in told}
    made = _made_again([*model.outputs, *told_of.values()], changes)
    inputs, outputs = structure_of(model)
    outputs = nest.map_structure(lambda tensor: made.get(id(tensor), tensor), outputs)
    changed = make(_with_inputs(inputs, further), outputs, name)
    for layer in told:
        tensor = made.get(id(told_of[id(layer)]), told_of[id(layer)])
        if type(layer).__name__ == _LOSSES:
            changed.add_loss(tensor)
        else:
            changed.add_metric(tensor, aggregation=layer.aggregation, name=layer.metric_name)
    bring_along(like, changed, instead)
    return changed


def without_idle(model: Any, read_before: set[int]) -> Any:
    """A model that was made anew, without those of its inputs that only what is gone read.

    Args:
        read_before: what `tensors_behind` the outputs of the former model says.
    """
    read = tensors_behind(model.outputs)
    inputs, outputs = structure_of(model)
    idle = {id(tensor) for tensor in model.inputs if id(tensor) in read_before and id(tensor) not in read}
    if not idle:
        return model
    if isinstance(inputs, dict):
        kept: Any = {name: tensor for name, tensor in inputs.items() if id(tensor) not in idle}
    else:
        kept = [tensor for tensor in nest.flatten(inputs) if id(tensor) not in idle]
    without = maker_of(model)(kept, outputs, model.name)
    bring_along(model, without)
    return without


def bring_along(model: Any, changed: Any, instead: Callable[[Any], Any] = lambda layer: layer) -> None:
    """Set on a model made anew what people set on the former, but what its class sets by itself: layers, metrics and
    the like are the same objects, but those that others have taken the place of (see `with_changed`); numbers and words
    are what they were last.
    """
    made = keras.Sequential() if isinstance(model, keras.Sequential) else keras.Model(model.inputs, model.outputs)
    of_keras = {*vars(made), *_LATER}
    for name, value in vars(model).items():
        if name.startswith("_") or name in of_keras:
            continue
        if name not in vars(changed) or isinstance(value, bool | int | float | str | None):
            setattr(changed, name, _renewed(value, instead))


def _renewed(value: Any, instead: Callable[[Any], Any]) -> Any:
    """An attribute with other layers in the place of those that are gone; itself where it has none of them."""
    if isinstance(value, keras.layers.Layer):
        return instead(value)
    if isinstance(value, Mapping):
        renewed: Any = {key: _renewed(each, instead) for key, each in value.items()}
        same = all(renewed[key] is each for key, each in value.items())
    elif isinstance(value, list | tuple):
        renewed = [_renewed(each, instead) for each in value]
        same = all(now is each for now, each in zip(renewed, value, strict=True))
        renewed = tuple(renewed) if isinstance(value, tuple) else renewed
    else:
        return value
    return value if same else renewed


def maker_of(model: Any, verb: str = "Augment") -> Callable[[Any, Any, str], Any]:
    """What makes a model of the same class of inputs, outputs and a name.

    Args:
        verb: what was to be done to it, for the error.

    Raises:
        ValueError: The class takes, or does, something else.
    """
    kind = type(model)
    if kind is keras.Sequential:
        return lambda inputs, outputs, name: keras.Model(inputs, outputs, name=name)
    signature = inspect.signature(kind.__init__)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    others = [p.name for p in signature.parameters.values() if p.kind not in variable and p.name not in _ASKED]
    try:
        signature.bind(model, *structure_of(model), name=model.name)
    except TypeError:
        others = others or ["no inputs and outputs"]
    if others:
        raise ValueError(
            f"Model {model.name!r} is a {kind.__name__}, which cannot be made of inputs and outputs alone (its "
            f"constructor takes {', '.join(others)}). {verb} its graph, keras.Model(model.input, model.output), and "
            f"make a {kind.__name__} of the result's `input` and `output`."
        )
    return lambda inputs, outputs, name: kind(inputs, outputs, name=name)


def structure_of(model: Any) -> tuple[Any, Any]:
    """A model's inputs and its outputs, as it was made of them: a tensor, a list or a dictionary of tensors."""
    if isinstance(model, keras.Sequential):  # on Keras 3 it knows them only once it was called
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _with_inputs(structure: Any, further: Sequence[Any]) -> Any:
    if isinstance(structure, dict):
        return {**structure, **{input_name(tensor): tensor for tensor in further}}
    if not further:
        return structure
    return [*(structure if isinstance(structure, list | tuple) else [structure]), *further]


def input_name(tensor: Any) -> str:
    """Of a model's input."""
    return str(tensor.name).split(":")[0]


def _made_again(outputs: Sequence[Any], changes: Mapping[int, Callable[[Any], Any]]) -> dict[int, Any]:
    """`id` of each tensor behind `outputs` that a change reaches -> the tensor that is made now instead.

    Layers that no change reaches are not called again.
    """
    made: dict[int, Any] = {}
    read: dict[int, Any] = {}
    for node in _in_order(outputs):
        before = tensors_made(node)
        if any(id(tensor) in read for tensor in tensors_read(node)):
            made.update(zip(map(id, before), called_again(node, read), strict=True))
        for tensor in before:
            now = made.get(id(tensor), tensor)
            if id(tensor) in changes:
                read[id(tensor)] = changes[id(tensor)](now)
            elif now is not tensor:
                read[id(tensor)] = now
    return made


def _in_order(outputs: Sequence[Any]) -> list[Any]:
    """The calls of layers behind `outputs`, each after those whose tensors it reads."""
    order: list[Any] = []
    begun: set[int] = set()
    waiting = [(node_of(tensor), False) for tensor in reversed(outputs)]
    while waiting:
        node, ready = waiting.pop()
        if ready:
            order.append(node)
        elif id(node) not in begun:
            begun.add(id(node))
            waiting.append((node, True))
            waiting.extend((node_of(tensor), False) for tensor in reversed(tensors_read(node)))
    return order
