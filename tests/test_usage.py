"""What a server says it charges for is read in every spelling; what cannot be read is not taken for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from kar_aug.generate.usage import Usage, read_usage

PLAIN = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"usage": PLAIN}, Usage(50, 20)),
        ({"usage": {"prompt_tokens": 50.0, "completion_tokens": "20"}}, Usage(50, 20)),
        ({"usage": {"prompt_tokens": "50.0", "completion_tokens": 20}}, Usage(50, 20)),
        ({"usage": PLAIN | {"total_tokens": 5070}}, Usage(50, 5020)),  # thinking, beside the completion
        ({"usage": PLAIN | {"total_tokens": 10}}, Usage(50, 20)),
        ({"usage": {"prompt_tokens": 50, "total_tokens": 70}}, Usage(50, 20)),
        ({"usage": PLAIN | {"prompt_tokens_details": {"cached_tokens": 40}}}, Usage(50, 20, 40)),
        ({"usage": PLAIN | {"prompt_tokens_details": {"cached_tokens": 99}}}, Usage(50, 20, 50)),
        ({"usage": {"input_tokens": 50, "output_tokens": 20}}, Usage(50, 20)),
        (
            {"usage": {"input_tokens": 50, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 8}}},
            Usage(50, 20, 8),
        ),
        ({"usage": {"input_tokens": 5, "cache_read_input_tokens": 45, "output_tokens": 20}}, Usage(50, 20, 45)),
        ({"usage": {"promptTokens": 50, "completionTokens": 20}}, Usage(50, 20)),
        (
            {"usageMetadata": {"promptTokenCount": 50, "candidatesTokenCount": 20, "totalTokenCount": 100}},
            Usage(50, 50),
        ),
        ({"prompt_eval_count": 50, "eval_count": 20}, Usage(50, 20)),
        (
            {"usage": {"billed_units": {"input_tokens": 50, "output_tokens": 20}, "tokens": {"input_tokens": 99}}},
            Usage(50, 20),
        ),
        ({"usage": PLAIN | {"completion_tokens_details": {"reasoning_tokens": 15}}}, Usage(50, 20)),
        (
            {"usage": {"prompt_tokens": 50, "completion_tokens": 2, "output_tokens_details": {"reasoning_tokens": 90}}},
            Usage(50, 92),
        ),
        ({"usageMetadata": {"promptTokenCount": 50, "candidatesTokenCount": 2, "thoughtsTokenCount": 5}}, Usage(50, 7)),
        (
            {"usage": PLAIN | {"prompt_tokens_details": {"cached_tokens": 40}, "cache_read_input_tokens": 40}},
            Usage(50, 20, 40),
        ),
    ],
)  # fmt: skip
def test_tokens_are_understood_in_every_spelling(said: dict[str, Any], read: Usage) -> None:
    assert read_usage(said) == read


@pytest.mark.parametrize("usage", [None, [], {}, "50", {"total_tokens": 70}])
def test_what_is_not_there_is_unknown(usage: Any) -> None:
    assert read_usage({"usage": usage}) is None and read_usage({}) is None


@pytest.mark.parametrize("count", [None, 0, -20, 20.5, "many", "nan", float("nan"), float("inf"), True, 10**30, [20]])
def test_a_count_that_is_none_is_unknown_and_not_nothing(count: Any) -> None:
    assert read_usage({"usage": {"prompt_tokens": count, "completion_tokens": 20}}) is None
    assert read_usage({"usage": {"prompt_tokens": 50, "completion_tokens": count}}) is None


def test_an_answer_without_words_may_have_no_tokens() -> None:
    said = {"usage": {"prompt_tokens": 50, "completion_tokens": 0, "total_tokens": 50}}
    assert read_usage(said, empty=True) == Usage(50, 0) and read_usage(said) is None
