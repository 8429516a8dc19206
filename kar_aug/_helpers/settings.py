"""Settings as fields of frozen dataclasses: each says its range, choices and former name; one checker for all."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from kar_aug.errors import ConfigError
from kar_aug.registry import Registry

_SECRETS = ("api_key", "key", "openai_api_key", "OPENAI_API_KEY", "token", "secret", "password")
_log = logging.getLogger("kar_aug")
T = TypeVar("T")


def setting(
    default: Any = MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    least: float | None = None,
    most: float | None = None,
    among: Registry | Sequence[str] | None = None,
    was: str | None = None,
    words: Mapping[str, str] | None = None,
) -> Any:
    """A field of a section.

    Args:
        least, most: the range of a number.
        among: what a text, or each text of a list, may be; in a list none may stand twice.
        was: its former name, which is still read.
        words: former values -> those of today, still read too.
    """
    rules = {"least": least, "most": most, "among": among, "was": was, "words": words or {}}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=rules)
    return dataclasses.field(default=default, metadata=rules)


def check(section: str, config: Any) -> None:
    """Raise ConfigError unless each setting is in its range and among its choices."""
    for rule in fields(config):
        value = getattr(config, rule.name)
        if value is None or not rule.metadata:
            continue
        _check_range(f"[{section}] {rule.name}", value, rule.metadata["least"], rule.metadata["most"])
        if rule.metadata["among"] is not None:
            check_choices(section, rule.name, value, rule.metadata["among"])


def _check_range(name: str, value: Any, least: float | None, most: float | None) -> None:
    if (least is not None and not value >= least) or (most is not None and not value <= most):
        wanted = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ConfigError(f"{name} must be {wanted}, not {value}.", setting=name)


def check_choices(section: str, name: str, value: Any, among: Registry | Sequence[str]) -> None:
    """Raise ConfigError unless a value, or each of several, is among the choices, and named once."""
    listed = isinstance(value, tuple)
    for given in value if listed else (value,):
        if given in among:
            continue
        if isinstance(among, Registry) and listed:
            raise ConfigError(f"[{section}] {among.unknown(given)}", setting=f"[{section}] {name}")
        what = f"[{section}] there is no {name} {given!r}." if listed else f"[{section}] {name} {given!r} is unknown."
        raise ConfigError(f"{what} Known: {', '.join(among)}", setting=f"[{section}] {name}")
    if listed and len(set(value)) < len(value):
        raise ConfigError(f"[{section}] {name} names one twice.", setting=f"[{section}] {name}")


def read_section(kind: type[T], section: str, document: Mapping[str, Any]) -> T:
    """A section of a document as its dataclass.

    Raises:
        ConfigError: It is no section, or says something unknown, of a wrong type or out of range.
    """
    table = document.get(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{section} must be a section: [{section}]", setting=f"[{section}]")
    rules = fields(kind)  # type: ignore[arg-type]
    table = _renamed(section, table, rules)
    check_known(table, [rule.name for rule in rules], f"in [{section}]")
    hints = get_type_hints(kind)
    return kind(**{name: read_value(f"[{section}] {name}", hints[name], value) for name, value in table.items()})


def _renamed(section: str, table: Mapping[str, Any], rules: Sequence[Any]) -> dict[str, Any]:
    """The table under today's names and words; a line says which were others once."""
    table = dict(table)
    for rule in rules:
        was, words = rule.metadata.get("was"), rule.metadata.get("words", {})
        if was in table and rule.name not in table:
            _log.warning("[%s] %s is called %s now.", section, was, rule.name)
            table[rule.name] = table.pop(was)
        given = table.get(rule.name)
        if words and isinstance(given, (list, tuple)) and set(given) & set(words):
            for old in [value for value in given if value in words]:
                _log.warning("[%s] %s: %r is called %r now.", section, rule.name, old, words[old])
            table[rule.name] = [words.get(value, value) for value in given]
    return table


def read_value(name: str, hint: Any, value: Any) -> Any:
    """The value as the field wants it: lists as tuples, whole numbers as decimals where one is asked for."""
    kinds = [kind for kind in getattr(hint, "__args__", (hint,)) if kind is not type(None)]
    if len(kinds) == 1 and hasattr(kinds[0], "__origin__"):  # a list that may be left out
        return read_value(name, kinds[0], value)
    if getattr(hint, "__origin__", None) is tuple:
        if not isinstance(value, (list, tuple)) or not all(type(v) is kinds[0] for v in value):
            raise ConfigError(f"{name} must be a list of {kinds[0].__name__}s, not {value!r}.", setting=name)
        return tuple(value)
    if getattr(hint, "__origin__", None) is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{name} must be a table: {{ name = value }}, not {value!r}.", setting=name)
        return value
    if kinds[0] is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kinds[0] is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, kinds[0]) or (isinstance(value, bool) and kinds[0] is not bool):
        raise ConfigError(f"{name} must be of type {kinds[0].__name__}, not {value!r}.", setting=name)
    return value


def check_known(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Raise ConfigError unless all names of the table are known; with the nearest one."""
    for name in table:
        if name not in names:
            if name in _SECRETS:  # whoever wrote it there should not see it again in an error
                raise ConfigError(
                    f"{name} {where}: keys are never read from kar.toml, which is easily shared. Take it out. Set "
                    "OPENAI_API_KEY, or name a variable with api_key_env or a file with api_key_file.",
                    setting=name,
                )
            near = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(names)}"
            raise ConfigError(f"there is no setting {name!r} {where}.{hint}", setting=name)
