"""Knowledge vectors on disk: memory-mapped part files, and a manifest that says what they are.

    store/
      manifest.json                 format, encoder, dimension, ..., and the list of parts: the only way in
      part-00000.vectors.npy        (rows, dimension) fp16 or fp32
      part-00000.ids.npy            (rows,) int64 or unicode
      part-00000.keys.npy           (rows,) the key of the text that each vector encodes

A part is written whole, then the manifest that names it replaces the old one in a single rename: a reader sees the
store before or after, never between, and a writer that is killed leaves the last published state. A row of a later part
supersedes the same id's row in an earlier one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.errors import StoreError
from kar_aug.files import write_atomic

FORMAT = 1
_MANIFEST = "manifest.json"
_FILES = ("vectors", "ids", "keys")
_DTYPES = ("float16", "float32")

EntityId = int | str


@dataclass(frozen=True)
class StoreSpec:
    """What every vector of a store has in common. Vectors of another spec are never mixed in.

    Args:
        encoder: name and revision of the encoder.
        dimension: length of a knowledge vector.
        prompt_versions, language_models: of the texts; sorted, usually one each.
        dtype: "float16" (half the size, the default) or "float32".
    """

    encoder: str
    dimension: int
    prompt_versions: tuple[str, ...] = ()
    language_models: tuple[str, ...] = ()
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"`dtype` must be one of {_DTYPES}. Received: {self.dtype!r}")
        if self.dimension < 1:
            raise ValueError(f"`dimension` must be positive. Received: {self.dimension}")


@dataclass(frozen=True)
class KnowledgeTable:
    """The vectors of a vocabulary, ready for the layer: `vectors[rows[i]]` belongs to the model's integer i.

    Args:
        vectors: (count, dimension) knowledge vectors in the store's own order.
        rows: (vocabulary size,) int32 row of `vectors`, or -1 where the id has no knowledge.
        store, fingerprint: where the vectors come from, None for vectors given as an array.
    """

    vectors: npt.NDArray[Any]
    rows: npt.NDArray[np.int32]
    store: str | None = None
    fingerprint: str | None = None

    @classmethod
    def from_array(cls, vectors: npt.ArrayLike, known: npt.ArrayLike | None = None) -> KnowledgeTable:
        """A table of vectors that are in the model's order already; `known` is False where there is no knowledge."""
        matrix = np.asarray(vectors)
        if matrix.ndim != 2:
            raise ValueError(f"`vectors` must have shape (vocabulary, dimension). Received shape: {matrix.shape}")
        mask = np.ones(len(matrix), bool) if known is None else np.asarray(known, bool)
        if mask.shape != (len(matrix),):
            raise ValueError(f"`known` must have shape ({len(matrix)},). Received shape: {mask.shape}")
        bad = np.flatnonzero(mask & ~np.isfinite(matrix).all(axis=1))
        if len(bad):
            raise StoreError(f"The vector of integer id {bad[0]} holds NaN or infinity. Mark it unknown or mend it.")
        return cls(matrix, np.where(mask, np.arange(len(matrix)), -1).astype(np.int32))

    @property
    def coverage(self) -> float:
        """Share of the vocabulary that has knowledge."""
        return float((self.rows >= 0).mean()) if len(self.rows) else 0.0


@dataclass(frozen=True)
class VectorStore:
    """A published state of a store, read-only. Opening reads the manifest; vectors are mapped when first used."""

    path: Path
    spec: StoreSpec
    parts: tuple[Mapping[str, Any], ...] = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> VectorStore:
        """Open a store.

        Raises:
            StoreError: There is none, its manifest cannot be read, or a newer version wrote it.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["format"] > FORMAT:
                raise StoreError(
                    f"{path} has format {manifest['format']}; this kar-aug reads {FORMAT}. Upgrade kar-aug."
                )
            spec = manifest["spec"]
            for name in ("prompt_versions", "language_models"):
                spec[name] = tuple(spec[name])
            parts = tuple({name: part[name] for name in ("name", "rows", "sha256")} for part in manifest["parts"])
            return cls(path, StoreSpec(**spec), parts)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{path} is not a vector store: there is no {_MANIFEST}. Make it with: kar-aug encode"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{path / _MANIFEST} is damaged ({error}). Delete {path} and run kar-aug encode again: "
                "the texts are in the text cache."
            ) from None

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the spec and the content of every part: equal stores, equal fingerprints."""
        content = json.dumps([asdict(self.spec), [part["sha256"] for part in self.parts]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def id_kind(self) -> str:
        """NumPy's letter for the type of the ids: "i" for integers, "U" for strings."""
        return self._load(self.parts[0], "ids").dtype.kind

    @property
    def ids(self) -> list[EntityId]:
        """The ids that have a vector."""
        return list(self._row_of)

    @cached_property
    def vectors(self) -> npt.NDArray[Any]:
        """All rows in the store's own order, superseded ones included: (rows, dimension), memory-mapped if one part."""
        parts = [self._load(part, "vectors") for part in self.parts]
        if len(parts) == 1:
            return parts[0]
        empty = np.empty((0, self.spec.dimension), self.spec.dtype)
        return np.concatenate([empty, *parts])

    @cached_property
    def keys(self) -> dict[EntityId, str]:
        """Per id, the key of the text its vector encodes."""
        keys: dict[EntityId, str] = {}
        for part in self.parts:
            keys.update(zip(self._load(part, "ids").tolist(), self._load(part, "keys").tolist(), strict=True))
        return keys

    @cached_property
    def _row_of(self) -> dict[EntityId, int]:
        rows: dict[EntityId, int] = {}
        start = 0
        for part in self.parts:
            ids = self._load(part, "ids").tolist()
            rows.update(zip(ids, range(start, start + len(ids)), strict=True))
            start += len(ids)
        return rows

    def rows(self, ids: Sequence[EntityId | None]) -> npt.NDArray[np.int32]:
        """Per id its row in `vectors`, -1 where it has none."""
        return np.fromiter((self._row_of.get(id, -1) for id in ids), np.int32, len(ids))  # type: ignore[arg-type]

    def gather(self, ids: Sequence[EntityId]) -> npt.NDArray[Any]:
        """Vectors of `ids`, shape (len(ids), dimension).

        Raises:
            StoreError: An id has no vector; the message names the first.
        """
        rows = self.rows(ids)
        if (rows < 0).any():
            raise StoreError(f"{self.path} has no vector of {ids[int((rows < 0).argmax())]!r}.")
        return self.vectors[rows]

    def align(self, vocabulary: Sequence[EntityId | None]) -> KnowledgeTable:
        """The knowledge of a model's vocabulary: `vocabulary[i]` is the id that the model calls i, or None."""
        return KnowledgeTable(self.vectors, self.rows(vocabulary), str(self.path.resolve()), self.fingerprint)

    def coverage(self, ids: Sequence[EntityId]) -> float:
        """Share of `ids` that have a vector; repeated ids count each time."""
        return float((self.rows(ids) >= 0).mean()) if len(ids) else 0.0

    def _load(self, part: Mapping[str, Any], kind: str) -> npt.NDArray[Any]:
        path = self.path / f"{part['name']}.{kind}.npy"
        shape = (part["rows"], self.spec.dimension) if kind == "vectors" else (part["rows"],)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(f"{path} cannot be read ({error}). Delete {self.path} and encode again.") from None
        fits = (
            array.dtype == self.spec.dtype
            if kind == "vectors"
            else array.dtype.kind in ("iU" if kind == "ids" else "U")
        )
        if array.shape != shape or not fits:
            raise StoreError(
                f"{path} holds {array.dtype} {array.shape}, not {shape} {kind} as the manifest says "
                f"(vectors are {self.spec.dtype}). Delete {self.path} and encode again."
            )
        return array

    @staticmethod
    @contextmanager
    def writer(path: Path | str, spec: StoreSpec) -> Iterator[StoreWriter]:
        """The one writer of a store. It continues a store of the same spec.

        Raises:
            StoreError: Another process writes it, or the store was made with another encoder or prompt version.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise StoreError(f"{path} is a file, not the folder of a vector store. Name another folder.") from None
        with (path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{path} is being written by another process. Wait for it, or stop it.") from None
            yield StoreWriter(path, spec)


class StoreWriter:
    """Appends rows to a store, a published part at a time. Made by `VectorStore.writer`."""

    def __init__(self, path: Path, spec: StoreSpec) -> None:
        self.path, self.spec = path, spec
        self.parts: list[Mapping[str, Any]] = []
        if (path / _MANIFEST).exists():
            store = VectorStore.open(path)
            if store.spec != spec:
                raise StoreError(
                    f"{path} was made with {_difference(store.spec, spec)}. "
                    "Encode into another folder, or delete this one: vectors of two kinds do not mix."
                )
            self.parts = list(store.parts)

    def append(self, ids: Sequence[EntityId], keys: Sequence[str], vectors: npt.NDArray[Any]) -> None:
        """Publish rows: on disk and visible to readers when this returns.

        Args:
            ids: integers or strings, all of one kind, none twice.
            keys: per id the key of the text that was encoded.
            vectors: (len(ids), dimension).

        Raises:
            StoreError: Shapes differ, an id repeats, or a vector holds NaN or infinity.
        """
        if vectors.shape != (len(ids), self.spec.dimension) or len(keys) != len(ids):
            raise StoreError(
                f"{self.path}: {len(ids)} ids and {len(keys)} keys came with vectors of shape {vectors.shape}; "
                f"({len(ids)}, {self.spec.dimension}) is needed."
            )
        if len(set(ids)) != len(ids):
            raise StoreError(f"{self.path}: an id came twice in one part.")
        with np.errstate(over="ignore"):  # what overflows is refused below, with its id
            rounded = np.asarray(vectors, self.spec.dtype)
        bad = np.flatnonzero(~np.isfinite(rounded).all(axis=1))
        if len(bad):
            raise StoreError(
                f"{self.path}: the vector of {ids[bad[0]]!r} holds NaN or infinity (as {self.spec.dtype})."
            )
        id_array = _id_array(ids)
        if self.parts and VectorStore(self.path, self.spec, tuple(self.parts)).id_kind != id_array.dtype.kind:
            raise StoreError(
                f"{self.path}: ids are integers in one part and strings in another. Give all the same type."
            )
        name = f"part-{len(self.parts):05d}"
        arrays = {"vectors": rounded, "ids": id_array, "keys": np.asarray(keys, "U")}
        digest = hashlib.sha256()
        for kind in _FILES:
            with (self.path / f"{name}.{kind}.npy").open("wb") as file:
                np.save(file, arrays[kind], allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            digest.update(arrays[kind].tobytes())
        self.parts.append({"name": name, "rows": len(ids), "sha256": digest.hexdigest()})
        manifest = {"format": FORMAT, "spec": asdict(self.spec), "parts": self.parts}
        write_atomic(self.path / _MANIFEST, json.dumps(manifest, indent=1))


def _id_array(ids: Sequence[EntityId]) -> npt.NDArray[Any]:
    array = np.asarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iU" or len({isinstance(id, str) for id in ids}) > 1:
        raise StoreError("Ids must be all integers or all strings.")
    if array.dtype.kind == "U" and any(str(id).endswith("\0") for id in ids):
        raise StoreError("An id ends in a NUL character, which NumPy's strings cannot hold. Strip it.")
    return array.astype(np.int64) if array.dtype.kind == "i" else array


def _difference(old: StoreSpec, new: StoreSpec) -> str:
    pairs = zip(asdict(old).items(), asdict(new).values(), strict=True)
    return "; ".join(f"{name} {before!r}, not {after!r}" for (name, before), after in pairs if before != after)
