"""What is done to models with knowledge: prestore it for serving, renew it, load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kar_aug._keras import keras
from kar_aug.layers import KnowledgeAugmentation, PrestoredAugmentation, store_locations


def prestore(model: Any, *, dtype: str = "float32", spare: int = 0) -> Any:
    """The model for serving: each `KnowledgeAugmentation` replaced by tables of its augmented vectors.

    The other layers are shared with `model`, not copied. An id costs one look-up.

    Args:
        dtype: of the tables. "float32": predictions agree to rounding; "float16": half the memory, 1e-2 relative.
        spare: rows a source kept free for ids that `PrestoredAugmentation.update` adds later.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model.
    """
    _augmentations(model, "prestore")
    return _replaced(model, lambda layer: PrestoredAugmentation.of(layer, table_dtype=dtype, spare=spare))


def refresh(model: Any, tables: Mapping[str, Any]) -> Any:
    """The model with other knowledge: after more answers came in, say. All trained weights are kept.

    The layers but `KnowledgeAugmentation` are shared with `model`, not copied. Coverage may change either way: ids that
    lose their knowledge get the learned default vector.

    Args:
        tables: for every source what `KnowledgeAugmentation` takes, of the encoder it was trained with.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model, or the vectors have another dimension.
    """
    _augmentations(model, "refresh")
    return _replaced(model, lambda layer: layer.refreshed(tables))


def _augmentations(model: Any, purpose: str) -> list[KnowledgeAugmentation]:
    found = [layer for layer in model.layers if isinstance(layer, KnowledgeAugmentation)]
    if not found:
        raise ValueError(f"Model {model.name!r} has no KnowledgeAugmentation layer: there is nothing to {purpose}.")
    return found


def _replaced(model: Any, replacement: Callable[[KnowledgeAugmentation], Any]) -> Any:
    def replace(layer: Any) -> Any:
        return replacement(layer) if isinstance(layer, KnowledgeAugmentation) else layer

    return keras.models.clone_model(model, clone_function=replace)


def load_model(
    path: Path | str,
    *,
    stores: Mapping[str, Path | str] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> Any:
    """Load a saved model that holds kar-aug's or DeepCTR's layers.

    Args:
        path: a .keras or .h5 file.
        stores: source name -> folder, for vector stores that are elsewhere now than when the model was made; see
            `kar_aug.layers.store_locations`.
        custom_objects: layers of your own by name, where they are not registered with Keras.

    Raises:
        StoreError: A store is missing, or is not the one the model was trained with.
    """
    with store_locations(stores or {}):
        return keras.models.load_model(str(path), custom_objects={**_deepctr_layers(), **(custom_objects or {})})


def _deepctr_layers() -> dict[str, Any]:
    try:
        from kar_aug.backbones import custom_objects
    except Exception:  # not installed, or not for this Keras: then no model of it can be in the file
        return {}
    return custom_objects()
