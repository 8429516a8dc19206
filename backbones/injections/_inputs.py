"""How an injection finds what it reads among a model's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kar_aug.backbones.protocol import key_of


def ids_of(augmentation: Any, inputs: Mapping[str, Any], further: Iterable[str] = ()) -> dict[str, Any]:
    """The ids of the augmentation's sources.

    Args:
        further: inputs that must be there too.

    Raises:
        ValueError: The model has no such input.
    """
    keys = {name: key_of(name) for name in augmentation.sources}
    missing = [name for name in (*keys.values(), *further) if name not in inputs]
    if missing:
        raise ValueError(
            f"There is knowledge of {missing[0]!r}, but the model has no such input. It has: {', '.join(inputs)}. A "
            "backbone gets its keys from embed(features, settings), or from DeepFM(..., keys=features)."
        )
    return {name: inputs[key] for name, key in keys.items()}
