"""The fields, and what is known of the items that the user met before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.backbones.injections._inputs import ids_of
from kar_aug.backbones.protocol import Injected, KnownEvents, events_of, key_of
from kar_aug.layers import CandidateAndEvents, MaskedMean


class Events:
    """Brings the fields, and for sources with events the augmented vectors of these: each, and their mean.

    A model with an attention compares the candidate with each; one without has the mean as one more field.

    Args:
        sources: those whose events count; by default all that the model has an input of events for, "hist_" + source.
    """

    def __init__(self, sources: Sequence[str] = ()) -> None:
        self._sources = tuple(sources)

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        names = self._sources or [name for name in augmentation.sources if events_of(key_of(name)) in inputs]
        if not names or not set(names) <= set(augmentation.sources):
            wrong = next((name for name in names if name not in augmentation.sources), None)
            raise ValueError(
                f"Events need knowledge of what has some: a source whose events are an input, "
                f"{events_of('item_id')!r} say. Received: {wrong!r}; the inputs are {', '.join(inputs)}"
            )
        past = {name: events_of(key_of(name)) for name in names}
        ids = ids_of(augmentation, inputs, past.values())
        for name in names:
            ids[name] = keras.layers.Concatenate(axis=1)([ids[name], inputs[past[name]]])
        vectors = dict(augmentation(ids))
        events = {}
        for name in names:
            vectors[name], each, mask = CandidateAndEvents()([ids[name], vectors[name]])
            mean = MaskedMean()([inputs[past[name]], each])
            events[name] = KnownEvents(vectors[name], each, mask, (mean,))
        return Injected(fields=list(vectors.values()), events=events)
