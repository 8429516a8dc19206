"""The one writer of a vector store: appends, deletes, compacts; each step is one published generation."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from kar_aug._helpers.times import latest
from kar_aug.cache.vectors.files import MANIFEST, Group, Manifest, StoreSpec, write_group
from kar_aug.cache.vectors.index import EntityId, IdIndex, given_ids, stored_ids, stored_text
from kar_aug.cache.vectors.moments import LATEST_SECONDS, SINCE_1995, Moments, as_of_moments
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.errors import StoreError

# So many parts of like size become one, unless that would exceed a full part: few files, and each row is written
# again only a few times however small the appends are.
_FOLD = 16
_FULL_PART = 1 << 18


@contextmanager
def open_writer(path: Path, spec: StoreSpec) -> Iterator[StoreWriter]:
    """See `VectorStore.writer`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(
            f"{path} is a file, not the folder of a vector store. Name another folder.", path=path
        ) from None
    with _only_writer(path):
        writer = StoreWriter(path, spec)
        try:
            yield writer
        finally:
            writer.index()


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Hold the store's lock, which the system itself takes from a process that is killed."""
    lock = FileLock(path / ".lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"{path} is being written by another process. Wait for it, or stop it.", path=path) from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise StoreError(
            f"{path / '.lock'} is a symbolic link, which a lock must not follow. Remove it.", path=path
        ) from None
    try:
        yield
    finally:
        lock.release()


class StoreWriter:
    """Appends to and deletes from a store; every call is published when it returns. Made by `VectorStore.writer`."""

    def __init__(self, path: Path, spec: StoreSpec) -> None:
        self.path, self.spec = path, spec
        self.manifest = Manifest(spec).extended(repr(sorted(asdict(spec).items())))
        self._id_type: str | None = None
        self._written = 0
        if (path / MANIFEST).exists():
            store = Snapshot.open(path)
            if store.spec != spec:
                raise StoreError(
                    f"{path} was made with {store.spec.difference(spec)}. "
                    "Encode into another folder, or delete this one: vectors of two kinds do not mix.",
                    path=path, left=store.spec, right=spec,
                )  # fmt: skip
            self.manifest = store.manifest
            self._id_type = store.id_kind or None
            self._written = store.manifest.groups_written

    def append(
        self, ids: Sequence[EntityId] | npt.NDArray[Any], keys: Sequence[str], vectors: npt.NDArray[Any],
        *, as_of: str | None = None, versions: Moments | Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Publish rows: on disk and visible to readers when this returns.

        Args:
            ids: integers or strings, all of one kind, none twice; with `versions`, none twice of the same moment.
            keys: per id the key of the text that was encoded.
            vectors: (len(ids), dimension).
            as_of: latest as-of time of the texts.
            versions: per id until when its text knew, in ISO 8601 or in microseconds since 1970 (int64), in a store in
                which an id has several vectors. Given always or never.

        Raises:
            StoreError: Shapes differ, an id repeats, a vector holds NaN or infinity, or a store of versions is given
                rows without, or any other store rows with versions.
            ValueError: A text among `versions` is no time, or an array of them is not in microseconds.
        """
        if vectors.shape != (len(ids), self.spec.dimension) or len(keys) != len(ids):
            raise StoreError(
                f"{self.path}: {len(ids)} ids and {len(keys)} keys came with vectors of shape {vectors.shape}; "
                f"({len(ids)}, {self.spec.dimension}) is needed.",
                path=self.path, left=(len(ids), self.spec.dimension), right=vectors.shape,
            )  # fmt: skip
        if not len(ids):
            return
        times = _moments(versions)
        self._check_versions(times, len(ids))
        id_array = self._checked_ids(ids, times)
        with np.errstate(over="ignore"):  # what overflows is refused below, with its id
            rounded = np.asarray(vectors, self.spec.dtype)
        bad = np.flatnonzero(~np.isfinite(rounded).all(axis=1))
        if len(bad):
            (first,) = given_ids(id_array[bad[:1]])
            raise StoreError(
                f"{self.path}: the vector of {first!r} holds NaN or infinity (as {self.spec.dtype}).",
                path=self.path, entity_id=first,
            )  # fmt: skip
        part = self._write(
            "part", vectors=rounded, ids=id_array, keys=stored_text(keys, "text key"), **_with_times(times)
        )
        content = repr(sorted(part.files.items()))
        parts = self._folded((*self.manifest.parts, part))
        self._publish(self.manifest.extended(content, parts=parts, as_of=latest([self.manifest.as_of, as_of])))

    def delete(self, ids: Sequence[EntityId], versions: Moments | None = None) -> int:
        """Publish that `ids` have no vector any more; ids that have none are passed over. Returns how many had one.

        Args:
            versions: per id the moment of its version that goes; all of them, if None. Versions are counted then.
        """
        if not (self.path / MANIFEST).exists():
            return 0
        store = Snapshot.open(self.path)
        if store.versioned and versions is None:
            ids, versions = store.versions_of(list(dict.fromkeys(ids)))
        there = np.array([key is not None for key in store.keys_of(ids, versions)], bool)
        present = [id for id, is_there in zip(ids, there.tolist(), strict=True) if is_there]
        if versions is None:
            present = list(dict.fromkeys(present))
        else:
            versions = versions[there]
        if present:
            group = self._write("deleted", ids=self._checked_ids(present, versions), **_with_times(versions))
            content = f"deleted {sorted(group.files.items())}"
            self._publish(self.manifest.extended(content, parts=(*self.manifest.parts, group)))
        return len(present)

    def project(self, matrix: npt.NDArray[Any]) -> None:
        """Keep the PCA that all vectors go through: (1 + dimension, encoder's dimension). Before the first append."""
        if self.manifest.parts:
            raise StoreError(f"{self.path} holds vectors already; their projection cannot be changed.", path=self.path)
        group = self._write("projection", matrix=np.asarray(matrix, np.float32))
        version = self.spec.version_through(group.files["matrix"])
        self._publish(self.manifest.extended(repr(sorted(group.files.items())), projection=group, version=version))

    def compact(self) -> None:
        """Publish the live rows alone, in the same order, as full parts: superseded and deleted rows are left out."""
        if not self.manifest.parts:
            return
        store = Snapshot.open(self.path)
        parts = []
        for ids, times, keys, vectors in store.version_blocks(_FULL_PART):
            stored = stored_text(keys, "text key")
            arrays = {"vectors": vectors, "ids": stored_ids(ids), "keys": stored, **_with_times(times)}
            parts.append(self._write("part", **arrays))
        content = "compact " + repr([sorted(part.files.items()) for part in parts])
        self._publish(self.manifest.extended(content, parts=tuple(parts), index=None, indexed=0))
        if not parts:
            self._id_type = None
        self.index()

    def prune(self) -> int:
        """Delete the files of older generations, and those of writers that were killed. Returns the bytes freed.

        Readers that have the store open keep what they see.
        """
        named = {f"{group.name}.{kind}.npy" for group in self.manifest.groups for kind in group.files}
        freed = 0
        for path in self.path.glob("[0-9]*-*.npy"):
            if path.name not in named:
                freed += path.stat().st_size
                path.unlink()
        for path in self.path.glob(f".{Path(MANIFEST).stem}.*"):  # left by a writer that was killed
            path.unlink()
        return freed

    def index(self) -> None:
        """Publish an index of all rows, so that the next reader need not make one."""
        manifest = self.manifest
        if manifest.indexed == manifest.rows and not any(part.deletes for part in manifest.parts):
            return
        index = Snapshot.open(self.path)._index
        kept = tuple(part for part in manifest.parts if not part.deletes)
        if not len(index.ids):
            # Nothing is left: rows without a live id go too, and with them the type of the ids.
            self._publish(replace(manifest, parts=(), index=None, indexed=0))
            self._id_type = None
        else:
            group = self._write("index", ids=index.ids, rows=index.rows, **_with_times(index.times))
            self._publish(replace(manifest, parts=kept, index=group, indexed=manifest.rows))

    def _check_versions(self, versions: Moments | None, count: int) -> None:
        if versions is not None and versions.shape != (count,):
            raise StoreError(
                f"{self.path}: {count} ids came with versions of shape {versions.shape}.",
                path=self.path, left=(count,), right=versions.shape,
            )  # fmt: skip
        if self.manifest.parts and self.manifest.versioned != (versions is not None):
            holds = "versions of each id" if self.manifest.versioned else "one vector an id"
            raise StoreError(
                f"{self.path} holds {holds}, and rows {'without' if versions is None else 'of'} versions were to be "
                "added. Encode into another folder, or delete this one.",
                path=self.path,
            )

    def _checked_ids(
        self, ids: Sequence[EntityId] | npt.NDArray[Any], versions: Moments | None = None
    ) -> npt.NDArray[Any]:
        array = stored_ids(ids)
        if len(IdIndex.build(array, np.arange(len(array)), versions).ids) != len(array):
            raise StoreError(f"{self.path}: an id came twice in one part.", path=self.path)
        kind = "i" if array.dtype.kind == "i" else "U"
        if self._id_type not in (None, kind):
            raise StoreError(
                f"{self.path}: ids are integers in one part and strings in another. Give all the same type.",
                path=self.path, left=self._id_type, right=kind,
            )  # fmt: skip
        self._id_type = kind
        return array

    def _folded(self, parts: tuple[Group, ...]) -> tuple[Group, ...]:
        """`parts`, with the latest ones made one while they are many and small. Rows keep their numbers."""
        while len(parts) >= _FOLD:
            last = parts[-_FOLD:]
            sizes = [part.rows for part in last]
            if any(part.deletes for part in last) or sum(sizes) > _FULL_PART or max(sizes) >= _FOLD * min(sizes):
                break
            joined = self._write("part", **{kind: self._joined(last, kind) for kind in last[0].files})
            parts = (*parts[:-_FOLD], joined)
        return parts

    def _joined(self, parts: Sequence[Group], kind: str) -> npt.NDArray[Any]:
        return np.concatenate([np.load(self.path / f"{part.name}.{kind}.npy", mmap_mode="r") for part in parts])

    def _write(self, kind: str, **arrays: npt.NDArray[Any]) -> Group:
        """Write files under a name that was never used, so that no reader's file changes under it."""
        number, self._written = self._written, self._written + 1
        # A writer that was killed may have left a file of this number. It is no reader's: writing over it is safe.
        with self._errors():
            return write_group(self.path, f"{number:05d}-{kind}", **arrays)

    def _publish(self, manifest: Manifest) -> None:
        """What fails before this leaves the last state, here and on disk."""
        with self._errors():
            self.manifest = replace(manifest, groups_written=self._written).publish(self.path)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written ({error}). What was published before is kept: mend it and run again.",
                path=self.path,
            ) from None


def _moments(versions: Sequence[str] | npt.NDArray[Any] | None) -> Moments | None:
    """Until when texts knew, in microseconds. Seconds in their place would be the first hours of 1970, before all."""
    if versions is None or not isinstance(versions, np.ndarray):
        return versions if versions is None else as_of_moments(versions)
    if versions.dtype != np.int64:
        raise ValueError(f"`versions` must be texts, or int64 microseconds since 1970. Received: {versions.dtype}")
    looks_like_seconds = (versions > SINCE_1995) & (versions <= LATEST_SECONDS)
    if looks_like_seconds.any():
        raise ValueError(
            "`versions` must be in microseconds since 1970. Received seconds, by their size: "
            f"{versions[looks_like_seconds][0]}"
        )
    return versions


def _with_times(versions: Moments | None) -> dict[str, npt.NDArray[Any]]:
    return {} if versions is None else {"times": np.asarray(versions, np.int64)}
