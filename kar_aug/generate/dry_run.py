"""What a job would ask, and cost, without asking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel, longest_answer
from kar_aug.generate.cost import Price, Prices, asked_tier, token_counter
from kar_aug.generate.intake import Survey
from kar_aug.generate.progress import Progress
from kar_aug.prompts import Prompt


@dataclass(frozen=True)
class Estimate:
    """What is to be asked.

    Args:
        found: the prompts by what is known of them.
        questions: requests to be sent; fewer than prompts where equal ones are asked once.
        prompt_tokens: of all requests.
        counted: how prompt tokens were counted.
        most_completion_tokens: if every answer is as long as it may be.
        likely_completion_tokens: by the mean of this model's answers in the cache, None if there are none.
        price: of the model, None if not known; `price_date` is the date of the table.
        tier: that plain requests ask for, where it costs more than the usual one.
    """

    found: Progress
    questions: int
    prompt_tokens: int
    counted: str
    most_completion_tokens: int
    likely_completion_tokens: int | None
    price: Price | None
    price_date: str
    tier: str = ""

    def cost(self, *, tier: str = "", likely: bool = False) -> float | None:
        """US dollars: at most, or as likely as can be said; None where price or likelihood is not known."""
        completion = self.likely_completion_tokens if likely else self.most_completion_tokens
        if self.price is None or completion is None:
            return None
        return self.price.of(self.prompt_tokens, completion, tier=tier or self.tier)


def estimate(
    prompts: Iterable[Prompt],
    cache: TextCache,
    model: LanguageModel,
    *,
    prices: Prices | None = None,
    retry_failed: bool = False,
) -> Estimate:
    """Count what a job with these prompts would ask. Reads the cache, writes and sends nothing."""
    prices = prices or Prices()
    count, counted = token_counter(model.model)
    found = Progress()
    survey = Survey(cache, model, found, retry_failed=retry_failed)
    keys: set[bytes] = set()  # 16 bytes a question: a million of them stay far below a listing of the prompts
    prompt_tokens = 0
    for question in survey.open(prompts):
        key = bytes.fromhex(question.key)
        if key not in keys:
            keys.add(key)
            prompt_tokens += count(question.messages)
    found.cached = found.total - len(keys)
    mean = next((done / n for name, _, n, _, done, _ in cache.usage() if name == model.model and n and done), None)
    return Estimate(
        found,
        len(keys),
        prompt_tokens,
        counted,
        len(keys) * (longest_answer(model.parameters) or model.max_tokens),
        None if mean is None else round(len(keys) * mean),
        prices.of(model.model),
        prices.date,
        asked_tier(model),
    )
