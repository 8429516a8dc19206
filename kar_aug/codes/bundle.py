"""The codes of a vector store, kept beside it. Who has codes keeps them: codebooks are frozen, and updates only add."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from kar_aug.cache.vectors.files import Group, check_now, read_array, write_group
from kar_aug.cache.vectors.index import EntityId, IdIndex, given_ids, stored_ids
from kar_aug.cache.vectors.snapshot import Snapshot
from kar_aug.cache.vectors.table import KnowledgeTable, RowCodes
from kar_aug.codes.digits import new_digits
from kar_aug.codes.files import AGAIN, CodesManifest
from kar_aug.codes.residual_kmeans import ResidualKMeans
from kar_aug.errors import StoreError

Array = npt.NDArray[Any]
SAMPLE = 65_536  # vectors that codebooks are fitted on, at most; of each code, at least
_OF_EACH_CODE = 32
_ROWS = 65_536  # of a store, that are in memory at a time


def codes_folder(store: Path | str) -> Path:
    """Where the codes of a vector store lie: beside it, "vectors/item.codes" for "vectors/item"."""
    path = Path(store)
    return path.with_name(f"{path.name}.codes")


@dataclass(frozen=True)
class SemanticIds:
    """Items and their codes, read-only: made of a vector store with `make`, brought up to date with `update`.

    Example:
        >>> codes = SemanticIds.make(items, "knowledge/item.codes", levels=2, size=4)
        >>> codes.codes_of([3, 4]).shape  # 1 to 4 a level; 0 at each for an item without a vector
        (2, 2)
        >>> alike = codes.with_prefix(codes.codes_of([3])[0, :1])  # the items that share its first code
        >>> 3 in alike
        True

    Args:
        path: the folder.
        manifest: what it says of itself.
    """

    path: Path
    manifest: CodesManifest
    _index: IdIndex = field(repr=False)
    _codes: Array = field(repr=False)
    _digits: Array = field(repr=False)

    @classmethod
    def make(
        cls, store: Snapshot, path: Path | str | None = None, *, levels: int = 3, size: int = 256, seed: int = 0,
        on_progress: Callable[[int], None] = lambda items: None,
    ) -> Self:  # fmt: skip
        """Fit codebooks to a store, and give each of its items codes.

        Memory holds a sample of the vectors, at most 65,536 or 32 a code, and else some at a time.

        Args:
            path: the folder; that of `codes_folder` if None. Codes that are there are replaced when the new ones are
                complete.
            levels, size, seed: as `ResidualKMeans.fit` has them.
            on_progress: called with so many items that got codes.

        Raises:
            EncodingError: There are fewer vectors than codes a level, or one is not finite.
            StoreError: The store is of versions, or another process writes the folder.
            MissingDependencyError: scikit-learn is not installed.
        """
        _refuse_versions(store)
        folder = codes_folder(store.path) if path is None else Path(path)
        kmeans = ResidualKMeans.fit(_sample(store, size, seed), levels, size, seed)
        with _only_writer(folder):
            generation = _following(folder)
            manifest = CodesManifest(
                levels=levels,
                size=size,
                dimension=kmeans.dimension,
                seed=seed,
                store=str(store.path.resolve()),
                version=store.version,
                fingerprint=store.fingerprint,
                codebooks=write_group(folder, f"{generation:05d}-codebooks", codebooks=kmeans.codebooks),
                generation=generation,
            )
            return cls(folder, manifest, *_nothing(levels))._with_new(store, on_progress)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The latest published state of a bundle.

        Raises:
            StoreError: There is none, or a file is damaged or not what the manifest says.
        """
        path = Path(path)
        manifest = CodesManifest.read(path)
        while True:
            try:
                return cls(path, manifest, *_arrays(path, manifest))
            except FileNotFoundError as error:
                newest = CodesManifest.read(path)
                if newest.generation == manifest.generation:
                    raise StoreError(f"{error.filename} is gone. Bring it back, or {AGAIN}", path=path) from None
                manifest = newest  # somebody published while we looked

    @classmethod
    def of(cls, store: Snapshot) -> Self:
        """The codes that lie beside a store, and are of all of its items.

        Raises:
            StoreError: There are none, the store has changed since they were made, or it is of versions.
        """
        _refuse_versions(store)
        found = cls.open(codes_folder(store.path))
        if found.manifest.fingerprint != store.fingerprint:
            raise StoreError(
                f"{found.path} holds the codes of an earlier state of {store.path}. Bring them up to date, which moves "
                "none: kar-aug codes",
                path=found.path, left=found.manifest.fingerprint, right=store.fingerprint,
            )  # fmt: skip
        return found

    def update(self, store: Snapshot, on_progress: Callable[[int], None] = lambda items: None) -> Self:
        """Give codes to the items that came into a store since; all others keep theirs, and so do those that have
        another vector now, or none: a model that learnt what a code means for an item must not find another there.

        Returns:
            The bundle as it is now. This one still sees what it saw.

        Raises:
            StoreError: The vectors are of another version than the codebooks are for, or another process writes.
        """
        _refuse_versions(store)
        if store.version != self.manifest.version:
            raise StoreError(
                f"The codes in {self.path} are for vectors of version {self.manifest.version}, and those of "
                f"{store.path} are of version {store.version}: another encoder's, of other texts, or reduced by "
                f"another PCA. Codes would mean nothing; {AGAIN}",
                path=self.path, left=self.manifest.version, right=store.version,
            )  # fmt: skip
        with _only_writer(self.path):
            return type(self).open(self.path)._with_new(store, on_progress)

    def without(self, ids: Collection[EntityId], store: Snapshot | None = None) -> Self:
        """Take items out for good, of the folder too. All others keep their codes and digits.

        Args:
            store: as it is without them, if nothing else of it changed since: the codes are of all of its items still.
        """
        with _only_writer(self.path):
            newest = type(self).open(self.path)
            kind = newest._index.ids.dtype.kind
            fitting = [id for id in ids if isinstance(id, str) == (kind == "S")]
            kept = ~np.isin(newest._index.ids, stored_ids(fitting)) if fitting else np.ones(len(newest), bool)
            return newest._published(
                newest._index.ids[kept],
                newest._codes[kept],
                newest._digits[kept],
                newest.manifest.fingerprint if store is None else store.fingerprint,
            )

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def levels(self) -> int:
        """Codes an item."""
        return self.manifest.levels

    @property
    def size(self) -> int:
        """Codes a level, the 0 of unknown items not counted."""
        return self.manifest.size

    @property
    def version(self) -> str:
        """8 hex digits over the codebooks, which stay: a code of another version means something else."""
        return hashlib.sha256(repr(sorted(self.manifest.codebooks.files.items())).encode()).hexdigest()[:8]

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all codes: equal bundles, equal fingerprints."""
        files = self.manifest.codes.files if self.manifest.codes else {}
        return hashlib.sha256(f"{self.version} {sorted(files.items())}".encode()).hexdigest()[:16]

    @property
    def ids(self) -> list[EntityId]:
        """All that have codes, sorted."""
        return given_ids(self._index.ids)

    @cached_property
    def kmeans(self) -> ResidualKMeans:
        """The codebooks."""
        manifest = self.manifest
        shape = (manifest.levels, manifest.size, manifest.dimension)
        return ResidualKMeans(np.asarray(_mapped(self.path, manifest.codebooks, "codebooks", f"float32 {shape}")))

    def codes_of(self, ids: Sequence[EntityId | None] | Array) -> npt.NDArray[np.int32]:
        """Per id its codes, (ids, levels), zeros where it has none."""
        places = self._index.find(ids)
        codes = np.zeros((len(places), self.levels), np.int32)
        codes[places >= 0] = self._codes[places[places >= 0]]
        return codes

    def digits_of(self, ids: Sequence[EntityId | None] | Array) -> npt.NDArray[np.int64]:
        """Per id the digit behind its codes, (ids,), which tells it from all that share them; -1 where it has none."""
        places = self._index.find(ids)
        digits = np.full(len(places), -1, np.int64)
        digits[places >= 0] = self._digits[places[places >= 0]]
        return digits

    def with_prefix(self, prefix: Sequence[int] | Array) -> list[EntityId]:
        """The items whose codes begin so, sorted; one at most, if all codes and the digit are given.

        Raises:
            ValueError: The prefix is longer than that.
        """
        if len(prefix) > self.levels + 1:
            raise ValueError(f"A semantic id has {self.levels} codes and a digit. Received: {list(prefix)}")
        whole = np.column_stack([self._codes, self._digits])
        return given_ids(self._index.ids[(whole[:, : len(prefix)] == np.asarray(prefix, np.int64)).all(axis=1)])

    def attach(self, table: KnowledgeTable, vocabulary: Sequence[EntityId | None] | Array) -> KnowledgeTable:
        """The table that `VectorStore.align` made of a vocabulary, with the codes of its ids.

        They are those of rows, as the vectors are: whoever gives an id the row of another gives it its codes, too.
        """
        known = table.rows >= 0
        codes = np.zeros((len(table.vectors), self.levels), np.uint16)
        codes[table.rows[known]] = self.codes_of([vocabulary[place] for place in np.flatnonzero(known).tolist()])
        return replace(table, codes=self._of_rows(codes))

    def align(self, vocabulary: Sequence[EntityId | None] | Array) -> KnowledgeTable:
        """The codes of a model's vocabulary without any vectors: `vocabulary[i]` is the id that the model calls i.

        Raises:
            StoreError: None of the ids has codes.
        """
        places = self._index.find(vocabulary)
        known = np.flatnonzero(places >= 0)
        if not len(known):
            raise StoreError(
                f"None of the {len(places):,} ids of the vocabulary has codes in {self.path}, whose ids are "
                f"{', '.join(map(repr, given_ids(self._index.ids[:3]))) or 'none'} ... Are they the codes of these?",
                path=self.path,
            )
        rows = np.full(len(places), -1, np.int32)
        rows[known] = np.arange(len(known), dtype=np.int32)
        vectors = np.zeros((len(known), 1), np.float16)
        return KnowledgeTable(vectors, rows, codes=self._of_rows(np.asarray(self._codes[places[known]])))

    def _of_rows(self, codes: Array) -> RowCodes:
        return RowCodes(codes, self.size, self.version, str(self.path.resolve()), self.fingerprint)

    def verify(self) -> int:
        """Compare all files with their checksums. Returns the bytes read.

        Raises:
            StoreError: A byte has changed, or a file is gone.
        """
        total = 0
        for group in (self.manifest.codebooks, self.manifest.codes):
            for kind in group.files if group else ():
                assert group is not None
                try:
                    total += check_now(self.path, group, kind)
                except (OSError, StoreError):
                    path = self.path / f"{group.name}.{kind}.npy"
                    raise StoreError(
                        f"{path} is damaged: its checksum is not the manifest's. Bring it back, or {AGAIN}", path=path
                    ) from None
        return total

    def _with_new(self, store: Snapshot, on_progress: Callable[[int], None]) -> Self:
        """Give codes to what has none, and publish."""
        ids: list[Array] = []
        codes: list[Array] = []
        rows = np.sort(store.live_rows)
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            here = stored_ids(store.ids_at(some))
            new = self._index.find(here if here.dtype.kind == "i" else given_ids(here)) < 0
            ids.append(here[new])
            codes.append(self.kmeans.encode(store.vectors_at(some[new])).astype(np.uint16))
            on_progress(len(some))
        found = np.concatenate([self._codes[:0], *codes])
        digits = new_digits(found, self._codes, self._digits)
        return self._published(
            np.concatenate([*([self._index.ids] if len(self) else []), *ids] or [self._index.ids]),
            np.concatenate([self._codes, found]),
            np.concatenate([self._digits, digits]),
            store.fingerprint,
        )

    def _published(self, ids: Array, codes: Array, digits: Array, fingerprint: str) -> Self:
        order = np.argsort(ids, kind="stable")
        name = f"{self.manifest.generation:05d}-codes"
        group = write_group(self.path, name, ids=ids[order], codes=codes[order], digits=digits[order])
        manifest = replace(self.manifest, codes=group, fingerprint=fingerprint).publish(self.path)
        return type(self)(self.path, manifest, *_arrays(self.path, manifest))


def _refuse_versions(store: Snapshot) -> None:
    if store.versioned:
        raise StoreError(
            f"{store.path} holds versions of each id, and codes are of one vector an id. Leave them to the knowledge "
            'of items: [compare] knowledge = ["item"] with the injection "codes".',
            path=store.path,
        )


def _sample(store: Snapshot, size: int, seed: int) -> Array:
    """Vectors to fit codebooks on, drawn by the seed, in the order of the store."""
    rows = np.sort(store.live_rows)
    most = max(SAMPLE, _OF_EACH_CODE * size)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng([seed, 1]).choice(rows, most, replace=False))
    return store.vectors_at(rows).astype(np.float32)


def _arrays(path: Path, manifest: CodesManifest) -> tuple[IdIndex, Array, Array]:
    group = manifest.codes
    if group is None:
        return _nothing(manifest.levels)
    ids = _mapped(path, group, "ids", f"int64 or S ({group.rows},)")
    codes = _mapped(path, group, "codes", f"uint16 ({group.rows}, {manifest.levels})")
    digits = _mapped(path, group, "digits", f"uint32 ({group.rows},)")
    return IdIndex(ids, np.arange(group.rows)), codes, digits


def _mapped(folder: Path, group: Group, kind: str, expected: str) -> Array:
    return read_array(folder, group, kind, expected, f"Bring it back, or {AGAIN}")


def _nothing(levels: int) -> tuple[IdIndex, Array, Array]:
    index = IdIndex(np.empty(0, np.int64), np.empty(0, np.int64))
    return index, np.empty((0, levels), np.uint16), np.empty(0, np.uint32)


def _following(folder: Path) -> int:
    """A number that no file of the folder has, whatever is left in it."""
    return 1 + max((int(path.name.partition("-")[0]) for path in folder.glob("[0-9]*-*.npy")), default=-1)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the bundle's lock, which the system itself takes from a process that is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"{folder} is being written by another process. Wait for it, or stop it.", path=folder
        ) from None
    try:
        yield
    finally:
        lock.release()
