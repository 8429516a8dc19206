"""What others wrote (answers, titles, servers) drives no terminal, fills no memory, leads nowhere; passwords stay."""

from __future__ import annotations

import base64
import gzip
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.jobs import prompts

from kar_aug._helpers.files import write_atomic
from kar_aug._helpers.foreign import harmless
from kar_aug._helpers.servers.addresses import client_address, masked
from kar_aug.cache import Answer, Link, StoreSpec, TextCache, VectorStore
from kar_aug.cache.vectors import files
from kar_aug.cli import main
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, KarError, StoreError
from kar_aug.generate import generate
from kar_aug.testing import ChatServer, completion

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202egnp.\ud83d"


def test_what_drives_a_terminal_is_seen_and_does_not() -> None:
    assert (
        harmless("Fargo\t(1996)\r\n\u4f60\u597d \U0001f600 e\u0301") == "Fargo\t(1996)\n\u4f60\u597d \U0001f600 e\u0301"
    )
    shown = harmless(ESCAPES)
    assert shown == "\\x1b]0;owned\\x07\\x1b[2J\\u202egnp.\\ud83d" and shown.isprintable()


def test_an_answer_with_escapes_is_shown_without(
    own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    settings = ["--config", str(own_tables / "kar.toml")]
    toml = (own_tables / "kar.toml").read_text()
    folder = tmp_path / "project"
    folder.mkdir()
    for table in filter(Path.is_file, own_tables.iterdir()):
        (folder / table.name).write_bytes(table.read_bytes())
    (folder / "kar.toml").write_text(f'workdir = "{tmp_path / "work"}"\n{toml}')
    with TextCache(tmp_path / "work" / "answers.sqlite") as cache:
        cache.put(Answer("k", "ok", ESCAPES, "m", []), [Link("item", 3, "k", "v1")])
        cache.fail("f", ESCAPES, 1, link=Link("item", 4, "f", "v1"))
    settings = ["--config", str(folder / "kar.toml")]
    for command in (["inspect", "--item", "3"], ["generate", "--status", "--only", "item"]):
        done = CliRunner().invoke(main, [*settings, *command])
        assert done.exit_code == 0 and "\\x1b]0;owned" in done.output, done.output
        assert not {"\x1b", "\x07", "\u202e"} & set(done.output)


@pytest.mark.parametrize("category", ["$5_$10", "Under $10 # $20", "\x1b[2J\x00", "<b>&"])
def test_a_category_is_drawn_as_it_is_and_the_picture_is_well_formed(tmp_path: Path, category: str) -> None:
    from kar_aug.inspect.vector_map import vector_map
    from kar_aug.report.plots import svg

    with VectorStore.writer(tmp_path / "s", StoreSpec("e", 4)) as writer:
        writer.append(list(range(9)), ["k"] * 9, np.random.default_rng(0).normal(size=(9, 4)))
    figure = vector_map(VectorStore.open(tmp_path / "s"), dict.fromkeys(range(9), category))
    figure.axes[0].set_xlabel(category)
    picture = svg(figure)
    xml.etree.ElementTree.fromstring(picture)
    assert harmless(category).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in picture


# Secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:hunter2@host:80/v1: no answer", "http://user:***@host:80/v1: no answer"),
        ("postgresql://u:p@ss@w/rd@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u@h/db?password=hunter2&x=1", "postgresql://u@h/db?password=***&x=1"),
        ("redis://h/0?prefix=kar&key=hunter2#x", "redis://h/0?prefix=kar&key=***#x"),
        ("https://h/b?X-Amz-Signature=hunter2&sv=1&SIG=hunter2", "https://h/b?X-Amz-Signature=***&sv=1&SIG=***"),
        ("https://h/o?api-version=2024&api-key=hunter2", "https://h/o?api-version=2024&api-key=***"),
        ("https://h/o?monkey=1&access_token=hunter2", "https://h/o?monkey=1&access_token=***"),
        ("http://localhost:8000/v1 and me@home.org", "http://localhost:8000/v1 and me@home.org"),
        ("http://localhost:8000/v1/@x", "http://localhost:8000/v1/@x"),
    ],
)
def test_passwords_of_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_password_in_the_address_is_sent_as_basic_authentication_and_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with ChatServer() as server, TextCache(path) as cache:
        address = server.base_url.replace("://", "://user:hunter2%2FPASS@")
        assert generate(prompts(3), cache, LanguageModel("m", address), key="k").asked == 3
        login = base64.b64decode(server.headers[0]["authorization"].removeprefix("Basic "))
        assert login == b"user:hunter2/PASS"
        server.behaviour = lambda server, request, number: (401, {}, b"{}")
        with pytest.raises(KarError) as error:
            generate(prompts(9), cache, LanguageModel("m", address + "?api-key=hunter2"), key="k")
        assert "hunter2" not in str(error.value) and "127.0.0.1" in str(error.value)
    for file in tmp_path.iterdir():
        assert b"hunter2" not in file.read_bytes()
    assert client_address("http://host/v1") == {"base_url": "http://host/v1"}


@pytest.mark.parametrize("address", ["ftp://u:hunter2@h", "http://u:hunter2/x@h/v1", "http://[u:hunter2@h"])
def test_an_address_that_is_none_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(ConfigError, match=r"\[generate\] base_url") as error:
        LanguageModel(base_url=address)
    assert "hunter2" not in str(error.value)


def test_extra_takes_only_what_json_takes() -> None:
    import datetime

    for value in (datetime.date(2024, 1, 1), float("nan"), {"a": [b"x"]}):
        with pytest.raises(ConfigError, match=r"\[generate\] extra must hold what JSON takes"):
            LanguageModel(extra={"when": value})


# Sizes, files and links


def test_a_response_that_inflates_without_end_is_left(cache: TextCache) -> None:
    bomb = gzip.compress(bytes(200_000_000), 1)
    replies: list[tuple[int, dict[str, str], bytes]] = [
        (200, {"Content-Encoding": "gzip"}, bomb),
        (500, {"Content-Encoding": "gzip"}, bomb),
        (200, {}, completion("A comedy.")),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with ChatServer(lambda server, request, number: replies[min(number, 2)]) as server:
        done = generate(prompts(1), cache, LanguageModel("test-model", server.base_url, timeout=30), key="k")
    assert done.asked == 1 and len(server.requests) == 3 and time.monotonic() - started < 25
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000, "kilobytes"


def test_files_get_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "report.html", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_lock_that_is_a_link_empties_nobodys_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="symbolic link"), VectorStore.writer(tmp_path / "store", StoreSpec("e", 2)):
        pass
    assert (tmp_path / "precious").read_text() == "x"


def test_a_manifest_names_no_files_elsewhere(tmp_path: Path) -> None:
    for name in ("store", "elsewhere"):
        with VectorStore.writer(tmp_path / name, StoreSpec("e", 2)) as writer:
            writer.append([1], ["k"], np.ones((1, 2)))
    path = tmp_path / "store" / files.MANIFEST
    document = json.loads(path.read_text())
    document["parts"][0]["name"] = f"../elsewhere/{document['parts'][0]['name']}"
    del document["checksum"]
    path.write_text(json.dumps({**document, "checksum": files._checksum(document)}))
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        VectorStore.open(tmp_path / "store")


@pytest.mark.parametrize("content", ["[" * 100_000, None])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / files.MANIFEST
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(StoreError, match=r"manifest\.json (is damaged|cannot be read)"):
        VectorStore.open(tmp_path)


# Streams, and Ctrl-C


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_130_and_no_traceback_while_it_is_imported(tmp_path: Path) -> None:
    started = time.monotonic()
    refused = [sys.executable, "-m", "kar_aug", "prompts"]  # once all is imported: there is no kar.toml
    assert subprocess.run(refused, check=False, capture_output=True, cwd=tmp_path).returncode == 2
    whole, codes = time.monotonic() - started, []
    for share in (0.15, 0.3, 0.5, 0.7):
        job = subprocess.Popen(refused, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        time.sleep(whole * share)
        job.send_signal(signal.SIGINT)
        _, said = job.communicate()
        assert b"Traceback" not in said and b"Exception" not in said, said
        codes.append(job.returncode)
    assert codes.count(130) >= 3, codes  # on a slow machine the first comes before Python itself listens


@pytest.mark.slow
@pytest.mark.parametrize(("redirect", "encoding"), [(">&-", "utf-8"), ("", "ascii"), (">&- 2>&-", "utf-8")])
def test_closed_and_ascii_streams_work(own_tables: Path, tmp_path: Path, redirect: str, encoding: str) -> None:
    command = f"exec {sys.executable} -m kar_aug --config {own_tables / 'kar.toml'} prompts --item 3 {redirect}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert bool(redirect) != (b"Movie 3" in done.stdout)
