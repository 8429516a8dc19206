"""What a user's events say of a candidate, weighed by how their knowledge goes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.knowledge_augmentation import KnowledgeAugmentation
from kar_aug.layers.knowledge_vectors import KnowledgeVectors
from kar_aug.layers.lookup import constant, values_of

# Temperatures of the first and the last head before training: one asks the nearest events, the other all.
_TEMPERATURES = (0.05, 0.3)
_LEVEL = 0.3
_NOISE = 0.02


@keras.utils.register_keras_serializable(package="kar_aug")
class KnowledgeAttention(KnowledgeVectors):
    """Target attention in the space of frozen vectors: what else is known of events, mixed by how alike they are.

        score[h, e] = (candidate M_h) . event[e] / temperature_h        for e = null: level_h / temperature_h
        output      = W concat_h sum_e softmax_e(score[h]) value[h, e] + b

    candidate and event[e] are vectors as `KnowledgeVectors` prepares them. The null event stands for a user who has
    none that is like the candidate: its score and its value, one a head, are learned, and it alone is left where the
    history is empty or nothing is known of the candidate. Events are never projected, the candidate is: heads cost no
    memory a (row, event). M_h starts as the identity, but for some noise, and temperatures far from each other, so that
    all heads are cosines of unlike sharpness before the first step.

    Args:
        source: as `KnowledgeVectors` has it, whose other options it takes too.
        width: of the output.
        heads: how many ways to compare.

    Input shape:
        [candidate ids, (batch,) or (batch, 1); event ids, (batch, length), 0 or "" where there is none;
        values, (batch, length, any): what is mixed of each event, `EventValues` or an embedding say;
        mask, (batch, length), 1 where there is an event].
    Output shape:
        (batch, width)

    Source:
        DIN (arXiv:1706.06978, section 4.3) weighs events by the candidate, with a network of both. Heads and softmax
        are the transformer's (arXiv:1706.03762, section 3.2), but for events that are not projected, and the null.
    """

    def __init__(self, source: Any, width: int = 32, heads: int = 4, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.width = checked.whole("width", width)
        self.heads = checked.whole("heads", heads)

    @classmethod
    def of(cls, augmentation: KnowledgeAugmentation, name: str, **options: Any) -> KnowledgeAttention:
        """One of a source of an augmentation; always a new one, since it learns."""
        return cls(cls.given_by(augmentation, name), **{"source_name": name, **options})

    _takes = (
        "[candidate ids, (batch,) or (batch, 1); event ids, (batch, length); values, (batch, length, any); mask, "
        "(batch, length)]"
    )

    def build(self, input_shape: Sequence[Any]) -> None:
        checked.inputs(self, input_shape, self._takes, _fit)
        self._shape_of_values = tuple(input_shape[2])
        dimension, mixed = self.vector_width, int(self._shape_of_values[-1])
        temperatures = constant(np.log(np.geomspace(*_TEMPERATURES, self.heads)))
        levels, per_head = constant([_LEVEL] * self.heads), (self.heads,)
        projections, outputs = (self.heads, dimension, dimension), (self.heads * mixed, self.width)
        self._projection = self.add_weight(name="projection", shape=projections, initializer=_near_identity)
        self._log_temperature = self.add_weight(name="log_temperature", shape=per_head, initializer=temperatures)
        self._level = self.add_weight(name="level", shape=per_head, initializer=levels)
        self._null = self.add_weight(name="null", shape=(self.heads, mixed), initializer="zeros")
        self._kernel = self.add_weight(name="kernel", shape=outputs, initializer="glorot_uniform")
        self._bias = self.add_weight(name="bias", shape=(self.width,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        checked.inputs(self, inputs, self._takes, _fit)
        candidate, events = map(self._ids, inputs[:2])
        values, there = (ops.cast(each, self.compute_dtype) for each in inputs[2:])
        scores, null = self._scores(candidate, events, there)
        # A softmax by hand: joined to the others for one that Keras has, the null's score costs several copies of all.
        most = ops.stop_gradient(ops.maximum(ops.max(scores, axis=2), null))  # (batch, heads)
        weights, of_null = ops.exp(scores - most[:, :, None]), ops.exp(null - most)
        total = ops.sum(weights, axis=2) + of_null
        mixed = ops.matmul(weights, values) + of_null[:, :, None] * ops.cast(self._null, values.dtype)
        mixed = mixed / total[:, :, None]  # (batch, heads, any)
        flat = ops.reshape(mixed, [-1, self._kernel.shape[0]])  # (batch, heads * any)
        return ops.matmul(flat, ops.cast(self._kernel, flat.dtype)) + ops.cast(self._bias, flat.dtype)

    def _scores(self, candidate: Any, events: Any, there: Any) -> tuple[Any, Any]:
        """Of the events, (batch, heads, length), and of the null event, (heads,)."""
        vectors, width = self._of_candidates(candidate), self.vector_width
        coldness = ops.exp(-ops.cast(self._log_temperature, vectors.dtype))
        # Temperatures divide the matrices, few numbers, and not the scores.
        projection = ops.cast(self._projection, vectors.dtype) * coldness[:, None, None]
        asked = ops.matmul(vectors, ops.reshape(ops.transpose(projection, [1, 0, 2]), [width, -1]))
        scores = self._products(ops.reshape(asked, [-1, self.heads, width]), events)
        # What is not there is hidden by what is added, and so is a 0: nothing is known of one of the two.
        compared = ops.cast((there[:, None] > 0) & (scores != 0), scores.dtype)
        hidden = scores + (1 - compared) * (ops.lowest(scores) / 2)
        return hidden, ops.cast(self._level, scores.dtype) * coldness

    def _learn_from(self, other: KnowledgeVectors) -> None:
        assert isinstance(other, KnowledgeAttention)
        if other.built:
            batch, length, _ = other._shape_of_values
            self.build([(batch,), (batch, length), other._shape_of_values, (batch, length)])
            for own, trained in zip(self.trainable_weights, other.trainable_weights, strict=True):
                own.assign(values_of(trained))

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return (input_shape[2][0], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "heads": self.heads}


def _fit(shapes: Sequence[Any]) -> bool:
    if len(shapes) != 4:
        return False
    candidate, events, values, mask = shapes
    alike = len(values) == 3 and checked.sequences_alike([events, values[:2], mask])
    return checked.one_a_row(candidate) and alike


def _near_identity(shape: Sequence[int], dtype: Any = None, **_: Any) -> Any:
    """(heads, d, d), the same matrix but for noise."""
    noise = keras.initializers.RandomNormal(stddev=_NOISE)(shape, dtype=dtype)
    return noise + ops.eye(shape[1], dtype=dtype)
