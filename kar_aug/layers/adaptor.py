"""What every adaptor is: knowledge vectors of any source in, augmented vectors of one width out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops


@dataclass(frozen=True)
class AdaptorSettings:
    """What the maker of a named adaptor is told (`kar_aug.registry.ADAPTORS`).

    A maker is a function of these settings that returns an `Adaptor`, or what `KnowledgeAugmentation(adaptor=...)`
    takes beside names: a Keras layer, or one a source.

    Example:
        >>> def two_layers(settings):  # adaptor="my_adaptors:two_layers", in Python and in kar.toml
        ...     return keras.Sequential([keras.layers.Dense(64, "gelu"), keras.layers.Dense(settings.width)])

    Args:
        sources: names, in order.
        shared_experts, dedicated_experts, expert_units: as `KnowledgeAugmentation` has them.
        dtype: of its layer, None for Keras's default.
    """

    sources: Sequence[str]
    shared_experts: int
    dedicated_experts: int
    expert_units: Sequence[int]
    dtype: Any = None

    @property
    def width(self) -> int:
        """The width that the augmented vectors are wanted to have."""
        return self.expert_units[-1]


class Adaptor(keras.layers.Layer):
    """Turns the knowledge vectors of several sources into augmented vectors of one width.

    Input shape:
        Dictionary of some or all source names to (batch, knowledge dimension), or of more axes, such as (batch, length,
        knowledge dimension); `build` takes all of them.
    Output shape:
        Dictionary of the same names to (batch, width), or (batch, length, width).
    """

    sources: list[str]
    has_gate = True

    @property
    def width(self) -> int:
        """Width of an augmented vector."""
        raise NotImplementedError

    def adapt(self, source: str, vectors: Any) -> tuple[Any, Any]:
        """Augmented vectors, (batch, width), and gate weights, (batch, experts), None if there is no gate, of a
        source's knowledge vectors, (batch, knowledge dimension).
        """
        raise NotImplementedError

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {source: self._adapt(source, vectors)[0] for source, vectors in inputs.items()}

    def _adapt(self, source: str, vectors: Any) -> tuple[Any, Any]:
        """`adapt`, of vectors of any number of axes."""
        vectors = ops.convert_to_tensor(vectors)
        if len(vectors.shape) == 2:
            return self.adapt(source, vectors)
        augmented, gate = self.adapt(source, ops.reshape(vectors, [-1, vectors.shape[-1]]))
        sizes = ops.sizes_of(vectors)[:-1]
        if gate is not None:
            gate = ops.reshape(gate, [*sizes, gate.shape[-1]])
        return ops.reshape(augmented, [*sizes, self.width]), gate

    def gate(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The gate's weights: source name to (batch, experts), or (batch, length, experts), rows that sum to 1.

        Raises:
            ValueError: There is no gate.
        """
        self.check_gate()
        return {source: self._adapt(source, vectors)[1] for source, vectors in inputs.items()}

    def check_gate(self) -> None:
        """Raise ValueError unless there is a gate to watch or to balance."""
        if not self.has_gate:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} has no gate: there are no experts to choose among. `gate_usage`, "
                "`GateUsage` and `load_balance` are for adaptors with experts, adaptor='hybrid-expert' say."
            )

    def copied(self) -> Adaptor:
        """The same with new weights, unbuilt."""
        return type(self).from_config(self.get_config())

    def check_sources(self, dimensions: Mapping[str, int]) -> None:
        """Raise ValueError unless these are the names of all sources."""
        if set(dimensions) != set(self.sources):
            raise ValueError(
                f"The adaptor is built with all of its sources {list(self.sources)}. Received: {sorted(dimensions)}"
            )

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: (*tuple(shape)[:-1], self.width) for name, shape in input_shape.items()}
