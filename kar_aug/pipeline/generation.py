"""Asking the language model about a project's users and items, and what can be seen of it without asking."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd

from kar_aug._helpers.printed import Printed
from kar_aug.cache import Batch, BatchBook, Failure, TextCache
from kar_aug.cache.texts.tables import LOST
from kar_aug.config import LOCAL, LanguageModel
from kar_aug.errors import ConfigError, GenerationError
from kar_aug.generate import Estimate, Prices, Progress, export_jsonl, forget_batch, generate_batches, import_jsonl
from kar_aug.generate import estimate as run_estimate
from kar_aug.generate import generate as run_generate
from kar_aug.generate.jsonl import MOST_REQUESTS
from kar_aug.generate.limits import requests_reached
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.watch import SILENT, Show, Watch
from kar_aug.pipeline.workspace import ENTITIES, Workspace
from kar_aug.pipeline.workspace.forgotten import ForgottenIds
from kar_aug.pipeline.workspace.passed_on import REQUESTS, note
from kar_aug.prompts import Prompt
from kar_aug.prompts.histories.summaries import owner


@dataclass(frozen=True)
class Job:
    """What is asked: about which entities, and which part of them is this process's share.

    Args:
        entities: "user", "item" or both.
        shard: (2, 8) is the second of eight shares, each of other users and items.
        retry_failed: ask again what was rejected, refused or answered with nothing.
        every: of so many users, or items, one: to estimate by.
    """

    workspace: Workspace
    entities: tuple[str, ...] = ENTITIES
    shard: tuple[int, int] = (1, 1)
    retry_failed: bool = False
    every: int = 1

    def __post_init__(self) -> None:
        number, shards = self.shard
        if not 1 <= number <= shards:
            raise ValueError(f"`shard` must be (2, 8) for the second of eight. Received: {self.shard}")

    @property
    def model(self) -> LanguageModel:
        """The model as [generate] says."""
        return self.workspace.config.generate

    def prompts(self, summaries: StoredSummaries) -> Iterator[Prompt]:
        """All prompts, as a stream; those that show summaries as far as there are such."""
        number, shards = self.shard
        streams = (
            self.workspace.asking.prompts(entity, answers=summaries, every=self.every) for entity in self.entities
        )
        for prompt in chain.from_iterable(streams):
            if shards == 1 or zlib.crc32(owner(prompt).encode()) % shards == number - 1:
                yield prompt

    @property
    def total(self) -> int:
        """About how many they are."""
        return (sum(map(self.workspace.asking.count, self.entities)) + sum(self.levels)) // self.shard[1]

    @property
    def levels(self) -> list[int]:
        """Questions about parts of long histories, level by level."""
        return self.workspace.asking.summaries("user") if "user" in self.entities else []

    @property
    def without_events(self) -> int:
        """Items that are not asked about, since they have no event."""
        return self.workspace.asking.without_events if "item" in self.entities else 0

    def say_left_out(self, watch: Watch) -> None:
        """Say so, where there are such."""
        if count := self.without_events:
            watch.note(left_out(count))

    def prices(self) -> Prices:
        """The prices of kar-aug, under those of the user's file."""
        path = self.model.prices
        return Prices(self.workspace.config.path(path) if path else None)


def left_out(count: int) -> str:
    """What is said of items that are not asked about."""
    return (
        f"{count:,} items without any event are not asked about: [prompts] whole_catalogue = true asks about them, too"
    )


@dataclass(frozen=True)
class Generated(Printed):
    """What a job did.

    Args:
        progress: of its prompts.
        waiting: users with long histories whose summaries are still to be answered.
        running: batches that are not over.
    """

    progress: Progress
    waiting: int = 0
    running: Sequence[Batch] = ()

    @property
    def complete(self) -> bool:
        """Whether every prompt was answered, or is in a batch: none failed, and no answer is empty or unreadable."""
        return self.progress.complete

    @property
    def frame(self) -> pd.DataFrame:
        """How the prompts ended, a row each way: what, count."""
        ways = ("asked", "cached", "failed", "skipped", "elsewhere")
        return pd.DataFrame({"what": ways, "count": [getattr(self.progress, way) for way in ways]})

    def __str__(self) -> str:
        lines = [_waiting(self.waiting)] if self.waiting else []
        lines += [f"prompts: {self.progress.changes}", str(self.progress)]
        lost = sum(batch.state == LOST for batch in self.running)
        if running := len(self.running) - lost:
            lines.append(f"{running} batches run; collect them with the same command")
        if lost:
            lines.append(f"{lost} batches are lost: --forget-batch asks their prompts again")
        return "\n".join(lines)


def ask(job: Job, watch: Watch = SILENT) -> Generated:
    """Ask for what is missing.

    Raises:
        LimitReached: max_cost or max_requests; what was answered is stored.
        GenerationError: The server cannot be reached, refuses every request, or answered not one prompt.
        KeyboardInterrupt: Ctrl-C came; the requests in flight were finished and stored first.
    """
    started = time.monotonic()
    with job.workspace.paths.open_cache() as cache, served(job.model) as (model, key):

        def run(prompts: Iterator[Prompt], model: LanguageModel, show: Show) -> Progress:
            return run_generate(
                prompts,
                cache,
                model,
                key=key,
                prices=job.prices(),
                retry_failed=job.retry_failed,
                on_progress=lambda p: show(p.done, pace_note(p, started)),
                on_note=watch.note,
                costs_nothing=job.model.base_url == LOCAL,
            )

        done = level_by_level(job, model, cache, run, watch)
    job.say_left_out(watch)
    return not_hopeless(done, watch)


def not_hopeless(done: Generated, watch: Watch) -> Generated:
    """The same.

    Raises:
        GenerationError: Not one prompt was answered.
    """
    if _hopeless(done.progress):
        watch.result(str(done))
        raise GenerationError(f"No prompt could be answered: {'; '.join(done.progress.reasons)}")
    return done


def ask_in_batches(
    job: Job,
    watch: Watch = SILENT,
    *,
    most_requests: int = MOST_REQUESTS,
    wait: bool = True,
    poll_seconds: float = 30.0,
    forget: Sequence[str] = (),
) -> Generated:
    """The same through the Batch API; without waiting, what can be asked now: one level of summaries a call.

    Args:
        forget: batches that the server does not know any more, whose prompts are to be asked again.

    Raises:
        ConfigError: The model is the local one, or there is no such batch.
        (and those of `ask`)
    """
    if job.model.base_url == LOCAL:
        raise ConfigError("The local model has no Batch API. Leave out --batch.")
    with job.workspace.paths.open_cache() as cache:
        for name in forget:
            watch.note(f"batch {name} is forgotten: {forget_batch(cache, name):,} requests are open again")

        def run(prompts: Iterator[Prompt], model: LanguageModel, show: Show) -> Progress:
            return generate_batches(
                prompts,
                cache,
                model,
                prices=job.prices(),
                retry_failed=job.retry_failed,
                most_requests=most_requests,
                wait=wait,
                poll_seconds=poll_seconds,
                on_progress=lambda p: show(
                    p.done - p.elsewhere + p.ready, f"{p.ready:,} ready in batches, {p.asked:,} collected"
                ),
                on_note=watch.note,
            )

        done = level_by_level(job, job.model, cache, run, watch, at_once=not wait)
        return replace(done, running=BatchBook(cache).batches())


def level_by_level(
    job: Job,
    model: LanguageModel,
    cache: TextCache,
    run: Callable[[Iterator[Prompt], LanguageModel, Show], Progress],
    watch: Watch,
    *,
    at_once: bool = False,
) -> Generated:
    """Run the job; before it, where long histories are summarised, the users' part of it once for each level, because
    summaries must be there before what shows them can be asked. `at_once` leaves that to later calls.
    """

    def with_bar(job: Job, model: LanguageModel, summaries: StoredSummaries) -> Progress:
        with watch.bar("knowledge", job.total) as show:
            return run(job.prompts(summaries), model, show)

    levels = 0 if at_once else len(job.levels)
    most = model.max_requests or 0
    for level in range(1, levels + 1):
        done = with_bar(replace(job, entities=("user",)), model, StoredSummaries(cache, model))
        watch.result(f"summaries of long histories, level {level} of {levels}: {done}")
        if _hopeless(done):
            return Generated(done)
        if model.max_requests is not None:
            if done.requests >= model.max_requests:
                raise requests_reached(most, most)
            model = replace(model, max_requests=model.max_requests - done.requests)
    summaries = StoredSummaries(cache, model)
    done = with_bar(job, model, summaries)
    return Generated(done, summaries.waiting)


def _hopeless(done: Progress) -> bool:
    return bool(done.failed) and not done.asked and not done.cached


@dataclass(frozen=True)
class DryRun(Printed):
    """What a job would ask, and cost; nothing was sent.

    Args:
        waiting: users with long histories whose prompts will show summaries that are still to be asked.
        without_events: items that are not asked about, since they have no event ([prompts] whole_catalogue).
    """

    model: LanguageModel
    estimate: Estimate
    waiting: int
    without_events: int = 0

    @property
    def costs(self) -> list[tuple[str, float | None, float | None]]:
        """(way of asking, US dollars at most, likely); None where it is not known."""
        ways, cost = {"requests": "", "service_tier flex, or --batch": "batch"}, self.estimate.cost
        return [(name, cost(tier=tier), cost(tier=tier, likely=True)) for name, tier in ways.items()]

    @property
    def frame(self) -> pd.DataFrame:
        """The costs, a row a way of asking: way, at_most, likely."""
        return pd.DataFrame(self.costs, columns=pd.Index(["way", "at_most", "likely"]))

    def __str__(self) -> str:
        found = self.estimate
        cost = found.cost()
        price = "no price is known" if cost is None else f"at most ${cost:,.4f}"
        return f"{found.questions:,} to ask of {found.found.total:,}, {found.prompt_tokens:,} prompt tokens, {price}"


def dry_run(job: Job) -> DryRun:
    """Count what would be asked, and cost."""
    with job.workspace.paths.open_cache(reading=True) as cache:
        summaries = StoredSummaries(cache, job.model, stand_in=True)
        prompts, prices = job.prompts(summaries), job.prices()
        found = run_estimate(prompts, cache, job.model, prices=prices, retry_failed=job.retry_failed)
    return DryRun(job.model, found, summaries.waiting, job.without_events)


@dataclass(frozen=True)
class Status(Printed):
    """Where a job stands: what is answered, what failed and why, what runs.

    Args:
        progress: of the prompts of today; `to_ask` of them have no answer.
        answers: how many of each status are stored, and their tokens.
    """

    progress: Progress
    to_ask: int
    answers: dict[str, int]
    failed: Sequence[Failure]
    running: Sequence[Batch]

    @property
    def frame(self) -> pd.DataFrame:
        """The failures, a row each: knowledge, entity_id, reason, tries, permanent."""
        rows = [(each.knowledge, each.entity_id, each.reason, each.attempts, each.permanent) for each in self.failed]
        return pd.DataFrame(rows, columns=pd.Index(["knowledge", "entity_id", "reason", "tries", "permanent"]))

    def __str__(self) -> str:
        lines = [f"{self.progress.changes}; {self.to_ask:,} to ask"]
        if self.failed:
            lines.append(f"{len(self.failed):,} failed")
        return "\n".join([*lines, *(batch_line(batch) for batch in self.running)])


def status(job: Job) -> Status:
    """See where the job stands, without asking."""
    with job.workspace.paths.open_cache(reading=True) as cache:
        summaries = StoredSummaries(cache, job.model, stand_in=True)
        found = run_estimate(job.prompts(summaries), cache, job.model, prices=job.prices())
        counts, failures, running = cache.counts(), cache.failures(), BatchBook(cache).batches()
    return Status(found.found, found.questions, counts, failures, running)


def batch_line(batch: Batch) -> str:
    """A batch in a line."""
    return f"batch {batch.batch_id or batch.marker}: {batch.state}, {batch.requests:,} requests, {batch.created}"


@dataclass(frozen=True)
class Exported(Printed):
    """Files of requests; none where there is nothing to ask."""

    files: Sequence[Path]
    progress: Progress
    waiting: int

    def __str__(self) -> str:
        lines = [f"{self.progress.requests:,} requests; {self.progress.changes}", *map(str, self.files)]
        if not self.files:
            lines.append("nothing to ask: no file was written")
        return "\n".join([*lines, self.users_waiting] if self.waiting else lines)

    @property
    def users_waiting(self) -> str:
        """Whose prompts are not in the files yet, and why."""
        return _waiting(self.waiting)


def export_requests(job: Job, path: Path) -> Exported:
    """Write what is to be asked as JSON lines, for providers that take files."""
    with job.workspace.paths.open_cache(reading=True) as cache:
        summaries = StoredSummaries(cache, job.model)
        files, progress = export_jsonl(
            job.prompts(summaries),
            cache,
            job.model,
            path,
            retry_failed=job.retry_failed,
            on_file=partial(note, job.workspace.config.work, REQUESTS),
        )
    return Exported(files, progress, summaries.waiting)


def import_responses(job: Job, paths: Sequence[Path], watch: Watch = SILENT) -> Generated:
    """Bring files of responses into the cache.

    Raises:
        GenerationError: A file cannot be read.
    """
    listed = ForgottenIds.read(job.workspace.config.work)
    with job.workspace.paths.open_cache() as cache:
        prompts = job.prompts(StoredSummaries(cache, job.model))
        done = import_jsonl(
            prompts,
            paths,
            cache,
            job.model,
            prices=job.prices(),
            on_note=watch.note,
            forgotten=listed.of_question,
        )
    return Generated(done)


@contextlib.contextmanager
def served(model: LanguageModel) -> Iterator[tuple[LanguageModel, str | None]]:
    """The model to ask and its key; "local" is served while the block runs."""
    if model.base_url != LOCAL:
        yield model, None
        return
    from kar_aug.generate import local

    with local.serve(slots=model.concurrency) as base_url:
        yield replace(model, base_url=base_url), "local"


def pace_note(progress: Progress, started: float) -> str:
    """What a bar says beside where a job stands."""
    if progress.stopping:
        return "stopping"
    rate = progress.asked / max(1e-9, time.monotonic() - started)
    parts = [f"{rate:.1f}/s"]
    if tokens := progress.prompt_tokens + progress.completion_tokens:  # an engine's workers do not tell them
        parts.append(f"{tokens:,} tokens")
    if progress.cost:
        parts.append(f"${progress.cost:,.4f}")
    parts.append(f"{progress.failed:,} failed")
    if progress.limited:
        parts.append(f"slowed down {progress.limited:,} times, {progress.concurrency} in flight")
    return ", ".join(parts)


def _waiting(users: int) -> str:
    return (
        f"{users:,} users with long histories wait for summaries of these: when they are answered, run the same "
        "command again"
    )
