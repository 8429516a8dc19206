"""A cache that a team shares: its address, its errors, its passwords."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from support.jobs import KEY, prompts

from kar_aug.cache import Answer, Claims, Link, TextCache, merge
from kar_aug.config import LanguageModel
from kar_aug.errors import ConfigError, StoreError
from kar_aug.generate import Prices, generate
from kar_aug.testing import ChatServer, completion

PASSWORD = "planted-password"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/kar",
        f"postgres://me:{PASSWORD}@127.0.0.1:1/kar",
        f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/kar",
        f"postgresql://127.0.0.1:1/kar?user=me&password={PASSWORD}",
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/kar?connect_timeout=2&nonsense=1",
        f"postgresql://me:{PASSWORD}@no-such-host.invalid/kar",
    ],
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match=r"^postgresql://\S+/kar\S* (cannot be read|is not a usable)") as raised:
        TextCache(url)
    assert PASSWORD not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{PASSWORD}@host:port/kar", f"mysql://me:{PASSWORD}@host/kar", f"postgresq://me:{PASSWORD}@h/k"],
)
def test_an_address_that_is_none_is_refused_without_being_shown_or_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no postgresql:// URL. Write: postgresql://user@host/name") as raised:
        TextCache(url)
    assert PASSWORD not in str(raised.value) and list(tmp_path.iterdir()) == []


def test_a_traceback_of_the_library_shows_no_password() -> None:
    code = "import sys; from kar_aug.cache import TextCache; TextCache(sys.argv[1])"  # which Python 3.13 shows
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/kar"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if PASSWORD in line]
    assert "StoreError: postgresql://me:***@127.0.0.1:1/kar" in done.stderr and lines == []


def test_the_name_of_a_cache_holds_no_password(postgresql: str) -> None:
    with TextCache(postgresql.replace("postgres:@", f"postgres:{PASSWORD}@")) as cache:
        assert PASSWORD not in cache.name and cache.name.startswith("postgresql://postgres:***@/cache")


def test_another_programs_database_is_not_harmed(postgresql: str) -> None:
    with psycopg.connect(postgresql) as connection:
        connection.execute(b"CREATE TABLE answers (id integer)")
    with pytest.raises(StoreError, match="is not a usable text cache"), TextCache(postgresql) as cache:
        cache.put(Answer("k", "ok", "text", "m", []))
    with psycopg.connect(postgresql) as connection:
        assert connection.execute(b"SELECT count(*) FROM answers").fetchone() == (0,)


def test_a_connection_that_was_cut_is_made_anew(postgresql: str) -> None:
    with TextCache(postgresql) as cache:
        cache.put(Answer("k", "ok", "text", "m", []))
        with psycopg.connect(postgresql) as connection:
            connection.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                b"WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert "k" in cache


class LostAcknowledgements:
    """Stands between a client and PostgreSQL; what the server says to a COMMIT never arrives, `count` times."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._socket = f"{parsed.query['host']}/.s.PGSQL.{parsed.port or 5432}"
        self.count = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        here = parsed.difference_update_query(["host"])
        here = here.set(host="127.0.0.1", port=self._listening.getsockname()[1])
        self.url = here.render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._socket)
            threading.Thread(target=self._talk, args=(client, server), daemon=True).start()

    def _talk(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    content = source.recv(65536)
                    if not content:
                        return
                    (server if source is client else client).sendall(content)
                    if source is client and b"COMMIT" in content and self.count:
                        self.count -= 1
                        server.recv(65536)  # it is done, and nobody hears of it
                        return


def test_a_commit_that_nobody_heard_of_is_not_done_again(postgresql: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[models."test-model"]\nprompt = 1000\ncompletion = 2000\n')
    between = LostAcknowledgements(postgresql)
    with ChatServer() as server, TextCache(between.url) as cache:

        def answer(server: ChatServer, request: dict, number: int) -> tuple[int, dict[str, str], bytes]:
            between.count = min(1, number % 3)  # in the commits of two answers of three
            return 200, {}, completion(f"Film {number}.", model=request["model"])

        server.behaviour = answer
        model = LanguageModel("test-model", server.base_url, concurrency=2, max_cost=10.0)
        done = generate(prompts(20), cache, model, key=KEY, prices=Prices(path))
        assert (done.asked, server.answered) == (20, 20)
        (row,) = cache.ledger.history()
        assert (row.requests, row.settled, row.reserved, row.unknown) == (20, pytest.approx(20 * 0.013), 0.0, 0.0)
        assert cache.spent() == pytest.approx(20 * 0.013)
        between.count = 1
        cache.put(Answer("k", "ok", "text", "other", [], 7, 3, cost=0.5))
        assert between.count == 0 and cache.spent("other") == 0.5
    with psycopg.connect(postgresql) as connection:
        (left,) = connection.execute(b"SELECT count(*) FROM commits").fetchone() or (0,)
        assert left <= 8, "those of connections that broke, which are forgotten in a day"


def test_knowledge_comes_in_the_same_order_from_both_databases(postgresql: str, tmp_path: Path) -> None:
    """Encoding is incremental by that order, and the databases sort text by other rules."""
    ids: list[int | str] = [1, 10, 2, "a", "B", "b", "é", "Z", "_", "10", -1]
    orders = []
    for where in (postgresql, tmp_path / "answers.sqlite"):
        with TextCache(where) as cache:
            cache.put(Answer("k", "ok", "text", "m", []), [Link("item", id, "k", "v1") for id in ids])
            orders.append([knowledge.entity_id for knowledge in cache.knowledge("item")])
    assert orders[0] == orders[1] and len(orders[0]) == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize("to_postgresql", [True, False])
def test_shards_are_merged_between_databases(postgresql: str, tmp_path: Path, to_postgresql: bool) -> None:
    addresses: list[Path | str] = [tmp_path / "answers.sqlite", postgresql]
    with ChatServer() as server:
        model = LanguageModel("test-model", server.base_url)
        with TextCache(addresses[not to_postgresql]) as source, TextCache(addresses[to_postgresql]) as target:
            generate(prompts(300), source, model, key=KEY)
            generate(prompts(20), target, model, key=KEY)
            assert merge(source, target).new == 280 and merge(source, target).new == 0
            assert generate(prompts(300), target, model, key=KEY).cached == 300
            assert list(target.answers())[50].raw != b""
        assert server.answered == 320


@pytest.mark.slow
def test_claims_of_many_are_no_deadlock(postgresql: str) -> None:
    """All claim and answer the same questions, each in another order."""
    import random

    keys = [f"{number:032x}" for number in range(64)]
    TextCache(postgresql).close()
    errors: list[Exception] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        try:
            with TextCache(postgresql) as cache, Claims(cache) as claims:
                for _ in range(15):
                    some = draw.sample(keys, 32)
                    claims.claim(some)
                    draw.shuffle(some)
                    cache.put_many(
                        (Answer(key, "ok", str(seed), "m", []), [Link("item", key, key, "v1")]) for key in some
                    )
                    cache.fail(draw.choice(keys), "why", 1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and not any(thread.is_alive() for thread in threads)
