"""Bring a place up to date with a store of vectors, and compare the two."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from kar_aug._helpers.printed import Printed
from kar_aug._helpers.servers.addresses import masked
from kar_aug.errors import ConfigError, StoreError
from kar_aug.online.rows import SIZE, Rows
from kar_aug.registry import PLACES

_OF_REDIS = ("redis", "rediss", "unix")  # as its client takes them
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
# What files of other kinds are called: a folder of that name would be a mistake.
_OTHERS = re.compile(
    "arrow|avro|bin|csv|db|feather|gz|h5|hdf5|index|ipc|jsonl?|keras|ndjson|np[yz]|onnx|orc|pb|pkl|pq|sqlite|tflite"
    "|tsv|txt|xlsx|zip|zst"
)
_WANTED = "a folder, a .parquet, .lance or .faiss, or redis://localhost:6379/0, say"
_ULPS = 1e-5  # by which float32 may differ where it was float64, or text, in between


class Place(Protocol):
    """Where vectors of one entity are kept for others. Made with (where it is, the name of the column of ids).

    One with a method `forget(ids, dry_run=False)`, which takes all rows of some ids away, those of before included, and
    says how many they were, is kept in step by `kar-aug forget`.
    """

    def state(self) -> pd.DataFrame:
        """What is there, a row an id that has a vector: the index is of ids, columns version and key."""
        ...

    def read(self) -> Iterator[pa.RecordBatch]:
        """All rows that are there, the latest of each id."""
        ...

    def write(self, batches: Iterator[pa.RecordBatch], rows: Rows, *, whole: bool) -> None:
        """Write rows; a null vector takes away what there was. All of them are seen afterwards, or none.

        Args:
            whole: in place of all that is there.
        """
        ...


@dataclass(frozen=True)
class Published(Printed):
    """What `publish` did: rows written, entities taken away, and rows that were there already."""

    where: str
    version: str
    written: int
    taken: int
    unchanged: int

    def __str__(self) -> str:
        text = f"{self.where}: {self.written:,} vectors of version {self.version} written, {self.unchanged:,} unchanged"
        return f"{text}, {self.taken:,} taken away" if self.taken else text


@dataclass(frozen=True)
class Checked(Printed):
    """What `check` found. `current` rows are the store's own; `outdated` encode an older text, `other_version` are of
    another encoder or adaptor, `different` have other numbers, or none, under the same key; `repeated` are further rows
    of an entity that the place holds already, whatever they say; `missing` are not in the place, and `gone` not in the
    store.
    """

    where: str
    version: str
    current: int = 0
    outdated: int = 0
    other_version: int = 0
    different: int = 0
    missing: int = 0
    gone: int = 0
    repeated: int = 0

    @property
    def sound(self) -> bool:
        """Whether the place holds the store's vectors, each once, and no others."""
        wrong = (self.outdated, self.other_version, self.different, self.missing, self.gone, self.repeated)
        return not any(wrong)

    def __str__(self) -> str:
        wrong = {
            "of another version": self.other_version,
            "of an older text": self.outdated,
            "with other numbers": self.different,
            "of entities that it holds already": self.repeated,
            "missing": self.missing,
            "of entities that are gone": self.gone,
        }
        text = f"{self.where}: {self.current:,} vectors are those of version {self.version}"
        text = "; ".join([text, *(f"{count:,} {words}" for words, count in wrong.items() if count)])
        if self.sound:
            return text
        # Which of them are to be written is told by their keys, not by what somebody has made of the numbers.
        whole = ", with --all (whole=True)" if self.different or self.repeated else ""
        other = ", unless these are the vectors of another --what, --arm or --seed" if self.other_version else ""
        return f"{text}. Export once more{whole}{other}."


def open_place(where: Path | str, id_column: str, kind: str | None = None) -> Place:
    """The place that an address names.

    Args:
        where: a folder or file, or a redis:// URL.
        kind: a name of `kar_aug.registry.PLACES`; by default what the address says.

    Raises:
        ConfigError: There is no such kind, or no such address.
        StoreError: Something else is there.
    """
    where = str(where)
    match = _ADDRESS.fullmatch(where)
    scheme = match[1].lower() if match else ""
    if kind is None and match is None:
        kind = _kind_of_path(where)
    if (kind is None and scheme not in (*PLACES, *_OF_REDIS)) or (match and not match[2]):
        raise ConfigError(f"{masked(where)} is no place for vectors. Name {_WANTED}.")
    kind = kind or ("redis" if scheme in _OF_REDIS else scheme)
    if kind not in PLACES:
        raise PLACES.unknown(kind)
    where = f"{scheme}://{match[2]}" if match else where.rstrip("/") or where  # as a shell completes a folder
    place: Place = PLACES.load(kind)(where, id_column)
    return place


def _kind_of_path(where: str) -> str:
    """What the name of a file or folder says.

    Raises:
        ConfigError: It is called after files of a kind that vectors are not written to.
    """
    suffix = Path(where.rstrip("/")).suffix[1:].lower()
    if suffix in PLACES.names():
        return suffix
    if _OTHERS.fullmatch(suffix) and not Path(where).is_dir():
        raise ConfigError(
            f"{where}: vectors are not written as .{suffix}. Name {_WANTED}; --format parquet makes a folder of that "
            "name."
        )
    return "parquet"


def publish(rows: Rows, where: Path | str, kind: str | None = None, *, whole: bool = False) -> Published:
    """Write the vectors that are not there yet: new ones, those of changed texts, all where the version is another;
    and take away those of entities that the store does not know any more.

    Args:
        where, kind: see `open_place`.
        whole: write all, whatever is there.

    Raises:
        StoreError: The place holds vectors of ids of another type, or cannot be read or written.
    """
    place, where = open_place(where, rows.id_column, kind), str(where)
    state = place.state()
    _check_ids(state, rows, where)
    whole = whole or bool((state["version"] != rows.version).any())  # two versions side by side are worse than either
    there = state["key"].iloc[: 0 if whole else None]
    done = {"written": 0, "taken": 0, "unchanged": 0}

    def changes() -> Iterator[pa.RecordBatch]:
        for ids, keys, vectors in rows.blocks():
            now = np.asarray(keys, object)  # where one is empty it says nothing of the vector, which may have changed
            changed = np.flatnonzero((there.reindex(ids).to_numpy(object) != now) | (now == ""))
            done["written"] += len(changed)
            done["unchanged"] += len(ids) - len(changed)
            if len(changed):
                yield rows.batch([ids[i] for i in changed], [keys[i] for i in changed], vectors[changed])
        gone = list(state.index[rows.store.rows(list(state.index)) < 0])
        done["taken"] = len(gone)
        for start in range(0, len(gone), SIZE):
            part = gone[start : start + SIZE]
            yield rows.batch(part, [None] * len(part), None)

    place.write(changes(), rows, whole=whole)
    return Published(masked(where), rows.version, **done)


def _check_ids(state: pd.DataFrame, rows: Rows, where: str) -> None:
    kind = pd.api.types.infer_dtype(state.index)
    if len(state) and rows.store.id_kind and (kind == "string") != (rows.store.id_kind == "U"):
        raise StoreError(
            f"{masked(where)} holds vectors of ids that are {kind}s, and {rows.store.path} has others. Name another "
            "place.",
            path=where,
        )


def check(rows: Rows, where: Path | str, kind: str | None = None) -> Checked:
    """Compare what is in a place with a store, number by number.

    Raises:
        StoreError: The place cannot be read.
    """
    counts = dict.fromkeys(("current", "outdated", "other_version", "different", "gone", "repeated"), 0)
    seen: set[int] = set()  # rows of the store
    for batch in open_place(where, rows.id_column, kind).read():
        ids = batch.column(rows.id_column).to_pylist()
        places = rows.store.rows(ids)
        first = _first(places, seen)
        counts["repeated"] += len(ids) - len(first)
        some = batch.take(pa.array(first))
        for name, count in _compared(rows, some, [ids[i] for i in first], places[first]).items():
            counts[name] += count
    return Checked(masked(str(where)), rows.version, **counts, missing=len(rows.store) - len(seen))


def _first(places: npt.NDArray[np.int32], seen: set[int]) -> npt.NDArray[np.intp]:
    """Which of these rows of a store were not seen before, or are none of it; they are seen then."""
    first = []
    for i, place in enumerate(places.tolist()):
        if place < 0 or place not in seen:
            first.append(i)
            if place >= 0:
                seen.add(place)
    return np.asarray(first, np.intp)


def _compared(rows: Rows, batch: pa.RecordBatch, ids: list[Any], places: npt.NDArray[np.int32]) -> dict[str, int]:
    """How many rows of a batch, of these ids and at these places of the store, are what; see `Checked`."""
    versions, keys = (np.asarray(batch.column(name).to_pylist(), object) for name in ("version", "key"))
    known = places >= 0
    other = known & (versions != rows.version)
    outdated = known & ~other & (np.asarray(rows.store.keys_of(ids), object) != keys)
    rest = np.flatnonzero(known & ~other & ~outdated)
    theirs, ours = batch.column("vector").take(pa.array(rest)).to_pylist(), rows.store.vectors_at(places[rest])
    same = [
        a is not None and len(a) == len(b) and np.allclose(a, b, rtol=_ULPS, atol=_ULPS)
        for a, b in zip(theirs, ours.astype(np.float32), strict=True)
    ]
    return {
        "current": sum(same),
        "different": len(same) - sum(same),
        "outdated": int(outdated.sum()),
        "other_version": int(other.sum()),
        "gone": int((~known).sum()),
    }
