"""What an answer is worth: one word, given when it is judged."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The values are what databases and files hold.

    OK           whole: knowledge
    TRUNCATED    cut off by `max_tokens`: knowledge, if the user accepts it
    REFUSED      the model would not answer, or somebody took the answer out of the knowledge
    EMPTY        nothing was said, or nothing but reasoning
    UNFINISHED   it ended in an error, or for a reason that kar-aug does not know
    MALFORMED    it cannot be read as an answer; the body is kept, and read again by every later run
    WRONG_MODEL  another model answered than the one that was asked
    INVALID      it does not fit the JSON schema that was asked for: nobody's, and kept so that the question which asks
                 for another can be made of it
    """

    OK = "ok"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    EMPTY = "empty"
    UNFINISHED = "unfinished"
    MALFORMED = "malformed"
    WRONG_MODEL = "wrong_model"
    INVALID = "invalid"


STATUSES = tuple(status.value for status in Status)
# Why an answer should not be trusted: see `kar_aug.cache.texts.verify`.
FLAGS = (
    "damaged", "refusal", "empty", "truncated", "unfinished", "malformed", "wrong_model", "cut_prompt",
    "wrong_language", "duplicate", "contradiction",
)  # fmt: skip
