"""The hybrid-expert adaptor: knowledge vectors in, augmented vectors of a field's width out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug._helpers.keras import keras, track_weights
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.adaptor import Adaptor, AdaptorSettings

_VARIANCE = 1e-3  # added to that of a layer's units, as Keras does


def hybrid_expert(settings: AdaptorSettings) -> HybridExpertAdaptor:
    """The paper's: experts that all sources share, and experts of their own."""
    return _experts(settings, settings.shared_experts, settings.dedicated_experts)


def mixture_of_experts(settings: AdaptorSettings) -> HybridExpertAdaptor:
    """As many experts a source, but none shared."""
    return _experts(settings, 0, settings.shared_experts + settings.dedicated_experts)


def mlp(settings: AdaptorSettings) -> HybridExpertAdaptor:
    """One expert a source."""
    return _experts(settings, 0, 1)


def linear(settings: AdaptorSettings) -> HybridExpertAdaptor:
    """One linear layer a source, of the width alone: "none"."""
    return HybridExpertAdaptor(settings.sources, 0, 1, [settings.width], "linear", name="adaptor", dtype=settings.dtype)


def _experts(settings: AdaptorSettings, shared: int, dedicated: int) -> HybridExpertAdaptor:
    return HybridExpertAdaptor(
        settings.sources, shared, dedicated, settings.expert_units, name="adaptor", dtype=settings.dtype
    )


@keras.utils.register_keras_serializable(package="kar_aug")
class HybridExpertAdaptor(Adaptor):
    """Adapts the knowledge vectors of several sources with shared and dedicated experts and one gate a source.

    For a knowledge vector x of source s, with experts e = the shared ones followed by those dedicated to s:

        gate      = softmax(x W_s + b_s)                        one weight an expert
        augmented = sum_e gate[e] * expert_e(x)                 expert_e: Dense + ReLU for each of `expert_units`

    With `layer_norm`, each such layer is activation(normalised(x K) * scale + bias), its units of mean 0 and variance 1
    before they are scaled.

    Every source must be adapted under the name it was built with; a call may adapt some of them only. A single expert
    needs no gate, and has none.

    Args:
        sources: names of the knowledge sources, in order.
        shared_experts: experts that every source uses; 0 or more.
        dedicated_experts: experts that each source has to itself; 0 or more, at least one expert in all.
        expert_units: widths of an expert's layers; the last is the width of an augmented vector.
        activation: of every expert layer, the last one included.
        dropout: share of the units of every expert layer but the last that are set to zero while training. In
            `KnowledgeAugmentation`, all rows of a batch with the same id have the same zeros.
        kernel_regularizer: of the kernels of the experts; not of their biases, nor of the gates.
        layer_norm: whether the units of every expert layer are normalised before its activation.

    Example:
        >>> from kar_aug import KnowledgeAugmentation
        >>> adaptor = HybridExpertAdaptor(["user_id", "item_id"], dropout=0.1, kernel_regularizer="l2", layer_norm=True)
        >>> KnowledgeAugmentation({"user_id": users, "item_id": items}, adaptor=adaptor).width
        32

    Input shape:
        Dictionary of source name to (batch, knowledge dimension), or (batch, length, knowledge dimension). Dimensions
        may differ: the first layer of a shared expert has one kernel for each dimension, all else of it is shared.
    Output shape:
        Dictionary of the same names to (batch, expert_units[-1]), or (batch, length, expert_units[-1]).

    Source:
        KAR, arXiv:2306.10933, section 3.4, "hybrid-expert adaptor". The number and widths of the experts follow its
        section 4.1. Computed differently, with equal results: all kernels of a layer are one weight, and each layer
        is one batched product over all experts of a source, (1 or experts, batch, inputs) x (experts, inputs, units).
        TensorFlow without a GPU multiplies batches at half its speed: there the first layers are one product, of the
        kernels side by side, and the later ones one an expert.
    """

    def __init__(
        self,
        sources: Sequence[str],
        shared_experts: int = 2,
        dedicated_experts: int = 3,
        expert_units: Sequence[int] = (128, 32),
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_regularizer: Any = None,
        layer_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sources = checked.names("sources", sources)
        self.shared_experts = checked.whole("shared_experts", shared_experts, least=0)
        self.dedicated_experts = checked.whole("dedicated_experts", dedicated_experts, least=0)
        if not self.experts:
            raise ValueError("There must be at least one expert. Received: shared_experts=0, dedicated_experts=0")
        self.expert_units = checked.wholes("expert_units", expert_units)
        self.activation = checked.known("activation", activation, keras.activations.get)
        self.dropout = checked.share("dropout", dropout, "the units")
        self.kernel_regularizer = checked.known("kernel_regularizer", kernel_regularizer, keras.regularizers.get)
        self.layer_norm = checked.flag("layer_norm", layer_norm)
        # The vectors' type is whatever it is given: `KnowledgeAugmentation` has chosen it.
        self._drop = keras.layers.Dropout(self.dropout, autocast=False, name="dropout") if self.dropout else None

    def build(self, input_shape: Mapping[str, Any]) -> None:
        dimensions = {name: int(tuple(shape)[-1]) for name, shape in input_shape.items()}
        self.check_sources(dimensions)
        # Flat lists, not one a source: legacy Keras does not restore nested containers.
        different = sorted(set(dimensions.values()))
        self._entrance = [different.index(dimensions[source]) for source in self.sources]
        self._shared_kernels = [
            self._kernels(f"shared_kernel_0_{dimension}", self.shared_experts, dimension, self.expert_units[0])
            for dimension in (different if self.shared_experts else ())
        ]
        self._shared = self._later_weights("shared", self.shared_experts)
        self._dedicated_kernels = [
            self._kernels(
                f"dedicated_{source}_kernel_0", self.dedicated_experts, dimensions[source], self.expert_units[0]
            )
            for source in (self.sources if self.dedicated_experts else ())
        ]
        self._dedicated = [
            weight
            for source in self.sources
            for weight in self._later_weights(f"dedicated_{source}", self.dedicated_experts)
        ]
        self._gates = [
            weight
            for source in (self.sources if self.experts > 1 else ())
            for weight in (
                self.add_weight(
                    name=f"gate_{source}_kernel",
                    shape=(dimensions[source], self.experts),
                    initializer="glorot_uniform",
                ),
                self.add_weight(name=f"gate_{source}_bias", shape=(self.experts,), initializer="zeros"),
            )
        ]
        track_weights(self)
        super().build(input_shape)

    @property
    def width(self) -> int:
        return self.expert_units[-1]

    @property
    def _per_layer(self) -> int:
        """Weights of an expert's layer."""
        return 3 if self.layer_norm else 2

    @property
    def experts(self) -> int:
        """Experts that a source passes through: the shared ones and its own."""
        return self.shared_experts + self.dedicated_experts

    def _kernels(self, name: str, experts: int, inputs: int, units: int) -> Any:
        return self.add_weight(
            name=name,
            shape=(experts, inputs, units),
            initializer=_separate_kernels,
            regularizer=self.kernel_regularizer,
        )

    def _later_weights(self, name: str, experts: int) -> list[Any]:
        """All weights of `experts` experts side by side but the first kernel: bias, kernel, bias, kernel, bias ...

        With `layer_norm`, a scale stands before each bias.
        """
        if not experts:
            return []
        weights = []
        for layer, units in enumerate(self.expert_units):
            if layer:
                weights.append(self._kernels(f"{name}_kernel_{layer}", experts, self.expert_units[layer - 1], units))
            if self.layer_norm:
                scale = self.add_weight(name=f"{name}_scale_{layer}", shape=(experts, units), initializer="ones")
                weights.append(scale)
            weights.append(self.add_weight(name=f"{name}_bias_{layer}", shape=(experts, units), initializer="zeros"))
        return weights

    def adapt(self, source: str, vectors: Any) -> tuple[Any, Any]:
        vectors = ops.convert_to_tensor(vectors)
        weights = self._weights_of(source, vectors.dtype)
        if not self._gates:
            kernel, *others = [weight[0] for weight in weights]
            hidden = self._through(ops.matmul(vectors, kernel), others)
            return hidden, ops.ones_like(hidden[:, :1])
        position = self.sources.index(source)
        gate_kernel, gate_bias = (ops.cast(w, vectors.dtype) for w in self._gates[2 * position : 2 * position + 2])
        gate = ops.softmax(ops.matmul(vectors, gate_kernel) + gate_bias, axis=-1)
        if ops.one_by_one():
            kernel, *weights = weights
            entered = ops.split(ops.matmul(vectors, _side_by_side(kernel)), self.experts, -1)
            experts = zip(*map(ops.unstack, weights), strict=True)
            weighed = [gate[:, n : n + 1] * self._through(entered[n], own) for n, own in enumerate(experts)]
            return sum(weighed[1:], weighed[0]), gate
        kernel, *others = [w if len(w.shape) == 3 else w[:, None] for w in weights]
        hidden = self._through(ops.matmul(vectors[None], kernel), others)
        return ops.sum(hidden * ops.transpose(gate)[:, :, None], axis=0), gate

    def _through(self, hidden: Any, weights: Sequence[Any]) -> Any:
        """What an expert makes of its first product, (batch, units); or all experts of theirs, (experts, batch, units),
        their weights side by side.
        """
        for layer in range(len(self.expert_units)):
            *scale, bias = weights[layer * self._per_layer :][: self._per_layer - 1]
            if layer:
                hidden = ops.matmul(
                    hidden if self._drop is None else self._drop(hidden), weights[layer * self._per_layer - 1]
                )
            if scale:
                hidden = _normalised(hidden) * scale[0]
            hidden = self.activation(hidden + bias)
        return hidden

    def _weights_of(self, source: str, dtype: Any) -> list[Any]:
        """Kernel, bias, kernel, bias ... of a source's experts, the shared ones first; each (experts, ...). With
        `layer_norm`, a scale before each bias.
        """
        position, per_source = self.sources.index(source), self._per_layer * len(self.expert_units) - 1
        groups = []
        if self.shared_experts:
            groups.append([self._shared_kernels[self._entrance[position]], *self._shared])
        if self.dedicated_experts:
            own = self._dedicated[position * per_source :][:per_source]
            groups.append([self._dedicated_kernels[position], *own])
        cast = [[ops.cast(weight, dtype) for weight in group] for group in groups]
        return [ops.concatenate(weights, axis=0) for weights in zip(*cast, strict=True)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sources": self.sources,
            "shared_experts": self.shared_experts,
            "dedicated_experts": self.dedicated_experts,
            "expert_units": self.expert_units,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "layer_norm": self.layer_norm,
        }


def _side_by_side(kernels: Any) -> Any:
    """(experts, inputs, units) as one kernel, (inputs, experts * units)."""
    experts, inputs, units = kernels.shape
    return ops.reshape(ops.transpose(kernels, (1, 0, 2)), (inputs, experts * units))


def _normalised(hidden: Any) -> Any:
    """Of mean 0 and variance 1 along the last axis, computed in 32 bits."""
    wide = ops.cast(hidden, "float32")
    mean, variance = ops.moments(wide, -1, keepdims=True)
    return ops.cast((wide - mean) * ops.rsqrt(variance + _VARIANCE), hidden.dtype)


def _separate_kernels(shape: Sequence[int], dtype: Any = None, **_: Any) -> Any:
    """Glorot-uniform kernels of separate experts, (experts, inputs, units); the plain initializer would take the
    number of experts for a part of each expert's fan.
    """
    experts, inputs, units = shape
    limit = (6.0 / (inputs + units)) ** 0.5
    return keras.initializers.RandomUniform(-limit, limit)((experts, inputs, units), dtype=dtype)
