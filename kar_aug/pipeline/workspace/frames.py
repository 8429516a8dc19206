"""DataFrames as the tables of a project: kept as Parquet in its workdir, where every process that trains reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._files import atomic_path
from kar_aug.config import TABLES, Config
from kar_aug.data.room import MEMORY
from kar_aug.errors import DataError
from kar_aug.pipeline.workspace.forgotten import ForgottenIds

Table = pd.DataFrame | Path | str
FOLDER = "tables"


def config_of(settings: Mapping[str, Any], tables: Mapping[str, Table]) -> Config:
    """The config of settings and tables.

    Args:
        settings: sections as dicts.
        tables: "interactions", "items", "users" -> a DataFrame, or the path of a Parquet or CSV file.

    Raises:
        ConfigError: The settings say something unknown, of a wrong type or out of range.
        DataError: A DataFrame holds what Parquet cannot.
    """
    # Checked before anything is written: a frame's file has no name yet.
    names = {name: "a DataFrame" if isinstance(table, pd.DataFrame) else str(table) for name, table in tables.items()}
    config = Config.of(settings, changes={"data": names})
    frames = {name: table for name, table in tables.items() if isinstance(table, pd.DataFrame)}
    forgotten = ForgottenIds.read(config.work)
    for name, frame in frames.items() if forgotten else ():
        frames[name] = _left(frame, name, config, forgotten)
    kept: dict[str, Any] = {name: str(_keep(frame, name, config.work)) for name, frame in frames.items()}
    return replace(config, data=replace(config.data, **kept))


def _keep(frame: pd.DataFrame, name: str, work: Path) -> Path:
    """The file of a frame. It is named by its content: equal frames are written once, and a changed one is another
    file, which a comparison that still runs does not read.
    """
    try:
        content = frame.to_parquet(index=False)
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's are these, too
        raise DataError(f"{name}: the DataFrame cannot be kept as Parquet: {str(error).splitlines()[0]}") from None
    path = work / FOLDER / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.parquet"
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return path


def rewritten(config: Config, entity: str, ids: Collection[int | str], *, dry_run: bool) -> int:
    """Take the rows of users, or items, out of all frames that are kept in the workdir; how many these are."""
    gone = 0
    for path in sorted((config.work / FOLDER).glob("*.parquet")):
        name, frame = path.name.partition("-")[0], pd.read_parquet(path)
        column = _theirs(config, name, f"{entity}_id")
        if column not in frame:
            continue
        mine = frame[column].isin(list(ids))
        gone += int(mine.sum())
        if mine.any() and not dry_run:
            _keep(frame[~mine], name, config.work)
            path.unlink()
    return gone


def with_kept_frames(config: Config) -> Config:
    """The config, where frames that were rewritten have another name."""
    named = {name: getattr(config.data, name) for name in TABLES}
    lost = [name for name, path in named.items() if path and not config.path(path).exists()]
    found = {name: sorted((config.work / FOLDER).glob(f"{name}-*.parquet"), key=_written) for name in lost}
    changed: dict[str, Any] = {name: str(paths[-1]) for name, paths in found.items() if paths}
    return replace(config, data=replace(config.data, **changed)) if changed else config


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def _left(frame: pd.DataFrame, name: str, config: Config, forgotten: ForgottenIds) -> pd.DataFrame:
    """A frame without the rows of those who were forgotten."""
    ours = {_theirs(config, name, id): id for id in ("user_id", "item_id")}
    theirs = {our: their for their, our in ours.items()}
    return forgotten.rows_left(frame.rename(columns=ours), MEMORY).rename(columns=theirs)


def _theirs(config: Config, table: str, column: str) -> str:
    """What a table calls a column."""
    columns = config.data.columns
    own = columns.get(table)
    return str((own if isinstance(own, Mapping) else {}).get(column) or columns.get(column) or column)
