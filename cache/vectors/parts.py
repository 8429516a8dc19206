"""The parts of a store as one array that is nowhere in memory whole, until somebody asks for a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_ALIGNED = 64  # bytes: what TensorFlow asks of memory that it uses as it is


class Parts(np.lib.mixins.NDArrayOperatorsMixin):
    """Arrays of equal rows, one behind the other, of which rows are read as of one array.

    `parts[rows]` copies these rows alone. `np.asarray(parts)`, as NumPy's functions and operators do, makes one copy of
    all, filled part by part, which a tensor can take over as it is.

    Args:
        arrays: (count, ...) each, at least one.
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = list(arrays)
        self.dtype = self.arrays[0].dtype
        self.shape = (sum(map(len, self.arrays)), *self.arrays[0].shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"There are {len(self)} rows. Received: {rows.min()} to {rows.max()}")
        flat = np.where(rows < 0, rows + len(self), rows).reshape(-1)
        return gathered(self.arrays, flat, self.shape[1:], self.dtype).reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("The parts of a store are one array in a copy alone.")
        whole = _room(self.shape, self.dtype if dtype is None else np.dtype(dtype))
        start = 0
        for array in self.arrays:
            whole[start : start + len(array)] = array
            start += len(array)
        return whole

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*map(np.asarray, inputs), **options)


def blocks(vectors: Array | Parts, size: int) -> Iterator[tuple[int, Array]]:
    """Rows as they lie, none of them copied, at most `size` at a time: the first row's number, and the rows."""
    begun = 0
    for array in vectors.arrays if isinstance(vectors, Parts) else [vectors]:
        for start in range(0, len(array), size):
            yield begun + start, array[start : start + size]
        begun += len(array)


def gathered(arrays: Sequence[Array], rows: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Rows of arrays that lie one behind the other, zeros for row -1."""
    if len(arrays) == 1 and len(rows) and rows.min() >= 0:
        return np.take(arrays[0], rows, axis=0).astype(dtype, copy=False)
    found = np.zeros((len(rows), *shape), dtype)
    starts = np.cumsum([0, *map(len, arrays)])
    ascending = bool((rows[1:] >= rows[:-1]).all())  # as `join` asks, for each batch
    order = np.arange(len(rows)) if ascending else np.argsort(rows, kind="stable")
    bounds = [*np.searchsorted(rows if ascending else rows[order], starts[:-1]).tolist(), len(rows)]
    for array, start, (low, high) in zip(arrays, starts.tolist()[:-1], pairwise(bounds), strict=True):
        if low < high:
            here = slice(low, high) if ascending else order[low:high]
            found[here] = np.take(array, rows[here] - start, axis=0)
    return found


def all_finite(values: Array) -> bool:
    """Whether no number is NaN or infinite: `np.isfinite(values).all()`, ten times as fast."""
    if values.dtype.itemsize not in (2, 4) or values.dtype.kind != "f" or not values.size:
        return bool(np.isfinite(values).all())
    bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    infinite = np.asarray(np.inf, values.dtype).view(bits.dtype)
    return bool((bits & (np.iinfo(bits.dtype).max >> 1)).max() < infinite)


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of any values that begins at an address which a tensor may begin at."""
    size = int(np.prod(shape)) * dtype.itemsize
    bytes_ = np.empty(size + _ALIGNED, np.uint8)
    start = -bytes_.ctypes.data % _ALIGNED
    return bytes_[start : start + size].view(dtype).reshape(shape)
