"""What questions cost: tokens, and US dollars by a table of prices that the user can edit."""

from __future__ import annotations

import concurrent.futures
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kar_aug.config import LanguageModel, longest_answer
from kar_aug.errors import ConfigError, GenerationError
from kar_aug.generate.structured import sent

# Providers charge a few tokens for the frame of each message, and of the answer.
_MESSAGE_TOKENS, _REPLY_TOKENS = 4, 3
_TOKEN_BYTES = 3.6  # of the movie scenario's prompts, whose dates and names are short tokens; prose has about four
_TABLES_SECONDS = 15.0  # to fetch a tokenizer's tables
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4}|\d{8}|latest)$")
DISCOUNTED = ("batch", "flex")
PRIORITY = "priority"
TIERS = (*DISCOUNTED, PRIORITY)  # that are charged otherwise than the usual one


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens. `cached` is for prompt tokens that the server had in its prefix cache; `discount`
    the share that the tiers "batch" and "flex" are charged less, `priority` what the tier "priority" is charged in
    times.
    """

    prompt: float
    completion: float
    cached: float
    discount: float = 0.5
    priority: float = 2.0

    def of(self, prompt_tokens: int, completion_tokens: int, *, cached_tokens: int = 0, tier: str = "") -> float:
        """US dollars for one answer. `tier` is "" or one of `TIERS`."""
        full = (
            (prompt_tokens - cached_tokens) * self.prompt
            + cached_tokens * self.cached
            + completion_tokens * self.completion
        ) / 1e6
        if tier in DISCOUNTED:
            return full * (1 - self.discount)
        return full * self.priority if tier == PRIORITY else full


class Prices:
    """The prices that come with kar-aug, and over them those of the user's own file.

    Args:
        path: a TOML file of the same form as kar_aug/generate/prices.toml.

    Raises:
        ConfigError: The file cannot be read, or a price in it is no number.
    """

    def __init__(self, path: Path | None = None) -> None:
        packaged = tomllib.loads(files("kar_aug.generate").joinpath("prices.toml").read_text(encoding="utf-8"))
        self.date: str = packaged["date"]
        self._prices = _parse(packaged, "kar_aug/generate/prices.toml")
        if path is not None:
            try:
                document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"{path} cannot be read as a table of prices: {error}") from None
            self.date = str(document.get("date", "your own"))
            self._prices |= _parse(document, str(path))

    def of(self, model: str) -> Price | None:
        """The price of a model; of "openai/gpt-4o-mini-2024-07-18" that of "gpt-4o-mini". None if it is not known."""
        name = model.rsplit("/", 1)[-1]
        for candidate in (model, name, _SNAPSHOT.sub("", name)):
            if candidate in self._prices:
                return self._prices[candidate]
        return None

    def needed(self, model: str) -> Price:
        """The price of a model whose bill is limited.

        Raises:
            GenerationError: It is not known.
        """
        price = self.of(model)
        if price is None:
            raise GenerationError(
                f"--max-cost needs the price of {model!r}, which is not known. "
                "Write it into a file and name that in kar.toml: [generate] prices = ..."
            )
        return price


def _parse(document: Mapping[str, Any], path: str) -> dict[str, Price]:
    prices = {}
    models = document.get("models", {})
    for model, row in models.items() if isinstance(models, dict) else ():
        try:
            prompt, completion = float(row["prompt"]), float(row["completion"])
            cached, discount = float(row.get("cached", prompt)), float(row.get("discount", 0.5))
            price = Price(prompt, completion, cached, discount, float(row.get("priority", 2.0)))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(
                f"{path}: the price of {model!r} must be written as: "
                f'[models."{model}"] with prompt = 0.15 and completion = 0.60 (US dollars per million tokens)'
            ) from None
        dollars = (price.prompt, price.completion, price.cached, price.priority)
        if not all(0 <= each < math.inf for each in dollars) or not 0 <= price.discount <= 1:
            raise ConfigError(
                f"{path}: the price of {model!r} must be finite and not negative, its discount between 0 and 1."
            )
        prices[model] = price
    return prices


Counter = Callable[[Sequence[Mapping[str, Any]]], int]


def token_counter(model: str) -> tuple[Counter, str]:
    """Counts the prompt tokens of messages, and says how: exactly with tiktoken, or an estimate.

    tiktoken knows OpenAI's models, and fetches a model's tables once.
    """
    try:
        import tiktoken
    except ImportError:
        return estimated_tokens, "estimated from characters: tiktoken is not installed"
    try:
        tiktoken.encoding_name_for_model(model.rsplit("/", 1)[-1])
    except KeyError:
        return estimated_tokens, f"estimated from characters: the tokenizer of {model} is not known"
    executor = concurrent.futures.ThreadPoolExecutor(1)
    try:
        encoding = executor.submit(tiktoken.encoding_for_model, model.rsplit("/", 1)[-1]).result(_TABLES_SECONDS)
    except Exception:  # no network, a proxy's page, a read-only disk: whatever it was, an estimate is left
        return estimated_tokens, "estimated from characters: the tokenizer's tables could not be fetched"
    finally:
        executor.shutdown(wait=False, cancel_futures=True)

    def count(messages: Sequence[Mapping[str, Any]]) -> int:
        texts = (str(message["content"]) for message in messages)
        return _framed(messages, sum(len(encoding.encode(text, disallowed_special=())) for text in texts))

    return count, f"counted with tiktoken ({encoding.name})"


def most_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """More prompt tokens than any tokenizer makes of the messages: one a byte."""
    size = sum(len(str(message["content"]).encode("utf-8", "surrogatepass")) for message in messages)
    return _framed(messages, size) + 2 * _REPLY_TOKENS * len(messages)


def most_sent(messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> int:
    """More prompt tokens than a request has: beside its messages a model reads the schema of the answer, tools and the
    like.
    """
    read = (value for value in sent(parameters).values() if isinstance(value, Mapping | list | tuple | str))
    return most_tokens(messages) + sum(
        len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) for value in read
    )


def asked_tier(model: LanguageModel) -> str:
    """The tier that plain requests ask for, where it costs more than the usual one."""
    return PRIORITY if PRIORITY in (model.service_tier, model.extra.get("service_tier")) else ""


def most_cost(
    price: Price, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], unlimited: int, tier: str = ""
) -> float:
    """US dollars that a request can cost at most, by what is sent.

    Args:
        unlimited: tokens of an answer where the parameters do not limit it.
        tier: that is sure to be charged by, as a batch is, or the dearest that was asked for. A server need not answer
            in the tier that it was asked for.
    """
    longest = longest_answer(parameters)
    return price.of(most_sent(messages, parameters), unlimited if longest is None else longest, tier=tier)


def estimated_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Prompt tokens, roughly. Scripts beyond ASCII take more bytes and more tokens alike."""
    size = sum(len(str(message["content"]).encode("utf-8", "surrogatepass")) for message in messages)
    return _framed(messages, math.ceil(size / _TOKEN_BYTES))


def _framed(messages: Sequence[Mapping[str, Any]], tokens: int) -> int:
    return tokens + _MESSAGE_TOKENS * len(messages) + _REPLY_TOKENS
