from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from kar_aug.cache import Knowledge, VectorStore
from kar_aug.cache.vectors.reduction import fit_pca, project
from kar_aug.encode import MINILM, SentenceTransformerEncoder, Texts, encode
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncodingError, match="empty' cannot be loaded"):
        SentenceTransformerEncoder(str(tmp_path / "empty"))
    with pytest.raises(EncodingError, match="no-such/model"):
        SentenceTransformerEncoder("no-such/model")


def test_a_text_that_comes_often_is_encoded_once(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    store = encode(knowledge({i: f"one of {i % 3}" for i in range(50)}), tmp_path / "store", encoder)
    assert sorted(encoder.seen) == ["one of 0", "one of 1", "one of 2"] and len(store) == 50
    np.testing.assert_array_equal(store.gather([4]), CountingEncoder().encode(["one of 1"]))


def test_vectors_whose_texts_are_gone_are_taken_away_where_that_is_wanted(tmp_path: Path) -> None:
    taken: list[int] = []
    encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder())
    fewer = {id: text for id, text in TEXTS.items() if id % 3}
    assert len(encode(knowledge(fewer), tmp_path / "store", CountingEncoder())) == 600
    store = encode(knowledge({**fewer, 900: "new"}), tmp_path / "store", CountingEncoder(), on_taken=taken.append)
    assert taken == [200] and set(store.ids) == {*fewer, 900} and store.verify()
    encode(knowledge(fewer), tmp_path / "store", CountingEncoder(), on_taken=taken.append)
    assert taken == [200, 1]


def test_texts_that_can_be_read_again_are_not_held_in_memory(tmp_path: Path) -> None:
    held: list[int] = []

    def read() -> Iterator[Knowledge]:
        for count, text in enumerate(knowledge(TEXTS), start=1):
            held.append(count)
            yield text

    assert len(encode(Texts(read), tmp_path / "store", CountingEncoder())) == 600
    assert len(held) == 1200, "once to see what there is, once to encode"


def test_a_pca_is_fitted_once_and_kept(tmp_path: Path) -> None:
    first = encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder(), pca=3)
    assert (first.spec.dimension, first.spec.reduction) == (3, "pca from 8")
    again = CountingEncoder()
    more = {**TEXTS, 700: "quite another text, later", 3: "changed"}
    store = encode(knowledge(more), tmp_path / "store", again, pca=3)
    assert sorted(again.seen) == ["changed", "quite another text, later"]
    assert store.projection is not None and first.projection is not None
    np.testing.assert_array_equal(store.projection, first.projection)
    full = CountingEncoder().encode([TEXTS[5]])
    expected = (full - store.projection[0]) @ store.projection[1:].T
    np.testing.assert_allclose(store.gather([5]), expected, rtol=2e-3)
    store.verify()
    with pytest.raises(StoreError, match="reduction 'pca from 8', not ''"):
        encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder())


def test_a_pca_keeps_what_varies_most() -> None:
    random = np.random.default_rng(0)
    plane = random.normal(size=(200, 2)) @ random.normal(size=(2, 6)) + 5
    matrix = fit_pca(plane, 2)
    back = project(plane, matrix) @ matrix[1:] + matrix[0]
    np.testing.assert_allclose(back, plane, atol=1e-4)
    with pytest.raises(ValueError, match="below the number of vectors"):
        fit_pca(plane[:2], 2)


def test_the_first_numbers_alone_have_length_one_again(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    encoder.normalized = True  # type: ignore[attr-defined]
    store = encode(knowledge(TEXTS), tmp_path / "store", encoder, truncate_dim=4, dtype="float32")
    assert store.spec.reduction == "truncated from 8"
    np.testing.assert_allclose(np.linalg.norm(store.vectors, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("options", [{"pca": 8}, {"truncate_dim": 0}, {"pca": 2, "truncate_dim": 2}])
def test_a_reduction_that_does_not_fit_is_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"truncate_dim|pca"):
        encode(knowledge(TEXTS), tmp_path / "store", CountingEncoder(), **options)  # type: ignore[arg-type]


def test_a_vector_that_is_not_finite_is_an_error_that_names_the_encoder(tmp_path: Path) -> None:
    class Broken(CountingEncoder):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode(texts) * np.nan

    with pytest.raises(EncodingError, match=r"counting@1: .*the vector of 1 holds NaN"):
        encode(knowledge({1: "a"}), tmp_path / "store", Broken())


@pytest.mark.slow
def test_killed_it_encodes_only_what_is_missing(tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[2])
from test_encode import TEXTS, CountingEncoder, knowledge
from kar_aug.encode import encode
class Slow(CountingEncoder):
    def encode(self, texts):
        print(len(texts), flush=True)
        return super().encode(texts)
encode(knowledge({i: str(i) for i in range(20_000)}), sys.argv[1], Slow())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(Path(__file__).parent)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    for _ in range(5):
        job.stdout.readline()
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    kept = len(VectorStore.open(tmp_path / "store"))
    assert 4 * 256 <= kept < 20_000
    rest = CountingEncoder()
    store = encode(knowledge({i: str(i) for i in range(20_000)}), tmp_path / "store", rest)
    assert len(store) == 20_000 and len(rest.seen) == 20_000 - kept and store.verify() > 0
