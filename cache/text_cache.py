"""Answers of the language model, stored by the content of the question, so that nothing is paid for twice.

Two tables: `answers` by key (what was asked, and came back) and `knowledge` by entity (which key is whose). The
same question for two entities is one answer; a changed prompt is a new key, and the old answer stays.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kar_aug.errors import StoreError

SCHEMA_VERSION = 1
_APPLICATION = 0x6B617231  # "kar1": tells our files from other programs' databases
STATUSES = ("ok", "truncated", "refused", "empty")

_SCHEMA = """
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
"""


def answer_key(model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> str:
    """32 hex digits of SHA-256 over everything that changes the answer: model, messages, sampling parameters."""
    question = json.dumps([model, list(messages), dict(parameters)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """What came back for one question. `status` is one of `STATUSES`; only "ok" is knowledge unless asked for."""

    key: str
    status: str
    text: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    created: str = ""


@dataclass(frozen=True)
class Knowledge:
    """The text about one entity, and where it comes from. `as_of` is the time of the last event its prompt saw."""

    source: str
    entity_id: int | str
    text: str
    key: str
    model: str
    prompt_version: str
    as_of: str | None


class TextCache:
    """A SQLite file of answers. Safe to kill at any moment: a stored answer is committed, or it is not there.

    Args:
        path: the file; made if it is not there.

    Raises:
        StoreError: The file is not a cache, is damaged, or was written by a newer version of kar-aug.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(f"{self.path.parent} is a file, so that no text cache can be in it.") from None
        with self._errors():
            # Autocommit: each statement is its own transaction unless `_transaction` groups them.
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._check_format()
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")

    def _check_format(self) -> None:
        """Make the tables in an empty file; refuse a file of another program or of a newer version."""
        with self._transaction():  # of several processes that start together, one makes the tables
            version, application = (
                self._db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("user_version", "application_id")
            )
            empty = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if empty and version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
            elif application != _APPLICATION:
                raise StoreError(f"{self.path} is a database of another program, not a text cache. Name another file.")
            elif version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path} was written by a newer kar-aug (format {version}, this one reads {SCHEMA_VERSION}). "
                    "Upgrade kar-aug: pip install -U kar-aug"
                )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as ours: the file cannot be written just now, or it is no text cache."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"{self.path} cannot be read or written ({error}). Nothing stored before is lost."
            ) from None
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path} is not a usable text cache ({error}). Move it away to start a new one, "
                "or restore it from a copy; do not delete it while answers in it are paid for."
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing, committed when it ends."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._errors():
            return self._db.execute(statement, values).fetchall()

    def __contains__(self, key: str) -> bool:
        return bool(self._query("SELECT 1 FROM answers WHERE key = ?", [key]))

    def get(self, key: str) -> Answer | None:
        """The answer to a question, whatever its status; None if it was never answered."""
        columns = "key, status, text, model, messages, prompt_tokens, completion_tokens, seconds, created"
        rows = self._query(f"SELECT {columns} FROM answers WHERE key = ?", [key])
        if not rows:
            return None
        key, status, text, model, messages, *measured = rows[0]
        return Answer(key, status, text, model, json.loads(messages), *measured)

    def put(self, answer: Answer) -> None:
        """Store an answer. It is committed, and its failure forgotten, when this returns."""
        if answer.status not in STATUSES:
            raise ValueError(f"`status` must be one of {STATUSES}. Received: {answer.status!r}")
        messages = json.dumps(list(answer.messages))
        with self._errors(), self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [answer.key, answer.status, _storable(answer.text), answer.model, messages, answer.prompt_tokens,
                 answer.completion_tokens, answer.seconds, answer.created or _now()],
            )  # fmt: skip
            self._db.execute("DELETE FROM failures WHERE key = ?", [answer.key])

    def fail(self, key: str, reason: str, attempts: int) -> None:
        """Note that a question could not be answered, and why."""
        self._query("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", [key, _storable(reason), attempts, _now()])

    def failures(self) -> list[tuple[str, str, int]]:
        """(key, reason, attempts) of every question without an answer."""
        return self._query("SELECT key, reason, attempts FROM failures ORDER BY created")

    def link(self, rows: Iterable[tuple[str, int | str, str, str, str | None]]) -> None:
        """Say whose knowledge an answer is: rows of (source, entity_id, key, prompt_version, as_of)."""
        now = _now()
        with self._errors(), self._transaction():
            self._db.executemany(
                "INSERT INTO knowledge VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (source, entity_id) DO UPDATE SET "
                "key = excluded.key, prompt_version = excluded.prompt_version, as_of = excluded.as_of, "
                "updated = excluded.updated WHERE (key, prompt_version, as_of) IS NOT "
                "(excluded.key, excluded.prompt_version, excluded.as_of)",
                ([source, json.dumps(id), key, version, as_of, now] for source, id, key, version, as_of in rows),
            )

    def knowledge(self, source: str, *, accept: Sequence[str] = ("ok",)) -> Iterator[Knowledge]:
        """The knowledge of a source ("user", "item"), shorter ids first; answers of other statuses are left out."""
        marks = ", ".join("?" * len(accept))
        rows = self._query(
            "SELECT entity_id, text, answers.key, model, prompt_version, as_of FROM knowledge JOIN answers USING (key) "
            f"WHERE source = ? AND status IN ({marks}) ORDER BY length(entity_id), entity_id",
            [source, *accept],
        )
        for entity_id, *rest in rows:
            yield Knowledge(source, json.loads(entity_id), *rest)

    def of_entity(self, source: str, entity_id: int | str) -> Answer | None:
        """The answer about one entity, whatever its status."""
        rows = self._query(
            "SELECT key FROM knowledge WHERE source = ? AND entity_id = ?", [source, json.dumps(entity_id)]
        )
        return self.get(rows[0][0]) if rows else None

    def counts(self) -> dict[str, int]:
        """Answers by status, `failed` among them, and the tokens the server reported."""
        counts = dict.fromkeys(STATUSES, 0)
        counts.update(self._query("SELECT status, count(*) FROM answers GROUP BY status"))
        counts["failed"] = self._query("SELECT count(*) FROM failures")[0][0]
        tokens = self._query("SELECT total(prompt_tokens), total(completion_tokens) FROM answers")[0]
        counts["prompt_tokens"], counts["completion_tokens"] = map(int, tokens)
        return counts

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _storable(text: str) -> str:
    """`text` without half characters, which UTF-8 cannot hold: an answer may end in the middle of an emoji."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
