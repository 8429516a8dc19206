"""Prices, tokens and what a dry run says: nothing is sent, and no estimate of the most is too low."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.jobs import KEY, prompts

from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError
from kar_aug.generate import Prices, cost, estimate, generate
from kar_aug.generate.cost import Price, estimated_tokens, most_tokens, token_counter
from kar_aug.testing import ChatServer


def test_a_price_is_by_million_tokens_less_for_cached_ones_and_for_waiting() -> None:
    price = Price(prompt=2.0, completion=8.0, cached=0.5)
    assert price.of(1_000_000, 500_000) == pytest.approx(6.0)
    assert price.of(1_000_000, 0, cached_tokens=400_000) == pytest.approx(1.4)
    for tier in ("flex", "batch"):
        assert price.of(1_000_000, 500_000, tier=tier) == pytest.approx(3.0)
    for tier in ("", "default", "auto"):
        assert price.of(1_000_000, 0, tier=tier) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini", "gpt-4o-mini-latest"])
def test_a_snapshot_has_the_price_of_its_model(name: str) -> None:
    assert Prices().of(name) == Prices().of("gpt-4o-mini") is not None


def test_a_model_that_is_not_in_the_table_has_no_price() -> None:
    assert Prices().of("llama3.2") is None and Prices().of("gpt-4o-mini-tts") is None and Prices().of("") is None


def test_the_users_table_goes_over_that_of_kar_aug(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        '\ufeffdate = "mine"\n[models]\n"gpt-4o" = { prompt = 1, completion = 2, discount = 0.25 }\n', encoding="utf-8"
    )
    prices = Prices(path)
    assert prices.of("gpt-4o") == Price(1.0, 2.0, 1.0, 0.25) and prices.of("gpt-4o-mini") == Prices().of("gpt-4o-mini")
    assert prices.date == "mine"


@pytest.mark.parametrize(
    "row",
    ["1", "{}", "{ prompt = 1 }", '{ prompt = "a", completion = 1 }', "{ prompt = -1, completion = 1 }",
     "{ prompt = nan, completion = 1 }", "{ prompt = 1, completion = inf }",
     "{ prompt = 1, completion = 1, discount = 2 }"],
)  # fmt: skip
def test_a_price_that_is_none_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "prices.toml").write_text(f'[models]\n"my-model" = {row}\n')
    with pytest.raises(ConfigError, match=r"prices\.toml: the price of 'my-model' must"):
        Prices(tmp_path / "prices.toml")


@pytest.mark.parametrize("content", [b"[models", b"\xff", None])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "prices.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"prices\.toml cannot be read as a table of prices"):
        Prices(tmp_path / "prices.toml")


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_the_most_is_never_less_than_a_token_a_byte(contents: list[str]) -> None:
    """No tokenizer of bytes makes more tokens than there are bytes; frames of messages come to it."""
    messages = [{"role": "user", "content": content} for content in contents]
    size = sum(len(content.encode()) for content in contents)
    assert most_tokens(messages) >= size + 4 * len(messages) + 3
    assert 0 < estimated_tokens(messages) <= most_tokens(messages)


@pytest.mark.parametrize(
    "text", ["A film of 1996. " * 20, "千と千尋の神隠し" * 20, "🎬" * 50, "\x00\x01" * 50, " \n" * 50]
)
def test_the_most_is_never_less_than_what_tiktoken_counts(text: str) -> None:
    count, how = token_counter("gpt-4o-mini")
    if not how.startswith("counted"):
        pytest.skip(how)
    messages = [{"role": "user", "content": text}]
    assert count(messages) <= most_tokens(messages)


def test_how_tokens_were_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the tokenizer of llama3.2 is not known" in token_counter("llama3.2")[1]

    def offline(name: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr("tiktoken.encoding_for_model", offline)
    count, how = token_counter("gpt-4o-mini")
    assert how == "estimated from characters: the tokenizer's tables could not be fetched" and count is estimated_tokens


def test_a_network_that_hangs_does_not_hold_up_a_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    released = threading.Event()
    monkeypatch.setattr(cost, "_TABLES_SECONDS", 0.1)
    monkeypatch.setattr("tiktoken.encoding_for_model", lambda name: released.wait(20))
    try:
        assert token_counter("gpt-4o-mini")[0] is estimated_tokens
    finally:
        released.set()


def test_a_dry_run_counts_what_is_missing_prices_it_and_sends_nothing(
    chat_server: ChatServer, cache: TextCache, tmp_path: Path
) -> None:
    (tmp_path / "prices.toml").write_text('[models]\n"test-model" = { prompt = 1.0, completion = 2.0 }\n')
    prices = Prices(tmp_path / "prices.toml")
    model = LanguageModel("test-model", chat_server.base_url, max_tokens=100)
    first = estimate(prompts(10), cache, model, prices=prices)
    assert (first.questions, first.found.cached, first.found.total) == (10, 0, 10)
    assert first.prompt_tokens == sum(estimated_tokens(prompt.messages) for prompt in prompts(10))
    assert first.most_completion_tokens == 1000 and first.likely_completion_tokens is None
    assert first.cost() == pytest.approx((first.prompt_tokens + 2000) / 1e6) and first.cost(likely=True) is None
    assert first.cost(tier="batch") == pytest.approx((first.prompt_tokens + 2000) / 2e6)
    assert chat_server.requests == [] and cache.counts()["ok"] == 0

    generate(prompts(6), cache, model, key=KEY)
    second = estimate([*prompts(10), *prompts(10)], cache, model, prices=prices)
    assert (second.questions, second.found.cached) == (4, 16)
    assert second.likely_completion_tokens == 12, "three a prompt, by the answers so far"
    assert (second.found.new, second.found.unchanged) == (8, 12)
    assert len(chat_server.requests) == 6
