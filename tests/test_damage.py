"""What one bad byte, a cut connection, a deleted file or a read-only folder does to a text cache: little, and said."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from support.jobs import KEY, Jobs, prompts

from kar_aug._helpers import database as databases
from kar_aug.cache import Answer, Link, TextCache, VectorStore, answer_key
from kar_aug.cache.texts.cache import DamagedAnswer
from kar_aug.cache.texts.spilt import import_spilt
from kar_aug.cache.texts.tables import VERSION
from kar_aug.cache.texts.verify import verify
from kar_aug.cli import main
from kar_aug.config import LanguageModel
from kar_aug.errors import StoreError
from kar_aug.generate import generate
from kar_aug.testing import ChatServer
from kar_aug.testing.embeddings import EmbeddingServer


def fill(cache: TextCache, count: int) -> None:
    for i in range(count):
        messages = [{"role": "user", "content": f"Movie {i}?"}]
        key = answer_key("m", messages, {})
        answer = Answer(key, "ok", f"Film {i} is a comedy.", "m", messages, parameters={}, raw=b'{"text": "Film"}' * 30)
        cache.put(answer, [Link("item", i, key, "v1")])


def change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


def flip(blob: bytes, place: int) -> bytes:
    return blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :]


# A damaged row


def test_a_flipped_bit_anywhere_in_an_answer_is_found_and_costs_that_answer_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with TextCache(path) as cache:
        fill(cache, 3)
    with sqlite3.connect(path) as database:
        key, text, messages, raw = database.execute("SELECT key, text, messages, raw FROM answers").fetchone()
    database.close()
    draw = random.Random(0)
    kinds = set()
    for column, whole in (("text", text.encode()), ("messages", messages.encode()), ("raw", raw)):
        for _ in range(12):
            damaged = flip(whole, draw.randrange(len(whole)))
            cast = "CAST(? AS TEXT)" if column != "raw" else "?"
            change(path, f"UPDATE answers SET {column} = {cast} WHERE key = ?", damaged, key)
            found: list[DamagedAnswer] = []
            with TextCache(path) as cache:
                whole_ones = [answer.key for answer in cache.answers(found.append)]
                flags = [flag for flag in verify(cache) if flag.kind == "damaged"]
            assert [flag.key for flag in flags] == [key] and flags[0].entity_id is not None
            assert len(whole_ones) == 3 - len(found)
            kinds |= {each.why.split("(")[0].split(":")[0] for each in found}
        change(path, f"UPDATE answers SET {column} = {cast} WHERE key = ?", whole, key)
    assert len(kinds) > 2, kinds
    with TextCache(path) as cache:
        assert [flag for flag in verify(cache) if flag.kind == "damaged"] == []


def test_a_damaged_page_leaves_the_answers_on_others(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with TextCache(path) as cache:
        for i in range(300):
            cache.put(Answer(f"{i:04}", "ok", f"{i} " * 200, "m", [], raw=random.Random(i).randbytes(500)))
    content = bytearray(path.read_bytes())
    place = content.index(b"150 150 150") // 4096 * 4096
    content[place : place + 100] = bytes(100)
    path.write_bytes(content)
    with TextCache(path) as cache:
        found: list[DamagedAnswer] = []
        rest = list(cache.answers(found.append))
        assert len(rest) + len(found) == 300 and 1 <= len(found) < 30 and "0150" in {each.key for each in found}
        assert "malformed" in found[0].why


def test_a_damaged_link_is_found(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with TextCache(path) as cache:
        fill(cache, 3)
    change(path, "UPDATE knowledge SET entity_id = '1x' WHERE entity_id = '1'")
    change(path, "UPDATE knowledge SET key = 'lost' WHERE entity_id = '2'")
    with TextCache(path) as cache:
        flags = {(flag.entity_id, flag.detail) for flag in verify(cache) if flag.kind == "damaged"}
        assert flags == {("1x", "the id is not what was stored"), ("2", "the answer is not there")}
        with pytest.raises(StoreError, match="damaged id of item"):
            list(cache.knowledge("item"))


def test_rows_of_the_format_before_have_no_checksum_and_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with TextCache(path) as cache:
        fill(cache, 3)
    change(path, "ALTER TABLE answers DROP COLUMN checksum")
    change(path, "PRAGMA user_version = 2")
    with TextCache(path) as cache:
        assert len(list(cache.answers())) == 3 and list(verify(cache)) == []
        fill(cache, 4)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(checksum) FROM answers").fetchone() == (4,)
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
    database.close()


@pytest.fixture
def project(own_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(own_tables, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("COLUMNS", "160")
    with TextCache(tmp_path / "project" / ".kar" / "answers.sqlite") as cache:
        fill(cache, 40)
    return tmp_path / "project"


def kar_aug(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_tools_name_a_damaged_answer_do_the_rest_and_exit_with_2(project: Path) -> None:
    path = project / ".kar" / "answers.sqlite"
    with sqlite3.connect(path) as database:
        key, raw = database.execute("SELECT key, raw FROM answers").fetchone()
        database.execute("UPDATE answers SET raw = ? WHERE key = ?", (flip(raw, 20), key))
    database.close()
    done = kar_aug("cache", "export", "answers.parquet")
    assert done.exit_code == 2 and "1 damaged answers are not in answers.parquet" in done.output, done.output
    assert key in done.output and Path("answers.parquet").exists()
    done = kar_aug("audit")
    assert done.exit_code == 2 and "no leak found" in done.output, done.output
    assert "1 stored answers are damaged" in done.output
    done = kar_aug("cache", "verify", "--exclude", "damaged")
    assert done.exit_code == 2 and "damaged: item" in done.output, done.output
    assert "They are taken out; ask for them again: kar-aug generate --retry-failed" in done.output.replace("\n", " ")
    shutil.move(path, "old.sqlite")
    done = kar_aug("cache", "import", "old.sqlite")
    assert done.exit_code == 2 and "1 damaged answers were left out; 39 answers are new" in done.output, done.output


def test_encode_takes_away_what_is_no_knowledge_any_more_and_says_how_much(project: Path) -> None:
    path = project / ".kar" / "answers.sqlite"
    with EmbeddingServer() as server:
        with (project / "kar.toml").open("a") as settings:
            settings.write(f'[encode]\nencoder = "openai:m"\nbase_url = "{server.base_url}"\n')
        assert "items: 40 vectors of 8" in kar_aug("encode").output
        change(path, "UPDATE answers SET status = 'refused' WHERE key IN (SELECT key FROM answers LIMIT 5)")
        change(path, "DELETE FROM knowledge WHERE entity_id = (SELECT max(entity_id) FROM knowledge)")
        with TextCache(path) as cache:
            left = {text.entity_id for text in cache.knowledge("item")}
        done = kar_aug("encode")
        assert f"{40 - len(left)} vectors were taken away, whose texts are no knowledge any more" in done.output
        assert set(VectorStore.open(project / ".kar" / "vectors" / "item").ids) == left
        change(path, "DELETE FROM knowledge")
        done = kar_aug("encode")
        assert done.exit_code == 2 and f"{len(left)} vectors were taken away" in done.output, done.output
        assert len(VectorStore.open(project / ".kar" / "vectors" / "item")) == 0


# A cache that takes nothing


@pytest.mark.slow
def test_connections_to_postgresql_that_are_cut_are_made_again_and_no_answer_is_lost(postgresql: str) -> None:
    ended, cuts, server, name = threading.Event(), 0, ChatServer(latency=0.01), sa.make_url(postgresql).database

    def cut() -> None:
        """All connections, again and again; but a commit may come through in between, however busy the machine is."""
        nonlocal cuts
        answered = -1
        with psycopg.connect(postgresql, autocommit=True) as connection:
            while not ended.wait(0.2):
                if server.answered > answered:
                    answered = server.answered
                    others = "FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
                    cuts += len(connection.execute(f"SELECT pg_terminate_backend(pid) {others}", [name]).fetchall())

    cutter = threading.Thread(target=cut)
    with server, TextCache(postgresql) as cache:
        cutter.start()
        try:
            model = LanguageModel("test-model", server.base_url, concurrency=16, give_up_after=60)
            done = generate(prompts(600), cache, model, key=KEY)
        finally:
            ended.set()
            cutter.join()
        assert cuts >= 5 and (done.asked, done.failed, server.answered) == (600, 0, 600)
        assert {k.entity_id: k.text for k in cache.knowledge("item")} == {i: f"About: entity {i}" for i in range(600)}


def test_what_a_full_database_does_not_take_is_brought_in_later(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with ChatServer() as server, TextCache(path) as cache:
        with cache.database.writing() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        import sqlalchemy as sa

        @sa.event.listens_for(cache.database._engine, "begin")
        def limit(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 12}")

        model = LanguageModel("test-model", server.base_url, concurrency=4, give_up_after=0.5)
        with pytest.raises(StoreError, match=r"full.*kar-aug cache import"):
            generate(prompts(400), cache, model, key=KEY)
    assert server.answered < 400
    with TextCache(path) as cache:
        stored = cache.counts()["ok"]
        spilt = next(tmp_path.glob("*.jsonl"))
        assert import_spilt(spilt, cache).new == server.answered - stored > 0
        answers = list(cache.answers())
        assert len(answers) == server.answered and all(answer.raw and answer.parameters for answer in answers)
        assert {k.entity_id: k.text for k in cache.knowledge("item")} == {
            int(a.text.split()[-1]): a.text for a in answers
        }


def test_a_process_stopped_in_a_commit_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "_BUSY_SECONDS", 0.2)
    path = tmp_path / "answers.sqlite"
    with TextCache(path) as cache:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"database is locked by another process, which may be stopped \(Ctrl-Z\)"):
            fill(cache, 1)
        cache.database.patience = 30
        continued = threading.Timer(1.0, other.close)
        continued.start()
        fill(cache, 1)
        assert cache.counts()["ok"] == 1


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_cache_that_goes_away_in_mid_run_stops_the_job_and_loses_nothing(
    nursery: Jobs, tmp_path: Path, how: str
) -> None:
    path, older = tmp_path / "answers.sqlite", tmp_path / "older.sqlite"
    TextCache(older).close()
    with ChatServer(latency=0.02) as server:
        job = nursery.start(path, server.base_url, 2000)
        while server.answered < 40:
            time.sleep(0.01)
        path.unlink() if how == "deleted" else older.replace(path)
        assert job.wait() == 2 and server.answered < 400, job.output
        assert "was deleted or replaced while it was in use" in job.output and "Traceback" not in job.output
        answered = server.answered
    with TextCache(tmp_path / "new.sqlite") as cache:
        spilt = next(tmp_path.glob("answers-not-stored-*.jsonl"))
        assert 1 <= import_spilt(spilt, cache).new <= answered


# A folder that can only be read


@pytest.fixture
def shared(own_tables: Path) -> Iterator[Path]:
    """A project with answers, in a folder that every user may read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        shutil.copytree(own_tables, folder)
        with TextCache(folder / ".kar" / "answers.sqlite") as cache:
            fill(cache, 40)
        yield folder
        for path in [Path(name), *Path(name).rglob("*")]:
            path.chmod(0o755)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written in the block: as a user who is not root, which may write everything."""
    for path in [folder.parent, *folder.parent.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def test_reading_works_where_nothing_can_be_written(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    def read(out: str) -> None:
        for command in (
            ["cache", "stats"], ["cache", "export", f"{out}/answers.parquet"], ["inspect", "--item", "3"], ["inspect"],
            ["generate", "--status"], ["generate", "--dry-run"], ["prompts", "--item", "3"], ["cache", "verify"],
        ):  # fmt: skip
            done = kar_aug("--config", str(shared / "kar.toml"), *command)
            assert done.exit_code == 0, (command, done.output)

    with tempfile.TemporaryDirectory() as out:
        Path(out).chmod(0o777)
        read(out)  # with all that is imported on the way, which another user may not read
        Path(out, "answers.parquet").unlink()
        with read_only(shared):
            read(out)
            cache = TextCache(shared / ".kar" / "answers.sqlite")
            with cache, pytest.raises(StoreError, match="can only be read"):
                fill(cache, 1)


def test_commands_that_only_read_make_no_cache(own_tables: Path, tmp_path: Path) -> None:
    shutil.copytree(own_tables, tmp_path / "project", ignore=shutil.ignore_patterns(".kar"))
    for command in (["prompts"], ["cache", "stats"], ["generate", "--dry-run"], ["generate", "--status"]):
        done = kar_aug("--config", str(tmp_path / "project" / "kar.toml"), *command)
        assert done.exit_code == 0, done.output
    assert not (tmp_path / "project" / ".kar").exists()


def test_a_damaged_answer_that_does_not_fit_stops_no_job(tmp_path: Path) -> None:
    """Its body is needed to ask for another. Nor does a failure whose id is lost."""
    path = tmp_path / "answers.sqlite"
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}
    asked = [replace(prompt, schema=schema) for prompt in prompts(3)]
    with ChatServer() as server, TextCache(path) as cache:
        settings = LanguageModel(model="m", base_url=server.base_url)
        assert generate(asked[:2], cache, settings, key=KEY).failed == 2
        change(path, "UPDATE answers SET raw = x'78da00'")
        change(path, "UPDATE failures SET entity_id = '{'")
        assert {failure.entity_id for failure in cache.failures()} == {None}
        done = generate(asked, cache, settings, key=KEY)
        assert (done.skipped, done.failed) == (2, 1)


def test_a_spilt_answer_settles_what_its_job_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not paid for once more; the last line of a job that was killed costs nothing but itself."""
    put = TextCache.put_within

    def full(self: TextCache, connection: Any, answers: Any, owner: str = "") -> None:
        if answers:
            raise StoreError("The disk is full.", passing=True)

    with ChatServer() as server, TextCache(tmp_path / "answers.sqlite") as cache:
        settings = LanguageModel(
            base_url=server.base_url, give_up_after=0.2, model="gpt-4o-mini", served_model="gpt-4o-mini"
        )
        monkeypatch.setattr(TextCache, "put_within", full)
        with pytest.raises(StoreError, match="not-stored"):
            generate(prompts(8), cache, settings, key=KEY)
        monkeypatch.setattr(TextCache, "put_within", put)
        reserved, spilt = cache.spent(), next(tmp_path.glob("*.jsonl"))
        lines = spilt.read_bytes()
        for torn in (lines[: len(lines) // 2 - 9], b'{"kar_aug_answer": 1, "links": []}'):
            with spilt.open("ab") as file:
                file.write(torn + b"\n")
        for _ in range(2):
            with pytest.raises(StoreError, match=r"line \d+: this is no answer"):
                import_spilt(spilt, cache)
        counted = cache.counts()["ok"]
        assert counted == lines.count(b"\n") > 0
        rows = cache.ledger.history()
        assert sum(row.requests for row in rows) == counted and sum(row.settled or 0 for row in rows) == cache.spent()
        assert 0 < cache.spent() < reserved / 3
