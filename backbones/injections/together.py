"""Several injections at once: "fields+similarity"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kar_aug.backbones.protocol import Injected, Injection


class Together:
    """Brings what each of its injections brings.

    Args:
        kinds: what the joined names stand for in `INJECTIONS`.
    """

    def __init__(self, *kinds: Callable[[], Injection]) -> None:
        self._injections = [kind() for kind in kinds]

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        brought = [injection(augmentation, inputs) for injection in self._injections]
        return Injected(
            fields=[vector for each in brought for vector in each.fields],
            dense=[values for each in brought for values in each.dense],
            events={name: known for each in brought for name, known in each.events.items()},
        )
