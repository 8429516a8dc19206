"""The files of a vector store: arrays that are written once, mapped, and checked; and the manifest that names them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug._helpers.files import write_atomic
from kar_aug.errors import StoreError

FORMAT = 2
VERSIONED_FORMAT = 3  # of versions of an id, where older code would take the last row for the only; or of a version
MANIFEST = "manifest.json"
AGAIN = "run kar-aug encode again: the texts are in the text cache."
_BLOCK = 1 << 22
_DTYPES = ("float16", "float32")
_NAME = re.compile(r"[0-9a-z][0-9a-z-]*")  # of a group, or a kind of file: nothing that leads out of the folder

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoreSpec:
    """What every vector of a store has in common. Vectors of another spec are never mixed in.

    Args:
        encoder: name and revision of the encoder.
        dimension: length of a knowledge vector.
        prompt_versions, language_models: of the texts; sorted, usually one each.
        dtype: "float16" (half the size, the default) or "float32".
        pooling: how a text's tokens become one vector, as the encoder says.
        normalized: whether vectors have length 1 (before a reduction).
        long_texts: what happened to texts beyond the encoder's window: "averaged", "cut", or "whole" where
            there is no window.
        reduction: "", "truncated from 384", or "pca from 384".
    """

    encoder: str
    dimension: int
    prompt_versions: tuple[str, ...] = ()
    language_models: tuple[str, ...] = ()
    dtype: str = "float16"
    pooling: str = ""
    normalized: bool = False
    long_texts: str = ""
    reduction: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"`dtype` must be one of {_DTYPES}. Received: {self.dtype!r}")
        if self.dimension < 1:
            raise ValueError(f"`dimension` must be positive. Received: {self.dimension}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreSpec:
        """What `dataclasses.asdict` made, back from JSON."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    @property
    def version(self) -> str:
        """8 hex digits over all of it: the `version` of a store of such vectors, unless they went through a PCA."""
        return self.version_through("")

    def version_through(self, matrix: str) -> str:
        """The version of such vectors that went through a PCA's matrix; 8 hex digits.

        Args:
            matrix: its checksum; "" for none.
        """
        said = json.dumps({**asdict(self), **({"matrix": matrix} if matrix else {})}, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def difference(self, other: StoreSpec) -> str:
        """In words, where this differs from `other`."""
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return "; ".join(f"{name} {mine!r}, not {theirs!r}" for (name, mine), theirs in pairs if mine != theirs)


@dataclass(frozen=True)
class Group:
    """Arrays that were written together: `{name}.{kind}.npy` with the SHA-256 of each file, by kind.

    kind: "part" (vectors, ids, keys), "deleted" (ids), "index" (ids, rows) or "projection" (matrix); in a store with
    versions the first three have `times`, too.
    """

    name: str
    rows: int
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        if not all(map(_NAME.fullmatch, (self.name, *self.files))):
            raise ValueError(f"{self.name!r} is no name of files that a writer gives")

    @property
    def deletes(self) -> bool:
        """Whether its ids are those that were deleted."""
        return "vectors" not in self.files


@dataclass(frozen=True)
class Manifest:
    """A published state of a store.

    Args:
        generation: how many states were published, this one included.
        content: hash over everything that was appended and deleted, in order.
        parts: vectors in order of their rows, deletions between them.
        index: over the first `indexed` rows and all deletions before them; None if there is none yet.
        projection: of a PCA that all vectors went through.
        as_of: latest as-of time of the texts, as the prompts gave it.
        version: of its vectors, where the spec alone does not say it: of those that went through a PCA. Stores that had
            one before this was kept stay of the version that their spec says, which models have learnt.
    """

    spec: StoreSpec
    generation: int = 0
    content: str = ""
    parts: tuple[Group, ...] = ()
    index: Group | None = None
    indexed: int = 0
    projection: Group | None = None
    as_of: str | None = None
    groups_written: int = 0
    version: str = ""

    @property
    def rows(self) -> int:
        """Rows of all parts, superseded and deleted ones included."""
        return sum(part.rows for part in self.parts if not part.deletes)

    @property
    def versioned(self) -> bool:
        """Whether an id may have several vectors, each since a moment."""
        return any("times" in part.files for part in self.parts)

    @property
    def groups(self) -> list[Group]:
        """Everything on disk that belongs to this state."""
        return [*self.parts, *(group for group in (self.index, self.projection) if group is not None)]

    def extended(self, content: str, **changes: Any) -> Manifest:
        """The next state, whose content hash continues this one's."""
        chained = hashlib.sha256(f"{self.content} {content}".encode()).hexdigest()
        return replace(self, content=chained, **changes)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The latest published state.

        Raises:
            StoreError: There is none, it is damaged, or it has another format.
        """
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] not in (FORMAT, VERSIONED_FORMAT):
                raise StoreError(
                    f"{folder} has format {document['format']}; this kar-aug reads {VERSIONED_FORMAT}. "
                    f"Upgrade kar-aug, or delete the folder and {AGAIN}",
                    path=folder, left=document["format"], right=VERSIONED_FORMAT,
                )  # fmt: skip
            require_whole(document)
            document.pop("format")
            document["spec"] = StoreSpec.from_dict(document["spec"])
            document["parts"] = tuple(Group(**part) for part in document["parts"])
            for name in ("index", "projection"):
                document[name] = Group(**document[name]) if document[name] else None
            return cls(**document)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"{folder} is not a vector store: there is no {MANIFEST}. Make it with: kar-aug encode", path=folder
            ) from None
        except OSError as error:  # a folder, or another user's
            raise StoreError(f"{path} cannot be read: {error.strerror}.", path=path) from None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise StoreError(f"{path} is damaged ({error}). Delete {folder} and {AGAIN}", path=path) from None

    def publish(self, folder: Path) -> Manifest:
        """Make this the state that readers see; returns it with its generation."""
        published = replace(self, generation=self.generation + 1)
        document = {"format": VERSIONED_FORMAT if self.versioned or self.version else FORMAT, **asdict(published)}
        if not self.version:  # which older code does not know
            del document["version"]
        write_atomic(folder / MANIFEST, with_checksum(document))
        return published


def with_checksum(document: dict[str, Any]) -> str:
    """A manifest as JSON, which `require_whole` tells from one that was changed."""
    return json.dumps({**document, "checksum": _checksum(document)}, indent=1)


def require_whole(document: dict[str, Any]) -> None:
    """Take the checksum out of a manifest that was read. Raises ValueError if it is wrong, KeyError without one."""
    if document.pop("checksum") != _checksum(document):
        raise ValueError("its checksum is wrong")


def _checksum(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def write_group(folder: Path, name: str, **arrays: Array) -> Group:
    """Write arrays to disk, durable when this returns; nobody sees them until a manifest names them."""
    rows = len(next(iter(arrays.values())))
    return Group(name, rows, {kind: _write(folder / f"{name}.{kind}.npy", array) for kind, array in arrays.items()})


def _write(path: Path, array: Array) -> str:
    array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    digest = hashlib.sha256(header.getvalue())
    data: Any = array.view(np.uint8).reshape(-1).data
    digest.update(data)
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def read_array(folder: Path, group: Group, kind: str, expected: str, remedy: str = "") -> Array:
    """An array of a group, memory-mapped.

    Args:
        expected: type and shape as the manifest implies them: "float16 (3, 2)", or a letter for NumPy's kind of type;
            of several types "int64 or S (3,)".
        remedy: what to do where it is damaged; by default to encode the store again.

    Raises:
        FileNotFoundError: The file is gone; perhaps the store was pruned since the manifest was read.
        StoreError: It cannot be read, or is not what the manifest says.
    """
    path, remedy = folder / f"{group.name}.{kind}.npy", remedy or f"Delete {folder} and {AGAIN}"
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path} cannot be read ({error}). {remedy}", path=path) from None
    wanted, shape = expected.split(" (", 1)
    if str(array.shape) != f"({shape}" or not {str(array.dtype), array.dtype.kind} & {*wanted.split(" or ")}:
        raise StoreError(
            f"{path} holds {array.dtype} {array.shape}, but the manifest says {expected}. {remedy}",
            path=path, left=expected, right=f"{array.dtype} {array.shape}",
        )  # fmt: skip
    return array


def check_sum(folder: Path, group: Group, kind: str) -> int:
    """Compare a file with its checksum; returns its size in bytes.

    Raises:
        StoreError: A byte has changed, or the file is gone.
    """
    try:
        return check_now(folder, group, kind)
    except OSError as error:
        path = folder / f"{group.name}.{kind}.npy"
        raise StoreError(f"{path} cannot be read ({error}). Delete {folder} and {AGAIN}", path=path) from None


def check_now(folder: Path, group: Group, kind: str) -> int:
    """The same where a file may be gone since the manifest was read.

    Raises:
        OSError: It is gone, or cannot be read.
        StoreError: A byte has changed.
    """
    path = folder / f"{group.name}.{kind}.npy"
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    if digest.hexdigest() != group.files[kind]:
        raise StoreError(
            f"{path} is damaged: its checksum is not the manifest's. Delete {folder} and {AGAIN}",
            path=path, left=group.files[kind], right=digest.hexdigest(),
        )  # fmt: skip
    return size
