"""Every error a user of kar-aug can meet and mend.

KarError
├── ConfigError             kar.toml, an option, or an argument is wrong
├── DataError               a table lacks a column, repeats an id, holds what it must not
├── LeakageError            a comparison would know its own test
├── PromptError             a scenario or one of its templates cannot be used
├── GenerationError         the language model cannot be asked
├── EncodingError           a text cannot be turned into a vector
├── StoreError              a cache or vector store is damaged, foreign, or does not fit
└── MissingDependencyError  an optional package is not installed

Each message says what was wrong, where, and what to do; the attributes say where again, for programs, and are None
where the raising place does not know. Where two sides do not fit, `left` is what was there, or is needed, and `right`
what came. The command line prints the message as one line and exits with 2. Programming mistakes stay `ValueError` and
`TypeError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class KarError(Exception):
    """What a user can mend: the message says how."""


class ConfigError(KarError):
    """kar.toml, a command-line option or an argument is wrong.

    Attributes:
        path: the file of settings.
        setting: the one that is wrong: "[encode] pca".
    """

    def __init__(self, message: str = "", *, path: Path | str | None = None, setting: str | None = None) -> None:
        super().__init__(message)
        self.path, self.setting = path, setting


class DataError(KarError):
    """A table lacks a column, repeats an id, or holds what it must not.

    Attributes:
        path: the file, folder or address.
        table: "interactions", "items" or "users".
        column: its name.
        row: its number, from 0; of a file with lines, the line, from 1.
        left, right: what does not fit: kinds of ids, numbers of rows.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: Path | str | None = None,
        table: str | None = None,
        column: str | None = None,
        row: int | None = None,
        left: Any = None,
        right: Any = None,
    ) -> None:
        super().__init__(message)
        self.path, self.table, self.column, self.row = path, table, column, row
        self.left, self.right = left, right


class LeakageError(KarError):
    """Knowledge, or a feature, knows samples that it is to be tested on.

    Attributes:
        findings: the leaks, `kar_aug.audit.Finding`s.
    """

    def __init__(self, message: str = "", *, findings: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class PromptError(KarError):
    """A scenario or one of its templates cannot be used."""


class GenerationError(KarError):
    """The language model cannot be asked."""


class EncodingError(KarError):
    """A text cannot be turned into a vector.

    Attributes:
        encoder: its name.
        path: the store that was to be written.
        entity: "user" or "item".
        left, right: what does not fit: shapes, or how many are needed and there.
    """

    def __init__(
        self,
        message: str = "",
        *,
        encoder: str | None = None,
        path: Path | str | None = None,
        entity: str | None = None,
        left: Any = None,
        right: Any = None,
    ) -> None:
        super().__init__(message)
        self.encoder, self.path, self.entity = encoder, path, entity
        self.left, self.right = left, right


class StoreError(KarError):
    """A cache or a vector store is damaged, foreign, or does not fit what it is used for.

    Attributes:
        path: the store, or the file of it; an address, without its password.
        source: the input of the layer that reads it.
        entity_id: whose vector is missing or wrong.
        column, row: of a table that was to be read.
        left, right: what does not fit: versions of a format, `StoreSpec`s, fingerprints, shapes, types of ids.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: Path | str | None = None,
        source: str | None = None,
        entity_id: int | str | None = None,
        column: str | None = None,
        row: int | None = None,
        left: Any = None,
        right: Any = None,
    ) -> None:
        super().__init__(message)
        self.path, self.source, self.entity_id, self.column, self.row = path, source, entity_id, column, row
        self.left, self.right = left, right


class MissingDependencyError(KarError):
    """An optional package is not installed.

    Attributes:
        package: its name.
        extra: of kar-aug, which brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'kar-aug[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.extra)
