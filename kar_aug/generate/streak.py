"""Refusals in a row: is it one prompt that is wrong, or every request?

A question that was rejected is held back, neither failed nor asked again, until the server answers another one. Where
it answers none, the job stops and nothing was marked: all are open again when the user has mended what was wrong.
"""

from __future__ import annotations

from kar_aug.generate.faults import Fault, Rejected
from kar_aug.generate.questions import Question

_IN_A_ROW = 5
_OF_PROMPTS_IN_A_ROW = 50  # whose words are of the single prompt: some are too long, one after the other


class Streak:
    """The refusals since the last answer.

    Attributes:
        requests: how many they are.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._keys: set[str] = set()
        self._held: list[tuple[Question, Fault]] = []

    def goes_on(self, question: Question, fault: Fault, *, proven: bool) -> bool:
        """Count one more; whether there are too many now.

        Args:
            proven: whether the server has answered anything in this job. If so, one question that is refused whenever
                it is tried counts once.
        """
        self.requests += 1
        self._keys.add(question.key)
        of_prompt = isinstance(fault, Rejected) and fault.of_prompt
        most = _OF_PROMPTS_IN_A_ROW if proven and of_prompt else _IN_A_ROW
        return (len(self._keys) if proven else self.requests) >= most

    def hold(self, question: Question, fault: Fault) -> None:
        """Keep a question that was rejected until it is known what that means."""
        self._held.append((question, fault))

    def end(self) -> list[tuple[Question, Fault]]:
        """The server has answered: those that were held back are wrong themselves."""
        held, self._held = self._held, []
        self.requests = 0
        self._keys.clear()
        return held
