"""What ids a layer reads: of which kind they are, and whether what comes can say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kar_aug._helpers.keras import dtype_name
from kar_aug.layers._ops import ops

# The kind of a source's ids: `STRINGS`, or the largest of its integers, their sign left out; None where a file of
# version 0.1 does not say.
Kind = int | str | None
STRINGS = "string"

# Below these, floats (and truth values) tell all integers apart.
_EXACT = {"bool": 2, "float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}


def kind_of(ids: Sequence[int | str]) -> int | str:
    """The kind of raw ids, as their store has them."""
    if ids and isinstance(ids[0], str):
        return STRINGS
    return max(abs(min(ids)), abs(max(ids))) if ids else 0  # type: ignore[arg-type]


def as_ids(source: str, given: Any, kind: Kind) -> Any:
    """The ids of a source as a tensor.

    Raises:
        ValueError: They are ragged or sparse, or come in a type that cannot say ids of this kind.
    """
    if not ops.is_dense(given):
        raise ValueError(_not_dense(source))
    if isinstance(given, np.ndarray) and given.dtype.kind in "OSU":  # which not all backends can make a tensor of
        check_type(source, "string", kind)
    ids = ops.convert_to_tensor(given)
    check_type(source, ops.dtype_of(ids), kind)
    return ids


def check_named(layer: Any, inputs: Any, sources: Sequence[str]) -> None:
    """Raise ValueError unless a layer was given ids by the names of its sources."""
    if not isinstance(inputs, Mapping) or not inputs:
        came = "an empty dictionary" if isinstance(inputs, Mapping) else type(inputs).__name__
        wanted = ", ".join(f"{source!r}: ids" for source in sources)
        raise ValueError(
            f"{type(layer).__name__} takes ids by the names of its sources, {{{wanted}}}. Received: {came}"
        )


def check_symbolic(inputs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """The same of Keras 3's symbolic tensors, of one input a source or of several."""
    for source, given in inputs.items():
        for ids in given if isinstance(given, (list, tuple)) else [given]:
            if getattr(ids, "ragged", False) or getattr(ids, "sparse", False):
                raise ValueError(_not_dense(source))
            check_type(source, dtype_name(ids.dtype), kinds.get(source))


def check_type(source: str, dtype: str, kind: Kind) -> None:
    """Raise ValueError unless a tensor of this type can say all ids of a kind, and no other id passes for one."""
    if kind is None:
        return
    if kind == STRINGS:
        if dtype != "string":
            raise ValueError(
                f"The ids of {source!r} are strings, as its store has them, but {dtype} came. Give its input "
                "dtype='string', or the layer a table for the model's integers: store.align(vocabulary)."
            )
        return
    if dtype == "string":
        raise ValueError(
            f"The ids of {source!r} are integers, but strings came. Turn them into these integers "
            "(keras.layers.StringLookup), or give the layer a VectorStore of strings itself."
        )
    limit = int(np.iinfo(dtype).max) + 1 if is_integer(dtype) else _EXACT.get(dtype, 0)
    if int(kind) >= limit:
        raise ValueError(
            f"The ids of {source!r} go up to {kind:,}, but come as {dtype}, which tells integers apart below "
            f"{limit:,} only. Give its input a wider type: keras.Input(..., dtype='int64')."
        )


def is_integer(dtype: str) -> bool:
    """Whether a type of this name has integers alone."""
    return dtype.startswith(("int", "uint"))


def _not_dense(source: str) -> str:
    return (
        f"The ids of {source!r} are ragged or sparse, and must be dense. Pad them before: ids.to_tensor(), or "
        "tf.sparse.to_dense(ids); with mask_zero=True, 0 and the empty string are padding."
    )
