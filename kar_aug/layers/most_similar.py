"""Of a long history, the events that are most like the candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.layers import checked
from kar_aug.layers._ops import ops


@keras.utils.register_keras_serializable(package="kar_aug")
class MostSimilar(keras.layers.Layer):
    """Keeps the `count` most similar events of each row, in their order of time, for what could not read them all.

    Of events that are equally alike the latest are kept: where nothing is known of the candidate, the last of all.
    What is padding comes into it only where there are fewer events, and stays where it was, before or behind them.

    Args:
        count: of events that are kept; all, where there are not more.

    Input shape:
        [similarity, (batch, length), as `KnowledgeSimilarity` gives it; mask, (batch, length), 1 where there is an
        event; any number of tensors of the events, (batch, length) or (batch, length, ...), of any type].
    Output shape:
        [mask, (batch, count); the tensors, (batch, count) or (batch, count, ...), in their types].

    Source:
        The search units of SIM (arXiv:2006.05639) and ETA (arXiv:2108.04468), by knowledge instead of categories or
        hashes of trained embeddings; ReLLa (arXiv:2308.11131) chooses by text likewise, for a language model to read.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = checked.whole("count", count)
        self.supports_masking = True

    _takes = "[similarity, (batch, length); mask, (batch, length); tensors of events, (batch, length, ...)]"

    def call(self, inputs: Sequence[Any], mask: Any = None) -> list[Any]:
        checked.inputs(self, inputs, self._takes, _fit)
        similarity, there, *of_events = (ops.convert_to_tensor(each) for each in inputs)
        length = ops.sizes_of(similarity)[1]
        hidden = ops.where(there > 0, similarity, ops.lowest(similarity))
        # Of equals, `top_k` takes the first: the latest, of a sequence that runs backwards.
        chosen = ops.top_k(ops.flip(hidden, [1]), ops.at_most(self.count, hidden, 1), sorted=False)[1]
        in_time = ops.sort(length - 1 - chosen, axis=1)
        kept = [ops.take_along(each, in_time) for each in (there, *of_events)]
        count = None if similarity.shape[1] is None else min(self.count, similarity.shape[1])
        return [ops.fixed_shape(each, [each.shape[0], count, *each.shape[2:]]) for each in kept]

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> list[None]:
        return [None] * (len(inputs) - 1)

    # No `compute_output_shape`: Keras 3 would take it to say that all outputs are floats.

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


def _fit(shapes: Sequence[Any]) -> bool:
    several = len(shapes) > 1 and all(len(shape) > 1 for shape in shapes) and len(shapes[0]) == len(shapes[1]) == 2
    return several and checked.sequences_alike([shape[:2] for shape in shapes])
