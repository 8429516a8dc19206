"""KAR's injection (Xi et al. 2023, section 3.5): what is known of a source is one more field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kar_aug.backbones.injections._inputs import ids_of
from kar_aug.backbones.protocol import Injected


class Fields:
    """Brings an augmented vector, (batch, width), for each source."""

    def __call__(self, augmentation: Any, inputs: Mapping[str, Any]) -> Injected:
        return Injected(fields=list(augmentation(ids_of(augmentation, inputs)).values()))
