"""Embeddings endpoints as they are: small batches, rate limits, and bodies that hold no vector of a text."""

from __future__ import annotations

import base64
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kar_aug.cache import Knowledge
from kar_aug.config import EncodeConfig
from kar_aug.encode import encode, load_encoder
from kar_aug.encode.encoders import endpoint
from kar_aug.errors import ConfigError, EncodingError
from kar_aug.testing.embeddings import EmbeddingServer, embeddings, hashed


def texts(count: int) -> list[Knowledge]:
    return [Knowledge("item", f"i{n}", f"text {n}", "k", "m", "v", None) for n in range(count)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_PAUSES", (0.01, 0.05))


@pytest.mark.parametrize("status", [413, 422, 400])
def test_what_a_server_takes_at_once_is_found_out_and_remembered(tmp_path: Path, status: int) -> None:
    def small(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if len(request["input"]) > 10:
            return status, {}, b'{"error": "batch size 64 > maximum allowed batch size 10"}'
        return hashed(server, request, number)  # type: ignore[return-value]

    with EmbeddingServer(small) as server:
        store = encode(texts(150), tmp_path / "s", load_encoder("openai:m", base_url=server.base_url))
        sizes = [len(request["input"]) for request in server.requests[1:]]
    assert sizes == [64, 32, 16, *[8] * 18, 6] and len(store) == 150


BAD = {
    "null": (lambda data: data[6].update(embedding=None), "its vector is null"),
    "empty": (lambda data: data[6].update(embedding=[]), r"its vector is \[\]"),
    "words": (lambda data: data[6].update(embedding="none at all"), "its vector is none at all"),
    "longer": (lambda data: data[6]["embedding"].append(1.0), "its vector has 9 numbers, others have 8"),
    "twice": (lambda data: data[7].update(index=6), r"two vectors of one text \(index 6\)"),
    "beyond": (lambda data: data[6].update(index=99), "no text number 99 among 20"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_vector_of_a_text_is_said_with_its_id(tmp_path: Path, kind: str) -> None:
    spoil, message = BAD[kind]

    def spoilt(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = hashed(server, request, number)
        document = json.loads(body)
        document["data"].sort(key=lambda each: each["index"])
        if len(document["data"]) > 1:
            spoil(document["data"])
        return status, dict(headers), json.dumps(document).encode()

    with EmbeddingServer(spoilt) as server:
        encoder = load_encoder("openai:m", base_url=server.base_url)
        with pytest.raises(EncodingError, match=f"item 'i6': .*{message}") as error:
            encode(texts(20), tmp_path / "s", encoder)
    assert error.value.entity_id == "i6" and error.value.position == 6


def test_vectors_packed_or_without_an_index_are_read(tmp_path: Path) -> None:
    def packed(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        rows = [[float(len(text)), 1.0] for text in request["input"]]
        data: list[dict[str, Any]] = [{"embedding": row} for row in rows]
        if request["model"] == "packed":
            data = [{"embedding": base64.b64encode(np.asarray(row, "<f4")).decode()} for row in rows]
        return 200, {}, json.dumps({"data": data}).encode()

    with EmbeddingServer(packed) as server:
        for model in ("plain", "packed"):
            found = load_encoder(f"openai:{model}", base_url=server.base_url).encode(["a", "bb", "ccc"])
            assert found.tolist() == [[1, 1], [2, 1], [3, 1]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Sign in</html>", r"what is no JSON: '<html>Sign in"),
        (b"", "what is no JSON: nothing"),
        (b"[" * 100_000, "what is no JSON"),
        (b'{"error": {"message": "no such model"}}', "what holds no vectors: no such model"),
        (b"[1, 2]", r"what holds no vectors: \[1, 2\]"),
        (embeddings([]), "gave 0 embeddings of 1 texts"),
    ],
)
def test_a_body_that_holds_no_vectors_is_told(body: bytes, message: str) -> None:
    server = EmbeddingServer(lambda server, request, number: (200, {}, body))
    with server, pytest.raises(EncodingError, match=message):
        load_encoder("openai:m", base_url=server.base_url)


def test_vectors_of_zeros_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def zeros(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, embeddings([[0.0, 0.0] if text == "text 3" else [1.0, 2.0] for text in request["input"]])

    with EmbeddingServer(zeros) as server, caplog.at_level(logging.WARNING):
        encode(texts(9), tmp_path / "s", load_encoder("openai:m", base_url=server.base_url))
    assert "1 vectors are all zeros, and say nothing. The first is that of item 'i3'" in caplog.text


def test_a_server_is_waited_for_as_it_asks_and_given_up_in_the_end() -> None:
    def busy(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if request["model"] == "never" or number == 0:
            return 429, {"Retry-After": "0.3" if request["model"] == "soon" else "90"}, b"{}"
        return hashed(server, request, number)  # type: ignore[return-value]

    with EmbeddingServer(busy) as server:
        started = time.monotonic()
        assert load_encoder("openai:soon", base_url=server.base_url).dimension == 8
        assert 0.3 <= time.monotonic() - started < 10
        with pytest.raises(EncodingError, match=r"answered 429.*beyond \[encode\] give_up_after = 5"):
            load_encoder("openai:never", base_url=server.base_url, give_up_after=5)
    with pytest.raises(EncodingError, match="Connection error"):
        load_encoder("openai:m", base_url="http://127.0.0.1:9/v1")


def test_no_more_requests_and_tokens_are_sent_than_a_minute_may_have() -> None:
    with EmbeddingServer() as server:
        for limits in ({"rpm": 600}, {"tpm": 60 * 64 * 10}):
            encoder = load_encoder("openai:m", base_url=server.base_url, **limits)
            started = time.monotonic()
            encoder.encode(["ab"] * (64 * 6))
            assert time.monotonic() - started >= 0.5 - 0.01
    with pytest.raises(ConfigError, match=r"\[encode\] rpm is for encoders that begin with 'openai:'"):
        EncodeConfig(rpm=5)
    EncodeConfig(encoder="openai:m", rpm=5, tpm=100, give_up_after=3)
