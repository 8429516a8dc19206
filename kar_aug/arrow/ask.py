"""Prompts into answers: what the text cache knows is looked up, the rest asked, stored, and only then returned.

What an engine must not do twice is done by the cache: a question is claimed before it is asked, so that of two tasks
with the same rows (a speculative copy, a retry whose first try still runs) one asks and the other waits for its answer;
what a request can cost is reserved in the ledger before it leaves, so that all workers together keep one budget; an
answer is committed before its slot asks on. A worker that is killed loses what it had in flight and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from kar_aug._helpers.batched import batched
from kar_aug.arrow.columns import (
    ASKED,
    FAILED,
    FORGOTTEN,
    IN_BATCH,
    REJECTED,
    STOPPED,
    Batch,
    NoPrompt,
    read_prompts,
    with_columns,
)
from kar_aug.arrow.worker import OpensOnce, forgotten_of, stamp, workspace_of
from kar_aug.cache import Claims, Status, TextCache
from kar_aug.cache.texts.cache import is_of_groups
from kar_aug.cache.texts.workers import here, machine
from kar_aug.config import LOCAL, LanguageModel
from kar_aug.errors import ConfigError, Hopeless
from kar_aug.generate import Prices, Progress, generate
from kar_aug.generate.intake import BATCH, Found, Survey, accepted, is_open
from kar_aug.prompts import Prompt

if TYPE_CHECKING:
    from kar_aug.pipeline.project import Project
    from kar_aug.pipeline.workspace import Workspace

_HOPELESS_BATCHES = 3  # in a row: then it is the server, not the rows
_log = logging.getLogger("kar_aug")


class _Opened:
    """What one process has open. `hopeless` counts batches that the server refused, one after the other."""

    def __init__(self, cache: Path | str, prices: Path | None) -> None:
        self.cache, self.prices = TextCache(cache), Prices(prices)
        self.hopeless = 0


class _Row(NamedTuple):
    """What came of a row."""

    key: str | None
    status: str
    reason: str | None
    text: str | None = None
    new: bool = False
    change: str | None = None


class Ask(OpensOnce[_Opened]):
    """Gives a batch of prompts the columns key, status, reason, text, new and change: see `kar_aug.arrow.columns`.

    Args:
        project: its [generate] says which model, where the cache is, and how much may be spent. The cache is one for
            all workers: a SQLite file on one machine, PostgreSQL on several. Nobody is asked about whom it forgot.
        workers: how many processes ask at a time. Each has that share of [generate] concurrency, rpm and tpm.
        retry_failed: ask again what was rejected, refused or answered with nothing before this was made.
        texts: whether the texts are returned; without, the batches of a run that only fills the cache stay small.
        is_stopped: looked at twice a second while requests are in flight: once it is true, those are finished and
            stored, and all other rows are "stopped". It is pickled too.

    Raises:
        ConfigError: A setting is of one process: max_requests, or the model in it.

    Example:
        >>> dataset.map_batches(Ask(project), batch_format="pyarrow")  # doctest: +SKIP
    """

    def __init__(
        self,
        project: Project | Workspace,
        *,
        workers: int = 1,
        retry_failed: bool = False,
        texts: bool = True,
        is_stopped: Callable[[], bool] | None = None,
    ) -> None:
        workspace = workspace_of(project)
        self._model = _share(workspace.config.generate, workers)
        where, prices = workspace.paths.cache, self._model.prices
        self._cache = where if isinstance(where, str) else where.resolve()
        self._prices = workspace.config.path(prices).resolve() if prices else None
        self._machine, self._here = machine(), here()
        self._forgotten = forgotten_of(workspace)
        self._retry, self._texts, self._is_stopped = retry_failed, texts, is_stopped
        self._since = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def opens(self) -> tuple[object, ...]:
        """Cache, prices and server."""
        return self._cache, self._prices, self._model.base_url, self._model.model

    def open(self) -> _Opened:
        """The cache, and the prices.

        Raises:
            ConfigError: The cache is a file, and this is another machine than the one whose file is meant: here it is
                another file, with a ledger of its own, which knows nothing of what others spend.
        """
        self._require_the_same_file()
        return _Opened(self._cache, self._prices)

    @property
    def stamps(self) -> tuple[tuple[int, ...] | None, ...]:
        """Of the cache's file, which its place alone tells from another, since it is written all the time; and of the
        prices.
        """
        cache = None if isinstance(self._cache, str) else stamp(self._cache)
        return cache and cache[-1:], stamp(self._prices)

    def close(self, opened: _Opened) -> None:
        """The cache."""
        opened.cache.close()

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its answers, all of which are stored.

        Raises:
            ConfigError: The cache is a file of another machine.
            DataError: A column is missing.
            LimitReached: The next request would cross max_cost.
            GenerationError: The server cannot be reached, answers as another model, or refused batch after batch.
            StoreError: The cache took nothing for `give_up_after` seconds.
        """
        rows = [self._unless_forgotten(row) for row in read_prompts(batch)]
        prompts = [row for row in rows if isinstance(row, Prompt)]
        answered = iter(self._answers(prompts))
        done = [_Row(None, *row) if isinstance(row, NoPrompt) else next(answered) for row in rows]
        columns = {name: pa.array(column, ASKED.field(name).type) for name, column in _columns(done).items()}
        if not self._texts:
            columns.pop("text")
        return with_columns(batch, columns)

    def _require_the_same_file(self) -> None:
        if isinstance(self._cache, str):
            return
        # A container of the same machine may have the folder, too; a file that it lacks is not the one.
        if machine() != self._machine or (here() != self._here and not self._cache.is_file()):
            raise ConfigError(
                f"The text cache {self._cache} is a file of the machine that began the run, and {here().split()[0]} is "
                "another: each would have a file, and a max_cost, of its own. For several machines: "
                '[generate] cache = "postgresql://..."'
            )

    def _unless_forgotten(self, row: Prompt | NoPrompt) -> Prompt | NoPrompt:
        if isinstance(row, NoPrompt) or is_of_groups(row.knowledge):
            return row
        entity = row.knowledge.partition(":")[0]
        return NoPrompt(FORGOTTEN, None) if self._forgotten.holds(entity, row.entity_id) else row

    def _answers(self, prompts: Sequence[Prompt]) -> list[_Row]:
        """A row a prompt. Of those whose answers are there, most of a rerun, nothing more is looked up."""
        survey = Survey(self.opened.cache, self._model, Progress(), whole=False)
        settled = [key for some in batched(prompts, BATCH) for key in survey.settled(some)]
        texts = self._texts_of(key for key in settled if key is not None)
        others = iter(self._others([prompt for prompt, key in zip(prompts, settled, strict=True) if key is None]))
        return [
            next(others) if key is None else _Row(key, Status.OK, None, texts.get(key), new=False, change="unchanged")
            for key in settled
        ]

    def _others(self, prompts: Sequence[Prompt]) -> list[_Row]:
        before = self._look(prompts)
        retried = self._retried(before)
        todo = [place for place, found in enumerate(before) if place in retried or self._is_open(found)]
        after, problem, in_batches = dict(enumerate(before)), None, False
        for retry in (False, True):
            if some := [prompts[place] for place in todo if (place in retried) is retry]:
                said, progress = self._generate(some, retry=retry)
                problem, in_batches = problem or said, in_batches or progress.elsewhere > 0
        if todo:
            after |= dict(zip(todo, self._look([prompts[place] for place in todo]), strict=True))
        texts = self._texts_of(map(_key, after.values()))
        reasons = self._reasons(after.values(), problem, in_batches=in_batches)
        asked = {place for place in todo if place in retried or is_open(before[place], retry_failed=False)}
        return [
            self._row(after[place], texts, reasons)._replace(new=place in asked, change=_change(found))
            for place, found in enumerate(before)
        ]

    def _look(self, prompts: Sequence[Prompt]) -> list[Found]:
        survey = Survey(self.opened.cache, self._model, Progress(), whole=False)
        return [found for some in batched(prompts, BATCH) for found in survey.look(some)]

    def _retried(self, before: Sequence[Found]) -> set[int]:
        """The places of what is asked again. What came to nothing in this run is not: an engine may try a task again,
        and all of that was paid for.
        """
        if not self._retry:
            return set()
        open_again = {
            place: found.question.key
            for place, found in enumerate(before)
            if is_open(found, retry_failed=True) and not is_open(found, retry_failed=False)
        }
        new: set[str] = set()
        for some in batched(set(open_again.values()), BATCH):
            new |= self.opened.cache.noted_since(some, self._since)
        return {place for place, key in open_again.items() if key not in new}

    def _is_open(self, found: Found) -> bool:
        """Whether anything is left to do: to ask, to read anew, or to say whose an answer is."""
        status, link = found.question.status, found.linked
        if found.imported:
            return False
        if is_open(found, retry_failed=False) or found.judged is not None:
            return True
        return status not in (None, Status.INVALID) and link != found.question.links[0]

    def _generate(self, prompts: Sequence[Prompt], *, retry: bool) -> tuple[str | None, Progress]:
        """Ask. Returns why rows may be left without an answer that no failure tells of, and what was done."""
        opened, progress = self.opened, Progress()
        if self._is_stopped is not None and self._is_stopped():
            return STOPPED, progress

        def note(now: Progress) -> None:
            nonlocal progress
            progress = now

        try:
            generate(
                prompts, opened.cache, self._model, prices=opened.prices, retry_failed=retry,
                retry_before=self._since, whole=False, on_progress=note, on_note=_log.info, is_stopped=self._is_stopped,
            )  # fmt: skip
        except KeyboardInterrupt:
            if self._is_stopped is None or not self._is_stopped():
                raise
            return STOPPED, progress
        except Hopeless as error:
            # Rows that are all refused make a server look hopeless; a server that is makes every batch so.
            opened.hopeless += 1
            if opened.hopeless >= _HOPELESS_BATCHES or Status.WRONG_MODEL in progress.no_knowledge:
                raise
            return str(error), progress
        opened.hopeless = 0
        return None, progress

    def _texts_of(self, keys: Iterable[str]) -> Mapping[str, str]:
        return self.opened.cache.texts(set(keys), accept=accepted(self._model)) if self._texts else {}

    def _reasons(
        self, found: Collection[Found], problem: str | None, *, in_batches: bool
    ) -> Mapping[str, tuple[str, str | None]]:
        """By key, the status and reason of what has no answer."""
        missing = {each.question.key for each in found if each.question.status in (None, Status.INVALID)}
        if not missing:
            return {}
        cache = self.opened.cache
        reasons: dict[str, tuple[str, str | None]] = dict.fromkeys(
            missing, (STOPPED, None) if problem == STOPPED else (FAILED, problem)
        )
        if in_batches:
            reasons |= dict.fromkeys(Claims(cache).in_batches(missing), (IN_BATCH, None))
        for some in batched(missing, BATCH):
            for failure in cache.failures(some):
                reasons[failure.key] = (REJECTED if failure.permanent else FAILED), failure.reason
        return reasons

    def _row(self, found: Found, texts: Mapping[str, str], reasons: Mapping[str, tuple[str, str | None]]) -> _Row:
        key, status = _key(found), Status.OK if found.imported else found.question.status
        if status is None:
            return _Row(key, *reasons[key])
        reason = reasons[key][1] if status == Status.INVALID else None
        return _Row(key, str(status), reason, texts.get(key))


def _columns(rows: Sequence[_Row]) -> dict[str, list[Any]]:
    return {name: [getattr(row, name) for row in rows] for name in _Row._fields}


def _change(found: Found) -> str:
    if found.linked is None:
        return "new"
    return "unchanged" if found.imported or found.linked.key == found.question.key else "changed"


def _key(found: Found) -> str:
    return found.linked.key if found.imported and found.linked is not None else found.question.key


def _share(model: LanguageModel, workers: int) -> LanguageModel:
    """What of a model's limits is one worker's."""
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1. Received: {workers}")
    if model.base_url == LOCAL:
        raise ConfigError(
            "[generate] base_url = 'local' is a model of one process: an engine needs a server's address."
        )
    if model.max_requests is not None:
        raise ConfigError("[generate] max_requests counts the requests of one process. With an engine, set max_cost.")
    shared = {name: limit / workers for name in ("rpm", "tpm") if (limit := getattr(model, name)) is not None}
    return replace(model, concurrency=max(1, model.concurrency // workers), **shared)
