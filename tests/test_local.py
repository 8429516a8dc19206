"""The local model is a real server: it is reached through the openai client, as any other."""

from __future__ import annotations

from pathlib import Path

from kar_aug import generate as stage
from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.generate import local
from kar_aug.prompts import Prompt


def test_the_local_model_answers_in_words_and_counts_its_tokens(tmp_path: Path) -> None:
    prompts = [Prompt("item", i, ({"role": "user", "content": f"Name {i} colours."},), "v1") for i in range(2, 6)]
    with local.serve(slots=2) as base_url, TextCache(tmp_path / "answers.sqlite") as cache:
        model = LanguageModel(model=local.MODEL, base_url=base_url, max_tokens=12, concurrency=2)
        done = stage.generate(prompts, cache, model, key="local")
        assert done.asked == 4 and 4 <= done.completion_tokens <= 48
        texts = [k.text for k in cache.knowledge("item", accept=("ok", "truncated"))]
    assert len(texts) == 4 and all(any(c.isalpha() for c in text) for text in texts)
