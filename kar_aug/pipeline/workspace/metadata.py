"""The strongest control: what a prompt shows of an entity, as a plain sentence, without any language model.

A gain that this text gives too, through the same encoder, was in the tables all along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from kar_aug.cache import Knowledge
from kar_aug.prompts import Prompt, Scenario

_FIELDS = """
{% for name, value in shown.items() if value %}{{ name | replace("_", " ") }}: {{ value | replace("|", ", ") }}. \
{% endfor %}"""
_HISTORY = """
{% for day in history %}{{ day.date }}: {% for event in day.events %}\
{% for name, value in event.items() if name not in ("date", "rating") and value %}{{ value }}, {% endfor %}\
rated {{ event.rating }}{{ "; " if not loop.last else ". " }}{% endfor %}{% endfor %}"""
LANGUAGE_MODEL = "none: metadata text"


def metadata_scenario(scenario: Scenario) -> Scenario:
    """A scenario that shows the same fields of the same entities, and asks nothing."""
    item = _FIELDS.replace("shown", "item")
    user = _FIELDS.replace("shown", "profile") + _HISTORY
    return replace(
        scenario,
        user={**scenario.user, "system": "", "data": user, "prompt": "{{ data }}"},
        item={**scenario.item, "system": "", "data": item, "prompt": "{{ data }}"},
    )


def metadata_texts(prompts: Iterable[Prompt]) -> Iterator[Knowledge]:
    """Prompts of a `metadata_scenario` as texts to encode; those that show nothing are left out."""
    for prompt in prompts:
        text = " ".join(prompt.data.split())
        if text:
            yield Knowledge(prompt.knowledge, prompt.entity_id, text, "", LANGUAGE_MODEL, prompt.version, prompt.as_of)
