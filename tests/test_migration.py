"""Caches of other versions and on other disks: an old one keeps its answers, a newer one is left alone."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path

import psycopg
import pytest
from support.jobs import KEY, prompts

from kar_aug.cache import TextCache
from kar_aug.cache.texts import database as texts_database
from kar_aug.cache.texts.tables import VERSION
from kar_aug.config import Config, DataConfig, LanguageModel
from kar_aug.errors import StoreError
from kar_aug.generate import generate, question_key
from kar_aug.generate.judging import judge_older
from kar_aug.pipeline.workspace.paths import Paths
from kar_aug.testing import ChatServer

VERSION_3 = Path(__file__).parent / "data" / "answers-format-3.sql"  # with reasoning taken for knowledge
# As the first version made it.
VERSION_1 = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY, status TEXT NOT NULL, text TEXT NOT NULL, model TEXT NOT NULL, messages TEXT NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, created TEXT NOT NULL
);
CREATE TABLE knowledge (
    source TEXT NOT NULL, entity_id TEXT NOT NULL, key TEXT NOT NULL,
    prompt_version TEXT NOT NULL, as_of TEXT, updated TEXT NOT NULL, PRIMARY KEY (source, entity_id)
);
CREATE INDEX knowledge_key ON knowledge (key);
CREATE TABLE failures (
    key TEXT PRIMARY KEY, reason TEXT NOT NULL, attempts INTEGER NOT NULL, created TEXT NOT NULL
);
PRAGMA application_id = 0x6B617231;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
MODEL = LanguageModel("test-model")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A cache of the first version: answers to the first eight of ten prompts, the ninth linked and never answered."""
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_1)
        for prompt in prompts(9):
            key, now = question_key(MODEL, prompt), "2026-01-01T00:00:00+00:00"
            row = (key, "ok", f"About {prompt.entity_id}", "test-model", json.dumps(prompt.messages), 7, 3, 0.5, now)
            if prompt.entity_id != 8:
                database.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            link = ("item", json.dumps(prompt.entity_id), key, "v1", None, now)
            database.execute("INSERT INTO knowledge VALUES (?, ?, ?, ?, ?, ?)", link)
        database.execute("INSERT INTO failures VALUES ('f', 'why', 5, '2026-01-01')")
    database.close()
    return path


def test_a_cache_of_the_first_version_keeps_what_was_paid_for(old: Path, chat_server: ChatServer) -> None:
    for _ in range(2):
        with TextCache(old) as cache:
            assert {k.entity_id: k.text for k in cache.knowledge("item")} == {i: f"About {i}" for i in range(8)}
            assert cache.counts()["prompt_tokens"] == 56 and cache.failures() == []
            answer = cache.get(question_key(MODEL, next(prompts(1))))
            assert answer is not None and (answer.created[:10], answer.seconds) == ("2026-01-01", 0.5)
            assert (answer.parameters, answer.cost, answer.raw, answer.tier) == (None, None, b"", "")
    with TextCache(old) as cache:
        done = generate(prompts(10), cache, LanguageModel("test-model", chat_server.base_url), key=KEY)
        assert (done.asked, done.cached, chat_server.answered) == (2, 8, 2)
        assert (done.new, done.unchanged) == (2, 8)
        assert cache.spent() == 0.0 and cache.usage()[0][2] == 10 and cache.database.check() == []


def test_an_old_cache_ends_with_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    def shape(path: Path) -> dict[str, set[tuple[str, str]]]:
        TextCache(path).close()
        with sqlite3.connect(path) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")]
            assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
            shapes = {name: {row[1:3] for row in database.execute(f"PRAGMA table_info({name})")} for name in names}
            return {
                name: {(column, kind.replace("REAL", "FLOAT")) for column, kind in columns}
                for name, columns in shapes.items()
            }

    assert shape(old) == shape(tmp_path / "new.sqlite")


def test_a_migration_that_is_killed_leaves_the_old_cache(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = texts_database.tables.FROM_VERSION_1
    monkeypatch.setattr(texts_database.tables, "FROM_VERSION_1", (*statements[:4], "SELECT no_such_function()"))
    with pytest.raises(StoreError):
        TextCache(old)
    monkeypatch.undo()
    with TextCache(old) as cache:
        assert len(list(cache.knowledge("item"))) == 8


def test_a_newer_cache_on_either_database_asks_for_an_upgrade_and_stays_as_it_is(where: Path | str) -> None:
    TextCache(where).close()
    if isinstance(where, Path):
        with sqlite3.connect(where) as database:
            database.execute(f"PRAGMA user_version = {VERSION + 1}")
    else:
        with psycopg.connect(where) as connection:
            connection.execute(b"UPDATE kar_aug SET version = %s", (VERSION + 1,))
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"written by a newer kar-aug \(format {VERSION + 1}.*pip install -U"):
            TextCache(where)


MOUNTS = r"""
rootfs / rootfs rw 0 0
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
//server/share /mnt/my\040share cifs rw 0 0
tmpfs /home/local/tmp tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/answers.sqlite", "ext4"),
        ("/home/me/answers.sqlite", "nfs4"),
        ("/home/local/answers.sqlite", "xfs"),
        ("/home/local/../me/answers.sqlite", "nfs4"),
        ("/homework/answers.sqlite", "ext4"),
        ("/mnt/my share/answers.sqlite", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert texts_database.file_system(Path(path), tmp_path / "mounts") == kind
    assert texts_database.file_system(Path(path), tmp_path / "nowhere") == ""


def test_on_a_network_file_system_it_warns_and_works_without_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(texts_database, "file_system", lambda path: "nfs4")
    with caplog.at_level(logging.WARNING), TextCache(tmp_path / "answers.sqlite") as cache, ChatServer() as server:
        assert generate(prompts(30), cache, LanguageModel("m", server.base_url), key=KEY).asked == 30
        assert not {path.suffix for path in tmp_path.iterdir()} & {".sqlite-shm", ".sqlite-wal"}
    assert "is on a network file system (nfs4)" in caplog.text and "postgresql://" in caplog.text


def test_where_no_shared_memory_can_be_had_it_works_all_the_same() -> None:
    """SQLite does not refuse the journal that it cannot have, it keeps another; a database in memory has its own."""
    with TextCache(Path(":memory:")) as cache:
        assert cache.counts()["ok"] == 0


def test_reasoning_that_an_older_version_took_for_knowledge_is_read_again_at_no_cost(
    tmp_path: Path, chat_server: ChatServer
) -> None:
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_3.read_text())
    database.close()
    wanted = {0: "A comedy.", 2: "A drama.", 3: "A plain film."}  # the second has no body; 1 and 4 are all reasoning
    for _ in range(2):
        with TextCache(path) as cache:
            done = generate(prompts(6), cache, LanguageModel("test-model", chat_server.base_url), key=KEY)
            assert {k.entity_id: k.text for k in cache.knowledge("item")} == wanted
            assert (done.asked, done.cached, cache.spent()) == (0, 6, pytest.approx(3.0))
            assert done.no_knowledge == {"empty": 2, "refused": 1}
    with TextCache(path) as cache:
        judge_older(cache, MODEL)
        (own,) = cache.knowledge("user")
        assert own.text == "<think> is a tag.", "which somebody wrote"
        assert judge_older(cache, MODEL) == 0 and cache.read_by_older_rules() == []


def test_a_status_of_another_hand_in_an_older_cache_stays_and_stops_nothing(
    tmp_path: Path, chat_server: ChatServer
) -> None:
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(VERSION_3.read_text())
        database.execute("UPDATE answers SET status = 'curious' WHERE key LIKE '7d6a%'")
    database.close()
    with TextCache(path) as cache:
        judge_older(cache, MODEL)
        assert cache.read_by_older_rules() == [] and cache.counts()["curious"] == 1
        generate(prompts(6), cache, LanguageModel("test-model", chat_server.base_url), key=KEY)
        assert cache.counts()["curious"] == 1


def test_an_older_cache_is_read_again_by_whatever_command_comes_first(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "answers.sqlite") as database:
        database.executescript(VERSION_3.read_text())
    database.close()
    model = LanguageModel("test-model", cache="answers.sqlite")
    with Paths(Config(DataConfig(interactions="log.csv"), generate=model, folder=tmp_path)).open_cache(
        reading=True
    ) as cache:
        assert [k.text for k in cache.knowledge("item")] == ["A comedy.", "A drama.", "A plain film."]
