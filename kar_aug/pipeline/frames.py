"""DataFrames as the tables of a project: kept as Parquet in its workdir, where every process that trains reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kar_aug._files import atomic_path
from kar_aug.config import Config
from kar_aug.errors import DataError

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
