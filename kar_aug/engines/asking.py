"""One run of `generate` by an engine: its rows as Parquet files, what its workers call, and what came of it.

    tables ── rows, or prompts where they need all rows ──> files ── the engine: Asking ──> counts
                                                                           │
                                                     the text cache: look, claim, reserve, ask, store

An engine is given the names of files, not rows: whatever it tries again, moves or keeps is small, and a file that is
read once more asks nothing that was answered.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from kar_aug._helpers.batched import batched
from kar_aug.arrow import Ask, Render, prompt_batch
from kar_aug.arrow.columns import BAD, FAILED, FORGOTTEN, IN_BATCH, NO_PROMPT, REJECTED, STOPPED
from kar_aug.arrow.render import needs_all_rows
from kar_aug.arrow.rows import rows_of
from kar_aug.cache import Status, TextCache
from kar_aug.cache.texts.workers import here
from kar_aug.config import LanguageModel
from kar_aug.engines.stopping import Flag, by_signals
from kar_aug.errors import ConfigError, GenerationError, KarError
from kar_aug.generate import Progress
from kar_aug.generate.intake import accepted
from kar_aug.pipeline.generation import Generated, Job, level_by_level, not_hopeless, pace_note
from kar_aug.pipeline.watch import SILENT, Show, Watch
from kar_aug.pipeline.workspace import Workspace
from kar_aug.pipeline.workspace.paths import ENGINES
from kar_aug.prompts import Prompt

ROWS = (32, 1024)  # of a file, fewest and most: what is in flight dwindles at the end of each
_FILES = 8  # a worker, at least, so that the last ones end together


class File(NamedTuple):
    """Rows that are to be asked: of users or items to be rendered, or of prompts where `entity` is ""."""

    path: str
    entity: str


class Outcome(NamedTuple):
    """What came of some rows: see `kar_aug.arrow.columns`."""

    status: str
    reason: str | None
    new: bool
    change: str | None
    rows: int


OUTCOME = pa.schema([
    ("status", pa.string()), ("reason", pa.string()), ("new", pa.bool_()), ("change", pa.string()),
    ("rows", pa.int64()),
])  # fmt: skip


class Asking:
    """What workers call: files (columns path and entity) into what came of their rows (`OUTCOME`). Answers are stored.

    It never raises what a person can mend: then the run is stopped, so that what other workers have in flight is
    finished and stored, and the driver raises it.

    Args:
        renders: of rows, by entity.
    """

    def __init__(self, renders: Mapping[str, Render], ask: Ask, stopped: Flag) -> None:
        self._renders, self._ask, self._stopped = renders, ask, stopped

    def __call__(self, files: Any) -> Any:
        """The outcomes of all rows of some files."""
        done = [outcome._asdict() for file in files.to_pylist() for outcome in self._of(File(**file))]
        return type(files).from_pylist(done, schema=OUTCOME)

    def _of(self, file: File) -> Iterator[Outcome]:
        stopped = Outcome(STOPPED, None, False, None, 1)
        if self._stopped():
            yield stopped
            return
        try:
            batch = _read(file)
            asked = self._ask(self._renders[file.entity](batch) if file.entity else batch)
        except (KarError, KeyboardInterrupt) as error:
            self._stopped.up(error)
            yield stopped._replace(reason=str(error) or None)  # where the driver sees no file of this machine
            return
        except (OSError, pa.ArrowException) as error:
            why = GenerationError(
                f"On {here().split()[0]}: {type(error).__name__}: {error}. What was answered is stored."
            )
            self._stopped.up(why)
            yield stopped._replace(reason=str(why))
            return
        rows = zip(*(asked.column(name).to_pylist() for name in OUTCOME.names[:-1]), strict=True)
        yield from (Outcome._make((*row, count)) for row, count in Counter(rows).items())


def _read(file: File) -> Any:
    try:
        (batch,) = pq.read_table(file.path).combine_chunks().to_batches()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise GenerationError(
            f"{file.path}, rows of this run, cannot be read on {here().split()[0]}: {str(error).splitlines()[0]}. All "
            "machines need the workdir in the same place, on a disk that they share; then run the same command again. "
            "What was answered is stored."
        ) from None
    return batch


class Engine(Protocol):
    """Something that calls a function with files, by many workers.

    Attributes:
        workers: how many call at a time.
    """

    workers: int

    def run(self, files: Sequence[File], call: Asking, on_outcome: Callable[[Outcome], None]) -> None:
        """Call with all files, and say what came of them."""
        ...


def generate(job: Job, engine: Engine, watch: Watch = SILENT) -> Generated:
    """`kar_aug.pipeline.generation.ask` by an engine.

    Raises:
        ConfigError: Something is of one process alone: a share of the prompts, max_requests, the model in it.
        (and those of `ask`)
    """
    if job.shard != (1, 1):
        raise ConfigError("--shard is for processes without an engine, which shares the prompts itself.")
    Ask(job.workspace, workers=engine.workers)  # which says what is wrong before anything is written
    with job.workspace.paths.open_cache() as cache, _folder(job.workspace.config.work / ENGINES) as folder:

        def run(prompts: Iterator[Prompt], model: LanguageModel, show: Show) -> Progress:
            asking = replace(job, workspace=job.workspace.changed(generate=model))
            return _run(asking, prompts, engine, cache, folder, _Shown(watch, show))

        done = level_by_level(job, job.model, cache, run, watch)
    job.say_left_out(watch)
    return not_hopeless(done, watch)


@dataclass(frozen=True)
class _Shown:
    watch: Watch
    show: Show


def _run(
    job: Job, prompts: Iterator[Prompt], engine: Engine, cache: TextCache, folder: Path, shown: _Shown
) -> Progress:
    workspace, flag = job.workspace, Flag(folder / f"stopped-{uuid.uuid4().hex[:8]}")
    renders, files = _written(job, prompts, folder, engine.workers)
    ask = Ask(workspace, workers=engine.workers, retry_failed=job.retry_failed, texts=False, is_stopped=flag)
    progress, started = Progress(concurrency=job.model.concurrency), time.monotonic()
    names = [name for entity in job.entities for name in workspace.paths.all_knowledge(entity)]
    linked, spent = sum(map(cache.count_linked, names)), cache.spent(job.model.model)
    knowledge = accepted(job.model)

    def on_outcome(outcome: Outcome) -> None:
        if outcome.status == STOPPED and outcome.reason is not None:
            flag.up(GenerationError(outcome.reason))  # unless the worker could: the first one counts
        _count(progress, outcome, knowledge)
        shown.show(progress.done, pace_note(progress, started))

    def on_stop() -> None:
        progress.stopping = True
        shown.watch.note("Stopping when the requests in flight are answered; Ctrl-C again leaves them ...")

    with by_signals(flag, on_stop):
        engine.run(files, Asking(renders, ask, flag), on_outcome)
    progress.cost = max(0.0, cache.spent(job.model.model) - spent)
    progress.gone = max(0, linked - progress.changed - progress.unchanged)
    if (why := flag.why) is not None:
        raise KeyboardInterrupt(str(progress)) if isinstance(why, KeyboardInterrupt) else why
    return progress


def _count(progress: Progress, outcome: Outcome, knowledge: Sequence[Status]) -> None:
    """Count rows as a job on one machine counts its prompts."""
    status, reason, new, change, count = outcome
    if status in (NO_PROMPT, FORGOTTEN, STOPPED):
        return
    progress.total += count
    if change is not None:
        setattr(progress, change, getattr(progress, change) + count)
    if status == REJECTED and not new:
        progress.skipped += count
    elif status in (BAD, FAILED, REJECTED, Status.INVALID):
        progress.count_failure(reason or "no answer came", count)
    elif status == IN_BATCH:
        progress.elsewhere += count
    else:
        progress.asked += count if new else 0
        progress.cached += 0 if new else count
        if status not in knowledge:
            progress.count(progress.no_knowledge, status, count)


def _written(job: Job, prompts: Iterator[Prompt], folder: Path, workers: int) -> tuple[dict[str, Render], list[File]]:
    """The rows of users and items, and what renders them; prompts instead where these need all rows."""
    workspace, most = job.workspace, max(1, job.total // (_FILES * workers))
    size = min(max(most, ROWS[0]), ROWS[1])
    if any(needs_all_rows(workspace, entity) for entity in job.entities):
        batches = (prompt_batch(some) for some in batched(prompts, size))
        return {}, _files(batches, folder / "prompts", "")
    renders = {entity: _render(workspace, entity) for entity in job.entities}
    return renders, [
        file for entity in job.entities for file in _files(rows_of(workspace, entity, size), folder / entity, entity)
    ]


def _render(workspace: Workspace, entity: str) -> Render:
    return Render(workspace, entity, items=workspace.asking.tables.items if entity == "user" else None)


def _files(batches: Iterable[Any], folder: Path, entity: str) -> list[File]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = []
    for number, batch in enumerate(batches):
        path = folder / f"{number:06d}.parquet"
        pq.write_table(pa.Table.from_batches([batch]), path)
        files.append(File(str(path.resolve()), entity))
    return files


@contextmanager
def _folder(place: Path) -> Iterator[Path]:
    """Of one run, gone with it; and so are those of runs that were killed."""
    for old in place.glob("*/.lock"):
        with suppress(Timeout, OSError), FileLock(old, timeout=0):
            shutil.rmtree(old.parent, ignore_errors=True)
    folder = place / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock", timeout=0):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
