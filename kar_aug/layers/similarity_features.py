"""A candidate against what the user liked and disliked, as a few dense numbers that any model can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops
from kar_aug.layers.event_values import centred
from kar_aug.layers.lookup import constant

SIDES = ("liked", "disliked")
# Of the event of mean value that every user is given beside his own, before training.
_LEVEL = 0.3
_FAR = 1e9  # below any similarity, and no less where one is added
_ROUNDING = 1e-5  # of a mean of values that are all the same
_ANY_LENGTH = 50  # of a history, where a model takes any: what counts are divided by may not depend on the padding


@dataclass(frozen=True)
class Comparison:
    """Candidates beside their users' events, in float32; the events lie first, and sums over them are sums of whole
    rows, one number a candidate.

    Args:
        similarity: (length, batch).
        value: (length, batch), less the user's mean.
        there: (length, batch), 1.0 where candidate and event could be compared: there is an event, and both are known.
        sides: per side (length, batch), 1.0 where an event that is there is worth more than the mean; and where not.
        order: what logarithms of counts are divided by, so that they are of the order of 1.
    """

    similarity: Any
    value: Any
    there: Any
    sides: tuple[Any, Any]
    order: float

    @classmethod
    def of(cls, similarity: Any, values: Any, mask: Any, order: float) -> Comparison:
        """What is compared, of what `SimilarityFeatures` reads."""
        similarity, values, mask = (ops.transpose(ops.cast(each, "float32")) for each in (similarity, values, mask))
        value = centred(values, mask, axis=0)
        there = mask * ops.cast(similarity != 0, "float32")
        liked = there * ops.cast(value > _ROUNDING, "float32")
        return cls(similarity, value, there, (liked, there - liked), order)

    def only(self, events: Any) -> Any:
        """The similarities of some events, 1.0 each, and of the others what is less than any; (length, batch)."""
        return self.similarity + (events - 1) * _FAR

    def nearest(self, count: int) -> tuple[Any, Any]:
        """The similarities of a side's most similar events, and where there are so many, (count, 2, batch) each."""
        of_both = ops.concatenate([self.only(side) for side in self.sides], axis=1)
        found = ops.reshape(ops.largest(of_both, count), [ops.at_most(count, of_both, 0), len(SIDES), -1])
        there = ops.cast(found > -_FAR / 2, found.dtype)
        return found * there, there


# One feature a function: (batch,) a column, or (2, batch) of both sides.


def preference_and_evidence(comparison: Comparison, temperature: Any, level: Any) -> tuple[Any, Any]:
    """Kernel regression of what events were worth on how alike they are, and how much it rests on.

    w[e] = exp((s[e] - level) / temperature)
    preference = sum w[e] v[e] / (1 + sum w[e])        evidence = log(1 + sum w[e])
    """
    coldness = 1 / temperature
    exponent = comparison.only(comparison.there) * coldness
    null = level * coldness
    most = ops.stop_gradient(ops.maximum(ops.max(exponent, axis=0) - null, 0.0))  # none, or no event, is beyond exp
    weight = ops.exp(exponent - (null + most))
    total = ops.exp(-most) + ops.sum(weight, axis=0)
    return ops.sum(weight * comparison.value, axis=0) / total, (ops.log(total) + most) / comparison.order


def maximum(nearest: Any) -> Any:
    """The similarity of the most similar event of each side."""
    return nearest[0]


def mean_of_top(nearest: Any, there: Any) -> Any:
    """The mean of those of the most similar events of each side, of as many as there are."""
    return ops.sum(nearest, axis=0) / ops.maximum(ops.sum(there, axis=0), 1)


def mean(comparison: Comparison, side: Any) -> Any:
    """The mean similarity of a side."""
    return ops.sum(comparison.similarity * side, axis=0) / ops.maximum(ops.sum(side, axis=0), 1)


def amount(comparison: Comparison) -> Any:
    """How many events could be compared."""
    return ops.log1p(ops.sum(comparison.there, axis=0)) / comparison.order


def tiers(comparison: Comparison, bins: int) -> list[Any]:
    """How many events of each side lie in each of `bins` equal parts of [-1, 1], those of a side together."""
    place = ops.clip(ops.floor((comparison.similarity + 1) / 2 * bins), 0, bins - 1)
    within = [ops.cast(place == tier, "float32") for tier in range(bins)]
    counts = [ops.sum(each * side, axis=0) for side in comparison.sides for each in within]
    return [ops.log1p(count) / comparison.order for count in counts]


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
        self.temperatures = checked.positives("temperatures", temperatures)
        self.top = checked.whole("top", top)
        self.bins = checked.whole("bins", bins, least=0)
        self.supports_masking = True

    _takes = "[similarity, values, mask], (batch, length) each"

    def build(self, input_shape: Any) -> None:
        checked.inputs(self, input_shape, self._takes, _fit)
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
        checked.inputs(self, inputs, self._takes, _fit)
        similarity, values, there = inputs
        comparison = Comparison.of(similarity, values, there, self._order)
        temperatures = ops.unstack(ops.exp(ops.cast(self._log_temperature, "float32")))
        levels = ops.unstack(ops.cast(self._level, "float32"))
        pairs = [preference_and_evidence(comparison, *each) for each in zip(temperatures, levels, strict=True)]
        preferences, evidences = zip(*pairs, strict=True)
        nearest = comparison.nearest(self.top)
        columns = [
            *preferences,
            *evidences,
            *ops.unstack(maximum(nearest[0])),
            *ops.unstack(mean_of_top(*nearest)),
            *(mean(comparison, side) for side in comparison.sides),
            amount(comparison),
            *tiers(comparison, self.bins),
        ]
        return ops.cast(ops.transpose(ops.stack(columns)), self.compute_dtype)

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Sequence[Any]) -> tuple[Any, ...]:
        return (input_shape[0][0], len(self.names))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperatures": self.temperatures, "top": self.top, "bins": self.bins}


def _fit(shapes: Sequence[Any]) -> bool:
    return len(shapes) == 3 and checked.sequences_alike(shapes)
