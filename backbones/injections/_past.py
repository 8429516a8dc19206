"""The candidate and the user's past, as the injections that compare the two find them among a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kar_aug.backbones.protocol import key_of
from kar_aug.layers import EventMask


@dataclass(frozen=True)
class Names:
    """What the inputs are called.

    Args:
        source: whose knowledge is compared, and the input of the candidate. All sources of its ids are compared, each
            for itself: "item.reviews" beside "item" (see `key_of`).
        events: the input of earlier events, (batch, length) ids as `source` has them, 0 where there is none.
        values: the input of what each was worth to the user, (batch, length), raw: a rating, a label.
    """

    source: str = "item"
    events: str = "past_item"
    values: str = "past_value"


@dataclass(frozen=True)
class Past:
    """Tensors of the model that is being built.

    Args:
        sources: those that are compared.
        candidate: (batch, 1) ids.
        events: (batch, length) ids.
        values: (batch, length).
        mask: (batch, length), 1.0 where there is an event.
    """

    sources: Sequence[str]
    candidate: Any
    events: Any
    values: Any
    mask: Any


def past_of(augmentation: Any, inputs: Mapping[str, Any], names: Names, by: str) -> Past:
    """What is compared.

    Args:
        by: the injection's name, for the error.

    Raises:
        ValueError: There is no such knowledge, or the model lacks an input.
    """
    sources = [name for name in augmentation.sources if key_of(name) == names.source]
    if not sources:
        raise ValueError(
            f"A candidate is compared with earlier events by knowledge of {names.source!r}. There is knowledge of: "
            f"{', '.join(augmentation.sources)}. Say which: {by}(source=...)"
        )
    wanted = {"the candidate": names.source, "earlier events": names.events, "what they were worth": names.values}
    for what, name in wanted.items():
        if name not in inputs:
            raise ValueError(
                f"To compare the candidate with earlier events the model needs an input {name!r}, of {what}. It has: "
                f"{', '.join(inputs)}. Under other names: {by}(source=..., events=..., values=...); a backbone "
                "gets its keys from embed(features, settings), or from DeepFM(..., keys=features)."
            )
    candidate, events, values = (inputs[name] for name in wanted.values())
    if tuple(events.shape) != tuple(values.shape):
        raise ValueError(
            f"Input {names.values!r} must have a value for each of {names.events!r}. Received shapes: "
            f"{tuple(values.shape)} and {tuple(events.shape)}"
        )
    return Past(sources, candidate, events, values, EventMask()(events))
