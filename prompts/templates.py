"""Jinja templates of scenarios and recipes: sandboxed, and checked against the fields that they may show."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes
from jinja2.runtime import LoopContext

_OF_LOOPS = ("first", "last", "index", "index0", "length")


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """No attribute of a Python object can be reached, no value changed, no name left undefined."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field before a method: `words.items` and `item.values` are what the tables and scenarios say."""
        # The same as below for what is nearly all that templates read, in half the time of a prompt.
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        if type(obj) is LoopContext and attribute in _OF_LOOPS:
            return getattr(obj, attribute)
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


_ENVIRONMENT = _Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_FAILURES = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError)


class TemplateFault(Exception):
    """What is wrong with a template, and in which of its lines (1 is the first; None if that is not known)."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.line = line


@lru_cache(256)
def compiled(text: str) -> jinja2.Template:
    """The template.

    Raises:
        TemplateFault: It is no template.
    """
    try:
        template = _ENVIRONMENT.from_string(text)
        template.globals = dict(template.globals)  # of a chain of mappings, each rendering would make one first
        return template
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFault(error.message or "it cannot be read", error.lineno) from None


def render(text: str, values: Mapping[str, Any]) -> str:
    """The template with its values, without white space at the ends.

    Raises:
        TemplateFault: It cannot be rendered.
    """
    template = compiled(text)
    try:
        return template.render(values).strip()
    except _FAILURES as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<template>"]
        raise TemplateFault(str(error) or type(error).__name__, lines[-1] if lines else None) from None


@lru_cache(256)
def _read(text: str) -> tuple[nodes.Template, frozenset[str]]:
    """The template as a tree, which nobody changes, and the variables that it reads."""
    tree = _ENVIRONMENT.parse(text)
    return tree, frozenset(jinja2.meta.find_undeclared_variables(tree))


def uses(text: str, variable: str) -> bool:
    """Whether a template reads a variable."""
    return variable in _read(text)[1]


def reads_field(text: str, fields: Collection[str]) -> bool:
    """Whether a template reads one of these fields of anything."""
    return any(field in fields for _, field, _ in _fields_read(_read(text)[0]))


def check_names(text: str, known: Mapping[str, Collection[str] | None]) -> None:
    """Check that a template names nothing that it will not be given.

    Args:
        known: the variables, each with its fields; None where it has none, or any. "day" and "event" name the fields of
            what a loop over `history`, and over a day's `events`, gives.

    Raises:
        TemplateFault: A variable or field is unknown.
    """
    compiled(text)
    tree, read = _read(text)
    loops = ("day", "event")
    for name in read:
        if name not in known or name in loops:
            line = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == name), None)
            raise TemplateFault(_unknown(f"'{name}'", name, [v for v in known if v not in loops]), line)
    fields = {variable: names for variable, names in known.items() if variable not in loops and names is not None}
    for loop in tree.find_all(nodes.For):
        kind = _kind_of(loop.iter)
        names = known.get(kind) if kind else None
        if names is not None and isinstance(loop.target, nodes.Name):
            fields[loop.target.name] = names
    for owner, field, line in _fields_read(tree):
        if owner in fields and field not in fields[owner]:
            raise TemplateFault(_unknown(f"field '{field}' of {owner}", field, list(fields[owner])), line)


def _fields_read(tree: nodes.Template) -> Iterator[tuple[str, str, int]]:
    """(variable, field, line) of each `variable.field` and `variable["field"]`."""
    for read in tree.find_all(nodes.Getattr):
        if isinstance(read.node, nodes.Name):
            yield read.node.name, read.attr, read.lineno
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.node, nodes.Name) and isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            yield item.node.name, item.arg.value, item.lineno


def _kind_of(iterated: nodes.Node) -> str | None:
    """ "day" for a loop over the history, "event" for one over a day's events."""
    for node in (iterated, *iterated.find_all((nodes.Name, nodes.Getattr))):
        if isinstance(node, nodes.Getattr) and node.attr == "events":
            return "event"
        if isinstance(node, nodes.Name) and node.name == "history":
            return "day"
    return None


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"there is no {what}. " + (f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known) or 'none'}")
