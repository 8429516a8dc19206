"""An adaptor made of the user's own Keras layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug._helpers.keras import deserialized, keras, serialized, track_weights
from kar_aug.layers._ops import ops
from kar_aug.layers.adaptor import Adaptor
from kar_aug.layers.saved_weights import weights_for


@keras.utils.register_keras_serializable(package="kar_aug")
class LayerAdaptor(Adaptor):
    """One Keras layer a source, each with weights of its own; there is no gate.

    Args:
        layers: source name -> a layer, in: (n, knowledge dimension), out: (n, width), the same width for all. It
            reads each distinct id of a batch once; ids without knowledge bring another's vector along, whose output
            is not used.
    """

    has_gate = False

    def __init__(self, layers: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not layers or not all(isinstance(layer, keras.layers.Layer) for layer in layers.values()):
            raise ValueError(f"An adaptor needs a Keras layer for each source. Received: {dict(layers)}")
        if len({id(layer) for layer in layers.values()}) < len(layers):
            raise ValueError("Each source needs a layer of its own, but one layer was given for several.")
        self.sources = list(layers)
        self.parts = list(layers.values())  # a flat list: legacy Keras does not restore nested containers
        self._width = 0

    @classmethod
    def copies_of(cls, layer: Any, sources: Sequence[str], **kwargs: Any) -> LayerAdaptor:
        """`layer` itself for a single source, for several a copy each, made from its config.

        Raises:
            ValueError: The layer has weights, which a copy made from its config would lose.
        """
        if len(sources) > 1 and layer.built and layer.weights:
            raise ValueError(
                f"Layer {layer.name!r} is built: its weights can adapt one source only, not {', '.join(sources)}. "
                "Give a layer for each: adaptor={...}"
            )
        single = len(sources) == 1
        return cls({source: layer if single else _copy(layer, f"_{source}") for source in sources}, **kwargs)

    def copied(self) -> LayerAdaptor:  # not through `serialized`: the layers need not be registered
        layers = {source: _copy(layer) for source, layer in zip(self.sources, self.parts, strict=True)}
        return type(self)(layers, **super().get_config())

    def build(self, input_shape: Mapping[str, Any]) -> None:
        dimensions = {name: int(tuple(shape)[-1]) for name, shape in input_shape.items()}
        self.check_sources(dimensions)
        widths = {}
        for source, layer in zip(self.sources, self.parts, strict=True):
            with ops.name_scope(source):  # unique weight names, which .h5 needs under legacy Keras
                output = layer(ops.zeros((1, dimensions[source]), self.compute_dtype))
            shape = tuple(getattr(output, "shape", ()))
            if len(shape) != 2 or shape[0] != 1:
                raise ValueError(
                    f"The adaptor of {source!r} must turn (n, {dimensions[source]}) into (n, width). "
                    f"Layer {layer.name!r} turns (1, {dimensions[source]}) into {shape}."
                )
            widths[source] = int(shape[1])
        if len(set(widths.values())) > 1:
            raise ValueError(f"The augmented vectors of all sources must be equally wide. Received: {widths}")
        self._width = widths[self.sources[0]]
        track_weights(self)
        super().build(input_shape)

    @property
    def width(self) -> int:
        return self._width

    def adapt(self, source: str, vectors: Any) -> tuple[Any, None]:
        vectors = ops.convert_to_tensor(vectors)
        return ops.cast(self.parts[self.sources.index(source)](vectors), vectors.dtype), None

    def load_own_variables(self, store: Any) -> None:
        """Keras calls this for .keras and .weights.h5 files."""
        super().load_own_variables(weights_for(self, store))

    def get_config(self) -> dict[str, Any]:
        layers = {name: serialized(part) for name, part in zip(self.sources, self.parts, strict=True)}
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LayerAdaptor:
        layers = {source: deserialized(layer) for source, layer in config["layers"].items()}
        return cls(**{**config, "layers": layers})


def _copy(layer: Any, suffix: str = "") -> Any:
    """A layer of the same config, unbuilt."""

    def renamed(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "name": layer.name + suffix})

    # Its layers are renamed too: two weights of one name cannot be in one .h5 file of legacy Keras.
    return (
        keras.models.clone_model(layer, clone_function=renamed) if type(layer) is keras.Sequential else renamed(layer)
    )
