"""Which prepared samples a project has, and when they are made: once for the same settings, files and code, by
whichever process asks first. The others wait for it.

A folder is called after everything that decides what is in it, so that what was prepared is never stale: whoever
changes a file, a setting or the code of kar-aug looks for another folder, and makes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from kar_aug._version import __version__
from kar_aug.config import Config
from kar_aug.data import prepared
from kar_aug.data.samples import Samples
from kar_aug.errors import DataError
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.registry import DATASETS, PROTOCOLS

FOLDER = "prepared"
# So many are kept when another is made; more, if they were used within a day: a comparison may still need them.
_KEPT = 8
_RECENT_SECONDS = 86_400
# Bytes of a file, or of all in a folder, that are told by their content; more by places, sizes and times of change.
_SMALL = 1 << 24
_CODE = ("codes", "data", "datasets", "pipeline/workspace")
_PATHS = ("path", "interactions", "items", "users", "initial_scores")
_OF_THE_WAY = ("memory",)  # how they are made, which changes nothing of what is made
_log = logging.getLogger("kar_aug")


def made_of(config: Config) -> dict[str, Any] | None:
    """What decides how the samples of a project come out, but for the answers of language models among its features.

    None where nobody can tell: a data set by others' code, that lies where only that code knows.
    """
    data = config.data
    if data.dataset is not None and data.path is None and DATASETS.fingerprint(data.dataset):
        return None
    named = {name: value for name in _PATHS if (value := getattr(data, name))}
    settings = {name: value for name, value in vars(data).items() if name not in (*_PATHS, *_OF_THE_WAY)}
    forgotten = ForgottenIds.read(config.work)
    return {
        "settings": settings,
        "files": {name: _identity(config.path(value), config.work) for name, value in named.items()},
        "code": [__version__, _code(), PROTOCOLS.fingerprint(data.protocol), DATASETS.fingerprint(data.dataset or "")],
        **({"forgotten": forgotten.fingerprint} if forgotten else {}),
    }


def folder_of(work: Path, made: Mapping[str, Any]) -> Path:
    """Where samples lie that were made so."""
    content = json.dumps(made, sort_keys=True, default=str)
    return work / FOLDER / hashlib.sha256(content.encode()).hexdigest()[:16]


def prepared_samples(work: Path, made: Mapping[str, Any], make: Callable[[], Samples]) -> Samples:
    """The samples of a workdir that are made so. Where there are none, or damaged ones, they are made and kept.

    Args:
        made: what they are made of.

    Raises:
        OSError: The workdir cannot be written to.
    """
    folder = folder_of(work, made)
    if (found := _found(folder)) is not None:
        return found
    with _alone(work):
        if (found := _found(folder)) is not None:  # another process made it meanwhile
            return found
        _tidy(folder, work)
        prepared.save(make(), folder, json.loads(json.dumps(made, default=str)))
        return prepared.load(folder)


def clean(work: Path, but: Path | None) -> None:
    """Delete all prepared samples of a workdir but one."""
    with _alone(work):
        for folder in all_prepared(work):
            if folder != but:
                prepared.discard(folder)


def all_prepared(work: Path) -> list[Path]:
    """The folders of prepared samples in a workdir, those used last first."""
    found = [path.parent for path in (work / FOLDER).glob(f"*/{prepared.MANIFEST}") if path.parent.name[0] != "."]
    return sorted(found, key=_last_used, reverse=True)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One process at a time makes samples, for that takes the memory of the tables, or deletes some."""
    (work / FOLDER).mkdir(parents=True, exist_ok=True)
    with FileLock(work / FOLDER / ".lock"):
        yield


def _found(folder: Path) -> Samples | None:
    if not folder.exists():
        return None
    try:
        samples = prepared.load(folder)
    except DataError as error:
        _log.warning("%s They are made anew.", str(error).removesuffix(" Delete that folder and run again."))
        return None
    with suppress(OSError):  # somebody else's folder, on a disk that is only read
        os.utime(folder / prepared.MANIFEST)
    return samples


def _tidy(folder: Path, work: Path) -> None:
    """Remove what is in the place of a folder that is to be made, what killed processes left, and old samples."""
    prepared.discard(folder)
    for left in folder.parent.glob(".*.*"):
        shutil.rmtree(left, ignore_errors=True)
    for old in all_prepared(work)[_KEPT - 1 :]:
        if time.time() - _last_used(old) > _RECENT_SECONDS:
            prepared.discard(old)


def _last_used(folder: Path) -> float:
    with suppress(OSError):
        return (folder / prepared.MANIFEST).stat().st_mtime
    return 0.0


def _identity(path: Path, work: Path) -> Any:
    """What changes when a file changes; or one of a folder, but for what kar-aug itself writes there."""
    path = path.resolve()
    ours = work.resolve() if path in work.resolve().parents else None
    files = sorted(f for f in path.rglob("*") if f.is_file() and ours not in f.parents) if path.is_dir() else [path]
    if not path.exists():
        return None
    if sum(file.stat().st_size for file in files) > _SMALL:
        return {str(file): [(stat := file.stat()).st_size, stat.st_mtime_ns] for file in files}
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@cache
def _code() -> str:
    """16 hex digits over the modules that make samples: whoever changes one need not think of what was prepared."""
    package = Path(__file__).parents[2]
    files = [file for name in _CODE for file in sorted((package / name).glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
