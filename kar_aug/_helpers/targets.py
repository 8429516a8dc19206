"""Where something is to be written: that it is a place, and that nothing of somebody else's is lost there."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from kar_aug.errors import ConfigError, StoreError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # of one letter it is a drive of Windows
_SHOWN = 3  # names of what is in the way


def local(where: Path | str, wanted: str = "a folder") -> Path:
    """The path that is meant, absolute.

    Args:
        wanted: what is to be named, for the error.

    Raises:
        ConfigError: Nothing is named, or an address, or a home folder that nobody put in.
    """
    text = str(where)
    if isinstance(where, str) and not text.strip():
        raise ConfigError(f"No place is named. Name {wanted}.")
    if _SCHEME.match(text):
        raise ConfigError(f"{text} is no path, nor an address that is known here. Name {wanted}.")
    if text.startswith("~"):
        raise ConfigError(f"{text}: nobody has put a home folder in for ~ here. Write the path out.")
    return Path(os.path.abspath(where))


def file_to_write(where: Path | str) -> Path:
    """The path of a file, as it was named, that may be written; one that is there is the user's to give up.

    Raises:
        ConfigError: It is no path.
        StoreError: There is a folder; or its folder cannot be written to.
    """
    path = local(where, "a file")
    if path.is_dir():
        raise StoreError(f"{path} is a folder, and a file is to be written. Name one in it.", path=path)
    check_folder(path.parent)
    return Path(where)


def folder_to_write(where: Path | str) -> Path:
    """Likewise of a folder, which may have to be made."""
    check_folder(local(where))
    return Path(where)


def check_folder(path: Path) -> None:
    """Raise StoreError unless files can be written into a folder at this absolute path, which may have to be made."""
    above = next(each for each in (path, *path.parents) if os.path.lexists(each))
    what = "is a file" if not above.is_dir() else "may not be written to by this user"
    effective = os.access in os.supports_effective_ids
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK, effective_ids=effective):
        needed = "a folder is wanted there" if above == path else f"{path} is to be a folder in it"
        raise StoreError(f"{above} {what}, and {needed}. Name another place.", path=path)


def check_free(path: Path, own: Collection[str] = (), *, notes: Collection[str] = ()) -> None:
    """Raise StoreError where a folder has something in it that is not ours.

    Args:
        own: names of what may be in the folder, and is given up, if one of `notes` says that it is ours.
        notes: files, from within the folder. Without any, hidden files may be there, and stay.
    """
    if not path.is_dir():
        return
    there = {each.name for each in path.iterdir() if notes or not each.name.startswith(".")}
    if any((path / note).is_file() for note in notes):
        there -= set(own)
    if others := sorted(there):
        named = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
        raise StoreError(
            f"{path} is not empty: {named} would be lost, or taken for what is to be written. Name a folder that is "
            "not there yet.",
            path=path,
        )
