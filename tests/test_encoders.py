"""Each kind of encoder gives vectors of the texts it was asked about, long ones included."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kar_aug.config import encoder_name
from kar_aug.encode.encoders import load_encoder
from kar_aug.encode.encoders.locate import MINILM, locate
from kar_aug.encode.encoders.long_texts import encode_in_pieces, split, words_as_tokens
from kar_aug.errors import ConfigError, EncodingError

CRIME, MURDER, CARTOON = (
    "A dark crime thriller about a killer",
    "A murder mystery with a detective",
    "A cheerful cartoon for children",
)
LONG = (CRIME + ". ") * 60 + "At the end everybody dances on a ship."


def cosine(left: Any, right: Any) -> Any:
    return (left * right).sum(-1) / np.linalg.norm(left, axis=-1) / np.linalg.norm(right, axis=-1)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("a/b", "sentence-transformers:a/b"),
        ("openvino:a/b", "openvino:a/b"),
        ("openai:text-embedding-3-small", "openai:text-embedding-3-small"),
        ("C:\\models\\mine", "sentence-transformers:C:\\models\\mine"),
    ],
)
def test_one_string_says_kind_and_name(encoder: str, expected: str) -> None:
    assert encoder_name(encoder) == expected


@pytest.mark.parametrize("encoder", ["glove:x", "openvino:"])
def test_a_string_that_names_no_encoder_is_refused_with_the_kinds(encoder: str) -> None:
    with pytest.raises(ConfigError, match=r"is unknown.*model2vec:NAME, openai:NAME"):
        load_encoder(encoder)


@given(st.text("ab \n", max_size=300), st.integers(1, 40))
def test_pieces_are_the_text_and_fit_the_window(text: str, window: int) -> None:
    starts = words_as_tokens(1)([text])[0]
    pieces = split(text, starts, window)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(size <= window for _, size in pieces) and sum(size for _, size in pieces) == max(1, len(starts))


def test_pieces_are_averaged_by_their_tokens() -> None:
    def letters(texts: list[str]) -> Any:
        return np.asarray([[text.count("a"), text.count("b")] for text in texts], float)

    vectors, count = encode_in_pieces(["aaabb", "ab"], words_as_tokens(1), 3, letters, normalized=False)
    assert count == 1
    np.testing.assert_allclose(vectors, [[(3 * 3 + 0 * 2) / 5, (0 * 3 + 2 * 2) / 5], [1, 1]], rtol=1e-6)
    vectors, _ = encode_in_pieces(["aaabb"], words_as_tokens(1), 3, letters, normalized=True)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


@pytest.fixture(scope="module")
def plain() -> Any:
    return load_encoder(MINILM)


def test_the_end_of_a_long_text_counts_unless_it_is_cut(plain: Any) -> None:
    cut = load_encoder(MINILM, long_texts="cut")
    other_end = LONG.replace("dances on a ship", "weeps in the rain")
    assert (plain.long_texts, cut.long_texts) == ("averaged", "cut")
    left, right = cut.encode([LONG, other_end])
    np.testing.assert_allclose(left, right, atol=1e-6)
    before = plain.split
    left, right = plain.encode([LONG, other_end])
    assert np.abs(left - right).max() > 1e-3 and plain.split == before + 2
    np.testing.assert_allclose(plain.encode([CRIME]), cut.encode([CRIME]), atol=1e-6)


def test_openvino_gives_the_same_vectors(plain: Any) -> None:
    if find_spec("openvino") is None:  # not imported here, which would report it
        pytest.skip("openvino is not installed")
    encoder = load_encoder(f"openvino:{MINILM}")
    texts = [CRIME, LONG, CARTOON, "", MURDER]
    assert cosine(encoder.encode(texts), plain.encode(texts)).min() > 0.999
    assert encoder.name.startswith(plain.name + "+openvino-") and encoder.dimension == 384
    assert "openvino_telemetry" not in sys.modules, "nothing is reported over the network"


def test_any_hugging_face_model_is_mean_pooled(plain: Any) -> None:
    folder = locate(MINILM)[0]
    encoder: Any = load_encoder(f"transformers:{folder}")
    assert encoder.pooling == "mean" and encoder.dimension == 384
    # all-MiniLM-L6-v2 is mean pooling and a normalisation: the same direction, whatever shares a batch
    texts = [CRIME, CARTOON, "a", MURDER]
    np.testing.assert_allclose(cosine(encoder.encode(texts), plain.encode(texts)), 1, atol=1e-5)


def test_a_decoder_without_a_padding_token_is_mean_pooled(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<end>", "a", "dark", "crime", "film"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<end>").save_pretrained(tmp_path)
    GPT2Model(GPT2Config(vocab_size=5, n_positions=16, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    encoder = load_encoder(f"transformers:{tmp_path}")
    alone, both = encoder.encode(["dark film"]), encoder.encode(["a dark crime film a dark", "dark film"])
    np.testing.assert_allclose(both[1], alone[0], atol=1e-5)
    assert np.isfinite(encoder.encode(["a dark crime film " * 20])).all()


def test_a_static_model_reads_texts_whole(tmp_path: Path) -> None:
    model2vec = pytest.importorskip("model2vec")
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "crime": 1, "cartoon": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.asarray([[0, 0], [1, 0], [0, 1]], "float32")
    model2vec.StaticModel(vectors, tokenizer, config={"normalize": False}).save_pretrained(tmp_path)
    encoder = load_encoder(f"model2vec:{tmp_path}")
    found = encoder.encode(["crime", "crime " * 900 + "cartoon " * 900])
    np.testing.assert_allclose(found, [[1, 0], [0.5, 0.5]], atol=1e-3)
    with pytest.raises(EncodingError, match="cannot be loaded"):
        load_encoder(f"model2vec:{tmp_path.parent / 'none'}")


class EmbeddingServer(BaseHTTPRequestHandler):
    """Two numbers a text: its length, and one. The first request is told to come back."""

    requests: list[Any]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(body)
        status, answer = 200, {}
        if len(self.requests) == 1:
            status = 503
        elif body["model"] == "forbidden":
            status, answer = 401, {"error": {"message": f"bad key {self.headers['Authorization']}"}}
        else:
            data = [{"index": i, "embedding": [len(text), 1.0]} for i, text in enumerate(body["input"])]
            answer = {"object": "list", "model": body["model"], "data": data[::-1]}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[Any]]]:
    handler = type("Handler", (EmbeddingServer,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", handler.requests  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_asked_again_and_answers_are_put_in_order(
    endpoint: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base_url, requests = endpoint
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key")
    encoder = load_encoder("openai:small", base_url=base_url)
    assert encoder.dimension == 2 and encoder.name == f"small@{base_url}"
    texts = ["x" * (1 + i) for i in range(100)] + [""]
    assert encoder.encode(texts)[:, 0].tolist() == [*range(1, 101), 1]
    assert [len(request["input"]) for request in requests[2:]] == [64, 37]
    with pytest.raises(EncodingError, match=r"gave no embeddings by 'forbidden'.*401") as error:
        load_encoder("openai:forbidden", base_url=base_url)
    assert "sk-planted-key" not in str(error.value)


def test_an_endpoint_without_a_key_says_what_to_set() -> None:
    with pytest.raises(EncodingError, match="Set OPENAI_API_KEY"):
        load_encoder("openai:small")


def test_a_folder_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1" * 100)
    first = locate(str(tmp_path))[1]
    (tmp_path / "model.safetensors").write_bytes(b"1" * 99 + b"2")
    assert locate(str(tmp_path))[1] != first
