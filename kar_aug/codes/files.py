"""The files of a bundle of codes, and the manifest that names them.

    item.codes/
      codes.json                          format, levels, size, seed, the store, checksums: the only way in
      00000-codebooks.codebooks.npy       (levels, size, dimension) float32, never changed
      00003-codes.ids.npy                 (items,) sorted: int64, or strings as UTF-8
      00003-codes.codes.npy               (items, levels) uint16, of 1 to size
      00003-codes.digits.npy              (items,) uint32

Files are written once. The manifest that names them replaces the old one in a single rename, so that a reader sees the
bundle before or after, and a writer that is killed changes nothing.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from kar_aug._helpers.files import write_atomic
from kar_aug.cache.vectors.files import Group, require_whole, with_checksum
from kar_aug.errors import StoreError

FORMAT = 1
MANIFEST = "codes.json"
AGAIN = "make new codes: kar-aug codes --anew. Models that were trained with the old ones are to be trained again."


@dataclass(frozen=True)
class CodesManifest:
    """A published state of a bundle.

    Args:
        levels, size, dimension, seed: of the codebooks.
        store: the folder of the vector store.
        version: of its vectors (`VectorStore.version`), which the codebooks are for.
        fingerprint: of the store whose items had all got codes when this was published.
        codebooks, codes: the files.
        generation: how many states were published, this one included.
    """

    levels: int
    size: int
    dimension: int
    seed: int
    store: str
    version: str
    fingerprint: str
    codebooks: Group
    codes: Group | None = None
    generation: int = 0

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The latest published state.

        Raises:
            StoreError: There is none, it is damaged, or it has another format.
        """
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise StoreError(
                    f"{folder} has format {document['format']}; this kar-aug reads {FORMAT}. Upgrade kar-aug.",
                    path=folder, left=document["format"], right=FORMAT,
                )  # fmt: skip
            require_whole(document)
            document.pop("format")
            for name in ("codebooks", "codes"):
                document[name] = Group(**document[name]) if document[name] else None
            return cls(**document)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{folder} holds no codes. Make them with: kar-aug codes", path=folder) from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.", path=path) from None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise StoreError(f"{path} is damaged ({error}). Bring it back, or {AGAIN}", path=path) from None

    def publish(self, folder: Path) -> Self:
        """Make this the state that readers see, and delete what no state names any more."""
        published = replace(self, generation=self.generation + 1)
        document = {"format": FORMAT, **asdict(published)}
        write_atomic(folder / MANIFEST, with_checksum(document))
        named = {f"{g.name}.{kind}.npy" for g in (published.codebooks, published.codes) if g for kind in g.files}
        for left in set(folder.glob("[0-9]*-*.npy")) - {folder / name for name in named}:
            with suppress(OSError):  # another system does not let go what somebody reads
                left.unlink()
        return published
