"""The tables of a text cache.

`answers` holds what was asked and came back, by the question's key; `knowledge` says whose answer it is. Apart from
them: what failed, which process or batch is about to ask what, the batches that run at the server, and what all of it
costs (`ledger`, and the sum of each model in `accounts`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from kar_aug.cache.texts.status import Status

VERSION = 4
metadata = sa.MetaData()
_STATUS = {status.value: status for status in Status}  # a look here takes a tenth of what `Status(word)` does
# The number of those by which bodies are read. Raised whenever one may be read otherwise than before, in a new format
# that makes the index below anew: answers that were read by older rules are read again (`kar_aug.generate.judging`).
RULES = 1
IS_OLDER = f"rules < {RULES}"
LOST = "lost"  # the state of a batch that the server does not know any more


def status_of(word: Any) -> Any:
    """The status that a word is; a word of another hand as it is."""
    return _STATUS.get(word, word)


class _StatusText(sa.TypeDecorator[str]):
    """A status as its word. A word of another hand stays one: it is none of ours, and equal to none of them."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        return status_of(value)


answers = sa.Table(
    "answers",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("status", _StatusText, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("messages", sa.Text, nullable=False),  # JSON
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("seconds", sa.Float),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("parameters", sa.Text),  # JSON; with model and messages, all that the key is made of
    sa.Column("served_model", sa.Text),
    sa.Column("tier", sa.Text),  # "", "flex", "batch" or "priority": what it was charged by
    sa.Column("cost", sa.Float),  # US dollars; NULL where the model's price is not known
    sa.Column("raw", sa.LargeBinary),  # the response as it came, zlib
    sa.Column("checksum", sa.Text),  # of text and raw; NULL in rows of formats 1 and 2
    sa.Column("rules", sa.Integer, nullable=False, server_default=sa.text("0")),  # that status and text are by
)
sa.Index("ix_answers_older", answers.c.key, sqlite_where=sa.text(IS_OLDER), postgresql_where=sa.text(IS_OLDER))
knowledge = sa.Table(
    "knowledge",
    metadata,
    sa.Column("source", sa.Text, key="knowledge", primary_key=True),  # the kind: "item", "item:tags"
    sa.Column("entity_id", sa.Text, primary_key=True),  # JSON, so that 1 and "1" differ
    sa.Column("key", sa.Text, nullable=False, index=True),
    sa.Column("prompt_version", sa.Text, nullable=False),
    sa.Column("as_of", sa.Text),
    sa.Column("updated", sa.Text, nullable=False),
)
failures = sa.Table(
    "failures",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("permanent", sa.Boolean, nullable=False),  # the question itself was rejected: asking again is no use
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("source", sa.Text, key="knowledge"),
    sa.Column("entity_id", sa.Text),
)
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("seen", sa.Float, nullable=False),  # seconds since 1970, by the database's clock
    sa.Column("started", sa.Text),  # with the pid, one process and no other; NULL where that cannot be told
)
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
)
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("marker", sa.Text, primary_key=True),  # our name for it, in its metadata at the server
    sa.Column("base_url", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("input_file", sa.Text),
    sa.Column("batch_id", sa.Text),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
)
batch_requests = sa.Table(
    "batch_requests",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("marker", sa.Text, nullable=False, index=True),
    sa.Column("rounds", sa.Integer, nullable=False),  # how many batches it was in
    sa.Column("question", sa.Text, nullable=False),  # JSON: model, messages, parameters
    sa.Column("links", sa.Text, nullable=False),  # JSON: whose knowledge the answer will be
)
# Money is in billionths of a US dollar, so that sums are exact.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),  # the process, or the batch, that sends the request
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("source", sa.Text, key="knowledge"),
    sa.Column("tier", sa.Text),
    sa.Column("state", sa.Text, nullable=False),  # see `kar_aug.cache.texts.ledger`
    sa.Column("reserved", sa.BigInteger),  # the most that it can cost; NULL where the model's price is not known
    sa.Column("surplus", sa.BigInteger, nullable=False),  # how much of that is because others cost more than they could
    sa.Column("cost", sa.BigInteger),  # NULL until it is over
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
)
IS_OPEN = "state = 'reserved'"
sa.Index(
    "ix_ledger_open", ledger.c.owner, ledger.c.key, sqlite_where=sa.text(IS_OPEN), postgresql_where=sa.text(IS_OPEN)
)
accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("committed", sa.BigInteger, nullable=False),  # the sum of the ledger: cost, or reserved where it is open
    sa.Column("surplus", sa.BigInteger, nullable=False),  # by how much an answer cost more than it could, at most
)

# Transactions of PostgreSQL whose end is not known to have reached who began them: see `Database.committed`.
commits = sa.Table(
    "commits",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("began", sa.Float, nullable=False),  # seconds since 1970, by the database's clock
)

# A cache of format 1 had no failures worth keeping, and linked entities before they were answered.
FROM_VERSION_1 = (
    *(
        f"ALTER TABLE answers ADD COLUMN {column}"
        for column in ("parameters TEXT", "served_model TEXT", "tier TEXT", "cost FLOAT", "raw BLOB")
    ),
    "DELETE FROM knowledge WHERE key NOT IN (SELECT key FROM answers)",
    "DROP INDEX knowledge_key",
    "CREATE INDEX ix_knowledge_key ON knowledge (key)",
    "DROP TABLE failures",
)
# Until format 2 what was spent was the cost of the answers that are stored.
FROM_VERSION_2 = (
    "ALTER TABLE answers ADD COLUMN checksum TEXT",
    "ALTER TABLE workers ADD COLUMN started TEXT",
    "INSERT INTO ledger (key, owner, model, source, tier, state, reserved, surplus, cost, prompt_tokens, "
    "completion_tokens, created) SELECT key, '', model, "
    "(SELECT min(source) FROM knowledge WHERE knowledge.key = answers.key), tier, 'settled', "
    "CAST(round(cost * 1000000000) AS BIGINT), 0, CAST(round(cost * 1000000000) AS BIGINT), "
    "coalesce(prompt_tokens, 0), coalesce(completion_tokens, 0), created "
    "FROM answers WHERE cost IS NOT NULL OR prompt_tokens > 0",
    "INSERT INTO accounts (model, committed, surplus) "
    "SELECT model, coalesce(sum(cost), 0), 0 FROM ledger GROUP BY model",
)
# Until format 3 nobody wrote down by which rules a body was read.
FROM_VERSION_3 = (
    "ALTER TABLE answers ADD COLUMN rules INTEGER NOT NULL DEFAULT 0",
    f"CREATE INDEX IF NOT EXISTS ix_answers_older ON answers (key) WHERE {IS_OLDER}",
)
