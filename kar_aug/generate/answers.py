"""What a response is worth: the answer with its status, its tokens and its cost. A pure function of the raw body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kar_aug.cache import Answer, Status
from kar_aug.cache.texts.tables import RULES
from kar_aug.generate.choices import End, Said, document_of, read_said
from kar_aug.generate.cost import TIERS, Price, most_cost
from kar_aug.generate.questions import Question
from kar_aug.generate.usage import Usage, read_usage
from kar_aug.prompts.schema import answer_fault

# What servers add to a model's name in their answers: the date of a snapshot, a tag.
_SUFFIX = re.compile(
    r"([-@:](\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{4,8}|00\d|latest|free|nitro|floor|online|exacto|extended))+$"
)


def read_answer(
    body: bytes,
    question: Question,
    price: Price | None,
    *,
    served_model: str | None = None,
    seconds: float = 0.0,
    tier: str = "",
    asked_tier: str = "",
    unlimited: int = 0,
) -> Answer:
    """The answer in a response body, which is kept as it came. One that cannot be read is "malformed".

    Args:
        price: of the model, None if not known.
        served_model: the name by which the server is to answer, that of the question if None.
        tier: that it is charged by, whatever it says: "batch".
        asked_tier: that it is charged by if it does not say.
        unlimited: tokens of an answer where no parameter limits it.
    """
    read = document_of(body)
    said = read_said(read)
    document: dict[str, Any] = read if isinstance(read, dict) else {}
    served = str(document.get("model") or document.get("modelVersion") or "")
    wrong_model = bool(served) and not same_model(served, served_model or question.model)
    status = Status.WRONG_MODEL if wrong_model and said else _status(said, question.schema)
    if not tier:
        said_tier = document.get("service_tier")
        tier = asked_tier if said_tier is None else said_tier if said_tier in TIERS else ""
    usage = read_usage(document, empty=not (said and said.text))
    cost = None if price is None else _cost(usage, price, question, unlimited, tier)
    return Answer(
        question.key,
        status,
        said.text if said else "",
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
        rules=RULES,
    )


def _status(said: Said | None, schema: Mapping[str, Any] | None) -> Status:
    """What an answer by the right model is worth."""
    if said is None:
        return Status.MALFORMED
    if said.end is End.REFUSED:
        return Status.REFUSED
    if said.end in (End.FAILED, End.UNKNOWN):
        return Status.UNFINISHED
    if not said.text:
        return Status.EMPTY
    if said.end is End.CUT:
        return Status.TRUNCATED
    if schema is not None and answer_fault(said.text, schema):
        return Status.INVALID
    return Status.OK


def same_model(served: str, asked: str) -> bool:
    """Whether the name in an answer is the model that was asked, be it with a snapshot's date, a tag or a path."""

    def plain(name: str) -> str:
        name = name.replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".gguf")
        name = name.replace("gpt-35-", "gpt-3.5-")  # Azure's deployments
        return _SUFFIX.sub("", name)

    return plain(served) == plain(asked)


def _cost(usage: Usage | None, price: Price, question: Question, unlimited: int, tier: str) -> float:
    """US dollars; where the server does not say what it charges for, the most that it can be."""
    if usage is None:
        return most_cost(price, question.messages, question.parameters, unlimited, "" if tier == "flex" else tier)
    return price.of(usage.prompt, usage.completion, cached_tokens=usage.cached, tier=tier)
