"""Where a job stands."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Counts of one job; they grow while prompts are read and answers come.

    Every prompt is one of `new` (nothing was known about its entity), `changed` (the entity has the answer to another
    prompt, model or parameters) and `unchanged`. `gone` are entities with knowledge that this job had no prompt for; it
    is known when all prompts were read. And every prompt ends as `cached` (its question has an answer), `asked`
    (answered in this job), `failed`, `skipped` (rejected before, not asked again) or `elsewhere` (in a batch that
    runs).

    `requests` counts what was sent, retries included; `limited` how often the server asked to slow down; `concurrency`
    is how many requests may be in flight just now; `ready` are answers of batches that still run; `cost` is in US
    dollars, 0 where prices are not known; `stopping` says that only what is in flight is still waited for.
    """

    total: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    cached: int = 0
    asked: int = 0
    failed: int = 0
    skipped: int = 0
    elsewhere: int = 0
    requests: int = 0
    limited: int = 0
    concurrency: int = 0
    ready: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    stopping: bool = False
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Prompts that need nothing more in this job."""
        return self.cached + self.asked + self.failed + self.skipped + self.elsewhere

    def count_failure(self, reason: str, count: int = 1) -> None:
        """So many more prompts that have no answer, and why."""
        self.failed += count
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    @property
    def changes(self) -> str:
        """What is new since the last job."""
        return f"{self.new:,} new, {self.changed:,} changed, {self.unchanged:,} unchanged, {self.gone:,} gone"

    def __str__(self) -> str:
        text = f"{self.asked:,} asked, {self.cached:,} already cached, {self.failed:,} failed of {self.total:,}"
        if self.skipped:
            text += f"; {self.skipped:,} rejected before (--retry-failed asks again)"
        if self.elsewhere:
            text += f"; {self.elsewhere:,} in batches that run"
        if self.cost:
            text += f"; ${self.cost:,.4f}"
        return text + "".join(f"; {count:,} x {reason}" for reason, count in self.reasons.items())
