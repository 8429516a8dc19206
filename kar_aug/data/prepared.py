"""Samples in a folder: made once, and read by every process that trains, without a copy of its own.

Nothing is stored per sample that need not be: the folder holds the flat columns of `Samples`, one row an event or one a
place of the catalogue, as .npy files. They are mapped into memory and not read: processes share one copy, and what no
batch asks for stays on the disk. Sequences of earlier events are windows of these columns (see
`kar_aug.data.sequences`); padded into shards, each event would be there as often as a later sample reads of it, 50
times over, and would have to be decoded each time.

| file                 | what                                                                     |
|----------------------|--------------------------------------------------------------------------|
| samples.json         | features, and which file is which column; what the samples were made of  |
| encodings.json       | what the columns were encoded with; read when asked for                  |
| vocabulary-*.parquet | the ids of users, and of items, in order; read when asked for            |
| *.npy                | the arrays                                                               |

A folder is written beside its place and renamed, so that it is whole or not there.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kar_aug.data.encodings import Encoding, encoding_of
from kar_aug.data.features import Feature
from kar_aug.data.room import let_go
from kar_aug.data.samples import ENTITIES, Array, Column, Samples
from kar_aug.data.sequences import Events
from kar_aug.errors import DataError

FORMAT = 1
MANIFEST = "samples.json"
_ENCODINGS = "encodings.json"
_OF_SAMPLES = ("rows", "label", "weight", "part", "group", "drawn")
_OF_EVENTS = ("kept", "first", "stop")
T = TypeVar("T")


def save(samples: Samples, folder: Path, made_of: Mapping[str, Any] | None = None) -> None:
    """Write samples into a folder. One of samples that is there already is replaced.

    Args:
        made_of: what a reader may want to know of their making, as JSON can hold it.

    Raises:
        DataError: There is something else at that place.
        OSError: The folder cannot be written; nothing is left of it.
    """
    if folder.exists() and not (folder / MANIFEST).exists():
        raise DataError(f"{folder} is there and holds no samples. Name another folder.", path=folder)
    with _written_beside(folder) as beside:
        files: dict[int, str] = {}  # of arrays: what tells events of a feature may be that feature itself
        columns = {name: _column_as_dict(column, files) for name, column in samples.columns.items()}
        of_events: dict[int, str] = {}  # "past" is "hist" and more
        for events in samples.sequences.values():
            of_events.setdefault(id(events.kept), f"sequence-{len(of_events)}")
        sequences = {
            name: {"file": of_events[id(events.kept)], "length": events.length}
            for name, events in samples.sequences.items()
        }
        told = [column.told for column in samples.columns.values() if column.told is not None]
        for values in {id(column.values): column.values for column in (*samples.columns.values(), *told)}.values():
            _save_array(beside / f"{files[id(values)]}.npy", values)
        for events in {id(events.kept): events for events in samples.sequences.values()}.values():
            for each in _OF_EVENTS:
                _save_array(beside / f"{of_events[id(events.kept)]}-{each}.npy", getattr(events, each))
        for name in (*_OF_SAMPLES, "timestamps"):
            _save_array(beside / f"{name}.npy", getattr(samples, name))
        for entity in ENTITIES:
            _save_array(beside / f"places-{entity}.npy", samples.places[entity])
            ids = pa.table({"id": pa.array(samples.vocabulary[entity][1:])})
            with _synced(beside / f"vocabulary-{entity}.parquet") as file:
                pq.write_table(ids, file)
        _save_json(beside / _ENCODINGS, encodings_as_dict(samples.encodings))
        manifest = {
            "format": FORMAT,
            "fingerprint": samples.fingerprint,
            "made_of": dict(made_of or {}),
            "features": [asdict(feature) for feature in samples.features],
            "columns": columns,
            "sequences": sequences,
        }
        _save_json(beside / MANIFEST, manifest)


def load(folder: Path) -> Samples:
    """The samples in a folder, equal to the bit to those that were saved. Their arrays cannot be written to.

    Raises:
        DataError: There are none, they are damaged, or another version of kar-aug wrote them.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{folder} holds no samples. Make them: kar-aug prepare", path=folder)
    with _faults(folder):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(
                f"{folder} was written by another version of kar-aug (format {manifest['format']}; this one reads "
                f"{FORMAT}). Delete that folder and run again.",
                path=folder, left=FORMAT, right=manifest["format"],
            )  # fmt: skip
        arrays: dict[str, Any] = {name: _mapped(folder / f"{name}.npy") for name in (*_OF_SAMPLES, "timestamps")}
        samples = Samples(
            features=tuple(Feature(**feature) for feature in manifest["features"]),
            **arrays,
            vocabulary=_Later(lambda: _vocabulary(folder)),
            places={entity: _mapped(folder / f"places-{entity}.npy") for entity in ENTITIES},
            columns=_columns(folder, manifest["columns"]),
            sequences={
                name: Events(
                    **{part: _mapped(folder / f"{each['file']}-{part}.npy") for part in _OF_EVENTS},
                    length=each["length"],
                )
                for name, each in manifest["sequences"].items()
            },
            encodings=_Later(lambda: _encodings(folder)),
        )
        vars(samples)["fingerprint"] = manifest["fingerprint"]  # so that nobody reads all to compute it again
    return samples


def _column_as_dict(column: Column, files: dict[int, str]) -> dict[str, Any]:
    """What the manifest says of a column; `files` gets the names of its arrays."""
    return {
        "file": files.setdefault(id(column.values), f"column-{len(files)}"),
        "entity": column.entity,
        "derived": column.derived,
        "told": None if column.told is None else _column_as_dict(column.told, files),
    }


def _columns(folder: Path, kept: Mapping[str, Any]) -> dict[str, Column]:
    arrays: dict[str, Array] = {}

    def column(each: Mapping[str, Any]) -> Column:
        if each["file"] not in arrays:
            arrays[each["file"]] = _mapped(folder / f"{each['file']}.npy")
        told = None if each["told"] is None else column(each["told"])
        return Column(arrays[each["file"]], each["entity"], each["derived"], told)

    return {name: column(each) for name, each in kept.items()}


class _Later(Mapping[str, T]):
    """What is read when first asked for: trainings ask for few ids and no encodings, and there may be millions."""

    def __init__(self, read: Callable[[], Mapping[str, T]]) -> None:
        self._read = read

    @cached_property
    def _found(self) -> Mapping[str, T]:
        return self._read()

    def __getitem__(self, name: str) -> T:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _vocabulary(folder: Path) -> dict[str, list[int | str | None]]:
    with _faults(folder):
        return {e: [None, *pq.read_table(folder / f"vocabulary-{e}.parquet")["id"].to_pylist()] for e in ENTITIES}


def _encodings(folder: Path) -> dict[str, Encoding]:
    with _faults(folder):
        kept = json.loads((folder / _ENCODINGS).read_text(encoding="utf-8"))
    encodings = [encoding_of(each) for each in kept["encodings"]]
    return {name: encodings[place] for name, place in kept["of"].items()}


def encodings_as_dict(encodings: Mapping[str, Encoding]) -> dict[str, Any]:
    """Each encoding once, and which features have it: features that share one share it when they are read again."""
    places: dict[int, int] = {}
    of = {name: places.setdefault(id(encoding), len(places)) for name, encoding in encodings.items()}
    once = {id(encoding): encoding for encoding in encodings.values()}
    return {"encodings": [once[identity].as_dict() for identity in places], "of": of}


def _mapped(path: Path) -> Array:
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _save_array(path: Path, values: Array) -> None:
    with _synced(path) as file:
        np.save(file, values, allow_pickle=False)
    let_go(values)


def _save_json(path: Path, content: Mapping[str, Any]) -> None:
    with _synced(path) as file:
        file.write(json.dumps(content).encode())


@contextmanager
def _synced(path: Path) -> Iterator[Any]:
    """A file that is on the disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of `folder` when the block succeeds, and is removed otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = hidden(folder)
    beside.mkdir()
    try:
        yield beside
        discard(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder, if it is there: at once for whoever looks for it."""
    if folder.exists():
        gone = hidden(folder)
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def hidden(folder: Path) -> Path:
    """A name that is not taken, beside a folder."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")


@contextmanager
def _faults(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{folder} is damaged, or somebody deleted it: {said}. Delete that folder and run again.", path=folder
        ) from None
