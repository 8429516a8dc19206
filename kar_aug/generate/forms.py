"""The forms in which servers put an answer, each as a choice of a chat completion.

    chat completion   choices: [{message: {content}, finish_reason}]            nearly all
    message           type: "message", content, stop_reason                     Anthropic
    response          object: "response", output: [{content}], status           OpenAI's Responses
    candidates        candidates: [{content: {parts}, finishReason}]            Gemini
    one message       message: {content}, done_reason or finish_reason          Ollama, Cohere

Chat completions are asked for. The others come through gateways that pass on what their provider says, and in files of
responses: what they say is paid for, and it is the same knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def choice_of(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first answer in a response; None if there is none."""
    if document.get("choices") is not None:
        return _first(document["choices"])
    if document.get("type") == "message":
        return _choice(document.get("content"), document.get("stop_reason"))
    if document.get("object") == "response":
        return _of_response(document)
    if "candidates" in document:
        return _of_candidate(_first(document["candidates"]))
    message = document.get("message")
    if isinstance(message, dict) and "content" in message:
        return {"message": message, "finish_reason": document.get("finish_reason") or document.get("done_reason")}
    return None


def is_one(document: Mapping[str, Any]) -> bool:
    """Whether a document is a response to a question, even if it holds no answer."""
    return "choices" in document or choice_of(document) is not None


def _first(found: Any) -> Mapping[str, Any] | None:
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None


def _choice(content: Any, reason: Any) -> Mapping[str, Any]:
    return {"message": {"content": content}, "finish_reason": reason}


def _of_response(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Its messages as one; its reasoning stands beside them as a part of that."""
    output = document.get("output")
    if not isinstance(output, list):
        return None
    parts: list[Any] = []
    for item in output:
        if isinstance(item, dict) and item.get("type") == "message" and isinstance(item.get("content"), list):
            parts += item["content"]
        elif isinstance(item, dict) and item.get("type") == "reasoning":
            parts.append({"type": "reasoning"})
    details = document.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    return _choice(parts, why or document.get("status"))


def _of_candidate(candidate: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if candidate is None:
        return None
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return _choice(parts, candidate.get("finishReason") or candidate.get("finish_reason"))
