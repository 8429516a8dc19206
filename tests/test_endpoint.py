"""Embeddings endpoints as they are: small batches, rate limits, and bodies that hold no vector of a text."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kar_aug._helpers.servers import waits
from kar_aug.cache import Answer, Claims, Knowledge, Link, TextCache, VectorStore, answer_key
from kar_aug.cli import main
from kar_aug.config import EncodeConfig
from kar_aug.encode import encode, load_encoder
from kar_aug.encode.encoders import endpoint
from kar_aug.errors import ConfigError, EncodingError
from kar_aug.generate import Prices
from kar_aug.generate.cost import Price, most_tokens
from kar_aug.pipeline.bill import LedgerBill
from kar_aug.testing.embeddings import EmbeddingServer, embeddings, hashed


def texts(count: int) -> list[Knowledge]:
    return [Knowledge("item", f"i{n}", f"text {n}", "k", "m", "v", None) for n in range(count)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "_PAUSES", (0.01, 0.05))


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


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, "429: You exceeded your quota"),
        (400, {"message": "Your credit balance is too low"}, "400: Your credit balance is too low"),
    ],
)
def test_an_account_that_can_pay_nothing_is_not_waited_for(status: int, error: Any, said: str) -> None:
    with EmbeddingServer(lambda server, request, number: (status, {}, json.dumps({"error": error}).encode())) as server:
        with pytest.raises(EncodingError, match=said):
            load_encoder("openai:m", base_url=server.base_url)
        assert len(server.requests) == 1


def test_an_address_with_a_query_sends_it_with_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Azure(EmbeddingServer):
        def reply(self, request: Any) -> Any:
            seen.append((request.route, request.query, request.headers.get("api-key")))
            return super().reply(replace(request, route="POST /embeddings"))

    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with Azure() as server:
        base_url = server.base_url.removesuffix("/v1") + "/openai/deployments/d?api-version=2024-10-21"
        assert load_encoder("openai:m", base_url=base_url).dimension == 8
    assert seen == [("POST /openai/deployments/d/embeddings", {"api-version": ["2024-10-21"]}, "secret")]


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


# What it costs


def charging(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    """A token for four bytes, as providers charge."""
    status, headers, body = hashed(server, request, number)
    tokens = sum(len(text.encode()) // 4 for text in request["input"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return status, dict(headers), json.dumps({**json.loads(body), "usage": usage}).encode()


def charged(server: EmbeddingServer) -> float:
    """US dollars for all requests, at $1000 a million tokens."""
    return sum(len(text.encode()) // 4 for request in server.requests for text in request["input"]) / 1000


@pytest.fixture
def project(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty items with knowledge, and a price of the embeddings that are made of it, eight at once."""
    shutil.copytree(own_tables, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(endpoint, "_BATCH", 8)
    Path("prices.toml").write_text('[models]\n"m" = { prompt = 1000, completion = 0 }\n')
    with TextCache(".kar/answers.sqlite") as cache:
        for i in range(40):
            messages = [{"role": "user", "content": f"Movie {i}?"}]
            key = answer_key("chat", messages, {})
            cache.put(Answer(key, "ok", f"Film {i} is a comedy.", "chat", messages), [Link("item", i, key, "v1")])
    return tmp_path / "project"


def run(command: str, base_url: str = "http://127.0.0.1:9/v1", limit: str = "", prices: str = "prices.toml") -> Result:
    """Run a command, with these settings."""
    others = Path("kar.toml").read_text().partition("[generate]")[0]
    encode = f'[encode]\nencoder = "openai:m"\nbase_url = "{base_url}"\n{limit}\n'
    Path("kar.toml").write_text(f'{others}[generate]\nprices = "{prices}"\n{encode}')
    return CliRunner().invoke(main, command.split())


def test_max_cost_holds_over_all_runs_and_a_larger_one_goes_on(project: Path) -> None:
    with EmbeddingServer(charging) as server:
        for _ in range(2):
            done = run("encode", server.base_url, "max_cost = 0.35")
            assert done.exit_code == 2 and "Stopped at [encode] max_cost 0.35: $0.1" in done.output, done.output
            assert 0.1 < charged(server) <= 0.35 and len(VectorStore.open(".kar/vectors/item").ids) == 24
        assert run("encode", server.base_url, "max_cost = 9").exit_code == 0
        asked = [text for request in server.requests for text in request["input"] if text != "dimension"]
    assert len(asked) == len(set(asked)) == 80, "items' knowledge and metadata, and nothing is paid twice"
    shown = run("cost").output
    assert f"{charged(server):.4f}" in shown and "embeddings" in shown and "$0.0000 unknown" in shown, shown
    assert f"{charged(server):.4f}" in run("cache stats").output


def test_max_cost_needs_the_price_before_anything_is_sent(project: Path) -> None:
    Path("others.toml").write_text('[models]\n"other" = { prompt = 1, completion = 0 }\n')
    with EmbeddingServer() as server:
        done = run("encode", server.base_url, "max_cost = 1", prices="others.toml")
        assert done.exit_code == 2 and "[encode] max_cost needs the price of 'm'" in done.output, done.output
        assert server.requests == []
    with pytest.raises(ConfigError, match=r"\[encode\] max_cost is for encoders that begin with 'openai:'"):
        EncodeConfig(max_cost=5)
    assert all(Prices().of(f"text-embedding-{name}") is not None for name in ("3-small", "3-large", "ada-002"))


@pytest.mark.slow
def test_what_a_killed_process_had_sent_counts_at_its_most(project: Path) -> None:
    is_over = threading.Event()

    def hanging(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 2:
            is_over.wait(60)
        return charging(server, request, number)

    with EmbeddingServer(hanging) as server:
        run("cost", server.base_url)  # writes the settings
        code = "from kar_aug.encode.encoders import endpoint; endpoint._BATCH = 8; from kar_aug.cli import main; main()"
        with subprocess.Popen([sys.executable, "-c", code, "encode"], cwd=project) as process:
            while len(server.requests) < 3:
                assert process.poll() is None
                time.sleep(0.02)
            with TextCache(".kar/answers.sqlite") as cache:
                (row,) = cache.ledger.history()
                assert row.reserved and not row.unknown, "it is on its way"
            process.kill()
        is_over.set()
        with TextCache(".kar/answers.sqlite") as cache:
            (row,) = cache.ledger.history()
        most = most_tokens([{"content": text} for text in server.requests[2]["input"]]) / 1000
        assert (row.reserved, row.unknown, row.requests) == (0.0, pytest.approx(most), 3)
        assert charged(server) <= (row.settled or 0) + most


def unread(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({**json.loads(hashed(server, request, number)[2]), "usage": None}).encode()


def first(status: int) -> Any:
    """The first request after that for the dimension has another end: it is lost if that is 0."""

    def answer(server: Any, request: dict[str, Any], number: int) -> tuple[int, dict[str, str], bytes]:
        if number == 1 and not status:
            raise ConnectionResetError
        return (status, {}, b"{}") if number == 1 else charging(server, request, number)

    return answer


@pytest.mark.parametrize(
    ("behaviour", "requests", "settled", "unknown"),
    [
        (charging, 2, 2, 0),
        (unread, 2, 0, 2),
        (first(0), 3, 2, 1),
        (first(500), 3, 2, 1),
        (first(429), 2, 2, 0),
        (first(413), 3, 3, 0),  # two halves
    ],
)
def test_each_request_counts_by_what_became_of_it(
    cache: TextCache, behaviour: Any, requests: int, settled: int, unknown: int
) -> None:
    with EmbeddingServer(behaviour) as server, Claims(cache) as process:
        bill = LedgerBill(cache, process.owner, "m", Price(1000, 0, 1000))
        load_encoder("openai:m", base_url=server.base_url, bill=bill).encode(["a film of 1996"] * 8)
    (row,) = cache.ledger.history()
    one, eight = (most_tokens([{"content": text}] * n) / 1000 for text, n in (("dimension", 1), ("a film of 1996", 8)))
    lost = {0: 0.0, 1: eight, 2: one + eight}[unknown]
    assert (row.requests, row.knowledge, row.reserved) == (requests, "embeddings", 0.0)
    assert row.unknown == pytest.approx(lost)
    assert row.settled == pytest.approx((2 + 8 * 3) / 1000 if settled else 0.0)
    assert row.settled + row.unknown == pytest.approx(cache.spent("m"))


def test_an_encoder_without_a_price_is_written_down_by_its_tokens(cache: TextCache) -> None:
    with EmbeddingServer(charging) as server, Claims(cache) as process:
        bill = LedgerBill(cache, process.owner, "m", None)
        load_encoder("openai:m", base_url=server.base_url, bill=bill).encode(["a film of 1996"] * 8)
    (row,) = cache.ledger.history()
    assert (row.requests, row.prompt_tokens, row.settled) == (2, 2 + 8 * 3, None)


def test_what_never_left_costs_nothing(cache: TextCache) -> None:
    bill = LedgerBill(cache, "this process", "m", Price(1000, 0, 1000), 1.0)
    with pytest.raises(EncodingError, match="Connection error"):
        load_encoder("openai:m", base_url="http://127.0.0.1:9/v1", bill=bill)
    assert cache.ledger.history() == [] and cache.spent("m") == 0
