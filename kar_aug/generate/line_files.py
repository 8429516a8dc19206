"""Files of responses as people have them, read as JSON lines: packed, in UTF-16, or one JSON array."""

from __future__ import annotations

import codecs
import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kar_aug.errors import GenerationError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def as_lines(path: Path) -> Iterator[Path]:
    """A file of JSON lines in UTF-8 with the same content: the file itself mostly, else one that goes with the block.

    Raises:
        GenerationError: It cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = _converted(path, Path(folder))
        except (OSError, EOFError, zlib.error) as error:
            raise GenerationError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
        yield lines


def _converted(path: Path, folder: Path) -> Path:
    steps = ((_is_packed, _unpack), (_is_utf16, _recode), (_is_array, _split))
    for number, (applies, convert) in enumerate(steps):
        if applies(path):
            target = folder / f"{number}.jsonl"
            convert(path, target)
            path = target
    return path


def _start(path: Path, size: int = 4) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _is_packed(path: Path) -> bool:
    return _start(path).startswith(b"\x1f\x8b")


def _unpack(path: Path, target: Path) -> None:
    with gzip.open(path) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file)


def _is_utf16(path: Path) -> bool:
    """By its mark, or by the zero byte beside the first bracket."""
    start = _start(path)
    return start.startswith(_UTF16) or start[:2] in (b"{\0", b"\0{", b"[\0", b"\0[")


def _recode(path: Path, target: Path) -> None:
    start = _start(path)
    encoding = "utf-16" if start.startswith(_UTF16) else "utf-16-be" if start.startswith(b"\0") else "utf-16-le"
    with (
        path.open(encoding=encoding, errors="replace", newline="") as file,
        target.open("w", encoding="utf-8", errors="replace", newline="") as lines,
    ):
        shutil.copyfileobj(file, lines)


def _is_array(path: Path) -> bool:
    """Whether the whole file is one array of objects: a file of lines may begin with a line that is one."""
    if not _start(path, 4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return False
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and all(isinstance(each, dict) for each in found)


def _split(path: Path, target: Path) -> None:
    with target.open("wb") as file:
        file.writelines(json.dumps(each).encode() + b"\n" for each in json.loads(path.read_bytes()))
