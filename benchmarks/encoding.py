"""Documents a second of `kar_aug.encode`, store included, beside plain `SentenceTransformer.encode` of the same texts.

    kar-aug demo && python benchmarks/encoding.py                      # the demonstration's own answers
    python benchmarks/encoding.py --texts items.parquet --docs 256    # any Parquet file with a column `text`
    python benchmarks/encoding.py --also model2vec:FOLDER             # any further encoder

Every round encodes the same texts with each arm in turn; medians over the rounds. The cosine is to the plain vectors,
and only over texts that fit the window: plain cuts the others. "averaged" arms also encode what plain cuts off, so that
they do more; the ratio is of texts all the same. The last arm gets every text four times, as when many users have one
history: different texts are encoded once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import kar_aug
from kar_aug.cache import Knowledge, TextCache
from kar_aug.cli.progress import table
from kar_aug.encode import MINILM, encode, load_encoder
from kar_aug.encode.encoders.sentence_transformer import load_sentence_transformer, window_of


def read_texts(path: Path, count: int) -> list[str]:
    if path.suffix == ".parquet":
        import pandas as pd

        texts = pd.read_parquet(path)["text"].tolist()
    else:
        with TextCache(path) as cache:
            texts = [text.text for text in cache.knowledge("item", accept=("ok", "truncated"))]
    return list(dict.fromkeys(texts))[:count]


def through_a_store(encoder: Any, texts: list[str]) -> Any:
    knowledge = [Knowledge("item", i, text, str(i), "benchmark", "v1", None) for i, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        return np.asarray(encode(knowledge, folder, encoder, dtype="float32").gather(range(len(texts))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=Path(".kar/demo/answers.sqlite"))
    parser.add_argument("--docs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--also", action="append", default=[])
    given = parser.parse_args()
    texts = read_texts(given.texts, given.docs)
    plain, _ = load_sentence_transformer(given.model)
    lengths = np.asarray([len(ids) for ids in plain.tokenizer(texts, verbose=False)["input_ids"]])
    fits = lengths <= (window_of(plain) or lengths.max()) + plain.tokenizer.num_special_tokens_to_add()

    arms: dict[str, Callable[[], Any]] = {
        "SentenceTransformer.encode": lambda: plain.encode(texts, show_progress_bar=False)
    }
    for kind, prefix in (("torch", ""), ("OpenVINO", "openvino:")):
        for long_texts in ("cut", "average"):
            encoder = load_encoder(prefix + given.model, long_texts=long_texts)
            name = f"kar-aug, {kind}, long texts {'cut' if long_texts == 'cut' else 'averaged'}"
            arms[name] = partial(through_a_store, encoder, texts)
    for also in given.also:
        arms[f"kar-aug, {also.split(':')[0]}"] = partial(through_a_store, load_encoder(also), texts)
    cut = load_encoder(given.model, long_texts="cut")
    arms["kar-aug, torch, each text four times"] = partial(through_a_store, cut, texts * 4)

    seconds: dict[str, list[float]] = {name: [] for name in arms}
    vectors: dict[str, Any] = {}
    for _ in range(given.rounds):
        for name, run in arms.items():
            begun = time.perf_counter()
            vectors[name] = run()
            seconds[name].append(time.perf_counter() - begun)
    reference = vectors["SentenceTransformer.encode"]
    rows = []
    for name in arms:
        count = len(vectors[name])
        speed = count / float(np.median(seconds[name]))
        ratio = float(np.median(np.asarray(seconds["SentenceTransformer.encode"]) / np.asarray(seconds[name])))
        same = vectors[name].shape[1] == reference.shape[1] and "static" not in name and "model2vec" not in name
        cosine = (vectors[name][: len(texts)] * reference).sum(1)[fits] if same else None
        agree = f"{cosine.mean():.5f} / {cosine.min():.5f}" if cosine is not None else ""
        rows.append((name, f"{speed:.1f}", f"{ratio * count / len(texts):.2f}", agree))
    cores = len(os.sched_getaffinity(0))
    table(
        f"{len(texts)} texts, {lengths.mean():.0f} tokens on average, {(~fits).mean():.0%} beyond the window; "
        f"{given.model.split('/')[-1]}, kar-aug {kar_aug.__version__}, {cores} cores",
        ("how", "docs/s", "to plain", "cosine mean / least"),
        rows,
    )


if __name__ == "__main__":
    main()
