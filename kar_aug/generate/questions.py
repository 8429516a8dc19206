"""Which prompts still need an answer: a stream of prompts, looked up in the cache some hundreds at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kar_aug._batched import batched
from kar_aug.cache import Link, TextCache, answer_key
from kar_aug.config import LanguageModel
from kar_aug.generate.progress import Progress
from kar_aug.generate.structured import INVALID, parameters_of, repair
from kar_aug.prompts import Prompt

BATCH = 256
# Answers that `retry_failed` asks for again: nothing in them is knowledge. A truncated one would be cut off again.
UNUSABLE = ("refused", "empty", "wrong_model", INVALID)


@dataclass(frozen=True)
class Question:
    """A prompt with the key of its answer, and what is known of it: the status of its answer, the entity's link."""

    key: str
    prompt: Prompt
    status: str | None = None
    linked: Link | None = None
    rejected: bool = False

    @property
    def link(self) -> Link:
        """Whose knowledge the answer will be."""
        prompt = self.prompt
        return Link(prompt.knowledge, prompt.entity_id, self.key, prompt.version, prompt.as_of)


def question_key(model: LanguageModel, prompt: Prompt) -> str:
    """The key under which `model`'s answer to `prompt` is stored."""
    return answer_key(model.model, prompt.messages, parameters_of(model, prompt))


class Survey:
    """Looks prompts up, counts what is new, changed and unchanged, and says which are to be asked. Reads only.

    Args:
        progress: what is counted into.
        retry_failed: ask again what was rejected, refused or empty before.
    """

    def __init__(
        self, cache: TextCache, model: LanguageModel, progress: Progress, *, retry_failed: bool = False
    ) -> None:
        self._cache, self._model, self._progress, self._retry = cache, model, progress, retry_failed
        self._seen: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def look(self, prompts: Sequence[Prompt]) -> list[Question]:
        """The prompts with what is known of each. One whose answer does not fit its schema comes as the next question
        of that conversation."""
        prompts = list(prompts)
        keys = [question_key(self._model, prompt) for prompt in prompts]
        statuses = self._cache.answered(set(keys))
        for row, (key, prompt) in enumerate(zip(keys, prompts, strict=True)):
            if statuses.get(key) == INVALID and prompt.schema is not None and (answer := self._cache.get(key)):
                prompts[row] = repair(prompt, answer.text)
                keys[row] = question_key(self._model, prompts[row])
        statuses |= self._cache.answered(set(keys) - statuses.keys())
        missing = {key for key in keys if key not in statuses}
        rejected = {f.key for f in self._cache.failures(missing) if f.permanent} if missing else set()
        links = {}
        for knowledge in {prompt.knowledge for prompt in prompts}:
            if knowledge not in self._before:
                self._before[knowledge] = self._cache.count_linked(knowledge)
            ids = [prompt.entity_id for prompt in prompts if prompt.knowledge == knowledge]
            links.update({(knowledge, id): link for id, link in self._cache.linked(knowledge, ids).items()})
        questions = [
            Question(key, prompt, statuses.get(key), links.get((prompt.knowledge, prompt.entity_id)), key in rejected)
            for key, prompt in zip(keys, prompts, strict=True)
        ]
        for question in questions:
            self._count(question)
        return questions

    def is_open(self, question: Question) -> bool:
        """Whether it is to be asked: it has no answer and was not rejected, or is to be tried again."""
        if self._retry:
            return question.status is None or question.status in UNUSABLE
        return question.status is None and not question.rejected

    def open(self, prompts: Iterable[Prompt]) -> Iterator[Question]:
        """Those of a stream of prompts that are to be asked; equal ones come once each."""
        for batch in batched(prompts, BATCH):
            yield from filter(self.is_open, self.look(batch))
        self.end()

    def end(self) -> None:
        """All prompts were read: entities with knowledge that none was about are gone."""
        self._progress.gone = sum(max(0, count - self._seen.get(s, 0)) for s, count in self._before.items())

    def _count(self, question: Question) -> None:
        progress, linked = self._progress, question.linked
        progress.total += 1
        if linked is None:
            progress.new += 1
        else:
            self._seen[linked.knowledge] = self._seen.get(linked.knowledge, 0) + 1
            progress.unchanged += linked.key == question.key
            progress.changed += linked.key != question.key
