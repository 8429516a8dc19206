"""What is done to models with knowledge: prestore it for serving, renew it, load them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kar_aug._keras import keras
from kar_aug.layers import KnowledgeAugmentation, KnowledgeVectors, PrestoredAugmentation, store_locations


def prestore(model: Any, *, dtype: str = "float32", spare: int = 0) -> Any:
    """The model for serving: each `KnowledgeAugmentation` replaced by tables of its augmented vectors.

    The other layers are shared with `model`, not copied. An id costs one look-up. What compares frozen vectors
    (`KnowledgeVectors`) is fit for serving as it is.

    Args:
        dtype: of the tables. "float32": predictions agree to rounding; "float16": half the memory, 1e-2 relative.
        spare: rows a source kept free for ids that `PrestoredAugmentation.update` adds later.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model.
    """
    kinds = (KnowledgeAugmentation,)
    _check(model, kinds, "prestore")
    return _replaced(model, kinds, lambda layer: PrestoredAugmentation.of(layer, table_dtype=dtype, spare=spare))


def refresh(model: Any, tables: Mapping[str, Any]) -> Any:
    """The model with other knowledge: after more answers came in, say. All trained weights are kept.

    The layers but `KnowledgeAugmentation` and `KnowledgeVectors` are shared with `model`, not copied. Coverage may
    change either way: ids that lose their knowledge get the learned default vector, or are like nothing. Frozen vectors
    are made ready as they were for training.

    Args:
        tables: for every source what `KnowledgeAugmentation` takes, of the encoder it was trained with.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model, or the vectors have another dimension.
    """
    _check(model, (KnowledgeAugmentation, KnowledgeVectors), "refresh")
    return _replaced(model, (KnowledgeAugmentation, KnowledgeVectors), lambda layer: layer.refreshed(tables))


def _check(model: Any, kinds: tuple[type, ...], purpose: str) -> None:
    """Raise ValueError unless the model has a layer of one of these kinds."""
    if not any(isinstance(layer, kinds) for layer in model.layers):
        raise ValueError(f"Model {model.name!r} has no KnowledgeAugmentation layer: there is nothing to {purpose}.")


def _replaced(model: Any, kinds: tuple[type, ...], replacement: Callable[[Any], Any]) -> Any:
    def replace(layer: Any) -> Any:
        return replacement(layer) if isinstance(layer, kinds) else layer

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
