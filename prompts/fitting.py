"""A scenario whose fields and data templates are for the columns that some tables have; what it asks stays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kar_aug._helpers.toml import edited

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


@dataclass(frozen=True)
class Shown:
    """What prompts may show of some tables: names of columns, as [data] calls them.

    Args:
        users, items: of the two tables, in the order in which they should stand.
        history: those of the items that are told of each event: short ones.
        events: of the interactions, for each event: a review, a quantity.
        kind: of the interactions, what kind of event it was: told in place of the verdict; None if all are of one kind.
        required: a column of the items without which nothing can be said; None if none is.
        numbers: which of all these are numbers, and say nothing without their name.
    """

    users: Sequence[str] = ()
    items: Sequence[str] = ()
    history: Sequence[str] = ()
    events: Sequence[str] = ()
    kind: str | None = None
    required: str | None = None
    numbers: frozenset[str] = frozenset()


def fitted(content: str, shown: Shown, heading: str) -> str:
    """The text of a scenario, fitted to what there is to show.

    Args:
        heading: of a history: "Products in order of time:".
    """

    def edit(scenario: TOMLDocument) -> None:
        from tomlkit import string

        user: Any = scenario["user"]
        item: Any = scenario["item"]
        told = [*([shown.kind] if shown.kind else []), *shown.events]
        user["fields"], user["item_fields"] = [*shown.users], [*shown.history]
        if told:
            user["event_fields"] = told
        user["data"] = string(_user(shown, heading), multiline=True)
        item["fields"], item["required"] = [*shown.items], [shown.required] if shown.required else []
        item["data"] = string(_block(_lines("item", shown.items)), multiline=True)

    return edited(content, edit)


def _user(shown: Shown, heading: str) -> str:
    texts = ", ".join(_of("event", name) for name in shown.history if name not in shown.numbers)
    numbers = "".join(_if("event", name, ", {} {}") for name in shown.history if name in shown.numbers)
    verdict = _of("event", shown.kind) if shown.kind else "event.verdict"
    told = "".join(_if("event", name, "; {}: {}") for name in shown.events)
    event = f'- {{{{ [{texts}] | select | join(", ") | replace("|", ", ") }}}}{numbers} ({{{{ {verdict} }}}}){told}'
    history = f"{heading}\n{{% for day in history %}}{{{{ day.date }}}}:\n{{% for event in day.events %}}{event}\n"
    return _block(f"{_lines('profile', shown.users)}{history}{{% endfor %}}{{% endfor %}}")


def _block(inside: str) -> str:
    return f"<data>\n{inside}</data>"


def _lines(owner: str, names: Iterable[str]) -> str:
    return "".join(_if(owner, name, "{}: {}\n", capital=True) for name in names)


def _if(owner: str, name: str, form: str, *, capital: bool = False) -> str:
    """A line, or a part of one, where there is a value."""
    label = " ".join(name.removesuffix("_str").replace("_", " ").split())
    label = label.replace("{", "(").replace("}", ")").replace("<", "(").replace(">", ")")
    label = label[:1].upper() + label[1:] if capital else label
    read = _of(owner, name)
    said = form.format(label, f'{{{{ {read} | replace("|", ", ") }}}}')
    return f"{{% if {read} %}}{said}{{% endif %}}"


def _of(owner: str, name: str) -> str:
    return f"{owner}.{name}" if name.isidentifier() else f"{owner}[{json.dumps(name)}]"
