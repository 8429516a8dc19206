"""A question: what a model is asked, and whose knowledge the answer will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from kar_aug.cache import Link, Request, Status, answer_key
from kar_aug.cache.texts.cache import AnswerKeys
from kar_aug.config import LanguageModel
from kar_aug.generate.structured import parameters_of, repair, schema_of
from kar_aug.prompts import Prompt

Messages = Sequence[Mapping[str, Any]]


class Question(NamedTuple):
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
        return cls(*Questions(model).of(prompt))

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
        return self._replace(key=key, messages=messages, links=links, status=None)

    def with_status(self, status: Status | None) -> Self:
        """The same, with what its answer is worth."""
        return self._replace(status=status)

    def for_all(self, links: Sequence[Link]) -> Self:
        """The same, for these entities."""
        return self._replace(links=tuple(links))


class Questions:
    """Makes the questions of many prompts to one model: what these have in common is made once, since of a million
    prompts most are answered, and only looked up.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._begin(None)

    def key(self, prompt: Prompt) -> str:
        """The key of a prompt's question."""
        if prompt.schema is not self._schema:
            self._begin(prompt.schema)
        return self._keys(prompt.messages)

    def of(self, prompt: Prompt, key: str | None = None) -> Question:
        """See `Question.of`; `key` is the question's, if it is known already."""
        key = self.key(prompt) if key is None else key
        if prompt.schema is not self._schema:
            self._begin(prompt.schema)
        link = Link(prompt.knowledge, prompt.entity_id, key, prompt.version, prompt.as_of)
        return Question(key, self._model.model, prompt.messages, self._parameters, (link,))

    def _begin(self, schema: Mapping[str, Any] | None) -> None:
        self._schema = schema
        self._parameters = parameters_of(self._model, self._schema)
        self._keys = AnswerKeys(self._model.model, self._parameters)


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
