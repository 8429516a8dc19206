"""Room in a layer's table for ids that come later: which row is whose, and who gets a free one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.errors import StoreError
from kar_aug.layers._ops import ops
from kar_aug.layers.ids import STRINGS, Kind
from kar_aug.layers.lookup import keys_of

NO_KEY = np.iinfo(ops.KEYS).max  # of a free row, so that it comes last
_LARGEST_HALF = float(np.finfo(np.float16).max)


def matrix_of(name: str, vectors: Mapping[Any, Any], dimension: int) -> npt.NDArray[np.float32]:
    """Knowledge vectors by id as one matrix, (ids, dimension).

    Raises:
        StoreError: They do not come by id, or one is not finite, or of another length.
    """
    if not isinstance(vectors, Mapping):
        raise StoreError(f"{name}: knowledge comes as {{id: vector}}. Received: {type(vectors).__name__}", source=name)
    for id, vector in vectors.items():
        if np.shape(vector) != (dimension,) or not np.isfinite(vector).all():
            raise StoreError(
                f"{name}: the vector of id {id!r} must be {dimension} finite numbers.", source=name, entity_id=id
            )
    return np.asarray(list(vectors.values()), np.float32).reshape(len(vectors), dimension)


def as_table(name: str, vectors: Any, dtype: str) -> npt.NDArray[Any]:
    """Vectors of a source as they are kept.

    Raises:
        StoreError: One has a number that float16 cannot hold, which would become infinity.
    """
    vectors = np.asarray(vectors)
    largest = np.abs(vectors).max(initial=0) if dtype == "float16" else 0
    if largest > _LARGEST_HALF:
        raise StoreError(
            f"{name}: a vector holds {largest:,.0f}, and float16 ends at {_LARGEST_HALF:,.0f}. Keep it as float32.",
            source=name, left=_LARGEST_HALF, right=float(largest),
        )  # fmt: skip
    return vectors.astype(dtype, copy=False)


def with_texts(former: Iterable[str], ids: Iterable[Any]) -> list[str]:
    """The texts that were added before and those among these ids, each once: layers look up hashes, of which an export
    for other runtimes cannot tell them.
    """
    return list(dict.fromkeys([*former, *(id for id in ids if isinstance(id, str))]))


def placed(
    name: str,
    ids: list[Any],
    vectors: Any,
    rows: npt.NDArray[Any],
    keys: npt.NDArray[np.int64] | None,
    spare: str,
    kind: Kind,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None]:
    """A table, and its keys if any, with the vectors of more ids.

    Args:
        name: of the source, for errors.
        vectors: (ids, width).
        rows: (size + 1, width), of which the last belongs to ids that have none; it is changed.
        keys: (size,) ascending keys of raw ids (`lookup.sorted_keys`), `NO_KEY` where a row is free; None where ids
            are places.
        spare: how an error says to make room.
        kind: of the source's ids.

    Raises:
        StoreError: There is no room, or an id is of another kind.
    """
    wanted, named = ((str,), "strings") if kind == STRINGS else ((int, np.integer), "integers")
    wrong = [id for id in ids if not isinstance(id, wanted) or isinstance(id, bool)]
    if wrong and (keys is None or kind is not None):  # a file of version 0.1 does not say what its raw ids are
        raise StoreError(
            f"{name}: its ids are {named}, as the model reads them. Received: {wrong[0]!r}", source=name,
            entity_id=wrong[0],
        )  # fmt: skip
    size = len(rows) - 1
    if keys is None:
        outside = [id for id in ids if not 0 <= id < size]
        if outside:
            raise StoreError(
                f"{name}: there is no row for id {outside[0]}, only for 0 to {size - 1}. {spare}",
                source=name, entity_id=int(outside[0]), right=size,
            )  # fmt: skip
        rows[ids] = vectors
        return rows, None
    keys = keys.copy()
    new = keys_of(ids)
    place = np.minimum(np.searchsorted(keys, new), size - 1)
    there = keys[place] == new
    free = np.flatnonzero(keys == NO_KEY)
    if (~there).sum() > len(free):
        raise StoreError(
            f"{name}: {(~there).sum()} new ids, but room for {len(free)}. {spare}",
            source=name, left=len(free), right=int((~there).sum()),
        )  # fmt: skip
    place[~there] = free[: (~there).sum()]
    keys[place], rows[place] = new, vectors
    order = np.argsort(keys, kind="stable")
    return np.concatenate([rows[:-1][order], rows[-1:]]), keys[order]
