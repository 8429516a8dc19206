"""What JAX does otherwise than torch: shapes are known before values are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from kar_aug.layers._ops.of_keras import *  # noqa: F403
from kar_aug.layers._ops.of_keras import convert_to_tensor

# Integers have 32 bits unless the user chose JAX_ENABLE_X64.
KEYS: Any = jnp.asarray(np.int64(0)).dtype


def keys_of(ids: Any) -> Any:
    """Ids as the integers under which they are looked up."""
    return ids.astype(KEYS)


def rows_at(table: Any, places: Any) -> Any:
    """Rows of a table, (rows, ...), at places that are all within it, of any shape."""
    return jnp.take(convert_to_tensor(table), places, axis=0, mode="clip")


def top_k(tensor: Any, k: int, **_: Any) -> tuple[Any, Any]:
    """The k largest along the last axis, and where: of equals the first ones."""
    return tuple(jax.lax.top_k(tensor, k))


def products_with_rows(queries: Any, table: Any, places: Any) -> Any:
    """Products of queries, (batch, heads, width), with the rows of a table that is not trained at (batch, length)
    places: (batch, heads, length).
    """
    return jnp.einsum("bhw,blw->bhl", queries, rows_at(table, places).astype(queries.dtype))


def sums_of_rows(weights: Any, table: Any, places: Any) -> Any:
    """Sums of the rows of a table that is not trained at (batch, length) places, weighed by (batch, heads, length):
    (batch, heads, width).
    """
    return jnp.einsum("bhl,blw->bhw", weights, rows_at(table, places).astype(weights.dtype))


def distinct(places: Any, size: int) -> tuple[Any, Any]:
    """Distinct places, and which of these each of `places` is: `places == found[position]`.

    How many there are is known too late. So it is as many as there can be, the smaller of the places' number and
    size + 1, and what comes again is `size`, an unknown id: no sort, which on a GPU would take longer than the experts.

    Args:
        places: (count,) in [0, size], of which the last is that of an unknown id.
    """
    count = places.shape[0]
    if count > size:
        there = jnp.zeros(size + 1, bool).at[places].set(True)
        return jnp.where(there, jnp.arange(size + 1, dtype=places.dtype), size), places
    order = jnp.arange(count, dtype=places.dtype)
    first = jnp.full(size + 1, count, places.dtype).at[places].min(order)[places]
    return jnp.where(first == order, places, size), first


def if_equal(weight: Any, value: Any, tensor: Any, otherwise: str) -> Any:
    """A tensor; NaN where a weight has not this value: `value_now` cannot tell it of what is traced, and this can.

    Args:
        weight, value: an integer, of which the last 32 bits are compared: a file may have no more.
        otherwise: what is to be told then, where a traced function can.
    """
    return jnp.where(convert_to_tensor(weight).astype(jnp.int32) == np.asarray(value).astype(np.int32), tensor, jnp.nan)


def value_now(tensor: Any) -> npt.NDArray[Any] | None:
    """A weight's value, None where it is not known yet: while a function is traced."""
    value = convert_to_tensor(tensor)
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)
