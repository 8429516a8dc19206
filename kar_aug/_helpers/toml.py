"""Changes to TOML files that people wrote: what is not changed stays byte for byte, comments and order included."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kar_aug.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_MARK = "\ufeff"  # Windows editors put it in front


def edited(content: str, edit: Callable[[TOMLDocument], None]) -> str:
    """`content` after `edit` changed its document; new lines end as all others do.

    Raises:
        ConfigError: A section's tables stand apart in the file, so that writing it would move one of them.
        MissingDependencyError: tomlkit is not installed.
    """
    try:
        import tomlkit
    except ImportError:
        raise MissingDependencyError("tomlkit", "offline") from None
    mark = _MARK if content.startswith(_MARK) else ""
    document = tomlkit.parse(content.removeprefix(_MARK))
    if mark + tomlkit.dumps(document) != content:
        raise ConfigError("tables of one name stand apart in the file, and changing it would move them")
    edit(document)
    changed = mark + tomlkit.dumps(document)
    if "\r\n" in content and content.count("\r\n") == content.count("\n"):
        changed = changed.replace("\r\n", "\n").replace("\n", "\r\n")
    return changed
