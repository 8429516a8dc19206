"""The bytes of a file, compressed or not, and the text in them, in whatever encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import logging
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import pyarrow as pa

from kar_aug.errors import DataError

_log = logging.getLogger("kar_aug")
T = TypeVar("T")
HEAD = 1 << 16  # bytes that are looked at before a file is read
ROWS = 1 << 16  # that are read at a time
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What stands in no text: zeros first of all.
_NO_TEXT = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_FAULTS = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)


def _zstd(path: Path) -> Any:
    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


def _zip(path: Path) -> IO[bytes]:
    return zipfile.ZipFile(path).open(_only_member(path))


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
    ".zip": _zip,
}


def inner_name(path: Path) -> str:
    """The name of the table in a file: its own without ".gz"; in a zip archive, that of the one file in it.

    Raises:
        DataError: The archive cannot be read, or holds none or several.
    """
    ending = path.suffix.lower()
    if ending == ".zip" and path.exists():
        with faults(path):
            return _only_member(path)
    return path.stem if ending in OPENERS else path.name


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, without its compression."""
    opener = OPENERS.get(path.suffix.lower())
    return path.open("rb") if opener is None else cast("IO[bytes]", opener(path))


def in_its_encoding(path: Path, encoding: str | None, read: Callable[[str], T]) -> T:
    """What `read(encoding)` gives, in the encoding of the text in a file.

    A mark at its beginning tells; else it is UTF-8. What is not UTF-8 is read as Windows-1252, which has Latin-1 in it,
    and that is said.

    Args:
        encoding: what it is in, where a person says so.

    Raises:
        DataError: It is no text.
        UnicodeDecodeError: It is not in the encoding that was given.
    """
    if encoding is not None:
        return read(encoding)
    with opened(path) as file:
        head = file.read(HEAD)
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None:
        return read(marked)
    if head.translate(None, _NO_TEXT) != head:
        raise DataError(f"{path} is no text. Give it the ending of what it is, or its encoding: [data] encoding = ...")
    try:
        return read("utf-8")
    except UnicodeDecodeError:
        _log.warning("%s is not UTF-8. It is read as Windows-1252 (Latin-1). If it is not: [data] encoding = ...", path)
    try:
        return read("cp1252")
    except UnicodeDecodeError:
        return read("latin-1")


@contextmanager
def text(path: Path, encoding: str) -> Iterator[IO[str]]:
    """The text of a file; ends of lines are as they are."""
    with opened(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as lines:
        yield lines


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """What goes wrong with a file, as one line that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except _FAULTS as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read: {said}") from None


def _only_member(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise DataError(f"{path} holds {len(names)} files. Name an archive of one table, or a table.")
    return names[0]
