"""Asking in Spark: the functions of `kar_aug.arrow` in `mapInArrow`.

Spark tries a failed task again, and with speculation runs a slow one twice at the same time. Both call with rows that
were called with before: what is stored is found, and what the other copy has in flight is claimed by it and waited for.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kar_aug.engines.asking import Asking, File, Outcome
from kar_aug.engines.asking import generate as generate_by
from kar_aug.errors import MissingDependencyError
from kar_aug.pipeline.generation import Generated, Job
from kar_aug.pipeline.watch import SILENT, Watch

# It says so of every pandas from 3.0 on, whatever of it is used.
warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
try:
    from pyspark.sql import SparkSession
except ImportError:
    raise MissingDependencyError("pyspark", "spark") from None

OUTCOME = "status string, reason string, new boolean, change string, rows long"
ANSWERED = "knowledge string, entity_id string, key string, status string, reason string, text string, new boolean"


def generate(job: Job, watch: Watch = SILENT, *, address: str | None = None, workers: int | None = None) -> Generated:
    """`kar-aug generate` by Spark.

    Args:
        address: the master: "local[4]", "spark://host:7077", "yarn"; what spark-submit says if None, or this machine.
        workers: tasks that run at a time, which share [generate] concurrency, rpm and tpm; the cores if None.
    """
    with session(address) as spark:
        return generate_by(job, _Spark(spark, workers), watch)


def in_arrow(*functions: Callable[[Any], Any], columns: Iterable[str] = ()) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Functions on batches, one after the other, as `mapInArrow` takes them.

    Args:
        columns: those that are kept, in the order of the schema that Spark is given; all if none are named.

    Example:
        names = [field.split()[0] for field in ANSWERED.split(", ")]
        ask = in_arrow(Render(project, "user"), Ask(project, workers=64), columns=names)
        answers = histories.mapInArrow(ask, ANSWERED)
    """
    names = list(columns)

    def of_partition(batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            for function in functions:
                batch = function(batch)
            yield batch.select(names) if names else batch

    return of_partition


class _Spark:
    def __init__(self, spark: Any, workers: int | None) -> None:
        self._spark = spark
        self.workers = workers or max(1, spark.sparkContext.defaultParallelism)

    def run(self, files: Sequence[File], call: Asking, on_outcome: Callable[[Outcome], None]) -> None:
        if not files:
            return
        names = Outcome._fields[:-1]
        rows = self._spark.sparkContext.parallelize([tuple(file) for file in files], len(files))
        asked = self._spark.createDataFrame(rows, "path string, entity string").mapInArrow(in_arrow(call), OUTCOME)
        for row in asked.groupBy(*names).agg({"rows": "sum"}).collect():
            on_outcome(Outcome._make((*(row[name] for name in names), row["sum(rows)"])))


@contextmanager
def session(master: str | None = None) -> Iterator[Any]:
    """The active Spark session, as it is; or one that begins and ends with the block, whose bars and warnings are
    silent.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if (active := SparkSession.getActiveSession()) is not None:
        yield active
        return
    builder: Any = SparkSession.builder
    if master is not None:
        builder = builder.master(master)
    for name, value in _CONF.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


_CONF = {
    "spark.app.name": "kar-aug",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
}
