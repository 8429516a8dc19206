"""The book of finished runs and trials: one SQLite file. A row is written whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kar_aug.compare.arms import Arm
from kar_aug.errors import StoreError

_FORMAT = 1
_JSON = ("arm", "settings", "knowledge", "environment", "curve", "gate")


@dataclass(frozen=True)
class Run:
    """An arm with a seed: what was trained on what, and the result. Metrics are of the test part.

    Args:
        identity: hash of all that decides the result.
        settings: of the training, tuned ones among them.
        data, knowledge, code: fingerprints.
        curve: validation AUC of each epoch.
        train_seconds: building the model, and all epochs.
        microseconds: to predict one row.
        gate: source -> mean gate weight of each expert, on validation rows.
    """

    identity: str
    arm: Arm
    seed: int
    settings: Mapping[str, Any]
    data: str
    knowledge: Mapping[str, str]
    code: str
    environment: Mapping[str, str]
    auc: float
    logloss: float
    gauc: float
    ece: float
    curve: tuple[float, ...]
    parameters: int
    train_seconds: float
    microseconds: float
    gate: Mapping[str, list[float]]
    created: str

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return len(self.curve)


@dataclass(frozen=True)
class Trial:
    """One training of the search: its settings and the validation AUC of its best epoch."""

    identity: str
    arm: Arm
    number: int
    settings: Mapping[str, Any]
    auc: float
    curve: tuple[float, ...]
    train_seconds: float
    created: str


class Book:
    """Rows by identity. Several processes may write to one book."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _FORMAT):
                raise StoreError(
                    f"{path} has format {found}; this kar-aug reads {_FORMAT}. Name another workdir.",
                    path=path, left=found, right=_FORMAT,
                )  # fmt: skip
            for name, kind in (("runs", Run), ("trials", Trial)):
                columns = ", ".join(f"{f.name} {_TYPES.get(str(f.type), 'TEXT')}" for f in fields(kind))
                connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns}, PRIMARY KEY (identity))")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS predictions (identity TEXT PRIMARY KEY, prediction BLOB NOT NULL)"
            )
            connection.execute(f"PRAGMA user_version = {_FORMAT}")

    def run(self, identity: str) -> Run | None:
        """A finished run."""
        row = self._row("runs", identity)
        return None if row is None else Run(**row)

    def trial(self, identity: str) -> Trial | None:
        """A finished trial."""
        row = self._row("trials", identity)
        return None if row is None else Trial(**row)

    def add_run(self, run: Run, prediction: npt.NDArray[np.float32]) -> None:
        """Keep a run and its predictions of the test rows, (rows,), in their order."""
        with self._connection() as connection:
            _insert(connection, "runs", run)
            connection.execute(
                "INSERT OR REPLACE INTO predictions VALUES (?, ?)",
                (run.identity, np.asarray(prediction, "<f4").tobytes()),
            )

    def add_trial(self, trial: Trial) -> None:
        """Keep a trial."""
        with self._connection() as connection:
            _insert(connection, "trials", trial)

    def prediction(self, identity: str) -> npt.NDArray[np.float32]:
        """What a run predicted for the test rows, (rows,)."""
        with self._connection() as connection:
            (blob,) = connection.execute(
                "SELECT prediction FROM predictions WHERE identity = ?", (identity,)
            ).fetchone()
        return np.frombuffer(blob, "<f4")

    def latest(self, arm: Arm, seed: int, data: str, knowledge: Mapping[str, str]) -> Run | None:
        """The newest run of an arm with a seed on this data and knowledge, whatever its settings."""
        wanted = (_dump(asdict(arm)), seed, data, _dump(knowledge))
        with self._connection() as connection:
            found = connection.execute(
                "SELECT identity FROM runs WHERE arm = ? AND seed = ? AND data = ? AND knowledge = ? "
                "ORDER BY created DESC, rowid DESC LIMIT 1",
                wanted,
            ).fetchone()
        return None if found is None else self.run(found[0])

    def _row(self, table: str, identity: str) -> dict[str, Any] | None:
        with self._connection() as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM {table} WHERE identity = ?", (identity,)).fetchone()
        if found is None:
            return None
        row = {name: json.loads(value) if name in _JSON else value for name, value in dict(found).items()}
        row = {name: float("nan") if value is None else value for name, value in row.items()}  # SQLite keeps no NaN
        return {**row, "arm": Arm.of(row["arm"]), "curve": tuple(row["curve"])}

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on a connection of its own: a book is opened in processes and threads alike."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path}: {error}. If it is damaged, delete it: the runs are made again.", path=self.path
            ) from None


_TYPES = {"int": "INTEGER", "float": "REAL"}


def _insert(connection: sqlite3.Connection, table: str, row: Run | Trial) -> None:
    values = {name: _dump(value) if name in _JSON else value for name, value in asdict(row).items()}
    places = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(values)}) VALUES ({places})", values)


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
