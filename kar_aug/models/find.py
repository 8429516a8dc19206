"""Where in a model its layers with knowledge are, and models with others in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kar_aug._helpers.keras import IS_KERAS_3, keras
from kar_aug.models.graph import maker_of, with_changed

_OF_KERAS = ("Functional", "Sequential")  # its classes of models that know which layer reads what
_UNBUILT = "Begin it with a keras.Input, by the name of the ids that it reads."


def check_model(model: Any, purpose: str, *, instead: str | None = None) -> None:
    """Raise ValueError unless it is a Keras model, for what is done to it ("prestore").

    Args:
        instead: what to do with one that has a `call` of its own, where only one that knows its inputs and layers is of
            use: a functional model, built.
    """
    if not isinstance(model, keras.layers.Layer):
        remedy = " Load it: kar_aug.load_model(path)." if isinstance(model, str | Path) else ""
        raise ValueError(f"`{purpose}` takes a Keras model. Received: {type(model).__name__}.{remedy}")
    # Keras 3 raises an AttributeError for the inputs of a Sequential that was never called.
    if instead is not None and not (is_functional(model) and getattr(model, "inputs", None)):
        raise ValueError(
            f"`{purpose}` needs a built functional Keras model, one that knows its inputs and layers: "
            f"{type(model).__name__} {model.name!r} does not. {_UNBUILT if is_functional(model) else instead}"
        )


def knowledge_layers(model: Any, kinds: tuple[type, ...]) -> list[Any]:
    """The layers of these kinds, wherever they are: in a functional model within it, or an attribute of a layer."""
    if not isinstance(model, keras.layers.Layer):  # Keras 3 has steps in its graphs that are no layers: slices
        return []
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def replaced(
    model: Any, kinds: tuple[type, ...], replacement: Callable[[Any], Any], *, by: str, by_tower: str,
    keep_class: str | None = None,
) -> Any:  # fmt: skip
    """The model with other layers in the place of those of these kinds, be they in its graph or what an attribute is,
    or holds in a list or dictionary. All other layers are shared with it, but for functional models that have such a
    layer inside, and a `TimeDistributed` of one: these are made anew, of the same class.

    Args:
        by: how the replacement of a layer is written, "{}" being the layer: for the error.
        by_tower: the same of a functional model that has the layer inside.
        keep_class: what is done to the model ("Refresh"), where one whose class cannot be made of inputs and outputs is
            refused; None to take Keras's own class for it then.

    Raises:
        ValueError: Such a layer is held by one with a `call` of its own, which nobody else can make anew; or see
            `keep_class`.
    """
    made: dict[int, Any] = {}

    def replace(layer: Any) -> Any:
        if id(layer) not in made:
            made[id(layer)] = layer  # to those who hold themselves
            made[id(layer)] = changed(layer)
        return made[id(layer)]

    def changed(layer: Any) -> Any:
        if isinstance(layer, kinds):
            return replacement(layer)
        held = knowledge_layers(layer, kinds)
        if not held:
            return layer
        if isinstance(layer, keras.layers.TimeDistributed):  # it has no weights of its own
            return _wrapped_like(layer, replace(layer.layer))
        if not is_functional(layer):
            raise ValueError(_advice(layer, held[0], by, by_tower))
        # Keras 3 would make inputs anew that are neither ragged, nor sparse, nor optional.
        inputs = {"input_tensors": layer.input} if IS_KERAS_3 and not isinstance(layer, keras.Sequential) else {}
        clone = keras.models.clone_model(layer, clone_function=replace, **inputs)
        return _of_class(layer, clone, keep_class, replace)

    return replace(model)


def _of_class(model: Any, clone: Any, keep_class: str | None, instead: Callable[[Any], Any]) -> Any:
    """A clone as a model of the class of the original, a user's own, with what was set on it: tf-keras clones to its
    own class. `instead` takes a layer to the one in its place.
    """
    if type(model).__name__ in _OF_KERAS:
        return clone
    try:
        maker_of(model, keep_class or "")
    except ValueError:
        if keep_class:
            raise
        return clone
    return with_changed(clone, {}, (), model.name, like=model, instead=instead)


def is_functional(model: Any) -> bool:
    """Whether Keras knows which of a model's layers reads what, so that it can be made anew of other layers."""
    return any(kind.__name__ in _OF_KERAS for kind in type(model).__mro__)


def _wrapped_like(wrapper: Any, layer: Any) -> Any:
    """A wrapper as the former is, of another layer."""
    config = {name: value for name, value in wrapper.get_config().items() if name != "layer"}
    return type(wrapper)(layer, **config)


def _advice(holder: Any, layer: Any, by: str, by_tower: str) -> str:
    """What to do about a layer that is held by one with a `call` of its own."""
    kind, name = type(holder).__name__, "model" if isinstance(holder, keras.Model) else "layer"
    tower = _tower_of(holder, layer)
    instead = by.format(_attribute(holder, layer, name))
    if tower is not None:
        instead = by_tower.format(_attribute(holder, tower, name))
    return (
        f"{kind} {holder.name!r} has a `call` of its own, so that nobody else can put another layer in the place of "
        f"{layer.name!r} in it. Make a second {kind} with {instead} there, and give it the trained layers of "
        f"the first: serving.hidden = {name}.hidden ..."
    )


def _tower_of(holder: Any, layer: Any) -> Any:
    """The functional model within a layer with a `call` of its own that another layer is in; None if there is none."""
    inside = (each for each in holder._flatten_layers(include_self=False) if is_functional(each))
    return next((each for each in inside if any(own is layer for own in each._flatten_layers())), None)


def _attribute(holder: Any, layer: Any, name: str) -> str:
    """How a layer is reached from its holder, of that name."""
    for attribute, value in vars(holder).items():
        place = None if attribute.startswith("_") else _place_in(value, layer)
        if place is not None:
            return f"{name}.{attribute}{place}"
    return f"the layer {layer.name!r}"


def _place_in(value: Any, layer: Any) -> str | None:
    """Where a layer is in an attribute: "" if it is the attribute, "[0]" in a list; None if it is not there."""
    if value is layer:
        return ""
    inside: Iterable[Any] = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, list | tuple):
        inside = enumerate(value)
    places = ((key, _place_in(each, layer)) for key, each in inside)
    return next((f"[{key!r}]{place}" for key, place in places if place is not None), None)
