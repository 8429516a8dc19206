"""Stored answers, read again by today's rules and settings: at no cost, since their bodies are there.

What is no knowledge is read by every run, for settings may have changed (`served_model`) or kar-aug's reading of what
no rule knew before. What is knowledge is read again once, where older rules than today's have read it: an early kar-aug
took a model's reasoning for its answer.
"""

from __future__ import annotations

from dataclasses import replace

from kar_aug._helpers.batched import batched
from kar_aug.cache import Answer, Status, TextCache
from kar_aug.cache.texts.status import STATUSES
from kar_aug.cache.texts.tables import RULES, status_of
from kar_aug.config import LanguageModel
from kar_aug.generate.answers import read_answer
from kar_aug.generate.choices import without_reasoning
from kar_aug.generate.questions import Question

_ROWS = 256
_KNOWLEDGE = (Status.OK, Status.TRUNCATED)
# Not those that were refused: a person may have taken them out of the knowledge (`kar-aug cache verify --exclude`).
_BY_EVERY_RUN = (Status.EMPTY, Status.UNFINISHED, Status.MALFORMED, Status.WRONG_MODEL, Status.INVALID)


def is_to_be_read(status: Status | str, rules: int) -> bool:
    """Whether a stored answer of this status, by these rules, may be worth something else today."""
    return status in _BY_EVERY_RUN or (rules < RULES and status in _KNOWLEDGE)


def read_again(stored: Answer, model: LanguageModel) -> Answer:
    """A stored answer as it would be read today; one whose status is a word of another hand stays as it is."""
    today = replace(stored, rules=RULES)
    if stored.status not in STATUSES:
        return today
    if stored.status == Status.REFUSED:
        return today
    if not stored.raw:
        return today if _is_own_text(stored) or stored.status not in _KNOWLEDGE else _without_body(today)
    # What counted under another model's name did so because somebody said that this is the model.
    served = stored.served_model if stored.status in _KNOWLEDGE else ""
    question = Question(stored.key, stored.model, stored.messages, stored.parameters or {})
    read = read_answer(stored.raw, question, None, served_model=served or model.served_model)
    if read.status == Status.MALFORMED and stored.status in _KNOWLEDGE:
        return today  # what cannot be read says nothing against what was read from it
    return replace(today, status=read.status, text=read.text, served_model=read.served_model)


def differ(one: Answer, other: Answer) -> bool:
    """Whether two readings of an answer are worth something else."""
    return (one.status, one.text) != (other.status, other.text)


def judge_older(cache: TextCache, model: LanguageModel) -> int:
    """Read all answers again that older rules have read, but for those that are damaged. Returns how many are worth
    something else now.

    Raises:
        StoreError: The cache can only be read.
    """
    changed = 0
    for keys in batched(cache.read_by_older_rules(), _ROWS):
        read = [(read_again(stored, model), stored) for stored in cache.some(keys).values()]
        cache.judge((answer, status_of(stored.status)) for answer, stored in read)
        changed += sum(differ(answer, stored) for answer, stored in read)
    return changed


def _is_own_text(stored: Answer) -> bool:
    """Whether it is a text that somebody brought in, and answers no question."""
    return not stored.messages and stored.parameters is None


def _without_body(answer: Answer) -> Answer:
    """One whose body was not kept, or came without: by its text."""
    text, closed, reasoned = without_reasoning(answer.text)
    if not reasoned:
        return answer
    status = Status.EMPTY if not text else Status(answer.status) if closed else Status.UNFINISHED
    return replace(answer, status=status, text=text)
