"""Every error a user of kar-aug can meet and mend.

KarError
├── ConfigError             kar.toml, an option, or an argument is wrong
├── DataError               a table lacks a column, repeats an id, holds what it must not
├── LeakageError            a comparison would know its own test
├── PromptError             a scenario or one of its templates cannot be used: .file .line .field
├── GenerationError         the language model cannot be asked: .key .attempts
│   ├── LimitReached        max_cost or max_requests would be crossed: .setting .limit .spent
│   └── Hopeless            no question will be answered until the user mends something
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
    """A scenario or one of its templates cannot be used.

    Attributes:
        file: the scenario or recipe, by the name or path that was given; None where no file is to blame.
        line: of the file, 1 is the first; field: the setting in it ("user.prompt"). None where they are not known.
    """

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.file, self.line, self.field = file, line, field


class GenerationError(KarError):
    """The language model cannot be asked.

    Attributes:
        key: of the question that showed it; attempts: how often this one had failed. None where it is of no question.
    """

    def __init__(self, message: str, *, key: str | None = None, attempts: int | None = None) -> None:
        super().__init__(message)
        self.key, self.attempts = key, attempts


class LimitReached(GenerationError):
    """`max_cost` or `max_requests` would be crossed by the next request; what was answered is stored.

    Attributes:
        setting: which of the two.
        limit: its value.
        spent: so much of it is spent, or can be by what is on its way: US dollars, or requests.
    """

    def __init__(
        self, message: str, *, setting: str = "", limit: float = 0.0, spent: float = 0.0, key: str | None = None
    ) -> None:
        super().__init__(message, key=key)
        self.setting, self.limit, self.spent = setting, limit, spent


class Hopeless(GenerationError):
    """No question will be answered until the user mends something: the key, the model's name, the address, the bill."""


class EncodingError(KarError):
    """A text cannot be turned into a vector.

    Attributes:
        encoder: its name.
        path: the store that was to be written.
        entity: "user" or "item".
        entity_id: whose text it is.
        position: which of the texts it is that the encoder was given, from 0.
        left, right: what does not fit: shapes, or how many are needed and there.
    """

    def __init__(
        self,
        message: str = "",
        *,
        encoder: str | None = None,
        path: Path | str | None = None,
        entity: str | None = None,
        entity_id: int | str | None = None,
        position: int | None = None,
        left: Any = None,
        right: Any = None,
    ) -> None:
        super().__init__(message)
        self.encoder, self.path, self.entity = encoder, path, entity
        self.entity_id, self.position = entity_id, position
        self.left, self.right = left, right


class StoreError(KarError):
    """A cache or a vector store is damaged, foreign, or does not fit what it is used for.

    Attributes:
        path: the store, or the file of it; an address, without its password.
        source: the input of the layer that reads it.
        entity_id: whose vector is missing or wrong.
        column, row: of a table that was to be read.
        left, right: what does not fit: versions of a format, `StoreSpec`s, fingerprints, shapes, types of ids.
        passing: whether the next try may do better: a full disk, a lock, a server that starts, a connection cut.
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
        passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.path, self.source, self.entity_id, self.column, self.row = path, source, entity_id, column, row
        self.left, self.right, self.passing = left, right, passing


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

    @classmethod
    def named(cls, error: ModuleNotFoundError, extra: str) -> MissingDependencyError:
        """The error for a failed import of an extra's package; raises `error` itself if it is of a module of ours."""
        package = (error.name or "kar_aug").partition(".")[0]
        if package == "kar_aug":
            raise error
        return cls(package, extra)
