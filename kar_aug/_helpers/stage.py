"""Packages that are named after what they do, and can be called to do it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class Stage(ModuleType):
    """A package that stands for its function: `kar_aug.compare(workspace)` is `kar_aug.compare.compare(workspace)`.

    `from kar_aug import compare` means the function to whoever writes it, and gives the package to everybody: Python
    sets a package's attribute to each package in it that was imported.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(package: str) -> None:
    """Let a package, by its `__name__`, be called as the function of its own name."""
    sys.modules[package].__class__ = Stage
