"""DeepFM, DIN and FiBiNET in plain Keras 3, on whatever Keras runs on: the parts of DeepCTR's, which need TensorFlow.

They are backbones as `compare` takes them (kar_aug.backbones.protocol). Weights start and are penalised as DeepCTR's
are, and knowledge enters where `kar_aug.backbones` puts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from kar_aug.backbones import Injection, Settings, on_keras
from kar_aug.backbones.embedding import key_input
from kar_aug.backbones.protocol import events_of, nothing
from kar_aug.data.features import Feature
from kar_aug.layers import EventMask, MaskedMean

_LINEAR_PENALTY = 1e-5


@on_keras("3")
def deepfm(
    features: Sequence[Feature], settings: Settings, augmentation: Any = None, injection: Injection = nothing
) -> Any:
    """DeepFM (Guo et al. 2017, arXiv:1703.04247): an uncompiled model of click probabilities."""
    read = _Read(features, settings)
    knowledge = injection(augmentation, read.inputs)
    vectors, further = knowledge.vectors(), [*read.numbers, *knowledge.dense]
    fields = [*map(read.field, read.categories)]
    if knowledge.events:  # candidate and events meet in the second order
        fields += vectors
    else:
        further += vectors
    stacked = keras.ops.stack(fields, axis=1)  # (batch, fields, width)
    pairs = keras.ops.square(keras.ops.sum(stacked, axis=1)) - keras.ops.sum(keras.ops.square(stacked), axis=1)
    second_order = 0.5 * keras.ops.sum(pairs, axis=1, keepdims=True)
    hidden = _deep(_joined([*fields, *further]), settings)
    deep = keras.layers.Dense(1, kernel_initializer="glorot_normal", name="deep")(hidden)
    return read.model(
        keras.layers.Add()([*read.first_order([*read.numbers, *vectors, *knowledge.dense]), second_order, deep])
    )


@on_keras("3")
def din(
    features: Sequence[Feature], settings: Settings, augmentation: Any = None, injection: Injection = nothing
) -> Any:
    """DIN (Zhou et al. 2018, arXiv:1706.06978): an attention of the candidate to earlier events, scores not normalised.

    What is told of events alone, a rating say, is weighed like the rest, which is compared with the candidate.
    """
    read = _Read(features, settings)
    knowledge = injection(augmentation, read.inputs)
    single = {feature.name: feature for feature in read.categories if feature.length is None}
    told = [feature for feature in read.categories if feature.sequence]
    compared = [feature for feature in told if feature.name.removeprefix(events_of("")) in single]
    alone = [feature for feature in told if feature not in compared]
    candidate = _joined([read.field(single[feature.name.removeprefix(events_of(""))]) for feature in compared])
    events = _joined([*map(read.events, compared)])
    there = EventMask()(read.inputs[told[0].name])  # what is told of an event may be missing, but for the first
    scores = LocalActivation(name="attention")([candidate, events])
    weighed = [keras.layers.Dot(axes=(1, 1))([scores * there, each]) for each in (events, *map(read.events, alone))]
    fields = [read.field(feature) for feature in read.categories if not feature.sequence]
    dense = [*read.numbers, *knowledge.vectors(), *knowledge.dense]
    hidden = _deep(_joined([*fields, *weighed, *dense]), settings)
    return read.model(keras.layers.Dense(1, name="deep")(hidden))


@on_keras("3")
def fibinet(
    features: Sequence[Feature], settings: Settings, augmentation: Any = None, injection: Injection = nothing
) -> Any:
    """FiBiNET (Huang et al. 2019, arXiv:1905.09433): bilinear interactions of fields, weighed by SENET and as they are.

    Augmented vectors are fields like any other.
    """
    read = _Read(features, settings)
    knowledge = injection(augmentation, read.inputs)
    fields = keras.ops.stack([*map(read.field, read.categories), *knowledge.vectors()], axis=1)
    weighed = BilinearInteraction(name="of_weighed")(FieldWeights(name="senet")(fields))
    plain = BilinearInteraction(name="of_fields")(fields)
    flat = keras.layers.Flatten()(_joined([weighed, plain]))
    hidden = _deep(_joined([flat, *read.numbers, *knowledge.dense]), settings)
    deep = keras.layers.Dense(1, name="deep")(hidden)
    return read.model(keras.layers.Add()([*read.first_order(read.numbers), deep]))


BACKBONES: Mapping[str, Any] = {"DeepFM": deepfm, "DIN": din, "FiBiNET": fibinet}


@dataclass
class _Read:
    """The inputs of a model, and embeddings of what are categories: tables that are shared are made once."""

    features: Sequence[Feature]
    settings: Settings
    inputs: dict[str, Any] = field(default_factory=dict)
    _tables: dict[tuple[str, bool], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inputs = {feature.name: key_input(feature) for feature in self.features}
        self._seeds = keras.random.SeedGenerator(self.settings.seed)

    @property
    def categories(self) -> list[Feature]:
        return [feature for feature in self.features if not feature.is_key and not feature.is_number]

    @property
    def numbers(self) -> list[Any]:
        """(batch, 1) each."""
        return [self.inputs[each.name] for each in self.features if not each.is_key and each.is_number]

    def field(self, feature: Feature) -> Any:
        """(batch, width), the mean over a sequence."""
        return self._pooled(feature, linear=False)

    def events(self, feature: Feature) -> Any:
        """(batch, length, width)."""
        return self._table(feature, linear=False)(self.inputs[feature.name])

    def first_order(self, dense: Sequence[Any]) -> list[Any]:
        """Linear terms, (batch, 1) each: one a category, and one of all that is dense."""
        terms = [self._pooled(feature, linear=True) for feature in self.categories]
        if dense:
            terms.append(keras.layers.Dense(1, use_bias=False, name="dense_linear")(_joined(dense)))
        return terms

    def model(self, logit: Any) -> Any:
        """The uncompiled model of a logit, (batch, 1)."""
        return keras.Model(self.inputs, keras.layers.Activation("sigmoid", dtype="float32", name="ctr")(logit))

    def _pooled(self, feature: Feature, *, linear: bool) -> Any:
        ids = self.inputs[feature.name]
        vectors = self._table(feature, linear=linear)(ids)
        return vectors[:, 0] if feature.length is None else MaskedMean()([ids, vectors])

    def _table(self, feature: Feature, *, linear: bool) -> Any:
        name = feature.embedding or feature.name
        if (name, linear) not in self._tables:
            self._tables[name, linear] = self._linear(feature, name) if linear else self._embedding(feature, name)
        return self._tables[name, linear]

    def _embedding(self, feature: Feature, name: str) -> Any:
        small = keras.initializers.RandomNormal(0.0, 1e-4, seed=self._seeds)
        l2 = self.settings.l2_embedding
        penalty = keras.regularizers.L2(l2) if l2 else None
        width = self.settings.embedding_dim
        return keras.layers.Embedding(feature.vocabulary_size, width, small, penalty, name=f"embedding_{name}")

    def _linear(self, feature: Feature, name: str) -> Any:
        penalty = keras.regularizers.L2(_LINEAR_PENALTY)
        return keras.layers.Embedding(feature.vocabulary_size, 1, "zeros", penalty, name=f"linear_{name}")


def _deep(hidden: Any, settings: Settings) -> Any:
    for number, units in enumerate(settings.hidden_units):
        hidden = keras.layers.Dense(units, "relu", kernel_initializer="glorot_normal", name=f"deep_{number}")(hidden)
        if settings.dropout:
            hidden = keras.layers.Dropout(settings.dropout, seed=settings.seed + number)(hidden)
    return hidden


def _joined(tensors: Sequence[Any]) -> Any:
    return keras.layers.Concatenate()(tensors) if len(tensors) > 1 else tensors[0]


@keras.saving.register_keras_serializable("plain_models")
class Dice(keras.layers.Layer):
    """x p + a x (1 - p), p the sigmoid of x as the batch would have it normalised (Zhou et al. 2018, equation 6)."""

    def build(self, input_shape: Any) -> None:
        self.normalised = keras.layers.BatchNormalization(epsilon=1e-9, center=False, scale=False)
        self.normalised.build(input_shape)
        self.alpha = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="alpha")

    def call(self, inputs: Any, training: Any = None) -> Any:
        share = keras.ops.sigmoid(self.normalised(inputs, training=training))
        return inputs * (share + self.alpha * (1 - share))


@keras.saving.register_keras_serializable("plain_models")
class LocalActivation(keras.layers.Layer):
    """DIN's score of each event: an MLP of candidate, event, their difference and product, multiplied part by part.

    Input shape:
        [(batch, width), (batch, length, width)].
    Output shape:
        (batch, length).
    """

    def __init__(self, units: Sequence[int] = (80, 40), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)

    def build(self, input_shape: Any) -> None:
        width = input_shape[0][-1]
        normal = keras.initializers.GlorotNormal
        self.kernel = self.add_weight(shape=(4 * width, self.units[0]), initializer=normal(), name="kernel")
        self.bias = self.add_weight(shape=(self.units[0],), initializer="zeros", name="bias")
        self.hidden = [keras.layers.Dense(units, kernel_initializer=normal()) for units in self.units[1:]]
        self.activations = [Dice() for _ in self.units]
        self.last = keras.layers.Dense(1, kernel_initializer=normal())
        for before, layer in zip(self.units, [*self.hidden, self.last], strict=True):
            layer.build((None, None, before))
        for units, layer in zip(self.units, self.activations, strict=True):
            layer.build((None, None, units))

    def call(self, inputs: Any, training: Any = None) -> Any:
        candidate, events = inputs
        of_candidate, of_event, of_difference, of_product = keras.ops.split(self.kernel, 4)
        once = keras.ops.matmul(candidate, of_candidate + of_difference) + self.bias
        hidden = keras.ops.matmul(events, of_event - of_difference) + once[:, None]
        hidden += keras.ops.matmul(events * candidate[:, None], of_product)
        hidden = self.activations[0](hidden, training=training)
        for layer, activation in zip(self.hidden, self.activations[1:], strict=True):
            hidden = activation(layer(hidden), training=training)
        return self.last(hidden)[..., 0]


@keras.saving.register_keras_serializable("plain_models")
class FieldWeights(keras.layers.Layer):
    """SENET (Huang et al. 2019, equations 2 to 4): fields, (batch, fields, width), each times what all say of it."""

    def build(self, input_shape: Any) -> None:
        fields = input_shape[1]
        shapes = {"squeeze": (fields, max(1, fields // 3)), "excite": (max(1, fields // 3), fields)}
        self.kernels = [
            self.add_weight(shape=shape, initializer="glorot_normal", name=name) for name, shape in shapes.items()
        ]

    def call(self, inputs: Any) -> Any:
        weights = keras.ops.mean(inputs, axis=-1)
        for kernel in self.kernels:
            weights = keras.ops.relu(keras.ops.matmul(weights, kernel))
        return inputs * weights[..., None]


@keras.saving.register_keras_serializable("plain_models")
class BilinearInteraction(keras.layers.Layer):
    """(v_i W_ij) * v_j of all pairs of fields (Huang et al. 2019, equation 7), each with a matrix of its own.

    Input shape:
        (batch, fields, width).
    Output shape:
        (batch, pairs, width), the pairs in the order (0, 1), (0, 2) ... (1, 2) ...
    """

    def build(self, input_shape: Any) -> None:
        self.fields, width = input_shape[1], input_shape[2]
        pairs = self.fields * (self.fields - 1) // 2
        spread = (1 / width) ** 0.5 / 0.87962566  # Glorot and Bengio's (2010) of each matrix, cut off at two of them
        normal = keras.initializers.TruncatedNormal(stddev=spread)
        self.pairs = self.add_weight(shape=(pairs, width, width), initializer=normal, name="pairs")

    def call(self, inputs: Any) -> Any:
        products, before = [], 0
        for left in range(self.fields - 1):
            others = inputs[:, left + 1 :]
            kernels = self.pairs[before : before + others.shape[1]]
            products.append(keras.ops.einsum("bv,pvw->bpw", inputs[:, left], kernels) * others)
            before += others.shape[1]
        return keras.ops.concatenate(products, axis=1)
