"""Histories beyond the window as summaries: of parts, then of summaries, level by level, until a prompt can show them.

A history is cut, from its beginning, into parts of as many events as a prompt shows. The last of them, full or not, is
shown as it is; the model is asked once about each of the others. Their summaries, if they are many, are grouped and
summarised again in the same way: the last group is shown as it is. So a prompt shows the latest events, and the older
something is, the shorter it is told; and a part, once full, never changes: however a history grows, it is asked once.

Recursive summarisation is after Wu et al. 2021 (arXiv:2109.10862).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kar_aug.prompts.data import marked
from kar_aug.prompts.histories.blocks import is_of_blocks
from kar_aug.prompts.histories.events import Events
from kar_aug.prompts.prompt import Prompt
from kar_aug.prompts.recipe import Recipe
from kar_aug.prompts.scenario import Scenario
from kar_aug.prompts.text import clean, was_cut

SUMMARISED = "summarised"
KNOWLEDGE = "history"  # the kind, of the questions about parts: their answers are nobody's knowledge
GROUP = 8  # summaries that are summarised again
_HEADING = "Summaries of earlier parts of the history, in order of time:"
_BLOCK = re.compile(rf"{_HEADING}\n(?:- [^\n]*\n)*")
# The texts that answer these questions, None where there is none (yet).
Answers = Callable[[Sequence[Prompt]], Sequence[str | None]]


@dataclass(frozen=True)
class Summary:
    """What was said about the events from `start` to before `end`; `cut` says whether the text had to be shortened."""

    start: int
    end: int
    text: str
    cut: bool


@dataclass(frozen=True)
class Shortened:
    """A long history as it is shown: summaries, then the events from `start` on."""

    summaries: tuple[Summary, ...]
    start: int


class Summariser:
    """Asks about the parts of long histories.

    Args:
        answers: what was answered so far.
        size: events of a part.
    """

    def __init__(self, scenario: Scenario, events: Events, answers: Answers, size: int) -> None:
        self._scenario, self._events, self._answers, self._size = scenario, events, answers, size
        self._recipe = Recipe.step("history")
        self.version = self._recipe.version(scenario, "user")

    def shorten(self, user_id: int | str) -> Generator[Prompt, None, Shortened | None]:
        """Yields the questions about a history's parts, level by level as far as the one before is answered. Returns
        the shortened history, None while answers are missing.
        """
        first, end = self._events.span(user_id)
        spans = [(start, start + self._size) for start in range(first, end - self._size, self._size)]
        prompts = [self._about_events(user_id, number, *span) for number, span in enumerate(spans, 1)]
        shown: list[Summary] = []
        level = 1
        while prompts:
            yield from prompts
            texts = self._answers(prompts)
            summaries = [
                self._summary(*span, text) for span, text in zip(spans, texts, strict=True) if text is not None
            ]
            if len(summaries) < len(prompts):
                return None
            level += 1
            groups = [summaries[start : start + GROUP] for start in range(0, len(summaries), GROUP)]
            shown = groups.pop() + shown
            spans = [(group[0].start, group[-1].end) for group in groups]
            prompts = [
                self._about_summaries(user_id, f"{level}.{number}", group) for number, group in enumerate(groups, 1)
            ]
        return Shortened(tuple(shown), first + (end - first - 1) // self._size * self._size)

    def head(self, summaries: Sequence[Summary]) -> str:
        """What stands at the head of the data of a question with summaries."""
        return "".join(f"{line}\n" for line in self._lines(summaries))

    def _about_events(self, user_id: int | str, number: int, start: int, end: int) -> Prompt:
        # Nothing but the part itself is shown, so that nothing else changes the question.
        rows = self._events.rows(range(start, end), end - 1)
        ask = partial(self._recipe.ask, self._scenario, "user")
        prompt = self._scenario.user_prompt(user_id, {}, rows, self._events.as_of(end - 1), ask)
        return replace(prompt, knowledge=KNOWLEDGE, entity_id=_part_of(user_id, f"1.{number}"), version=self.version)

    def _about_summaries(self, user_id: int | str, number: str, group: Sequence[Summary]) -> Prompt:
        data = marked(self._lines(group))
        messages = self._recipe.ask(self._scenario, "user", data)
        as_of = self._events.as_of(group[-1].end - 1)
        cut = ("summaries",) if any(summary.cut for summary in group) else ()
        return Prompt(KNOWLEDGE, _part_of(user_id, number), messages, self.version, as_of, cut, data=data)

    def _summary(self, start: int, end: int, text: str) -> Summary:
        most = self._scenario.limits.characters
        said = clean(text, most)
        return Summary(start, end, said, was_cut(said, most))

    def _lines(self, summaries: Iterable[Summary]) -> Iterator[str]:
        yield _HEADING
        for summary in summaries:
            yield f"- {self._events.period(summary.start, summary.end)}: {summary.text}"


def counts(lengths: Iterable[int], size: int) -> list[int]:
    """How many questions each level has, for histories of so many events and parts of `size`."""
    found: list[int] = []
    while parts := [(length - 1) // size for length in lengths if length > size]:
        found.append(sum(parts))
        lengths, size = parts, GROUP
    return found


def without_summaries(text: str) -> str:
    """A stored prompt's text without the summaries in it: what it shows of the data themselves. Of a prompt that is
    stored there is the text alone.
    """
    return _BLOCK.sub("", text)


def owner(prompt: Prompt) -> str:
    """Whom a prompt is about, as `repr` writes the id: the user, where it is about a part of the user's history."""
    is_part = prompt.knowledge == KNOWLEDGE or is_of_blocks(prompt.knowledge)
    return str(prompt.entity_id).rpartition(" ")[0] if is_part else repr(prompt.entity_id)


def _part_of(user_id: int | str, number: str) -> str:
    return f"{user_id!r} {number}"
