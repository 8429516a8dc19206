"""Where in a functional model knowledge can enter, and where it does by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kar_aug._helpers.keras import dtype_name, keras, only_input, tensors_behind, tensors_read
from kar_aug.layers.knowledge_added import KnowledgeAdded
from kar_aug.models.find import check_model
from kar_aug.models.graph import input_name

# The layers that read a model's features all at once, in the order in which they are looked for.
_FEATURE_READERS = ("DNN", "Dense")

INTO_A_CLASS = (
    "Into a model of your own class put the KnowledgeAugmentation yourself: call it in `call` with the ids, and "
    "concatenate its vectors to what the first layer behind the embeddings reads."
)


@dataclass(frozen=True, eq=False)
class Place:
    """A layer to whose input knowledge can be added.

    Args:
        layer: its name.
        tensor: that it reads.
        reads_features: whether it is of a kind that reads a model's features all at once.
    """

    layer: str
    tensor: Any
    reads_features: bool

    def sees(self, inputs: Iterable[Any]) -> bool:
        """Whether what the layer reads is made of all these inputs of the model, and perhaps more."""
        behind = tensors_behind([self.tensor], read=own_tensors_read)
        return all(id(tensor) in behind for tensor in inputs)

    def positions_of(self, ids: Any) -> int:
        """How many axes behind the batch what is read here has in common with ids: 0, or 1 for a list, (batch, list).

        An axis is in common if it goes through all layers on a way from the ids to here; where there is no way, if it
        has the same known length.
        """
        most = min(len(ids.shape), len(self.tensor.shape) - 1) - 1
        for axes in range(most, 0, -1):
            length = tuple(ids.shape)[1 : axes + 1]
            if length == (1,):
                continue

            def of_that_length(node: Any, axes: int = axes, length: tuple[Any, ...] = length) -> list[Any]:
                return [each for each in own_tensors_read(node) if tuple(each.shape)[1 : axes + 1] == length]

            here = tuple(self.tensor.shape)[1 : axes + 1] == length
            if here and id(ids) in tensors_behind([self.tensor], read=of_that_length):
                return axes
            if here and None not in length and not self.sees([ids]):
                return axes
        return 0


def own_tensors_read(node: Any) -> list[Any]:
    """The tensors that a call reads, but none of the knowledge that `augment` added: the model as it was before."""
    read = tensors_read(node)
    return read[:1] if read and _adds_knowledge(_layer_of(node)) else read


def _adds_knowledge(layer: Any) -> bool:
    """Whether it is what `augment` adds knowledge with, which in files of version 0.1 is Keras's own."""
    is_of_0_1 = isinstance(layer, keras.layers.Add) and layer.name == "knowledge_added"
    return is_of_0_1 or isinstance(layer, KnowledgeAdded)


def _layer_of(node: Any) -> Any:
    return node.operation if hasattr(node, "operation") else node.layer


def attachment_points(model: Any) -> list[tuple[str, bool]]:
    """Layers of a functional model to whose input `augment` can add knowledge: (name, whether it is a feature reader).

    The feature readers, `DNN` then `Dense`, come first; by default `augment` takes the first of them that reads all
    that the knowledge is looked up by. What it has put into a model itself is not among them.
    """
    check_model(model, "attachment_points", instead=INTO_A_CLASS)
    return [(place.layer, place.reads_features) for place in places(model)]


def places(model: Any) -> list[Place]:
    """All of a model, feature readers first."""
    used = tensors_behind(model.outputs, read=own_tensors_read)
    found = []
    for layer in model.layers:
        tensor = None if isinstance(layer, keras.layers.InputLayer) else only_input(layer, used)
        if tensor is not None and _can_be_added_to(tensor):
            found.append((type(layer).__name__, Place(layer.name, tensor, type(layer).__name__ in _FEATURE_READERS)))
    kinds = (*_FEATURE_READERS, None)
    found.sort(key=lambda each: kinds.index(each[0] if each[1].reads_features else None))  # stable: the model's order
    return [place for _, place in found]


def _can_be_added_to(tensor: Any) -> bool:
    return len(tensor.shape) >= 2 and tensor.shape[-1] is not None and "float" in dtype_name(tensor.dtype)


def named_place(model: Any, name: str) -> Place:
    """The place of that name.

    Raises:
        ValueError: There is none; the message lists those that there are.
    """
    found = places(model)
    for place in found:
        if place.layer == name:
            return place
    raise ValueError(
        f"Knowledge cannot be added to the input of {name!r}: there is no such layer, or it does not read one float "
        f"tensor. Choose one of: {_listed(found)}"
    )


def default_place(model: Any, read: Mapping[str, Any]) -> Place:
    """The first feature reader that reads all that the knowledge is looked up by: no tower gets what it does not know.

    Args:
        read: name of an input -> the input, of all by which knowledge comes. For one that the model lacks, a place must
            see whatever any other place sees.

    Raises:
        ValueError: There is none; the message lists the places.
    """
    found = places(model)
    readers = [place for place in found if place.reads_features]
    if not found:
        raise ValueError(
            f"Model {model.name!r} has no layer that reads one float tensor: what is inside a layer or a model of your "
            f"own class is not to be seen. {INTO_A_CLASS}"
        )
    if not readers:
        raise ValueError(
            f"Model {model.name!r} has neither a DNN nor a Dense layer. Say which layer's input gets the knowledge: "
            f"at=..., one of: {_listed(found)}"
        )
    own = {id(tensor) for tensor in model.inputs}
    wanted = [tensor for tensor in read.values() if id(tensor) in own]
    if len(wanted) < len(read):
        seen = tensors_behind([place.tensor for place in found], read=own_tensors_read)
        wanted = [tensor for tensor in model.inputs if id(tensor) in seen]
    for place in readers:
        if place.sees(wanted):
            return place
    names = [input_name(tensor) for tensor in wanted]
    seeing = [_listed([place for place in found if place.sees([tensor])]) or "none" for tensor in wanted]
    of_each = [f"{name}: {layers}" for name, layers in zip(names, seeing, strict=True)]
    raise ValueError(
        f"No DNN or Dense layer of model {model.name!r} reads all of {', '.join(names)}: knowledge would come to a "
        "part of the model that knows nothing of its ids, a user's tower say. Say which layer's input gets it, at=..., "
        f"or which gets each source's, at={{source: ..., ...}}. Of {'; of '.join(of_each)}"
    )


def _listed(found: Sequence[Place]) -> str:
    return ", ".join(place.layer for place in found)
