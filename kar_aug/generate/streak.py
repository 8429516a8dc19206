"""Refusals in a row: is it one prompt that is wrong, or every request?

A question that was rejected is held back, neither failed nor asked again, until the server answers one that was sent
later. Where it answers none, the job stops and nothing was marked: all are open again when the user has mended what was
wrong. Answers to what was sent before say nothing: when an account is closed, many are still on their way.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from kar_aug.generate.faults import Fault, Rejected
from kar_aug.generate.questions import Question

_IN_A_ROW = 5
_OF_PROMPTS_IN_A_ROW = 50  # whose words are of the single prompt: some are too long, one after the other


class Refusal(NamedTuple):
    """A request that was refused; `at` is when, by the clock of `time.monotonic`."""

    question: Question
    fault: Fault
    at: float


class Streak:
    """The refusals that no answer to a later request came after."""

    def __init__(self) -> None:
        self._refusals: list[Refusal] = []

    def __len__(self) -> int:
        return len(self._refusals)

    def goes_on(self, question: Question, fault: Fault, *, proven: bool, in_flight: int) -> bool:
        """Count one more; whether there are too many now.

        Args:
            proven: whether the server has answered anything in this job. If so, a question that is refused whenever it
                is tried counts once, and there may be as many as requests are in flight at a time: of prompts with some
                that are refused at once, these come first.
            in_flight: how many that are.
        """
        self._refusals.append(Refusal(question, fault, time.monotonic()))
        if not proven:
            return len(self) >= _IN_A_ROW
        of_prompt = isinstance(fault, Rejected) and fault.of_prompt
        questions = {refusal.question.key for refusal in self._refusals}
        return len(questions) >= max(_OF_PROMPTS_IN_A_ROW if of_prompt else _IN_A_ROW, in_flight)

    def end(self, sent: float | None = None) -> list[Refusal]:
        """A request was answered that was sent at this time, or nothing more is asked: the questions that were rejected
        before are wrong themselves.
        """
        over = [refusal for refusal in self._refusals if sent is None or refusal.at <= sent]
        self._refusals = self._refusals[len(over) :]
        return [refusal for refusal in over if refusal.fault.permanent]
