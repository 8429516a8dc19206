"""Files that people bring, as frames, or as batches of rows where they are larger than memory.

| ending                        | what it is                                                              |
|-------------------------------|-------------------------------------------------------------------------|
| .parquet                      | Parquet                                                                 |
| .csv, .tsv, .tab, .txt        | cells; separator and encoding are told from the content                 |
| .jsonl, .ndjson, .json        | a JSON object a line, or an array of them                               |
| .feather, .arrow              | Arrow: a file or a stream                                               |
| a folder                      | parts of one table, all of one of the first three kinds; folders in it  |
|                               | that are called `day=2024-01-31` are columns                            |

Text may be compressed: .gz, .bz2, .xz, .zst, or .zip with one file in it. Endings may be in capitals.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.parquet as pq

from kar_aug.data.cells import SEPARATOR, word
from kar_aug.data.delimited import SEPARATORS, UNSAID, Delimited, DelimitedParts, TextFormat, thousands_of
from kar_aug.data.ids import ids_of_text, with_ids
from kar_aug.data.json_lines import JsonLines, JsonParts
from kar_aug.data.opening import OPENERS, ROWS, faults, opened
from kar_aug.data.parts import ending_of, files_in, is_empty, named_by_folders
from kar_aug.data.place import Place
from kar_aug.data.room import MEMORY, Room, is_arrow_text, series
from kar_aug.errors import DataError

_JSON = (".jsonl", ".ndjson", ".json")
_PARTS = {"Parquet": (".parquet",), "CSV": tuple(SEPARATORS), "JSON lines": _JSON}  # of a folder: kind -> endings
PART_ENDINGS = frozenset(ending for endings in _PARTS.values() for ending in endings)
_ARROW = (".feather", ".arrow")
ENDINGS = (".parquet", *SEPARATORS, *_JSON, *_ARROW)
_WHOLE = 2**53  # up to which decimals of 64 bits are exact
_COLUMNS = 2  # a file has so many at least, and packs them: it is as long as one of them in memory


def read_table(
    path: Path,
    *,
    ids: Collection[str] = (),
    id_type: str | None = None,
    written: TextFormat = UNSAID,
    as_lists: Collection[str] = (),
    room: Room = MEMORY,
) -> pd.DataFrame:
    """A file, or a folder of parts, as a frame.

    Args:
        ids: columns of ids, which lose no zeros unsaid where a file has no types: see `kar_aug.data.ids`.
        id_type: "integer" or "string", where a person says what such ids are.
        written: of text files, how they are.
        as_lists: columns that stay lists. Others come as text that `|` separates where they are put on the disk, which
            means the same wherever cells are read.
        room: where the columns are put. Of a file whose columns are not kept in memory one is read at a time: for that,
            one that is not Parquet is written as such first.

    Raises:
        DataError: It is of no kind that is read, is not there, or cannot be read.
    """
    source = _source(path, ids, id_type, written)
    with faults(path):
        if room.folder is None or not _is_long(path, room):
            return _with_index(source.frame())
        if isinstance(source, (_Parquet, _ParquetFolder)):
            frame = source.by_column(room, as_lists)
        else:
            room.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=room.folder) as folder:
                frame = _Parquet(_as_parquet(source, Path(folder))).by_column(room, as_lists)
        texts = [name for name in source.texts if name in frame]
        return frame.assign(
            **{n: room.column(ids_of_text(frame[n], Place(str(path), n), id_type, room)) for n in texts}
        )


def read_batches(
    path: Path,
    rows: int = ROWS,
    *,
    ids: Collection[str] = (),
    id_type: str | None = None,
    written: TextFormat = UNSAID,
) -> Iterator[pa.RecordBatch]:
    """The same, at most so many rows at a time, all batches of one schema, in the memory that a batch needs.

    Ids of a text file that has cells with leading zeros are text: only all of them together tell what they are.

    Raises:
        DataError: As `read_table`; when the batch is asked for.
    """
    source = _source(path, ids, id_type, written)
    with faults(path):
        yield from source.batches(rows)


def read_head(path: Path, rows: int, written: TextFormat = UNSAID) -> pd.DataFrame:
    """The first rows of a file, or of a folder of parts, at most so many. No more of it is read than that.

    Cells of a text file that begin with a zero stay text; all others have the type that these rows show.

    Args:
        written: as of `read_table`.

    Raises:
        DataError: As `read_table`.
    """
    source = _source(path, written=written)
    with faults(path):
        return _with_index(source.head(rows))


def thousands_in(path: Path, head: pd.DataFrame) -> tuple[str, str, str] | None:
    """Of a text file by its first rows: see `kar_aug.data.delimited.thousands_of`."""
    return thousands_of(head) if isinstance(_source(path), (Delimited, DelimitedParts)) else None


def is_table(name: str) -> bool:
    """Whether a file of this name is read, by its ending."""
    path = Path(name)
    return Path(path.stem if path.suffix.lower() in OPENERS else path.name).suffix.lower() in ENDINGS


class _Source(Protocol):
    @property
    def texts(self) -> Collection[str]:
        """Columns of ids that are read as text though they may be integers: only all of them tell."""
        ...

    def frame(self) -> pd.DataFrame: ...

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]: ...

    def head(self, rows: int) -> pd.DataFrame: ...


def _source(
    path: Path,
    ids: Collection[str] = (),
    id_type: str | None = None,
    written: TextFormat = UNSAID,
) -> _Source:
    if path.is_dir():
        return _in_parts(path, ids, id_type, written)
    ending = ending_of(path)
    if not ending and not path.exists():
        raise DataError(f"{path}: there is no such file or folder.", path=path)
    if ending not in ENDINGS:
        raise DataError(
            f"{path}: only {', '.join(ENDINGS)} files are read, text also compressed ({', '.join(OPENERS)})."
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    if ending in SEPARATORS:
        return Delimited(path, ending, ids, id_type, written)
    if ending in _JSON:
        return JsonParts([JsonLines(path, written.encoding)], path)
    return _Parquet(path) if ending == ".parquet" else _Arrow(path)


def _in_parts(folder: Path, ids: Collection[str], id_type: str | None, written: TextFormat) -> _Source:
    """A folder as a table."""
    files = files_in(folder)
    of = {kind: [path for path in files if ending_of(path) in endings] for kind, endings in _PARTS.items()}
    if not of["Parquet"] and folder.suffix.lower() == ".parquet":
        of["Parquet"] = files  # Hadoop writes parts without an ending
    kinds = ["Parquet"] if of["Parquet"] else [kind for kind, paths in of.items() if paths]
    if len(kinds) != 1:
        holds = f"files of several kinds ({', '.join(kinds)})" if kinds else "no file of these kinds"
        raise DataError(
            f"{folder}: a folder is read as one table, whose parts are Parquet, CSV or JSON lines; it holds {holds}. "
            "Name a file, or a folder of parts alone.",
            path=folder,
        )
    paths = of[kinds[0]]
    if kinds == ["Parquet"]:
        return _ParquetFolder(folder, paths, ids, id_type)
    paths = [path for path in paths if not is_empty(path)]
    if not paths:
        raise DataError(f"{folder}: all of its files are empty.", path=folder)
    given = named_by_folders(folder, paths, ids)
    each = list(zip(paths, given, strict=True))
    if kinds == ["CSV"]:
        cells = [Delimited(path, ending_of(path), ids, id_type, written, more) for path, more in each]
        return DelimitedParts(cells, folder)
    texts = [name for name in ids if any(isinstance(more.get(name), str) for more in given)]
    return JsonParts([JsonLines(path, written.encoding, more) for path, more in each], folder, texts, id_type)


@dataclass(frozen=True)
class _Parquet:
    path: Path

    def frame(self) -> pd.DataFrame:
        return pd.read_parquet(_in_the_clear(self.path))

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        yield from _batches(pq.ParquetFile(_in_the_clear(self.path)), rows)

    def head(self, rows: int) -> pd.DataFrame:
        return _first(pq.read_schema(_in_the_clear(self.path)), self.batches(rows), rows)

    @property
    def texts(self) -> Collection[str]:
        return ()

    def by_column(self, room: Room, as_lists: Collection[str]) -> pd.DataFrame:
        with pq.ParquetFile(_in_the_clear(self.path)) as file:
            index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", [])
            if any(isinstance(each, str) for each in index):  # which is read beside each column
                return _with_index(self.frame())
            columns = _Columns(
                file.schema_arrow,
                file.metadata.num_rows,
                lambda name: _batches(file, ROWS, [name]),
                lambda name: pq.read_table(_in_the_clear(self.path), columns=[name], partitioning=None),
            )
            return columns.frame(room, as_lists)


def _batches(file: pq.ParquetFile, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """At most so many rows at a time. Lists of coded text, Polars' lists of categories, Arrow reads within one group of
    rows alone.
    """
    schema = file.schema_arrow
    kinds = [field.type for field in schema if columns is None or field.name in columns]
    if any(_is_list(kind) and pa.types.is_dictionary(kind.value_type) for kind in kinds):
        for group in range(file.num_row_groups):
            yield from file.iter_batches(rows, [group], columns)
    else:
        yield from file.iter_batches(rows, columns=columns)


@dataclass(frozen=True)
class _ParquetFolder:
    path: Path
    parts: Sequence[Path]
    ids: Collection[str]
    id_type: str | None

    def frame(self) -> pd.DataFrame:
        frame = self._dataset().to_table().to_pandas()
        return with_ids(frame, self.texts, self.path, self.id_type)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        yield from self._dataset().to_batches(batch_size=rows)

    def head(self, rows: int) -> pd.DataFrame:
        return self._dataset().head(rows).to_pandas()

    @property
    def texts(self) -> Collection[str]:
        """The ids among the columns that the names of folders give."""
        return [name for name in self._folders().names if name in self.ids]

    def by_column(self, room: Room, as_lists: Collection[str]) -> pd.DataFrame:
        dataset = self._dataset()
        few: dict[str, int] = {"batch_size": ROWS, "batch_readahead": 1, "fragment_readahead": 1}
        columns = _Columns(
            dataset.schema,
            dataset.count_rows(),
            lambda name: dataset.to_batches(columns=[name], **few),
            lambda name: dataset.to_table(columns=[name]),
        )
        return columns.frame(room, as_lists)

    def _dataset(self) -> ds.Dataset:
        """All files as one, whose columns have the types that hold those of each."""
        named = pa.schema([pa.field(f.name, pa.string()) if f.name in self.ids else f for f in self._folders()])
        whole = self._of(named)
        schemas = [named, *(fragment.physical_schema for fragment in whole.get_fragments())]
        return self._of(named, pa.unify_schemas(schemas, promote_options="permissive"))

    def _folders(self) -> pa.Schema:
        """The columns that the names of folders give: "user_id=7". Where none does, Arrow names all that files have."""
        folders = {folder for path in self._files for folder in Path(path).relative_to(self.path).parts[:-1]}
        names = {name for name, given, _ in (folder.partition("=") for folder in folders) if given}
        return pa.schema([field for field in self._of(None).partitioning.schema if field.name in names])

    def _of(self, folders: pa.Schema | None, schema: pa.Schema | None = None) -> ds.Dataset:
        hive = ds.partitioning(folders, flavor="hive")
        return ds.dataset(self._files, schema, "parquet", partitioning=hive, partition_base_dir=str(self.path))

    @property
    def _files(self) -> list[str]:
        return [str(path) for path in self.parts]


@dataclass(frozen=True)
class _Arrow:
    path: Path

    def frame(self) -> pd.DataFrame:
        return self._table().to_pandas()

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        for part in self._parts():
            yield from pa.Table.from_batches([part]).to_batches(rows)

    def head(self, rows: int) -> pd.DataFrame:
        return self._table().slice(0, rows).to_pandas()

    @property
    def texts(self) -> Collection[str]:
        return ()

    def _table(self) -> pa.Table:
        if self._begins != b"FEA1":
            with self._reader() as reader:
                return reader.read_all()
        source = _in_the_clear(self.path)
        return pyarrow.feather.read_table(source, memory_map=isinstance(source, str))

    def _parts(self) -> Iterator[pa.RecordBatch]:
        """The rows as they lie in the file, some at a time; of the first version of Feather all."""
        if self._begins == b"FEA1":
            yield from self._table().to_batches()
            return
        with self._reader() as reader:
            if self._begins == b"ARRO":
                yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                yield from reader

    def _reader(self) -> Any:
        source = _in_the_clear(self.path)
        there = pa.memory_map(source) if isinstance(source, str) else source
        return pa.ipc.open_file(there) if self._begins == b"ARRO" else pa.ipc.open_stream(there)

    @cached_property
    def _begins(self) -> bytes:
        with opened(self.path) as file:
            return file.read(4)


@dataclass(frozen=True)
class _Columns:
    """A table on the disk, column by column.

    Args:
        batches, whole: a column by its name, some rows at a time, or all of it.
    """

    schema: pa.Schema
    rows: int
    batches: Callable[[str], Iterable[pa.RecordBatch]]
    whole: Callable[[str], pa.Table]

    def frame(self, room: Room, as_lists: Collection[str]) -> pd.DataFrame:
        """All columns. One of numbers, times, text, or lists of such takes the memory of a batch, any other that of
        itself.
        """
        return pd.DataFrame(
            {name: self._column(name, room, name in as_lists) for name in self.schema.names}, copy=False
        )

    def _column(self, name: str, room: Room, as_lists: bool) -> pd.Series:
        kind, empty = self.schema.field(name).type, self.schema.empty_table().select([name]).to_pandas()[name]
        if is_arrow_text(empty) and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return room.text((batch.column(0) for batch in self.batches(name)), empty.rename(None))
        if isinstance(empty.dtype, np.dtype) and empty.dtype.kind in "iufM":
            filled = self._filled(name, empty.dtype, room)
            if filled is None and empty.dtype.kind in "iu":  # what is missing among integers makes decimals of them
                filled = self._filled(name, np.dtype(np.float64), room)
            if filled is not None:
                return series(filled)
        if not as_lists and _is_list_of_values(kind):
            with contextlib.suppress(_NoTextForLists):
                like = pa.table({name: pa.array([], pa.large_string())}).to_pandas()[name]
                return room.text((_joined(batch.column(0)) for batch in self.batches(name)), like.rename(None))
        return room.column(self.whole(name).to_pandas()[name])

    def _filled(self, name: str, kind: np.dtype[Any], room: Room) -> npt.NDArray[Any] | None:
        """A column as an array of numbers or times; None where an integer is missing."""
        values, done = room.empty(self.rows, kind), 0
        for batch in self.batches(name):
            if kind.kind in "iu" and batch.column(0).null_count:
                return None
            values[done : done + len(batch)] = batch.column(0).to_numpy(zero_copy_only=False)
            done += len(batch)
        room.let_go()
        return values


class _NoTextForLists(Exception):
    """Values of lists, written with `|` between them, would be read as others."""


def _is_list_of_values(kind: pa.DataType) -> bool:
    """Whether a column holds lists, and these neither lists nor structs."""
    return _is_list(kind) and not pa.types.is_nested(kind.value_type)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _joined(lists: pa.Array) -> pa.Array:
    """Lists as text that `|` separates, without what is missing in them; an empty one as a missing cell.

    Raises:
        _NoTextForLists: A value holds a `|`, or begins as a list that was written as text; or is an integer of a list
            with a gap, which NumPy would round where the list stays one.
    """
    lengths, values = pc.list_value_length(lists).fill_null(0).to_numpy(), pc.list_flatten(lists)
    words = _words(values)
    unfit = pc.or_(pc.match_substring_regex(words, r"^\["), pc.match_substring(words, SEPARATOR))
    if pc.any(unfit).as_py():
        raise _NoTextForLists
    there = pc.not_equal(words, "").fill_null(False)
    counts = np.bincount(np.repeat(np.arange(len(lists)), lengths)[there.to_numpy(False)], minlength=len(lists))
    kept = pa.LargeListArray.from_arrays(np.r_[0, np.cumsum(counts)], words.filter(there))
    text = pc.binary_join(kept, pa.scalar(SEPARATOR, pa.large_string()))
    return pc.if_else(pa.array(counts > 0), text, pa.scalar(None, pa.large_string()))


def _words(values: pa.Array) -> pa.Array:
    """Values of lists as `kar_aug.data.cells.word` writes them: each different one once."""
    kind = values.type
    if pa.types.is_integer(kind) and values.null_count and _are_rounded(values):
        raise _NoTextForLists
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return values.cast(pa.large_string())  # the same in Arrow's words as in Python's
    coded = (values.dictionary_decode() if pa.types.is_dictionary(kind) else values).dictionary_encode()
    cell = pa.LargeListArray.from_arrays([0, len(coded.dictionary)], coded.dictionary).to_pandas()[0]
    return pa.array([word(value) for value in cell], pa.large_string()).take(coded.indices)


def _are_rounded(values: pa.Array) -> bool:
    """Whether integers would be others as decimals of 64 bits."""
    span = pc.min_max(values)
    return max(abs(span["min"].as_py() or 0), abs(span["max"].as_py() or 0)) > _WHOLE


def _is_long(path: Path, room: Room) -> bool:
    """Whether the columns of a file are not to be read at once, by its size."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return not room.holds(sum(file.stat().st_size for file in files) // _COLUMNS)


def _as_parquet(source: _Source, folder: Path) -> Path:
    """A Parquet file of the same rows."""
    path, batches = folder / "table.parquet", source.batches(ROWS)
    first = next(batches, None)
    if first is None:
        source.frame().to_parquet(path)
        return path
    with pq.ParquetWriter(path, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)
    return path


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, its index a column where it was saved with its ids as its index."""
    named = any(name is not None and name not in frame for name in frame.index.names)
    return frame.reset_index() if named else frame


def _first(schema: pa.Schema, batches: Iterator[pa.RecordBatch], rows: int) -> pd.DataFrame:
    read: list[pa.RecordBatch] = []
    while sum(map(len, read)) < rows and (batch := next(batches, None)) is not None:
        read.append(batch)
    return pa.Table.from_batches(read, schema).slice(0, rows).to_pandas()


def _in_the_clear(path: Path) -> str | io.BytesIO:
    """A file that needs no unpacking, or what is in one."""
    if path.suffix.lower() not in OPENERS:
        return str(path)
    with opened(path) as file:
        return io.BytesIO(file.read())
