"""What torch does otherwise than JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kar_aug.layers._ops.of_keras import *  # noqa: F403
from kar_aug.layers._ops.of_keras import convert_to_numpy, convert_to_tensor

KEYS: Any = np.int64


def keys_of(ids: Any) -> Any:
    """Ids as the integers under which they are looked up."""
    return ids.long()


def rows_at(table: Any, places: Any) -> Any:
    """Rows of a table, (rows, ...), at places that are all within it, of any shape."""
    table = convert_to_tensor(table)
    found = torch.index_select(table, 0, places.reshape(-1))
    return found.reshape(*places.shape, *table.shape[1:])


def products_with_rows(queries: Any, table: Any, places: Any) -> Any:
    """Products of queries, (batch, heads, width), with the rows of a table that is not trained at (batch, length)
    places: (batch, heads, length).
    """
    return torch.matmul(queries, rows_at(table, places).to(queries.dtype).transpose(1, 2))


def sums_of_rows(weights: Any, table: Any, places: Any) -> Any:
    """Sums of the rows of a table that is not trained at (batch, length) places, weighed by (batch, heads, length):
    (batch, heads, width).
    """
    return torch.matmul(weights, rows_at(table, places).to(weights.dtype))


def distinct(places: Any, size: int) -> tuple[Any, Any]:
    """Distinct places, and which of these each of `places` is: `places == found[position]`.

    Args:
        places: (count,) in [0, size], of which the last is that of an unknown id.
    """
    found, position = torch.unique(places, return_inverse=True)
    return found, position


def if_equal(weight: Any, value: Any, tensor: Any, otherwise: str) -> Any:
    """The tensor: that a weight has this value, `value_now` tells before."""
    return tensor


def value_now(tensor: Any) -> npt.NDArray[Any] | None:
    """A weight's value, None where it is not known yet: while Keras asks for shapes."""
    value = convert_to_tensor(tensor)
    return None if value.is_meta else convert_to_numpy(value)


def top_k(tensor: Any, k: int, **_: Any) -> tuple[Any, Any]:
    """The k largest along the last axis, and where: of equals the first ones, which `torch.topk` does not promise."""
    values, places = torch.sort(tensor, dim=-1, descending=True, stable=True)
    return values[..., :k], places[..., :k]
