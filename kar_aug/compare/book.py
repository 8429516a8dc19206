"""The book of finished runs and trials: one SQLite file. A row is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kar_aug._helpers.database import Format, reason, sqlite_engine
from kar_aug.compare.arms import Arm
from kar_aug.errors import StoreError

BOOK = "runs.sqlite"
_JSON = ("arm", "settings", "knowledge", "environment", "curve", "gate", "metrics")


@dataclass(frozen=True)
class Run:
    """An arm with a seed: what was trained on what, and the result. Metrics are of the test part.

    Args:
        identity: hash of all that decides the result.
        settings: of the training, tuned ones among them.
        data, knowledge: fingerprints.
        code: of kar-aug; see `kar_aug.compare.experiment.code_version`.
        curve: validation AUC of each epoch.
        train_seconds: building the model, and all epochs.
        microseconds: to predict one row.
        gate: source -> mean gate weight of each expert, on validation rows.
        keras: which Keras it was trained on, "2" (its former API) or "3".
        metrics: of lists, by their keys; AUC and the like are NaN then.
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
    keras: str = "2"
    metrics: Mapping[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """A metric by its key, or another number of the run."""
        return float(self.metrics[name] if name in self.metrics else getattr(self, name))

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


def _columns(kind: type) -> Iterator[sa.Column[Any]]:
    types: dict[str, type[sa.types.TypeEngine[Any]]] = {"int": sa.Integer, "float": sa.Float}
    for rule in fields(kind):
        yield sa.Column(rule.name, types.get(str(rule.type), sa.Text), primary_key=rule.name == "identity")


_tables = sa.MetaData()
_runs = sa.Table("runs", _tables, *_columns(Run))
_trials = sa.Table("trials", _tables, *_columns(Trial))
_predictions = sa.Table(
    "predictions",
    _tables,
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("prediction", sa.LargeBinary, nullable=False),
)
FORMAT = Format(
    "book of runs",
    application=0x6B617232,  # "kar2"
    tables=_tables,
    unmarked=1,
    migrations=(
        (  # all models were DeepCTR's, and some words in an arm were others
            "ALTER TABLE runs ADD COLUMN keras TEXT",
            "UPDATE runs SET keras = '2'",
            *(
                f"UPDATE {table} SET arm = replace(arm, '{former}', '{now}')"
                for table in ("runs", "trials")
                for former, now in (
                    ('"injection": "history"', '"injection": "events"'),
                    ('"sources": [', '"entities": ['),
                )
            ),
        ),
        ("ALTER TABLE runs ADD COLUMN metrics TEXT", "UPDATE runs SET metrics = '{}'"),  # all were of clicks
    ),
)


class Book:
    """Rows by identity. Several processes may write to one book."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sqlite_engine(path, pooled=False)  # a book is opened in processes and threads alike
        self._reader = self._engine.execution_options(reading=True)
        with self._transaction(self._engine) as connection:
            FORMAT.bring_up_to_date(connection, str(path))

    def __reduce__(self) -> tuple[type[Book], tuple[Path]]:
        return Book, (self.path,)

    def run(self, identity: str) -> Run | None:
        """A finished run."""
        row = self._row(_runs, identity)
        return None if row is None else Run(**row)

    def trial(self, identity: str) -> Trial | None:
        """A finished trial."""
        row = self._row(_trials, identity)
        return None if row is None else Trial(**row)

    def add_run(self, run: Run, prediction: npt.NDArray[np.float32]) -> None:
        """Keep a run and its predictions of the test rows, (rows,), in their order."""
        with self._transaction(self._engine) as connection:
            _put(connection, _runs, _as_row(run))
            _put(
                connection,
                _predictions,
                {"identity": run.identity, "prediction": np.asarray(prediction, "<f4").tobytes()},
            )

    def add_trial(self, trial: Trial) -> None:
        """Keep a trial."""
        with self._transaction(self._engine) as connection:
            _put(connection, _trials, _as_row(trial))

    def prediction(self, identity: str) -> npt.NDArray[np.float32]:
        """What a run predicted for the test rows, (rows,)."""
        wanted = sa.select(_predictions.c.prediction).where(_predictions.c.identity == identity)
        with self._transaction(self._reader) as connection:
            return np.frombuffer(connection.execute(wanted).scalar_one(), "<f4")

    def latest(self, arm: Arm, seed: int, data: str, knowledge: Mapping[str, str]) -> Run | None:
        """The newest run of an arm with a seed on this data and knowledge, whatever its settings."""
        return self._newest(arm, _runs.c.seed == seed, _runs.c.data == data, _runs.c.knowledge == _dump(knowledge))

    def newest(self, arm: Arm, seed: int) -> Run | None:
        """The same on whatever data and knowledge."""
        return self._newest(arm, _runs.c.seed == seed)

    def _newest(self, arm: Arm, *conditions: sa.ColumnElement[bool]) -> Run | None:
        newest = sa.select(_runs).where(*conditions).order_by(_runs.c.created.desc(), sa.literal_column("rowid").desc())
        with self._transaction(self._reader) as connection:
            found = (Run(**_read(row)) for row in connection.execute(newest).mappings())
            return next((run for run in found if run.arm == arm), None)

    def _row(self, table: sa.Table, identity: str) -> dict[str, Any] | None:
        with self._transaction(self._reader) as connection:
            found = connection.execute(sa.select(table).where(table.c.identity == identity)).mappings().one_or_none()
        return None if found is None else _read(found)

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise StoreError(
                f"{self.path}: {reason(error)}. If it is damaged, delete it: the runs are made again.",
                path=self.path,
            ) from None


def _put(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    connection.execute(insert(table).prefix_with("OR REPLACE"), dict(row))


def _read(found: Mapping[Any, Any]) -> dict[str, Any]:
    row = {name: json.loads(value) if name in _JSON else value for name, value in found.items()}
    row = {name: float("nan") if value is None else value for name, value in row.items()}  # SQLite keeps no NaN
    return {**row, "arm": Arm.of(row["arm"]), "curve": tuple(row["curve"])}


def _as_row(row: Run | Trial) -> dict[str, Any]:
    return {name: _dump(value) if name in _JSON else value for name, value in asdict(row).items()}


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
