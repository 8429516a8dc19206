"""What is done to models with knowledge: prestore it for serving, renew it, load them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from kar_aug._helpers.keras import keras
from kar_aug.cache.vectors.store import VectorStore
from kar_aug.layers import (
    KnowledgeAugmentation,
    KnowledgeCodes,
    KnowledgeVectors,
    PrestoredAugmentation,
    checked,
    store_locations,
    vectors_left_out,
)
from kar_aug.models.find import check_model, knowledge_layers, replaced
from kar_aug.models.versions import check_versions

_OF_FILE = (
    "{}, the model being what is in the file but for vectors (with "
    "kar_aug.layers.vectors_left_out(): model = kar_aug.load_model(path)),"
)


def prestore(model: Any, *, dtype: str = "float32", spare: int = 0) -> Any:
    """The model for serving: each `KnowledgeAugmentation` replaced by tables of its augmented vectors.

    The other layers are shared with `model`, not copied; functional models inside it, towers say, and `TimeDistributed`
    ones, are made anew where there is such a layer in them. Losses and metrics that were added to it stay, and so does
    its class, but where that cannot be made of inputs and outputs alone: then it is Keras's own, since no step of
    training is needed to serve.
    An id costs one look-up. What compares frozen vectors (`KnowledgeVectors`), or reads codes (`KnowledgeCodes`), is
    fit for serving as it is.

    Args:
        model: a functional model. What to do with one that has a `call` of its own, the error says.
        dtype: of the tables. "float32": predictions agree to rounding; "float16": half the memory, 1e-2 relative.
        spare: rows a source kept free for ids that `PrestoredAugmentation.update` adds later.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model, or it is inside a layer or model with a `call` of
            its own; the message says where.
        StoreError: A vector does not fit into float16.
    """
    kinds = (KnowledgeAugmentation,)
    _check(model, kinds, "prestore")
    spare = checked.whole("spare", spare, least=0)
    return replaced(
        model,
        kinds,
        lambda layer: PrestoredAugmentation.of(layer, table_dtype=dtype, spare=spare),
        by="PrestoredAugmentation.of({})",
        by_tower="prestore({})",
    )


def refresh(model: Any, tables: Mapping[str, Any], *, any_version: bool = False) -> Any:
    """The model with other knowledge: after more answers came in, say. All trained weights are kept.

    The layers but `KnowledgeAugmentation`, `KnowledgeVectors` and `KnowledgeCodes` are shared with `model`, not copied.
    Coverage may change either way: ids that lose their knowledge get the learned default vector, or are like nothing.
    Frozen vectors are made ready as they were for training; codes are those of the same codebooks.

    Args:
        tables: for every source what `KnowledgeAugmentation` takes, of the encoder it was trained with.
        any_version: take vectors of another version (`VectorStore.version`), which the experts never learnt to read: of
            texts of another language model, say, that may be like the former. The version that the model learnt stays
            the one that it asks for.

    Raises:
        ValueError: There is no `KnowledgeAugmentation` in the model, or it is inside a layer or model with a `call` of
            its own, or one of a class that cannot be made of inputs and outputs; or the vectors have another dimension.
        StoreError: They are of another version than those of the training, of a layer that compares frozen ones, too.
    """
    return _refreshed(model, tables, any_version, said="{}")


def _refreshed(model: Any, tables: Mapping[str, Any], any_version: bool, said: str) -> Any:
    """See `refresh`.

    Args:
        said: of a layer, or tower, made anew, written as "{}", what an error says that one is to do with it.
    """
    kinds = (KnowledgeAugmentation, KnowledgeVectors, KnowledgeCodes)
    _check(model, kinds, "refresh")
    if not any_version:
        for layer in knowledge_layers(model, (KnowledgeAugmentation, KnowledgeVectors)):
            check_versions(layer, tables)
    return replaced(
        model, kinds, lambda layer: layer.refreshed(tables), by=said.format("{}.refreshed(tables)"),
        by_tower=said.format("refresh({}, tables)"), keep_class="Refresh",
    )  # fmt: skip


def _check(model: Any, kinds: tuple[type, ...], purpose: str) -> None:
    """Raise ValueError unless the model has a layer of one of these kinds."""
    check_model(model, purpose)
    if not knowledge_layers(model, kinds):
        frozen = knowledge_layers(model, (KnowledgeVectors, KnowledgeCodes))
        as_it_is = " What its knowledge layers look up is frozen: serve it, or export it, as it is." if frozen else ""
        raise ValueError(
            f"Model {model.name!r} has no KnowledgeAugmentation layer: there is nothing to {purpose}.{as_it_is}"
        )


def load_model(
    path: Path | str,
    *,
    stores: Mapping[str, Path | str | VectorStore] | None = None,
    tables: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> Any:
    """Load a saved model that holds kar-aug's or DeepCTR's layers.

    A model knows its stores by their content: once one of them has grown, it is loaded with `tables`.

    Args:
        path: a .keras or .h5 file.
        stores: source name -> folder, or the `VectorStore` there, for stores that are elsewhere now than when the
            model was made; see `kar_aug.layers.store_locations`. When the model is saved again, that is where they are.
        tables: for every source the knowledge of now, in place of that of the training, as `refresh` takes it: a store
            that has grown since, whose former state is gone. The model comes uncompiled. What to do with one that has a
            `call` of its own, the error says.
        custom_objects: layers of your own by name, where they are not registered with Keras.
        safe_mode: False loads code that is in the file, too (`Lambda` layers, which DeepCTR's MMOE and PLE have): for
            files that you made yourself.

    Raises:
        StoreError: A store is missing, or is not the one the model was trained with; or `tables` are of another
            version than it learnt to read.
        ValueError: `stores` names what is no source of the model; or `tables` lacks one, or the model cannot be made
            anew with them, see `refresh`.
    """
    folders: dict[str, Any] = {name: getattr(store, "path", store) for name, store in (stores or {}).items()}
    with store_locations(folders) as sources, vectors_left_out() if tables is not None else nullcontext():
        objects = {**_deepctr_layers(), **(custom_objects or {})}
        model = keras.models.load_model(str(path), custom_objects=objects, safe_mode=safe_mode)
    wrong = [name for name in stores or {} if name not in sources]
    if wrong:
        raise ValueError(
            f"`stores` names {wrong[0]!r}, which is no knowledge source of {path}. Its sources are: "
            f"{', '.join(sorted(sources)) or 'none'}"
        )
    return model if tables is None else _refreshed(model, tables, any_version=False, said=_OF_FILE)


def _deepctr_layers() -> dict[str, Any]:
    try:
        from kar_aug.backbones import custom_objects
    except Exception:  # not installed, or not for this Keras: then no model of it can be in the file
        return {}
    return custom_objects()
