"""Summaries of parts of long histories, as the text cache holds them: what prompts with summaries are rendered from."""

from __future__ import annotations

from collections.abc import Sequence

from kar_aug.cache import Status, TextCache
from kar_aug.config import LanguageModel
from kar_aug.generate import question_key
from kar_aug.prompts import Prompt
from kar_aug.prompts.histories.summaries import owner

# One that max_tokens cut off says less than it could, and nothing else.
_ACCEPTED = (Status.OK, Status.TRUNCATED)
_TOKENS = 150  # of a summary, about


class StoredSummaries:
    """The answers of a model to questions about parts of histories.

    Args:
        stand_in: whether what is not answered yet has a text of about the same length, to see and count the prompts to
            come; otherwise it has none, and its user's prompt waits.

    Attributes:
        waiting: how many histories were looked up that lack an answer.
    """

    def __init__(self, cache: TextCache, model: LanguageModel, *, stand_in: bool = False) -> None:
        self._cache, self._model, self._stand_in = cache, model, stand_in
        self._lacking: set[str] = set()

    def __call__(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """The summaries that these questions asked for."""
        keys = [question_key(self._model, prompt) for prompt in prompts]
        texts = self._cache.texts(keys, accept=_ACCEPTED)
        if len(texts) < len(set(keys)):
            self._lacking.add(owner(prompts[0]))
        return [texts.get(key, _stand_in(key) if self._stand_in else None) for key in keys]

    @property
    def waiting(self) -> int:
        return len(self._lacking)


def _stand_in(key: str) -> str:
    """Another for each question, so that questions that show it are not counted as one."""
    return f"[summary {key}, still to be asked] " + "... " * _TOKENS
