"""What a body says: its text without the model's reasoning, and how the answer ended, whoever served it.

Providers agree on the form of a chat completion and on little else: content comes as a text or in parts, reasoning in a
field of its own or between tags, the end as "stop", "end_turn" or "FINISH_REASON_STOP". Here they become one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from kar_aug._helpers.servers.words import page_title, words_of
from kar_aug.generate.forms import choice_of, is_one
from kar_aug.generate.usage import read_usage

# By the letters alone, so that MAX_TOKENS, max_tokens and FINISH_REASON_MAX_TOKENS are one.
WHOLE = {"stop", "endturn", "eos", "eostoken", "stopsequence", "stopstring", "complete", "completed", "finished"}
WHOLE |= {"done", "end", "normal", "success"}
CUT = {"length", "maxtokens", "maxtoken", "maxlength", "maxoutputtokens", "maxcompletiontokens", "tokenlimit"}
CUT |= {"modellength", "incomplete", "modelcontextwindowexceeded", "contextlengthexceeded"}
FAILED = {"failed", "cancelled", "canceled", "abort", "aborted"}
# In a word that holds one of these, whatever else it says: "content_filter: PROHIBITED_CONTENT".
REFUSED = re.compile(
    "contentfilter|contentpolicy|safety|recitation|refus|block|prohibited|spii|moderat|guardrail|sensitive|toxic|language"
)
# Tags that models think between. A model may be asked to answer in <reasoning>: that is its answer.
TAGS = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<seed:think>", "</seed:think>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)  # fmt: skip
REASONING = ("reasoning_content", "reasoning", "thinking")  # beside the content
THINKING_PARTS = ("thinking", "reasoning", "redacted_thinking", "thought", "reasoning_text", "summary_text")


class End(Enum):
    """How an answer ended."""

    WHOLE = "whole"
    CUT = "cut"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Said(NamedTuple):
    """What a chat completion says.

    Args:
        text: of the answer, or of the refusal, without reasoning.
        end: how it ended.
        reason: the server's word for that, or what it says of an error.
        reasoned: whether there was reasoning beside the text.
    """

    text: str
    end: End
    reason: str = ""
    reasoned: bool = False


def document_of(body: bytes) -> Any:
    """The JSON document in a body; None if there is none. A wrong byte in it does not make the rest unreadable."""
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        try:
            return json.loads(body.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    except (ValueError, RecursionError):
        return None


def no_completion(body: bytes) -> str | None:
    """Why a body with status 200 is no chat completion at all, so that nothing in it was paid for: what it is instead.
    None if it is one, also if it cannot be read to the end.
    """
    if not body.strip():
        return "an empty body"
    document = document_of(body)
    if isinstance(document, dict):
        if is_one(document) or _blocked(document) or document.get("usage") or read_usage(document):
            return None
        words = words_of(document)
        return f"an error: {words}" if words else "no chat completion"
    text = body[:10_000].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith(("{", "data:", "event:")) and document is None:
        return None  # cut off, or a stream of chunks: the model has written it
    if text.startswith("<"):
        title = page_title(text)
        return f"a web page: {title}" if title else "a web page"
    return "no chat completion"


def read_said(document: Any) -> Said | None:
    """What the first answer in a response says, whatever its form; None where there is none to read."""
    if not isinstance(document, dict):
        return None
    choice = choice_of(document)
    if choice is None:
        blocked = _blocked(document)
        return None if not blocked else Said("", End.REFUSED, blocked)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message.get("content", choice.get("text"))
    text, thought = (content, False) if isinstance(content, str) else _joined(content)
    if text is None:
        return None
    reasoning = next((r for name in REASONING if isinstance(r := message.get(name), str)), "")
    if reasoning.strip() and text.startswith(reasoning):
        text = text[len(reasoning) :].strip() or text  # some say the same in both places
    text, closed, tagged = without_reasoning(text)
    end, reason = _end(choice, document)
    refusal = message.get("refusal") or _refusal_part(content)
    if isinstance(refusal, str) and refusal:
        return Said(text or refusal.strip(), End.REFUSED, refusal)
    if end is End.WHOLE and not closed and text:
        end, reason = End.FAILED, "its reasoning does not end"
    return Said(text, end, reason, bool(reasoning.strip()) or thought or tagged)


def without_reasoning(text: str) -> tuple[str, bool, bool]:
    """A text without what the model thought before it.

    Returns:
        The text; whether all reasoning in it ends; whether there was any.
    """
    closed, found = True, False
    for opening, closing in TAGS:
        if closing not in text and opening not in text:
            continue
        found = True
        text = re.sub(re.escape(opening) + ".*?" + re.escape(closing), "", text, flags=re.DOTALL)
        text = text.rpartition(closing)[2]  # servers take the first tag for a part of the prompt
        text, unclosed, _ = text.partition(opening)
        closed = closed and not unclosed
    return text.strip(), closed, found


def _joined(content: Any) -> tuple[str | None, bool]:
    """The text parts of a content, and whether there was reasoning among them; no text where it is of another form."""
    if content is None:
        return "", False
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return None, False
    texts: list[str] = []
    thought = False
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and (part.get("type") in THINKING_PARTS or part.get("thought") is True):
            thought = True
        elif isinstance(part, dict) and isinstance(text := part.get("text"), str):
            texts.append(text)
    return "".join(texts), thought


def _refusal_part(content: Any) -> str:
    parts = content if isinstance(content, list) else []
    said = (part.get("refusal") for part in parts if isinstance(part, dict))
    return next((refusal for refusal in said if isinstance(refusal, str)), "")


def _end(choice: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[End, str]:
    for place in (choice, document):
        if error := place.get("error"):
            return End.FAILED, words_of(error) or "an error"
    reason = choice.get("finish_reason") or choice.get("stop_reason") or choice.get("finishReason")
    if reason is None or reason == "":
        return End.WHOLE, ""  # many servers of their own give none
    return end_of(str(reason)), str(reason)


@functools.lru_cache(256)
def end_of(reason: str) -> End:
    """What a finish reason means, in any provider's spelling."""
    word = re.sub("[^a-z]", "", reason.lower()).removeprefix("finishreason") or "finishreason"
    if word in WHOLE:
        return End.WHOLE
    if word in CUT:
        return End.CUT
    if REFUSED.search(word):
        return End.REFUSED
    return End.FAILED if "error" in word or word in FAILED else End.UNKNOWN


def _blocked(document: Mapping[str, Any]) -> str:
    """By what a prompt was refused that has no choice at all; "" if by nothing that is known."""
    feedback = document.get("promptFeedback") or document.get("prompt_feedback")
    if isinstance(feedback, dict):
        return str(feedback.get("blockReason") or feedback.get("block_reason") or "")
    results = document.get("prompt_filter_results")
    return "content_filter" if results and '"filtered": true' in json.dumps(results) else ""
