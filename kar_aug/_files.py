"""Tables that people bring, and files written so that a reader, or the next run, never meets half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kar_aug.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block succeeds, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, its line ends as they are, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="")


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet or CSV file. In CSV only an empty cell is missing: a title or an id may be spelt "None" or "NA".

    Raises:
        DataError: It is of another kind, is not there, or cannot be read.
    """
    reader = _readers().get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: only {' and '.join(_readers())} files are read.")
    if not path.exists():
        raise DataError(f"{path}: there is no such file.")
    try:
        return reader(path)
    except (OSError, ValueError) as error:  # pyarrow's and pandas' parse errors are ValueErrors
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _readers() -> dict[str, Callable[[Path], pd.DataFrame]]:
    import pandas as pd

    return {".parquet": pd.read_parquet, ".csv": lambda path: pd.read_csv(path, keep_default_na=False, na_values=[""])}
