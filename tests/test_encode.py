from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kar_aug.cache import Knowledge, VectorStore
from kar_aug.encode import MINILM, SentenceTransformerEncoder, encode
from kar_aug.errors import EncodingError, StoreError


class CountingEncoder:
    """Deterministic vectors from the characters of a text; remembers what it was given."""

    name, dimension = "counting@1", 8

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[str] = []
        self.stop_after = stop_after

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += texts
        return np.asarray([np.bincount([ord(c) % 8 for c in text], minlength=8) for text in texts], "float32")


def knowledge(texts: dict[int, str], version: str = "v1") -> list[Knowledge]:
    return [Knowledge("item", id, text, f"key-{id}", "model", version, None) for id, text in texts.items()]


TEXTS = {i: f"text number {i} " + "x" * (i % 7) for i in range(600)}


def test_each_text_gets_its_own_vector_whatever_the_order(tmp_path: Path) -> None:
    store = encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder())
    expected = CountingEncoder().encode([TEXTS[5], TEXTS[599], TEXTS[0]])
    np.testing.assert_array_equal(store.gather([5, 599, 0]), expected)
    assert len(store) == 600 and store.spec.prompt_versions == ("v1",) and store.spec.language_models == ("model",)


def test_a_second_run_encodes_nothing_and_changes_nothing(tmp_path: Path) -> None:
    first, again = encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder()), CountingEncoder()
    second = encode(knowledge(TEXTS), tmp_path / "store", again)
    assert again.seen == [] and second.fingerprint == first.fingerprint


def test_only_changed_and_new_texts_are_encoded_again(tmp_path: Path) -> None:
    encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder())
    again = CountingEncoder()
    store = encode(knowledge({**TEXTS, 3: "changed", 1000: "new"}), tmp_path / "store", again)
    assert sorted(again.seen) == ["changed", "new"]
    np.testing.assert_array_equal(store.gather([3]), CountingEncoder().encode(["changed"]))


def test_interrupted_it_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder(stop_after=256))
    assert len(VectorStore.open(tmp_path / "store")) == 256
    rest = CountingEncoder()
    assert len(encode(knowledge(TEXTS), tmp_path / "store", rest)) == 600
    assert len(rest.seen) == 344


def test_vectors_of_another_prompt_version_are_not_mixed_in(tmp_path: Path) -> None:
    encode(knowledge({1: "a"}), tmp_path / "store", CountingEncoder())
    with pytest.raises(StoreError, match=r"prompt_versions \('v1',\), not \('v2',\)"):
        encode(knowledge({1: "b"}, "v2"), tmp_path / "store", CountingEncoder())


def test_no_knowledge_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match="Generate it first: kar-aug generate"):
        encode([], tmp_path / "store", CountingEncoder())


def test_the_real_encoder_finds_like_meaning() -> None:
    encoder = SentenceTransformerEncoder()
    assert encoder.name.startswith(MINILM + "@") and encoder.dimension == 384
    crime, murder, cartoon = encoder.encode(
        [
            "A dark crime thriller about a killer",
            "A murder mystery with a detective",
            "A cheerful cartoon for children",
        ]
    )
    assert crime @ murder > crime @ cartoon + 0.1


def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncodingError, match="empty' cannot be loaded"):
        SentenceTransformerEncoder(str(tmp_path / "empty"))
    with pytest.raises(EncodingError, match="no-such/model"):
        SentenceTransformerEncoder("no-such/model")
