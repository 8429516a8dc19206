"""A question: what a model is asked, and whose knowledge the answer will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from kar_aug.cache import Link, Request, Status, answer_key
from kar_aug.config import LanguageModel
from kar_aug.generate.structured import parameters_of, repair, schema_of
from kar_aug.prompts import Prompt

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Question:
    """One question, however many entities wait for its answer.

    Args:
        key: of its answer.
        model, messages, parameters: as the server gets them, and as they are hashed.
        links: whose knowledge the answer will be.
        status: of the answer that it has already; None if it has none.
    """

    key: str
    model: str
    messages: Messages
    parameters: Mapping[str, Any]
    links: tuple[Link, ...] = ()
    status: Status | None = None

    @classmethod
    def of(cls, model: LanguageModel, prompt: Prompt) -> Self:
        """What a prompt asks a model."""
        parameters = parameters_of(model, prompt.schema)
        key = answer_key(model.model, prompt.messages, parameters)
        link = Link(prompt.knowledge, prompt.entity_id, key, prompt.version, prompt.as_of)
        return cls(key, model.model, prompt.messages, parameters, (link,))

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema that the answer must fit; None where it is free text."""
        return schema_of(self.parameters)

    @property
    def asked_before(self) -> bool:
        """Whether it is asked once more, after an answer that did not fit."""
        return any(message["role"] == "assistant" for message in self.messages)

    def repaired(self, answer: str) -> Self:
        """The question that asks for another answer than this, which does not fit; it has a key of its own."""
        messages = repair(self.messages, self.schema or {}, answer)
        key = answer_key(self.model, messages, self.parameters)
        links = tuple(link._replace(key=key) for link in self.links)
        return replace(self, key=key, messages=messages, links=links, status=None)

    def with_status(self, status: Status | None) -> Self:
        """The same, with what its answer is worth."""
        # Not `replace`, which takes four times as long: of a million prompts each comes by here.
        return type(self)(self.key, self.model, self.messages, self.parameters, self.links, status)

    def for_all(self, links: Sequence[Link]) -> Self:
        """The same, for these entities."""
        return replace(self, links=tuple(links))


def question_key(model: LanguageModel, prompt: Prompt) -> str:
    """The key under which `model`'s answer to `prompt` is stored."""
    return Question.of(model, prompt).key


def request_of(question: Question) -> Request:
    """A question as it is kept while it is in a batch."""
    asked = {"model": question.model, "messages": question.messages, "parameters": question.parameters}
    return Request(question.key, asked, question.links)


def question_of(request: Request) -> Question:
    """The question in a request of a batch."""
    return Question(request.key, **request.question, links=request.links)
