"""Getting at the files of a data set: downloaded and compared with a checksum, in an archive or a folder, kept as
Parquet.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import IO

import pandas as pd

from kar_aug._helpers.files import atomic_path
from kar_aug.data import Tables
from kar_aug.errors import DataError

DEFAULT_FOLDER = Path(".kar/data")
_TIMEOUT_SECONDS = 10
_TABLES = tuple(field.name for field in fields(Tables))


class Files:
    """The files of a data set, by their names, wherever in a folder or zip archive they lie.

    Raises:
        DataError: There is nothing at the path, or it is neither.
    """

    def __init__(self, path: Path | IO[bytes]) -> None:
        self._archive: zipfile.ZipFile | None = None
        self._folder: Path | None = None
        if isinstance(path, Path) and not path.exists():
            raise DataError(f"{path}: there is no such file or folder.", path=path)
        if isinstance(path, Path) and path.is_dir():
            self._folder = path
        else:
            try:
                self._archive = zipfile.ZipFile(path)
            except zipfile.BadZipFile:
                raise DataError(f"{_name(path)} is neither a folder nor a zip archive.", path=_name(path)) from None
        self._where = _name(path)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """The file of that name, to be read.

        Raises:
            DataError: There is none, or it cannot be read.
        """
        found: list[str] | list[Path]
        try:
            if self._archive is not None:
                found = [member for member in self._archive.namelist() if member.rsplit("/", 1)[-1] == name]
                with self._archive.open(found[0]) as file:
                    yield file
            else:
                assert self._folder is not None
                found = sorted(self._folder.rglob(name))
                with found[0].open("rb") as file:
                    yield file
        except IndexError:
            raise DataError(f"{self._where}: there is no file {name} in it.", path=self._where) from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self._where}: {name} cannot be read: {reason}", path=self._where) from None


def download(url: str, checksum: str) -> Files:
    """The archive at an address.

    Args:
        checksum: "md5:..." or "sha256:...", of the archive.

    Raises:
        OSError: It cannot be reached.
        DataError: What came is not the file it was.
    """
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        content = response.read()
    kind, expected = checksum.split(":")
    if hashlib.new(kind, content, usedforsecurity=False).hexdigest() != expected:
        raise DataError(f"{url} is not the file it was: its {kind.upper()} differs", path=url)
    return Files(io.BytesIO(content))


def kept(folder: Path, make: Callable[[], Tables]) -> Tables:
    """The tables that `folder` keeps as Parquet; made, and kept, the first time.

    Raises:
        DataError: A file cannot be read.
    """
    paths = {name: folder / f"{name}.parquet" for name in _TABLES}
    if not all(path.exists() for path in paths.values()):
        tables = make()
        for name, path in paths.items():
            with atomic_path(path) as temporary:
                getattr(tables, name).to_parquet(temporary, index=False)
    try:
        return Tables(**{name: pd.read_parquet(path) for name, path in paths.items()})
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder} cannot be read ({reason}). Delete that folder and run again.", path=folder) from None


def _name(path: Path | IO[bytes]) -> str:
    return str(path) if isinstance(path, Path) else "the archive"
