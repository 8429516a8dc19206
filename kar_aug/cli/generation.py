"""Generation as the command line runs it: the job with progress, and what can be seen of it without asking."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from kar_aug.cache import BatchBook, TextCache
from kar_aug.cli.progress import bar, notes, results, table
from kar_aug.config import LOCAL, LanguageModel
from kar_aug.errors import ConfigError, GenerationError
from kar_aug.generate import (
    Estimate,
    Prices,
    Progress,
    estimate,
    export_jsonl,
    generate_batches,
    import_jsonl,
)
from kar_aug.generate import generate as run_generate
from kar_aug.generate.limits import requests_reached
from kar_aug.generate.summaries import StoredSummaries
from kar_aug.pipeline.workspace import SOURCES, Workspace
from kar_aug.prompts import Prompt
from kar_aug.prompts.histories.summaries import owner

_LISTED = 20  # failures shown one by one
Show = Callable[[int, str], None]  # what a progress bar is told


@dataclass(frozen=True)
class Job:
    """What one call of `kar-aug generate` is about: sources, and the part of them that is this process's share."""

    workspace: Workspace
    sources: tuple[str, ...] = SOURCES
    shard: tuple[int, int] = (1, 1)
    retry_failed: bool = False

    @property
    def model(self) -> LanguageModel:
        """The model as kar.toml and the options say."""
        return self.workspace.config.generate

    def prompts(self, summaries: StoredSummaries) -> Iterator[Prompt]:
        """All prompts, as a stream; those that show summaries as far as there are such."""
        number, shards = self.shard
        streams = (self.workspace.prompts(source, answers=summaries) for source in self.sources)
        for prompt in chain.from_iterable(streams):
            if shards == 1 or zlib.crc32(owner(prompt).encode()) % shards == number - 1:
                yield prompt

    @property
    def total(self) -> int:
        """About how many they are."""
        return (sum(map(self.workspace.count, self.sources)) + sum(self.levels)) // self.shard[1]

    @property
    def levels(self) -> list[int]:
        """Questions about parts of long histories, level by level."""
        return self.workspace.summaries("user") if "user" in self.sources else []

    def prices(self) -> Prices:
        """The prices of kar-aug, under those of the user's file."""
        path = self.model.prices
        return Prices(self.workspace.config.path(path) if path else None)


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "2/8" as (2, 8)."""
    if text is None:
        return 1, 1
    try:
        number, shards = map(int, text.split("/"))
    except ValueError:
        number, shards = 0, 0
    if not 1 <= number <= shards:
        raise ConfigError(f"--shard must be written as 2/8, the second of eight, not {text!r}.")
    return number, shards


def ask(job: Job) -> None:
    """Ask for what is missing, and say what was done."""
    started = time.monotonic()
    with job.workspace.open_cache() as cache, served(job.model) as (model, key):

        def run(prompts: Iterator[Prompt], model: LanguageModel, show: Show) -> Progress:
            return run_generate(
                prompts,
                cache,
                model,
                key=key,
                prices=job.prices(),
                retry_failed=job.retry_failed,
                on_progress=lambda p: show(p.done, _note(p, started)),
            )

        done = _level_by_level(job, model, cache, run)
    _say(done)
    if done.failed and not done.asked and not done.cached:
        raise GenerationError(f"No prompt could be answered: {'; '.join(done.reasons)}")


def ask_in_batches(job: Job, *, most_requests: int, wait: bool, poll_seconds: float) -> None:
    """The same through the Batch API; without waiting, what can be asked now: one level of summaries a call."""
    if job.model.base_url == LOCAL:
        raise ConfigError("The local model has no Batch API. Leave out --batch.")
    with job.workspace.open_cache() as cache:

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
                on_note=_print,
            )

        done = _level_by_level(job, job.model, cache, run, at_once=not wait)
        running = BatchBook(cache).batches()
    _say(done)
    if running:
        _print(f"  {len(running)} batches run; collect them with the same command")


def _level_by_level(
    job: Job,
    model: LanguageModel,
    cache: TextCache,
    run: Callable[[Iterator[Prompt], LanguageModel, Show], Progress],
    *,
    at_once: bool = False,
) -> Progress:
    """Run the job; before it, where long histories are summarised, the users' part of it once for each level, because
    summaries must be there before what shows them can be asked. `at_once` leaves that to later calls."""

    def with_bar(job: Job, model: LanguageModel, summaries: StoredSummaries) -> Progress:
        with bar("knowledge", job.total) as show:
            return run(job.prompts(summaries), model, show)

    levels = 0 if at_once else len(job.levels)
    most = model.max_requests or 0
    for level in range(1, levels + 1):
        done = with_bar(replace(job, sources=("user",)), model, StoredSummaries(cache, model))
        _print(f"  summaries of long histories, level {level} of {levels}: {done}")
        if done.failed and not done.asked and not done.cached:
            return done
        if model.max_requests is not None:
            if done.requests >= model.max_requests:
                raise requests_reached(most, most)
            model = replace(model, max_requests=model.max_requests - done.requests)
    summaries = StoredSummaries(cache, model)
    done = with_bar(job, model, summaries)
    _say_waiting(summaries)
    return done


def _say_waiting(summaries: StoredSummaries) -> None:
    if summaries.waiting:
        _print(
            f"  {summaries.waiting:,} users with long histories wait for summaries of these: when they are answered, "
            "run the same command again"
        )


def dry_run(job: Job) -> None:
    """Print what would be asked, and cost."""
    with job.workspace.open_cache() as cache:
        summaries = StoredSummaries(cache, job.model, stand_in=True)
        found = estimate(job.prompts(summaries), cache, job.model, prices=job.prices(), retry_failed=job.retry_failed)
    progress = found.found
    _print(f"  prompts: {progress.changes}")
    rows: list[tuple[str, ...]] = [
        ("prompts", f"{progress.total:,}"),
        ("already answered, or equal to another", f"{progress.cached:,}"),
        ("to ask", f"{found.questions:,}"),
        ("prompt tokens", f"{found.prompt_tokens:,}"),
        ("completion tokens at most", f"{found.most_completion_tokens:,}"),
    ]
    if found.likely_completion_tokens is not None:
        rows.append(("completion tokens by answers so far", f"{found.likely_completion_tokens:,}"))
    table(f"{job.model.model}: nothing was sent", ("", "count"), rows)
    _print_cost(job.model, found)
    _print(f"  prompt tokens are {found.counted}")
    if summaries.waiting:
        _print(
            f"  {summaries.waiting:,} users with long histories have summaries that are still to be asked: prompts "
            "that will show these are counted, their tokens by the length that is asked for"
        )


def _print_cost(model: LanguageModel, found: Estimate) -> None:
    if found.price is None:
        _print(f"  the price of {model.model} is not known: name a file with [generate] prices = ...")
        return
    rows: list[tuple[str, ...]] = []
    for name, tier in (("requests", ""), ("service_tier flex, or --batch", "batch")):
        likely = found.cost(tier=tier, likely=True)
        rows.append((name, f"{found.cost(tier=tier):,.4f}", "" if likely is None else f"{likely:,.4f}"))
    table(f"US dollars, by prices of {found.price_date}", ("", "at most", "likely"), rows)


def status(job: Job) -> None:
    """Print where the job stands: what is answered, what failed and why, what runs."""
    with job.workspace.open_cache() as cache:
        summaries = StoredSummaries(cache, job.model, stand_in=True)
        progress = estimate(job.prompts(summaries), cache, job.model, prices=job.prices())
        counts, failures, running = cache.counts(), cache.failures(), BatchBook(cache).batches()
    _print(f"  {progress.found.changes}; {progress.questions:,} to ask")
    table("Answers", ("", "count"), [(name, f"{count:,}") for name, count in counts.items()])
    if failures:
        reasons = Counter((failure.reason, failure.permanent) for failure in failures)
        rows: list[tuple[str, ...]] = [
            (reason, f"{count:,}", "with --retry-failed" if permanent else "by the next run")
            for (reason, permanent), count in reasons.most_common()
        ]
        table("Failed", ("reason", "count", "asked again"), rows)
        for failure in failures[:_LISTED]:
            _print(f"  {failure.knowledge} {failure.entity_id}: {failure.reason} ({failure.attempts} tries)")
        if len(failures) > _LISTED:
            _print(f"  and {len(failures) - _LISTED:,} more")
    for batch in running:
        _print(f"  batch {batch.batch_id or batch.marker}: {batch.state}, {batch.requests:,} requests, {batch.created}")


def export_requests(job: Job, path: Path) -> None:
    """Write what is to be asked as JSON lines."""
    with job.workspace.open_cache() as cache:
        summaries = StoredSummaries(cache, job.model)
        files, progress = export_jsonl(job.prompts(summaries), cache, job.model, path, retry_failed=job.retry_failed)
    _print(f"  {progress.requests:,} requests; {progress.changes}")
    for file in files:
        results.print(str(file), markup=False, soft_wrap=True)
    if not files:
        _print("  nothing to ask: no file was written")
    _say_waiting(summaries)


def import_responses(job: Job, paths: Iterable[Path]) -> None:
    """Bring responses into the cache."""
    with job.workspace.open_cache() as cache:
        prompts = job.prompts(StoredSummaries(cache, job.model))
        done = import_jsonl(prompts, list(paths), cache, job.model, prices=job.prices(), on_note=_print)
    _say(done)


@contextlib.contextmanager
def served(model: LanguageModel) -> Iterator[tuple[LanguageModel, str | None]]:
    """The model to ask and its key; "local" is served while the block runs."""
    if model.base_url != LOCAL:
        yield model, None
        return
    from kar_aug.generate import local

    with local.serve(slots=model.concurrency) as base_url:
        yield replace(model, base_url=base_url), "local"


def _note(progress: Progress, started: float) -> str:
    rate = progress.asked / max(1e-9, time.monotonic() - started)
    parts = [f"{rate:.1f}/s", f"{progress.prompt_tokens + progress.completion_tokens:,} tokens"]
    if progress.cost:
        parts.append(f"${progress.cost:,.4f}")
    parts.append(f"{progress.failed:,} failed")
    if progress.limited:
        parts.append(f"slowed down {progress.limited:,} times, {progress.concurrency} in flight")
    if progress.stopping:
        parts.append("finishing what is in flight (Ctrl-C again leaves it)")
    return ", ".join(parts)


def _say(done: Progress) -> None:
    _print(f"  prompts: {done.changes}")
    _print(f"  {done}")


def _print(sentence: str) -> None:
    notes.print(sentence, markup=False, soft_wrap=True)
