"""DataFrames as the tables of a project: kept as Parquet in its workdir, where every process that trains reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kar_aug._helpers.files import atomic_path
from kar_aug.config import TABLES, Config
from kar_aug.data.place import Place
from kar_aug.data.shapes import without_items
from kar_aug.data.tables import ids_in, read_ids
from kar_aug.errors import DataError, StoreError
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
    """Take the rows of users, or items, out of all frames that are kept in the workdir; how many these are.

    Raises:
        StoreError: One of them cannot be read.
    """
    gone, wanted = 0, set(ids)
    for path in sorted((config.work / FOLDER).glob("*.parquet")):
        name = path.name.partition("-")[0]
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path} cannot be read ({str(error).splitlines()[0]}), and nobody can tell who is in it. Delete it: "
                "the next Project of the same frames writes it again.",
                path=path,
            ) from None
        left, count = _without(frame, name, config, entity, wanted.intersection)
        gone += count
        if count and not dry_run:
            _keep(left, name, config.work)
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
    for entity in ("user", "item"):
        frame, _ = _without(frame, name, config, entity, partial(forgotten.among, entity))
    return frame


def _without(
    frame: pd.DataFrame, name: str, config: Config, entity: str, among: Callable[[Collection[Any]], Collection[Any]]
) -> tuple[pd.DataFrame, int]:
    """A frame without the rows of some users, or items, and without these in lists of what was shown; and how many rows
    that were. Ids are told as the tables' reading tells them.

    Args:
        among: which of some ids are to go.
    """
    data, key = config.data, f"{entity}_id"

    def are_gone(ids: pd.Series) -> npt.NDArray[np.bool_]:
        return ids.isin(list(among(ids.dropna().unique().tolist()))).to_numpy(bool)

    lists = [each for each in (data.shown, data.clicked) if each is not None and each in frame]
    if entity == "item" and name == "interactions" and len(lists) == 2:
        place = Place(name, lists[0], key)
        return without_items(frame, lists, lambda ids: are_gone(read_ids(ids.infer_objects(), place, data.id_type)))
    ids = ids_in(name, frame, key, data.columns, data.id_type)
    if ids is None:
        return frame, 0
    gone = are_gone(ids)
    return frame[~gone], int(gone.sum())
