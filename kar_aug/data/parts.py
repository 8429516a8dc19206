"""A folder as one table: which of its files are parts, and what the names of folders in it say: `day=2024-01-31`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import unquote

from kar_aug.data.opening import faults, inner_name, opened

Value = int | str | None
_HIDDEN = re.compile(r"(^|/)[._]")
_WHOLE = re.compile(r"-?[0-9]+")
_MISSING = "__HIVE_DEFAULT_PARTITION__"  # as Hive and Spark write it


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, but for those that Spark and Hadoop leave beside them."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in paths if not _HIDDEN.search(path.relative_to(folder).as_posix())]


def ending_of(path: Path) -> str:
    """The ending of a table, without that of its compression: ".csv" of "part-0.csv.gz"."""
    return Path(inner_name(path)).suffix.lower()


def is_empty(path: Path) -> bool:
    """Whether there is nothing in a file: Spark writes such for a part without rows."""
    with faults(path), opened(path) as file:
        return not file.read(1)


def named_by_folders(folder: Path, files: Collection[Path], ids: Collection[str]) -> list[Mapping[str, Value]]:
    """What the names of folders give to each of some files: "user_id=7" a column of sevens. Integers, where all of a
    column are.

    Args:
        ids: columns that stay text where a value begins with a zero: see `kar_aug.data.ids`.
    """
    given = [_given(path.relative_to(folder).parts[:-1]) for path in files]
    names = dict.fromkeys(name for each in given for name in each)
    texts = {name: [value for each in given if (value := each.get(name)) is not None] for name in names}
    whole = {name for name, values in texts.items() if all(map(_WHOLE.fullmatch, values))}
    whole -= {name for name in ids if any(str(int(value)) != value for value in texts.get(name, []) if name in whole)}
    return [
        {n: int(v) if n in whole and (v := each.get(n)) is not None else each.get(n) for n in names} for each in given
    ]


def _given(folders: Collection[str]) -> dict[str, str | None]:
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {name: None if value == _MISSING else unquote(value) for name, _, value in pairs}
