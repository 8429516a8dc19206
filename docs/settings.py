"""Writes docs/settings.md, every setting with its default and effect, from the dataclasses of `kar_aug.config`.

    python docs/settings.py

`tests/test_config.py` fails while the page says something else.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from kar_aug.config import Config

PAGE = Path(__file__).with_suffix(".md")
_HEAD = """\
# Settings

Written by `python docs/settings.py` from the docstrings of `kar_aug/config.py`: every setting of kar.toml, what it is
if it is not given ("-": nothing), what it takes, and what it does. `kar-aug init` writes a kar.toml with all of them,
most of them commented out. Options of a command go over the file (`kar-aug compare --seeds 3`), and so
does Python: `Project.open("kar.toml", compare={"seeds": 3})`.

Before the first section stands `workdir = ".kar"`, the folder that every stage writes to. Relative paths start from the
folder of kar.toml. An API key is no setting: it comes from the environment, or from a file of its own.
"""
_TABLE = "| setting | default | takes | effect |\n| --- | --- | --- | --- |"
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def sections() -> dict[str, type]:
    """The sections of a kar.toml, in order."""
    return {name: kind for name, kind in get_type_hints(Config).items() if is_dataclass(kind)}


def effects(kind: type) -> dict[str, str]:
    """What each setting of a section does: its entry in the docstring, of the section or of what it extends."""
    found: dict[str, str] = {}
    for described in kind.__mro__[:-1]:
        for names, text in _ENTRY.findall(inspect.cleandoc(described.__doc__ or "")):
            found |= {name: " ".join(text.split()) for name in names.split(", ") if name not in found}
    return found


def default(setting: Field[Any]) -> Any:
    """What a setting is if it is not given."""
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def takes(setting: Field[Any], hint: Any) -> str:
    """What a setting may be, in words."""
    kind = next(each for each in (get_args(hint) or (hint,)) if each is not type(None))
    if get_origin(hint) is Mapping or get_origin(kind) is Mapping:
        return "table"
    listed = get_origin(hint) is tuple or get_origin(kind) is tuple
    kind = next(iter(get_args(kind)), kind)
    rules = setting.metadata
    if (among := rules.get("among")) is not None:
        names = ", ".join(f"`{name}NAME`" if name.endswith(":") else f"`{name}`" for name in among)
        return f"some of {names}" if listed else f"one of {names}"
    words = f"list of {_WORDS[kind]}s" if listed else _WORDS[kind]
    if rules.get("most") is not None:
        return f"{words}, {rules['least']} to {rules['most']}"
    return f"{words}, {rules['least']} or more" if rules.get("least") is not None else words


def page() -> str:
    """The whole page, as Markdown."""
    parts = [_HEAD]
    for section, kind in sections().items():
        what = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].partition(": ")[2]
        parts += [f"## [{section}]\n\n{what[0].upper()}{what[1:]}\n\n{_TABLE}"]
        told, hints = effects(kind), get_type_hints(kind)
        for each in sorted(fields(kind), key=lambda field: list(told).index(field.name)):
            value = default(each)
            shown = "-" if value in (None, (), {}) else f"`{json.dumps(value)}`"
            cells = (f"`{each.name}`", shown, takes(each, hints[each.name]), told[each.name])
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
