"""Room for columns as long as a log: memory while they are short; beyond that files, mapped into memory.

Whatever is made of each event is made a block of rows at a time, or one column at a time, and put here. A mapped column
is an array, or a Series, like any other. Its pages are the operating system's to keep or to write out, so that what a
process needs for itself does not grow with the log. The files have no names: they are gone when nobody maps them.

How much is done at a time changes the memory that it takes, and never what comes out.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

BLOCK = 1 << 20  # rows
BYTES = 1 << 30
# Of the bytes that may be taken: a row that is worked on takes so many, its texts as objects of Python among them; and
# so many columns are held at once, while several things are made of them.
_OF_ROW = 1 << 10
_HELD = 1 << 6
Array = npt.NDArray[Any]
Places = npt.NDArray[np.integer[Any]]


class Room:
    """Where long columns are put, and how many rows are worked on at a time.

    Args:
        folder: where the files are, on a disk that has room for the log; None: all is kept in memory.
        memory: bytes that a process takes for itself, about, beside what it keeps of each user and item.
    """

    def __init__(self, folder: Path | None = None, memory: int = BYTES) -> None:
        self.folder, self._most, self._rows = folder, memory // _HELD, max(1, memory // _OF_ROW)
        self._mapped: list[weakref.ref[mmap.mmap]] = []

    def blocks(self, rows: int) -> Iterator[slice]:
        """Of so many rows, a block at a time."""
        return blocks(rows, self._rows)

    def blocks_of_users(self, user: Places) -> Iterator[slice]:
        """The same, all of a user's rows together; see `blocks_of_users`."""
        return blocks_of_users(user, self._rows)

    def holds(self, size: int) -> bool:
        """Whether a column of so many bytes is kept in memory."""
        return self.folder is None or size <= self._most

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array to be filled.

        Raises:
            OSError: The disk is full, or cannot be written to.
        """
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        if self.folder is None or self.holds(size):
            return np.empty(shape, kind)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            _reserve(file.fileno(), size)
            return np.frombuffer(self._map(file), kind).reshape(shape)

    def filled(self, rows: int, dtype: npt.DTypeLike, make: Callable[[slice], Any]) -> Array:
        """An array of so many rows, each block of which `make` gives."""
        values = self.empty(rows, dtype)
        for block in self.blocks(rows):
            values[block] = make(block)
        self.let_go()
        return values

    def taken(self, values: Array, places: Places) -> Array:
        """values[places]."""
        return self.filled(len(places), values.dtype, lambda block: values[places[block]])

    def true(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The places at which a mask is true."""
        places, done = self.empty(int(np.count_nonzero(mask)), np.int64), 0
        for block in self.blocks(len(mask)):
            found = block.start + np.flatnonzero(mask[block])
            places[done : done + len(found)] = found
            done += len(found)
        self.let_go()
        return places

    def parts(self, rows: int) -> int:
        """How many blocks there are of so many rows."""
        return -(-rows // self._rows)

    def spans(self, counts: Places) -> Places:
        """Of users with so many rows each, in which span each is: users of one have about a block of rows together."""
        span = (np.cumsum(counts) - counts) // self._rows
        return span.astype(np.min_scalar_type(int(span.max(initial=0))))

    def gathered(self, parts: Places) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of each part, part by part; each part's rise. The parts are gone through once.

        Args:
            parts: of each row the part that it is of: 0, 1, ...
        """
        counts = np.zeros(1, np.int64)
        for block in self.blocks(len(parts)):
            more = np.bincount(parts[block], minlength=len(counts))
            more[: len(counts)] += counts
            counts = more
        ends = np.cumsum(counts)
        rows, free = self.empty(len(parts), np.int64), ends - counts
        for block in self.blocks(len(parts)):
            order, taken = np.argsort(parts[block], kind="stable"), np.bincount(parts[block], minlength=len(counts))
            places = np.repeat(free - (np.cumsum(taken) - taken), taken) + np.arange(len(order))
            rows[places] = block.start + order
            free += taken
        self.let_go()
        for end, count in zip(ends, counts, strict=True):
            yield rows[end - count : end]

    def column(self, column: pd.Series) -> pd.Series:
        """A column of a table, put here; one that is neither of numbers nor of text stays as it is."""
        if self.holds(column.nbytes):
            return column
        if isinstance(column.dtype, np.dtype) and column.dtype != object:
            values = column.to_numpy()
            return series(self.filled(len(values), values.dtype, lambda block: values[block]), column.name)
        return (
            self.text((column.iloc[block] for block in self.blocks(len(column))), column)
            if is_arrow_text(column)
            else column
        )

    def ordered(self, column: pd.Series, order: Places) -> pd.Series:
        """The rows of a column in another order."""
        if isinstance(column.dtype, np.dtype) and column.dtype != object:
            return series(self.taken(column.to_numpy(), order), column.name)
        if not self.holds(column.nbytes) and is_arrow_text(column):
            return self.text((column.iloc[order[block]] for block in self.blocks(len(order))), column)
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes = self.taken(column.cat.codes.to_numpy(), order)
            return pd.Series(pd.Categorical.from_codes(codes, dtype=column.dtype), name=column.name, copy=False)
        return column.take(order).reset_index(drop=True)

    def made(self, column: pd.Series, make: Callable[[pd.Series], pd.Series]) -> pd.Series:
        """What `make` gives of a block of a column at a time: numbers or times, of a type that holds those of each."""
        values = None
        for block in self.blocks(len(column)):
            part = make(column.iloc[block]).to_numpy()
            if part.dtype == object:
                break
            if values is None:
                values = self.empty(len(column), part.dtype)
            elif part.dtype != values.dtype:
                narrow, kind = values, np.promote_types(part.dtype, values.dtype)
                values = self.filled(len(column), kind, lambda block: narrow[block])  # noqa: B023
            values[block] = part
        else:
            self.let_go()
            if values is not None:
                return pd.Series(values, column.index, name=column.name, copy=False)
        return make(column)  # no rows, or what NumPy has no type for: integers of more than 64 bits

    def rows(self, frame: pd.DataFrame, mask: npt.NDArray[np.bool_]) -> pd.DataFrame:
        """The rows of a frame at which a mask is true."""
        if mask.all():
            return frame
        places = self.true(mask)
        return pd.DataFrame({name: self.ordered(frame[name], places) for name in frame.columns}, copy=False)

    def text(self, parts: Iterable[pd.Series | pa.Array], like: pd.Series) -> pd.Series:
        """Text that comes in parts, as one column in an Arrow file, of the type and name of another."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([("text", pa.large_string())])
        with tempfile.TemporaryFile(dir=self.folder) as file:
            with pa.ipc.new_file(pa.PythonFile(file, "w"), schema) as writer:
                for part in parts:
                    text = part.array.__arrow_array__() if isinstance(part, pd.Series) else part
                    writer.write_table(pa.table({"text": text.cast(pa.large_string())}, schema))
            file.flush()
            mapped = self._map(file)
        self.let_go()
        read = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()["text"]
        return pd.Series(cast(Any, type(like.array))(read, dtype=like.dtype), name=like.name, copy=False)

    def let_go(self) -> None:
        """Tell the system that nobody reads of what is mapped just now: it counts these pages no longer as this
        process's, and may use them. Who reads on finds all as it was.
        """
        self._mapped = [each for each in self._mapped if each() is not None]
        for each in self._mapped:
            _let_go(each())

    def _map(self, file: Any) -> mmap.mmap:
        mapped = mmap.mmap(file.fileno(), 0)
        self._mapped.append(weakref.ref(mapped))
        return mapped


MEMORY = Room()


def blocks(rows: int, most: int = BLOCK) -> Iterator[slice]:
    """Of so many rows, a block at a time."""
    for start in range(0, rows, most):
        yield slice(start, min(start + most, rows))


def blocks_of_users(user: Places, most: int = BLOCK) -> Iterator[slice]:
    """About a block of rows at a time, all of a user's together.

    Args:
        user: of each row; rising.
    """
    start = 0
    while start < len(user):
        stop = min(start + most, len(user))
        if stop < len(user):
            stop = max(stop, int(np.searchsorted(user, user[stop - 1], side="right")))
        yield slice(start, stop)
        start = stop


def different(parts: Iterable[pd.Series]) -> list[Any]:
    """The values of a column that comes in parts, each once, sorted."""

    def united(some: Sequence[pd.Series]) -> pd.Series:
        return pd.Series(pd.concat(some, ignore_index=True).unique())

    return sorted(_in_one((pd.Series(part.unique()) for part in parts), united).tolist())


def counted(parts: Iterable[pd.Series]) -> pd.Series:
    """How often each value of a column that comes in parts stands there (index: the values); missing ones do not
    count.
    """

    def summed(some: Sequence[pd.Series]) -> pd.Series:
        return pd.concat(some).groupby(level=0, sort=False).sum()

    return _in_one((part.dropna().value_counts() for part in parts), summed)


def _in_one(parts: Iterable[pd.Series], unite: Callable[[Sequence[pd.Series]], pd.Series]) -> pd.Series:
    """What came of each part, united: not after each part, for all that was found before would be gone through as often
    as there are parts, but whenever as much has come again.
    """
    found: list[pd.Series] = []
    for part in parts:
        found.append(part)
        if sum(map(len, found[1:])) >= len(found[0]):
            found = [unite(found)]
    return unite(found) if found else pd.Series(dtype=np.int64)


def among(values: Sequence[Any]) -> Callable[[pd.Series], npt.NDArray[np.bool_]]:
    """Which values of a part of a column are among these.

    What they are looked up in is made once for all parts.

    Args:
        values: each once.
    """
    index = pd.Index(values)
    return lambda part: np.asarray(index.get_indexer(pd.Index(part)) >= 0)


def series(values: Array, name: Any = None) -> pd.Series:
    """An array as a column of a frame, not copied."""
    return pd.Series(values, name=name, copy=False)


def let_go(array: Array) -> None:
    """The same of an array that may be mapped, whoever mapped it."""
    base: Any = array
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    _let_go(base)


def _let_go(mapped: Any) -> None:
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_arrow_text(column: pd.Series) -> bool:
    """Whether a column holds text in Arrow's memory, which may be that of a file."""
    return isinstance(column.dtype, pd.StringDtype) and column.dtype.storage == "pyarrow"


def _reserve(file: int, size: int) -> None:
    """Make a file so long: an error now, where the disk is full, is better than the end of the process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
