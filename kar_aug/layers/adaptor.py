"""The hybrid-expert adaptor: knowledge vectors in, augmented vectors of a field's width out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug._keras import keras, tf


@keras.utils.register_keras_serializable(package="kar_aug")
class HybridExpertAdaptor(keras.layers.Layer):
    """Adapts the knowledge vectors of several sources with shared and dedicated experts and one gate a source.

    For a knowledge vector x of source s, with experts e = the shared ones followed by those dedicated to s:

        gate      = softmax(x W_s + b_s)                        one weight an expert
        augmented = sum_e gate[e] * expert_e(x)                 expert_e: Dense + ReLU for each of `expert_units`

    Every source must be adapted under the name it was built with; a call may adapt some of them only.

    Args:
        sources: names of the knowledge sources, in order.
        shared_experts: experts that every source uses; 0 or more.
        dedicated_experts: experts that each source has to itself; 0 or more, at least one expert in all.
        expert_units: widths of an expert's layers; the last is the width of an augmented vector.
        activation: of every expert layer, the last one included.

    Input shape:
        Dictionary of source name to (batch, knowledge dimension). All dimensions are equal, because shared experts
        read every source.
    Output shape:
        Dictionary of the same names to (batch, expert_units[-1]).

    Source:
        KAR, arXiv:2306.10933, section 3.4, "hybrid-expert adaptor". The number and widths of the experts follow its
        section 4.1. Computed differently, with equal results: first layers of all experts and the gate of a
        source are one matrix product, later layers one batched product.
    """

    def __init__(
        self,
        sources: Sequence[str],
        shared_experts: int = 2,
        dedicated_experts: int = 3,
        expert_units: Sequence[int] = (128, 32),
        activation: Any = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not sources or len(set(sources)) != len(sources):
            raise ValueError(f"`sources` must be different names, at least one. Received: sources={sources}")
        if shared_experts < 0 or dedicated_experts < 0 or shared_experts + dedicated_experts < 1:
            raise ValueError(
                "There must be at least one expert, and no negative number of them. "
                f"Received: shared_experts={shared_experts}, dedicated_experts={dedicated_experts}"
            )
        if not expert_units or min(expert_units) < 1:
            raise ValueError(f"`expert_units` must be positive widths. Received: expert_units={expert_units}")
        self.sources = list(sources)
        self.shared_experts = shared_experts
        self.dedicated_experts = dedicated_experts
        self.expert_units = list(expert_units)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Mapping[str, Any]) -> None:
        dimensions = {name: tuple(shape)[-1] for name, shape in input_shape.items()}
        if set(dimensions) != set(self.sources):
            raise ValueError(
                f"The adaptor is built with all of its sources {self.sources}. Received: {sorted(dimensions)}"
            )
        if len(set(dimensions.values())) != 1:
            raise ValueError(
                "All knowledge vectors must have the same dimension, because shared experts read every source. "
                f"Received: {dimensions}"
            )
        dimension = next(iter(dimensions.values()))
        self._shared = self._expert_weights("shared", self.shared_experts, dimension)
        # One flat list, not one a source: legacy Keras does not restore nested containers.
        self._dedicated = [
            weight
            for source in self.sources
            for weight in self._expert_weights(f"dedicated_{source}", self.dedicated_experts, dimension)
        ]
        experts = self.shared_experts + self.dedicated_experts
        self._gates = [
            weight
            for source in self.sources
            for weight in (
                self.add_weight(name=f"gate_{source}_kernel", shape=(dimension, experts), initializer="glorot_uniform"),
                self.add_weight(name=f"gate_{source}_bias", shape=(experts,), initializer="zeros"),
            )
        ]
        super().build(input_shape)

    def _expert_weights(self, name: str, experts: int, dimension: int) -> list[Any]:
        """Kernel and bias of each layer, for `experts` experts side by side; none where there are none.

        The first layer is stored flat, (dimension, experts * units), as the one product needs it; later ones are
        stacked, (experts, inputs, units).
        """
        if not experts:
            return []
        first, *rest = self.expert_units
        weights = [
            self.add_weight(
                name=f"{name}_kernel_0",
                shape=(dimension, experts * first),
                initializer=_beside(experts, first),
            ),
            self.add_weight(name=f"{name}_bias_0", shape=(experts * first,), initializer="zeros"),
        ]
        for layer, (inputs, units) in enumerate(zip(self.expert_units, rest, strict=False), start=1):
            weights += [
                self.add_weight(name=f"{name}_kernel_{layer}", shape=(experts, inputs, units), initializer=_stacked),
                self.add_weight(name=f"{name}_bias_{layer}", shape=(experts, units), initializer="zeros"),
            ]
        return weights

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {source: self._adapt(source, vectors)[0] for source, vectors in inputs.items()}

    def gate(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The gate's weights: source name to (batch, shared + dedicated experts), rows that sum to 1."""
        return {source: self._adapt(source, vectors)[1] for source, vectors in inputs.items()}

    def _adapt(self, source: str, vectors: Any) -> tuple[Any, Any]:
        position = self.sources.index(source)
        per_source = 2 * len(self.expert_units) if self.dedicated_experts else 0
        groups = [self._shared, self._dedicated[position * per_source :][:per_source]]
        groups = [group for group in groups if group]
        gate_kernel, gate_bias = self._gates[2 * position : 2 * position + 2]
        experts = self.shared_experts + self.dedicated_experts

        kernel = tf.concat([*(group[0] for group in groups), gate_kernel], axis=1)
        bias = tf.concat([*(group[1] for group in groups), gate_bias], axis=0)
        kernel, bias = tf.cast(kernel, vectors.dtype), tf.cast(bias, vectors.dtype)
        product = tf.matmul(vectors, kernel) + bias  # (batch, experts * units + experts)
        hidden, scores = tf.split(product, [experts * self.expert_units[0], experts], axis=1)
        gate = tf.nn.softmax(scores, axis=-1)  # (batch, experts)
        hidden = tf.reshape(self.activation(hidden), [-1, experts, self.expert_units[0]])
        for layer in range(1, len(self.expert_units)):
            kernel = tf.cast(tf.concat([group[2 * layer] for group in groups], axis=0), vectors.dtype)
            bias = tf.cast(tf.concat([group[2 * layer + 1] for group in groups], axis=0), vectors.dtype)
            hidden = self.activation(tf.einsum("bei,eiu->beu", hidden, kernel) + bias)  # (batch, experts, units)
        return tf.einsum("be,beu->bu", gate, hidden), gate

    def compute_output_shape(self, input_shape: Mapping[str, Any]) -> dict[str, Any]:
        return {name: (shape[0], self.expert_units[-1]) for name, shape in input_shape.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sources": self.sources,
            "shared_experts": self.shared_experts,
            "dedicated_experts": self.dedicated_experts,
            "expert_units": self.expert_units,
            "activation": keras.activations.serialize(self.activation),
        }


def _stacked(shape: Sequence[int], dtype: Any = None, **_: Any) -> Any:
    """Glorot-uniform kernels of separate experts, (experts, inputs, units); the plain initializer would take the
    number of experts for a part of each expert's fan."""
    experts, inputs, units = shape
    limit = (6.0 / (inputs + units)) ** 0.5
    return keras.initializers.RandomUniform(-limit, limit)((experts, inputs, units), dtype=dtype)


def _beside(experts: int, units: int) -> Any:
    """The same for kernels side by side, (inputs, experts * units)."""

    def initialise(shape: Sequence[int], dtype: Any = None, **_: Any) -> Any:
        limit = (6.0 / (shape[0] + units)) ** 0.5
        return keras.initializers.RandomUniform(-limit, limit)((shape[0], experts * units), dtype=dtype)

    return initialise
