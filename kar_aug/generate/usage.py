"""What a server says it charges for: the tokens of a response, whatever it calls them.

    prompt       prompt_tokens, input_tokens, promptTokens, prompt_token_count, promptTokenCount, prompt_eval_count
    completion   completion_tokens, output_tokens, completionTokens, candidates_token_count, candidatesTokenCount,
                 eval_count
    both         total_tokens, totalTokens, total_token_count, totalTokenCount
    of the first, from a prefix cache: cached_tokens in prompt_tokens_details or input_tokens_details;
                 cache_read_input_tokens and cache_creation_input_tokens, which input_tokens does not hold, are added,
                 unless prompt_tokens_details say that they are in it (LiteLLM)
    of thinking  reasoning_tokens in completion_tokens_details or output_tokens_details, thoughtsTokenCount

in `usage`, `usageMetadata`, `usage_metadata`, there in `billed_units`, or beside the answer. A count may be written as
7, 7.0 or "7". Thinking is charged as completion, and not every server counts it there: completion is at least what is
left of the total; where there is more thinking than completion, it comes on top of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

PLACES = ("usage", "usageMetadata", "usage_metadata")
BILLED = "billed_units"  # in one of these: of Cohere
PROMPT = (
    "prompt_tokens", "input_tokens", "promptTokens", "prompt_token_count", "promptTokenCount", "prompt_eval_count",
)  # fmt: skip
COMPLETION = (
    "completion_tokens", "output_tokens", "completionTokens", "candidates_token_count", "candidatesTokenCount",
    "eval_count",
)  # fmt: skip
TOTAL = ("total_tokens", "totalTokens", "total_token_count", "totalTokenCount")
DETAILS = ("prompt_tokens_details", "input_tokens_details")
CACHED = ("cached_tokens",)
THINKING_DETAILS = ("completion_tokens_details", "output_tokens_details")
THINKING = ("reasoning_tokens",)
THOUGHTS = ("thoughtsTokenCount", "thoughts_token_count")  # which are never among the candidates' tokens
READ, MADE = "cache_read_input_tokens", "cache_creation_input_tokens"
BESIDE = (READ, MADE)
_MOST = 2**31  # what a database's column can hold


class Usage(NamedTuple):
    """Tokens that are charged; `cached` are those of the prompt that the server had in its prefix cache."""

    prompt: int
    completion: int
    cached: int = 0


def read_usage(document: Mapping[str, Any], *, empty: bool = False) -> Usage | None:
    """The tokens that a response was charged by; None if it says nothing that can be: counts that are missing, broken
    or 0.

    Args:
        empty: whether the answer holds nothing: then 0 tokens of it can be.
    """
    said = _said(document)
    prompt, completion, total = (_count(said, names) for names in (PROMPT, COMPLETION, TOTAL))
    if not prompt:
        return None
    cached = _count(_first(said, DETAILS), CACHED) or 0
    beside = _count(said, (READ,)) or 0
    if "prompt_tokens" in said and 0 < beside <= cached:
        beside = 0
    else:
        prompt += beside + (_count(said, (MADE,)) or 0)
    none_said = completion == 0
    completion = (completion or 0) + (_count(said, THOUGHTS) or 0)
    thinking = _count(_first(said, THINKING_DETAILS), THINKING) or 0
    billed = max(completion + (thinking if thinking > completion else 0), (total or 0) - prompt)
    if billed == 0 and not (empty and none_said):
        return None
    return Usage(prompt, billed, min(prompt, beside + cached))


def _first(said: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    return next((found for name in names if isinstance(found := said.get(name), Mapping)), {})


def read_prompt_tokens(document: Any) -> int | None:
    """The tokens that a response was charged by which completes nothing, as one of embeddings; None as above."""
    if not isinstance(document, Mapping):
        return None
    said = _said(document)
    return max(_count(said, PROMPT) or 0, _count(said, TOTAL) or 0) or None


def _said(document: Mapping[str, Any]) -> Mapping[str, Any]:
    said = next((found for place in PLACES if isinstance(found := document.get(place), Mapping)), document)
    return found if isinstance(found := said.get(BILLED), Mapping) else said


def _count(said: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    value = next((said[name] for name in names if said.get(name) is not None), None)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
        return None
    return int(value) if value == int(value) else None
