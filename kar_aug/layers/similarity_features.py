"""A candidate against what the user liked and disliked, as a few dense numbers that any model can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras
from kar_aug.layers._ops import ops
from kar_aug.layers.event_values import centred
from kar_aug.layers.lookup import constant

SIDES = ("liked", "disliked")
# Of the event of mean value that every user is given beside his own, before training.
_LEVEL = 0.3
_ROUNDING = 1e-5  # of a mean of values that are all the same
_ANY_LENGTH = 50  # of a history, where a model takes any: what counts are divided by may not depend on the padding


@dataclass(frozen=True)
class Comparison:
    """A candidate beside a user's events, in float32.

    Args:
        similarity: (batch, length).
        value: (batch, length), less the user's mean.
        there: (batch, length), 1.0 where candidate and event could be compared: there is an event, and both are known.
        sides: (batch, 2, length), 1.0 where an event that is there is worth more than the mean; and where not.
        order: what logarithms of counts are divided by, so that they are of the order of 1.
    """

    similarity: Any
    value: Any
    there: Any
    sides: Any
    order: float

    @classmethod
    def of(cls, similarity: Any, values: Any, mask: Any, order: float) -> Comparison:
        """What is compared, of what `SimilarityFeatures` reads."""
        similarity, values, mask = (ops.cast(each, "float32") for each in (similarity, values, mask))
        value = centred(values, mask)
        there = mask * ops.cast(similarity != 0, "float32")
        liked = there * ops.cast(value > _ROUNDING, "float32")
        return cls(similarity, value, there, ops.stack([liked, there - liked], axis=1), order)

    def per_side(self, values: Any) -> Any:
        """Sums of (batch, length) over the events of each side, (batch, 2)."""
        return ops.matvec(self.sides, values)

    def nearest(self, count: int) -> tuple[Any, Any]:
        """The similarities of a side's most similar events, and where there are so many, (batch, 2, count) each."""
        hidden = ops.where(self.sides > 0, self.similarity[:, None], ops.lowest(self.similarity))
        found = ops.top_k(hidden, ops.at_most(count, hidden, 2))[0]
        there = ops.cast(found > ops.lowest(hidden), hidden.dtype)
        return ops.where(there > 0, found, 0.0), there


# One feature a function, each (batch, columns).


def preference_and_evidence(comparison: Comparison, temperature: Any, level: Any) -> tuple[Any, Any]:
    """Kernel regression of what events were worth on how alike they are, and how much it rests on; one column a
    temperature each.

        w[e] = exp((s[e] - level) / temperature)
        preference = sum w[e] v[e] / (1 + sum w[e])        evidence = log(1 + sum w[e])
    """
    exponent = (comparison.similarity[:, None] - level[:, None]) / temperature[:, None]
    exponent = ops.where(comparison.there[:, None] > 0, exponent, ops.lowest(exponent))
    most = ops.stop_gradient(ops.maximum(ops.max(exponent, axis=2), 0.0))  # none, or no event, is beyond exp
    weight = ops.exp(exponent - most[:, :, None])  # (batch, temperatures, length)
    total = ops.exp(-most) + ops.sum(weight, axis=2)
    evidence = (ops.log(total) + most) / comparison.order
    return ops.matvec(weight, comparison.value) / total, evidence


def maximum(nearest: Any) -> Any:
    """The similarity of the most similar event of each side."""
    return nearest[:, :, 0]


def mean_of_top(nearest: Any, there: Any) -> Any:
    """The mean of those of the most similar events of each side, of as many as there are."""
    return ops.sum(nearest, axis=2) / ops.maximum(ops.sum(there, axis=2), 1)


def mean(comparison: Comparison) -> Any:
    """The mean similarity of each side."""
    counts = ops.sum(comparison.sides, axis=2)
    return comparison.per_side(comparison.similarity) / ops.maximum(counts, 1)


def amount(comparison: Comparison) -> Any:
    """How many events could be compared, (batch, 1)."""
    counts = ops.sum(comparison.there, axis=1, keepdims=True)
    return ops.log1p(counts) / comparison.order


def tiers(comparison: Comparison, bins: int) -> Any:
    """How many events of each side lie in each of `bins` equal parts of [-1, 1], those of a side together."""
    place = ops.cast(ops.floor((comparison.similarity + 1) / 2 * bins), "int32")
    there = ops.one_hot(ops.clip(place, 0, bins - 1), bins)  # (batch, length, bins)
    counts = ops.matmul(comparison.sides, there)
    return ops.reshape(ops.log1p(counts) / comparison.order, [-1, len(SIDES) * bins])


@keras.utils.register_keras_serializable(package="kar_aug")
class SimilarityFeatures(keras.layers.Layer):
    """Tells in dense numbers how a candidate compares with what a user liked and disliked before.

    Of the similarity s[e] of each event and what it was worth, v[e], less the user's mean, `names` says in which order:
    for each temperature (learned, as is the level; see `preference_and_evidence`)

        preference   the mean of v weighted by exp(s / temperature), among them one event of value 0 at s = level
        evidence     log(1 + sum exp((s - level) / temperature)), divided by log(1 + length)

    for the events that were liked, v > 0, and disliked, v <= 0, each

        maximum, mean of the `top` most similar, mean of s
        tier i       log(1 + events in the i-th of `bins` equal parts of [-1, 1]), divided by log(1 + length)

    and the amount of events, log(1 + count), divided by log(1 + length); the length is that with which the layer is
    built, and 50 where the model takes histories of any, so that no padding changes a feature. An event counts where
    its similarity is not 0, which says that nothing is known of it or of the candidate: an empty history, an unknown
    candidate and unknown events give zeros, exactly. There is no expert network, and nothing to learn but temperatures
    and levels.

    Args:
        temperatures: those that training begins with. A low one asks the nearest events alone, a high one all.
        top: how many of the most similar events.
        bins: of the histogram; 0 for none.

    Input shape:
        [similarity, (batch, length), as `KnowledgeSimilarity` gives it;
        values, (batch, length), what each event was worth: a rating, a label, raw, of the order of 1;
        mask, (batch, length), 1 where there is an event].
    Output shape:
        (batch, len(names))

    Source:
        Nadaraya-Watson regression with a null event; the histogram is SimTier (arXiv:2407.19467), here one for what was
        liked and one for what was not.
    """

    def __init__(
        self, temperatures: Sequence[float] = (0.05, 0.15), top: int = 5, bins: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not temperatures or min(temperatures) <= 0:
            raise ValueError(f"`temperatures` must be positive, at least one. Received: {temperatures}")
        if top < 1 or bins < 0:
            raise ValueError(f"`top` must be positive and `bins` not negative. Received: top={top}, bins={bins}")
        self.temperatures = list(temperatures)
        self.top = top
        self.bins = bins
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        count = (len(self.temperatures),)
        logarithms = constant(np.log(np.asarray(self.temperatures, np.float32)))
        self._log_temperature = self.add_weight(name="log_temperature", shape=count, initializer=logarithms)
        self._level = self.add_weight(name="level", shape=count, initializer=constant([_LEVEL] * count[0]))
        self._order = float(np.log1p(input_shape[0][1] or _ANY_LENGTH))
        super().build(input_shape)

    @property
    def names(self) -> list[str]:
        """What each column is."""
        of_temperatures = [f"{what} {i}" for what in ("preference", "evidence") for i in range(len(self.temperatures))]
        of_sides = [f"{what} {side}" for what in ("maximum", f"mean of top {self.top}", "mean") for side in SIDES]
        of_tiers = [f"tier {i} {side}" for side in SIDES for i in range(self.bins)]
        return [*of_temperatures, *of_sides, "amount", *of_tiers]

    def call(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        similarity, values, there = inputs
        comparison = Comparison.of(similarity, values, there, self._order)
        temperature = ops.exp(ops.cast(self._log_temperature, "float32"))
        nearest = comparison.nearest(self.top)
        columns = [
            *preference_and_evidence(comparison, temperature, ops.cast(self._level, "float32")),
            maximum(nearest[0]),
            mean_of_top(*nearest),
            mean(comparison),
            amount(comparison),
        ]
        if self.bins:
            columns.append(tiers(comparison, self.bins))
        return ops.cast(ops.concatenate(columns, axis=1), self.compute_dtype)

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return (input_shape[0][0], len(self.names))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperatures": self.temperatures, "top": self.top, "bins": self.bins}
