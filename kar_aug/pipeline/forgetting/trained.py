"""What was made of the tables: groups, prepared samples, copies of data frames, and all that was trained on them.

Nobody can take one user out of a trained model, or out of the vectors of behaviour. What was made of data that had the
user goes whole, and is made again by the next `kar-aug compare`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from kar_aug._helpers.database import sweep
from kar_aug.cache.texts.forgetting import Whom
from kar_aug.codes import codes_folder
from kar_aug.data import prepared
from kar_aug.pipeline.workspace.paths import ENGINES
from kar_aug.pipeline.workspace.preparing import FOLDER as PREPARED
from kar_aug.pipeline.workspace.preparing import all_prepared

_COLLABORATIVE = "collaborative-item-"


Groups = list[tuple[str, int]]  # (how many were drawn, as names say it; the number of one)


def groups_of(work: Path, entity: str, ids: Collection[Any]) -> tuple[list[Path], Groups, Groups]:
    """The files of groups that they are in, these groups, and the others in the files. A file that cannot be read is
    taken for one with them in each of its groups: nobody knows, and groups are drawn again.
    """
    import pandas as pd

    files: list[Path] = []
    groups: Groups = []
    others: Groups = []
    for path in sorted((work / "clusters").glob(f"{entity}-*.parquet")):
        count = path.name.split("-")[1]
        try:
            frame = pd.read_parquet(path)
            theirs = set(frame.loc[frame["id"].isin(_of_type(frame["id"], ids)), "cluster"].tolist())
            every = set(frame["cluster"].tolist())
        except (OSError, ValueError, KeyError):
            theirs = every = set(range(int(count)))
        if theirs:
            files.append(path)
            groups += [(count, int(number)) for number in sorted(theirs)]
            others += [(count, int(number)) for number in sorted(every - theirs)]
    return files, groups, others


def stores_of_groups(work: Path, entity: str, groups: Groups) -> list[Path]:
    """The vectors of groups that were drawn with some of these, and those of users, or items, which they are mixed
    into.
    """
    counts = "|".join(sorted({count for count, _ in groups}))
    names = re.compile(rf"{entity}(-.*)?-collective-({counts})(-(interactions|vectors)-.+)?")
    return [path for path in sorted((work / "vectors").glob("*")) if names.fullmatch(path.name)] if groups else []


def prepared_with(work: Path, whom: Whom) -> tuple[list[Path], dict[str, bool]]:
    """The prepared samples in which they are; and of all, by fingerprint, whether they are in."""
    import pyarrow.parquet as pq

    folders, by_fingerprint = [], {}
    for folder in all_prepared(work):
        try:
            ids = pq.read_table(folder / f"vocabulary-{whom.entity}.parquet")["id"].to_pylist()
            fingerprint = json.loads((folder / prepared.MANIFEST).read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError):  # damaged: nobody reads it, and nobody knows what is in it
            folders.append(folder)
            continue
        by_fingerprint[fingerprint] = not set(whom.ids).isdisjoint(ids)
        if by_fingerprint[fingerprint]:
            folders.append(folder)
    return folders, by_fingerprint


def data_of_trainings(work: Path) -> set[str]:
    """The fingerprints of all data that something was trained on."""
    found = {path.stem.removeprefix("inputs-") for path in (work / "runs").glob("inputs-*.json")}
    found |= {path.stem.removeprefix(_COLLABORATIVE) for path in (work / "vectors").glob(f"{_COLLABORATIVE}*")}
    return found | {data for _, data in _runs(work)}


def discard_trained(work: Path, data: Collection[str], *, dry_run: bool) -> int:
    """Delete the runs on these data with their models, predictions and augmented vectors, and the vectors of their
    behaviour. How many runs they were.
    """
    identities = [identity for identity, of in _runs(work) if of in data]
    if dry_run:
        return len(identities)
    for path in _files(work, identities, data):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    book = work / "runs" / "runs.sqlite"
    if book.exists():
        _delete_rows(book, identities)
    return len(identities)


def discard_prepared(work: Path, folders: Collection[Path]) -> None:
    """Delete prepared samples, and what killed processes left beside them, rows of engines among it."""
    shutil.rmtree(work / ENGINES, ignore_errors=True)
    for folder in folders:
        prepared.discard(folder)
    for left in (work / PREPARED).glob(".*.*"):
        shutil.rmtree(left, ignore_errors=True)


def _files(work: Path, identities: Collection[str], data: Collection[str]) -> Iterator[Path]:
    runs, vectors = work / "runs", work / "vectors"
    known = set(identities)
    for path in runs.glob("*"):
        name = path.name.lstrip(".").partition(".")[0]
        # A checkpoint is of a training that was stopped, and is in no book: of which data nobody knows.
        if name in known or (path.name.endswith(".checkpoint.npz") and data):
            yield path
    yield from (path for of in data if (path := runs / f"inputs-{of}.json").exists())
    for store in (vectors / f"{_COLLABORATIVE}{of}" for of in data):
        yield from (path for path in (store, codes_folder(store)) if path.exists())
    yield from (path for path in (vectors / "augmented").glob("*") if path.name.rpartition("-")[0] in known)


def _runs(work: Path) -> list[tuple[str, str]]:
    """(identity, fingerprint of the data) of all finished runs."""
    import sqlite3

    book = work / "runs" / "runs.sqlite"
    if not book.exists():
        return []
    with closing(sqlite3.connect(book)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
            return []
        return list(connection.execute("SELECT identity, data FROM runs"))


def _delete_rows(book: Path, identities: Collection[str]) -> None:
    import sqlite3

    with closing(sqlite3.connect(book, timeout=60)) as connection, connection:
        for table in ("runs", "predictions"):
            connection.executemany(f"DELETE FROM {table} WHERE identity = ?", [(each,) for each in identities])
    sweep(book)


def _of_type(column: Any, ids: Collection[Any]) -> list[Any]:
    """Those ids that a column can hold."""
    is_text = {str} == {type(id) for id in column.tolist()}
    return [id for id in ids if isinstance(id, str) == is_text]
