"""What a response says: the answer with its status, its tokens and its cost. A pure function of the raw body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from kar_aug.cache import Answer, Status
from kar_aug.generate.cost import Price, most_cost
from kar_aug.generate.faults import Passing
from kar_aug.generate.questions import Question
from kar_aug.generate.usage import Usage, read_usage
from kar_aug.prompts.schema import answer_fault

# What servers add to a model's name in their answers: the date of a snapshot, a tag.
_SUFFIX = re.compile(r"([-@:](\d{4}-\d{2}-\d{2}|\d{4,8}|latest|free))+$")


def read_answer(
    body: bytes,
    question: Question,
    price: Price | None,
    *,
    served_model: str | None = None,
    seconds: float = 0.0,
    tier: str = "",
    unlimited: int = 0,
) -> Answer:
    """The answer in a response body, which is kept as it came.

    Args:
        price: of the model, None if not known.
        served_model: the name by which the server is to answer, that of the question if None.
        unlimited: tokens of an answer where no parameter limits it.

    Raises:
        Passing: It has not the form of a chat completion.
    """
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = (message.get("content") or "").strip()
        refusal = str(message.get("refusal") or "")
        served = str(document.get("model") or "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Passing("the answer was malformed") from None
    wrong_model = bool(served) and not same_model(served, served_model or question.model)
    refused = bool(refusal) or finish == "content_filter"
    status = Status.WRONG_MODEL if wrong_model else _status(text, finish, refused, question.schema)
    if not tier and document.get("service_tier") == "flex":
        tier = "flex"
    usage = read_usage(document, empty=not text)
    cost = None if price is None else _cost(usage, price, question, unlimited, tier)
    return Answer(
        question.key,
        status,
        text or refusal if refused else text,
        question.model,
        question.messages,
        usage.prompt if usage else 0,
        usage.completion if usage else 0,
        seconds,
        parameters=question.parameters,
        served_model=served,
        tier=tier,
        cost=cost,
        raw=body,
    )


def _status(text: str, finish: Any, refused: bool, schema: Mapping[str, Any] | None) -> Status:
    """What an answer by the right model is worth."""
    if refused:
        return Status.REFUSED
    if not text:
        return Status.EMPTY
    if finish == "length":
        return Status.TRUNCATED
    if schema is not None and answer_fault(text, schema):
        return Status.INVALID
    return Status.OK


def same_model(served: str, asked: str) -> bool:
    """Whether the name in an answer is the model that was asked, be it with a snapshot's date, a tag or a path."""

    def plain(name: str) -> str:
        name = name.replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gguf")
        return _SUFFIX.sub("", name)

    return plain(served) == plain(asked)


def _cost(usage: Usage | None, price: Price, question: Question, unlimited: int, tier: str) -> float:
    """US dollars; where the server does not say what it charges for, the most that it can be."""
    if usage is None:
        return most_cost(price, question.messages, question.parameters, unlimited, tier if tier == "batch" else "")
    return price.of(usage.prompt, usage.completion, cached_tokens=usage.cached, tier=tier)
