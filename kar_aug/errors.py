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

Each message says what was wrong, where, and what to do. The command line prints it as one line and
exits with 2. Programming mistakes stay `ValueError` and `TypeError`.
"""

from __future__ import annotations


class KarError(Exception):
    """What a user can mend: the message says how."""


class ConfigError(KarError):
    """kar.toml, a command-line option or an argument is wrong."""


class DataError(KarError):
    """A table lacks a column, repeats an id, or holds what it must not."""


class LeakageError(KarError):
    """Knowledge, or a feature, knows samples that it is to be tested on."""


class PromptError(KarError):
    """A scenario or one of its templates cannot be used."""


class GenerationError(KarError):
    """The language model cannot be asked."""


class EncodingError(KarError):
    """A text cannot be turned into a vector."""


class StoreError(KarError):
    """A cache or a vector store is damaged, foreign, or does not fit what it is used for."""


class MissingDependencyError(KarError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'kar-aug[{extra}]'")

    @classmethod
    def named(cls, error: ModuleNotFoundError, extra: str) -> MissingDependencyError:
        """The error for a failed import of an extra's package; raises `error` itself if it is of a module of ours."""
        package = (error.name or "kar_aug").partition(".")[0]
        if package == "kar_aug":
            raise error
        return cls(package, extra)
